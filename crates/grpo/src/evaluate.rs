//! Evaluation: the ODE on held-out prompts, the same prompts and noise every time.

use burn::prelude::*;
use flow::{Sampler, VelocityField};
use tasks::{image::Image, prompts::Prompt};

use crate::{
    images::Decoder,
    noise::{self, Key},
    workers::Workers,
};

/// A prompt with what the network makes of its text.
#[derive(Clone, Debug)]
pub struct EncodedPrompt<C> {
    /// The prompt.
    pub prompt: Prompt,
    /// The network's condition for it.
    pub condition: C,
}

/// One picture to be made: a prompt and a sample of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The prompt's index in its set.
    pub prompt: usize,
    /// The sample's index among those of its prompt.
    pub sample: usize,
}

impl Row {
    /// `samples` rows for each of `prompts` prompts, prompt-major.
    pub fn all(prompts: usize, samples: usize) -> Vec<Self> {
        (0..prompts).flat_map(|prompt| (0..samples).map(move |sample| Self { prompt, sample })).collect()
    }
}

/// How pictures are made for inference.
#[derive(Clone, Debug)]
pub struct Generator<'a> {
    /// Grid and transitions; the ODE as a rule.
    pub sampler: Sampler,
    /// `[C, H, W]` of a latent.
    pub shape: [usize; 3],
    /// What a latent means.
    pub decoder: Decoder,
    /// Rows sampled at a time by a worker.
    pub batch: usize,
    /// Who does the work.
    pub workers: &'a Workers,
}

impl Generator<'_> {
    /// A picture for every row, from the row's own noise under `key`.
    pub fn generate<B: Backend, F>(
        &self,
        field: &F,
        prompts: &[EncodedPrompt<F::Condition>],
        rows: &[Row],
        key: Key,
        device: &B::Device,
        done: impl Fn(usize) + Sync,
    ) -> Vec<Image>
    where
        F: VelocityField<B> + Clone + Send,
        F::Condition: Sync,
    {
        let jobs: Vec<(F, &[Row])> = rows.chunks(self.batch.max(1)).map(|rows| (field.clone(), rows)).collect();
        let batches = self.workers.map(jobs, |(field, rows)| {
            let conditions: Vec<_> = rows.iter().map(|row| prompts[row.prompt].condition.clone()).collect();
            let keys: Vec<Key> = rows.iter().map(|row| key.row(row.prompt, row.sample)).collect();
            let noise_of_step = |step: flow::Step| {
                let keys: Vec<Key> = keys.iter().map(|key| key.step(step.index + 1)).collect();
                noise::normal(&keys, self.shape, device)
            };
            let latent = self.sampler.sample(&field, &conditions, noise::normal(&keys, self.shape, device), noise_of_step);
            let images = self.decoder.decode(latent);
            done(images.len());
            images
        });
        batches.into_iter().flatten().collect()
    }
}
