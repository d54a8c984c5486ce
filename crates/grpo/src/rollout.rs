//! Rollouts: trajectories of the current policy for the rows of an epoch, without a gradient.

use burn::prelude::*;
use flow::{Guidance, Reduction, Sampler, VelocityField};
use training::{
    noise::{self, Key},
    workers::{Stopped, Workers},
};

use crate::{
    evaluate::{EncodedPrompt, Row},
    trajectories::{KeptOn, Trajectories},
};

/// The settings of an epoch's rollout.
#[derive(Clone, Debug)]
pub struct Rollout<'a, C> {
    /// Grid and transitions.
    pub sampler: &'a Sampler,
    /// How log-probabilities are reduced.
    pub reduction: Reduction,
    /// Guidance of the field, if used.
    pub guidance: Option<&'a Guidance<C>>,
    /// `[C, H, W]` of a latent.
    pub shape: [usize; 3],
    /// Rows sampled at a time by a worker.
    pub batch: usize,
    /// Where latents are kept.
    pub kept_on: KeptOn,
    /// The threads that do the work.
    pub workers: &'a Workers,
}

impl<C: Clone + Sync> Rollout<'_, C> {
    /// Samples the trajectories of all rows, in their order.
    ///
    /// Row `r` draws its initial noise under the key `initial` and the noise of its steps under
    /// `step`: the members of a group differ in both, and no row's noise depends on how rows are
    /// batched.
    ///
    /// # Errors
    /// If the work was stopped.
    pub fn sample<B: Backend, F>(
        &self,
        field: &F,
        prompts: &[EncodedPrompt<C>],
        rows: &[Row],
        [initial, step]: [Key; 2],
        device: &B::Device,
    ) -> Result<Trajectories<B>, Stopped>
    where
        F: VelocityField<B, Condition = C> + Clone + Send,
    {
        let jobs: Vec<(F, &[Row])> =
            rows.chunks(self.batch.max(1)).map(|rows| (field.clone(), rows)).collect();
        let parts = self.workers.map(jobs, |(field, rows)| {
            let conditions: Vec<_> =
                rows.iter().map(|row| prompts[row.prompt].condition.clone()).collect();
            let noise = |key: Key| {
                let keys: Vec<Key> =
                    rows.iter().map(|row| key.row(row.prompt, row.sample)).collect();
                noise::normal(&keys, self.shape, device)
            };
            let of_step = |at: flow::Step| noise(step.step(at.index));
            let (start, reduction) = (noise(initial), self.reduction);
            let trajectory = match self.guidance {
                None => self.sampler.trajectory(&field, &conditions, start, of_step, reduction),
                Some(guidance) => self.sampler.trajectory(
                    &guidance.around(field),
                    &conditions,
                    start,
                    of_step,
                    reduction,
                ),
            };
            Trajectories::keep(trajectory, self.kept_on)
        })?;
        Ok(Trajectories::joined(parts))
    }
}
