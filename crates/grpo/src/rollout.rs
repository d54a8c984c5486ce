//! Rollouts: trajectories of the current policy for the rows of an epoch, without a gradient.

use burn::{module::Module, prelude::*};
use flow::{Reduction, Sampler, Trajectory, VelocityField};

use crate::{
    evaluate::{EncodedPrompt, Row},
    noise::{self, Key},
    workers::Workers,
};

/// How an epoch is rolled out.
#[derive(Clone, Debug)]
pub struct Rollout<'a> {
    /// Grid and transitions.
    pub sampler: &'a Sampler,
    /// How log-probabilities are reduced.
    pub reduction: Reduction,
    /// `[C, H, W]` of a latent.
    pub shape: [usize; 3],
    /// Rows sampled at a time by a worker.
    pub batch: usize,
    /// Who does the work.
    pub workers: &'a Workers,
}

impl Rollout<'_> {
    /// The trajectories of all rows, in their order.
    ///
    /// Row `r` starts from its own noise under `initial` and draws its steps' noise under `step`: a group's members differ
    /// in both, and no row's noise depends on how rows are batched.
    pub fn sample<B: Backend, F>(
        &self,
        field: &F,
        prompts: &[EncodedPrompt<F::Condition>],
        rows: &[Row],
        [initial, step]: [Key; 2],
        device: &B::Device,
    ) -> Trajectory<B>
    where
        F: VelocityField<B> + Module<B>,
        F::Condition: Sync,
    {
        let jobs: Vec<(F, &[Row])> = rows.chunks(self.batch.max(1)).map(|rows| (field.clone(), rows)).collect();
        let parts = self.workers.map(jobs, |(field, rows)| {
            let conditions: Vec<_> = rows.iter().map(|row| prompts[row.prompt].condition.clone()).collect();
            let noise = |key: Key| {
                let keys: Vec<Key> = rows.iter().map(|row| key.row(row.prompt, row.sample)).collect();
                noise::normal(&keys, self.shape, device)
            };
            self.sampler.trajectory(&field, &conditions, noise(initial), |at| noise(step.step(at.index)), self.reduction)
        });
        join(parts)
    }
}

/// One trajectory of all rows from those of its parts, which keep the same latents.
fn join<B: Backend>(parts: Vec<Trajectory<B>>) -> Trajectory<B> {
    let steps = parts[0].log_probs.len();
    let latents = (0..=steps).map(|i| joined(parts.iter().map(|part| part.latents[i].clone()))).collect();
    let log_probs = (0..steps).map(|i| joined(parts.iter().map(|part| part.log_probs[i].clone()))).collect();
    Trajectory { latents, log_probs }
}

fn joined<B: Backend, const D: usize>(parts: impl Iterator<Item = Option<Tensor<B, D>>>) -> Option<Tensor<B, D>> {
    parts.collect::<Option<Vec<_>>>().map(|parts| Tensor::cat(parts, 0))
}
