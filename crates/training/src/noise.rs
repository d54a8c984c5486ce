//! Noise made on the host, from a key that names its use.
//!
//! The same seed gives the same numbers on any backend, with any batch size and any number of
//! threads: a draw depends only on *(run seed, purpose, epoch, prompt, sample, step)*.

use burn::prelude::*;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

/// The purpose of random numbers; each purpose has its own stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Purpose {
    /// The initial noise of a training rollout.
    Initial = 1,
    /// The noise of a step of a training rollout.
    Step = 2,
    /// The noise of evaluations and of the validation of pre-training.
    Evaluation = 3,
    /// The draw of an epoch's prompts.
    Prompts = 4,
    /// The order of an epoch's rows and the draw of their trained steps.
    Order = 5,
    /// Scenes, captions, times and noise of pre-training.
    Pretraining = 6,
    /// The noise of the `sample` verb.
    Sampling = 7,
    /// The noise of the forward process on a rollout's samples.
    Forward = 8,
}

/// The identity of a stream of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The seed of the run.
    pub seed: u64,
    /// The purpose of the numbers.
    pub purpose: Purpose,
    /// The epoch, or the step of pre-training.
    pub epoch: u64,
    /// The prompt's index in its set.
    pub prompt: u64,
    /// The sample's index in its group.
    pub sample: u64,
    /// The denoising step.
    pub step: u64,
}

impl Key {
    /// A key with everything but seed and purpose at 0.
    pub fn new(seed: u64, purpose: Purpose) -> Self {
        Self { seed, purpose, epoch: 0, prompt: 0, sample: 0, step: 0 }
    }

    /// Changes the epoch of the key.
    #[must_use]
    pub fn epoch(self, epoch: usize) -> Self {
        Self { epoch: epoch as u64, ..self }
    }

    /// Changes prompt and sample of the key.
    #[must_use]
    pub fn row(self, prompt: usize, sample: usize) -> Self {
        Self { prompt: prompt as u64, sample: sample as u64, ..self }
    }

    /// Changes the denoising step of the key.
    #[must_use]
    pub fn step(self, step: usize) -> Self {
        Self { step: step as u64, ..self }
    }

    /// The random number generator of this stream.
    pub fn rng(self) -> ChaCha8Rng {
        let words =
            [self.seed, self.purpose as u64, self.epoch, self.prompt, self.sample, self.step];
        // Absorb word by word: each generator's first output seeds the next, so two keys share a
        // stream only by accident.
        let state = words
            .iter()
            .fold(0, |state: u64, &word| ChaCha8Rng::seed_from_u64(state ^ word).random());
        ChaCha8Rng::seed_from_u64(state)
    }
}

/// Standard normal noise, one stream per row.
///
/// # Shapes
/// - `shape`: `[C, H, W]`; the result: `[B, C, H, W]` with `B` keys, f32
pub fn normal<B: Backend>(keys: &[Key], shape: [usize; 3], device: &B::Device) -> Tensor<B, 4> {
    let elements = shape.iter().product();
    let values: Vec<f32> =
        keys.iter().flat_map(|key| StandardNormal.sample_iter(key.rng()).take(elements)).collect();
    Tensor::from_data(TensorData::new(values, [keys.len(), shape[0], shape[1], shape[2]]), device)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_key_has_a_stream_of_its_own() {
        let mut seen = HashSet::new();
        for purpose in [Purpose::Initial, Purpose::Step, Purpose::Evaluation] {
            for (seed, epoch, prompt, sample) in (0..4).flat_map(|a| {
                (0..4)
                    .flat_map(move |b| (0..4).flat_map(move |c| (0..4).map(move |d| (a, b, c, d))))
            }) {
                for step in 0..4 {
                    let key = Key::new(seed, purpose).epoch(epoch).row(prompt, sample).step(step);
                    assert!(
                        seen.insert(key.rng().random::<u64>()),
                        "{key:?} repeats another stream"
                    );
                }
            }
        }
    }

    #[test]
    fn exchanging_two_parts_of_a_key_changes_the_stream() {
        let key = Key::new(1, Purpose::Initial);
        assert_ne!(key.row(2, 3).rng().random::<u64>(), key.row(3, 2).rng().random::<u64>());
        assert_ne!(key.epoch(2).rng().random::<u64>(), key.step(2).rng().random::<u64>());
    }
}
