//! Generation of images for inference: one noise stream per row, so that every evaluation repeats
//! the noise of the last.

use burn::prelude::*;
use flow::{Sampler, VelocityField};
use tasks::prompts::Prompt;
use training::{
    noise::{self, Key},
    workers::{Stopped, Workers},
};

/// A prompt with the network's condition for it.
#[derive(Clone, Debug)]
pub struct EncodedPrompt<C> {
    /// The prompt.
    pub prompt: Prompt,
    /// The network's condition for the prompt.
    pub condition: C,
}

/// One image to generate: a prompt and the index of the sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The prompt's index in its set.
    pub prompt: usize,
    /// Index of the sample among those of its prompt.
    pub sample: usize,
}

impl Row {
    /// All rows for `samples` samples of each of `prompts` prompts, prompt-major.
    pub fn all(prompts: usize, samples: usize) -> Vec<Self> {
        (0..prompts)
            .flat_map(|prompt| (0..samples).map(move |sample| Self { prompt, sample }))
            .collect()
    }
}

/// Generates images for inference.
#[derive(Clone, Debug)]
pub struct Generator<'a> {
    /// Grid and transitions; normally the ODE.
    pub sampler: Sampler,
    /// `[C, H, W]` of a latent.
    pub shape: [usize; 3],
    /// Rows sampled at a time by a worker.
    pub batch: usize,
    /// The threads that do the work.
    pub workers: &'a Workers,
}

/// The start of the rows of a [`Generator`].
#[derive(Clone, Copy, Debug)]
pub struct Start<'a, B: Backend> {
    /// The key of the noise; each row has its own stream.
    pub key: Key,
    /// Initial latents in place of noise, one per row, `[B, C, H, W]`.
    pub initial: Option<&'a Tensor<B, 4>>,
}

impl Generator<'_> {
    /// Samples final latents for `rows` batch by batch and returns the results of `finish`, in the
    /// order of the rows.
    ///
    /// # Errors
    /// If the work was stopped.
    pub fn generate<B: Backend, F, R: Send>(
        &self,
        field: &F,
        prompts: &[EncodedPrompt<F::Condition>],
        rows: &[Row],
        Start { key, initial }: Start<'_, B>,
        device: &B::Device,
        finish: impl Fn(Tensor<B, 4>) -> R + Sync,
    ) -> Result<Vec<R>, Stopped>
    where
        F: VelocityField<B> + Clone + Send,
    {
        let jobs: Vec<_> = rows
            .chunks(self.batch.max(1))
            .enumerate()
            .map(|(index, rows)| {
                let given = initial.map(|initial| {
                    initial.clone().narrow(0, index * self.batch.max(1), rows.len())
                });
                (field.clone(), given, rows)
            })
            .collect();
        self.workers.map(jobs, |(mut field, given, rows)| {
            let conditions: Vec<_> =
                rows.iter().map(|row| prompts[row.prompt].condition.clone()).collect();
            let keys: Vec<Key> = rows.iter().map(|row| key.row(row.prompt, row.sample)).collect();
            let noise_of_step = |step: flow::Step| {
                let keys: Vec<Key> = keys.iter().map(|key| key.step(step.index + 1)).collect();
                noise::normal(&keys, self.shape, device)
            };
            let initial = given.unwrap_or_else(|| noise::normal(&keys, self.shape, device));
            field.prepare(&conditions, self.shape);
            finish(self.sampler.sample(&field, &conditions, initial, noise_of_step))
        })
    }
}
