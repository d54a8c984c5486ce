//! Rollouts: trajectories of the current policy for the rows of an epoch, without a gradient.

use burn::prelude::*;
use flow::{Guidance, Reduction, Sampler, VelocityField};
use training::{
    noise::{self, Key, Purpose},
    workers::{Stopped, Workers},
};

use crate::{
    evaluate::{EncodedPrompt, Row},
    trajectories::{KeptOn, Trajectories},
};

/// The keys of a rollout's noise.
#[derive(Clone, Copy, Debug)]
pub struct RolloutKeys {
    /// The key of the initial noise.
    pub initial: Key,
    /// The key of the noise of the steps.
    pub step: Key,
}

impl RolloutKeys {
    /// The keys of an epoch.
    pub fn new(seed: u64, epoch: usize) -> Self {
        let [initial, step] =
            [Purpose::Initial, Purpose::Step].map(|purpose| Key::new(seed, purpose).epoch(epoch));
        Self { initial, step }
    }
}

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

impl<C: Clone + Send + Sync> Rollout<'_, C> {
    /// Samples the trajectories of all rows, in their order.
    ///
    /// The members of a group differ in initial noise and in the noise of their steps, and no row's
    /// noise depends on how rows are batched.
    ///
    /// # Errors
    /// If the work was stopped.
    pub fn sample<B: Backend, F>(
        &self,
        field: &F,
        prompts: &[EncodedPrompt<C>],
        rows: &[Row],
        keys: RolloutKeys,
        device: &B::Device,
    ) -> Result<Trajectories<B>, Stopped>
    where
        F: VelocityField<B, Condition = C> + Clone + Send,
    {
        self.sample_and_pass_on(field, prompts, rows, keys, device, drop)
    }

    /// Samples like [`Self::sample`]; `take` gets the final latents of one batch after the other,
    /// in the order of the rows, while later batches are sampled.
    ///
    /// # Errors
    /// If the work was stopped; `take` has had some batches by then.
    pub fn sample_and_pass_on<B: Backend, F>(
        &self,
        field: &F,
        prompts: &[EncodedPrompt<C>],
        rows: &[Row],
        RolloutKeys { initial, step }: RolloutKeys,
        device: &B::Device,
        mut take: impl FnMut(Tensor<B, 4>) + Send,
    ) -> Result<Trajectories<B>, Stopped>
    where
        F: VelocityField<B, Condition = C> + Clone + Send,
    {
        let jobs: Vec<(F, &[Row])> =
            rows.chunks(self.batch.max(1)).map(|rows| (field.clone(), rows)).collect();
        let sampled = |(mut field, rows): (F, &[Row])| {
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
                None => {
                    field.prepare(&conditions, self.shape);
                    self.sampler.trajectory(&field, &conditions, start, of_step, reduction)
                }
                Some(guidance) => {
                    let mut field = guidance.around(field);
                    field.prepare(&conditions, self.shape);
                    self.sampler.trajectory(&field, &conditions, start, of_step, reduction)
                }
            };
            Trajectories::keep(trajectory, self.kept_on)
        };
        let mut parts = Vec::new();
        self.workers.for_each(jobs, sampled, |part: Trajectories<B>| {
            take(part.final_latents());
            parts.push(part);
        })?;
        Ok(Trajectories::joined(parts))
    }
}
