//! A session that only computes batches of every size.

use anyhow::Result;
use grpo::evaluate::Row;
use pipelines::Pipeline;

use super::{Session, evaluate::sampling};
use crate::{
    backend::Training,
    evaluation::{Evaluator, Prompts, Sampling},
};

/// ODE steps of a warmed-up evaluation; every step has the same kernels.
const STEPS: usize = 2;

impl<P: Pipeline<Training>> Session<'_, P> {
    /// Computes an evaluation's batches and an epoch; returns the number of its updates.
    ///
    /// # Errors
    /// If the work fails or is stopped.
    pub fn warm_up(mut self) -> Result<usize> {
        let policy = self.trainer.averaged_policy();
        let sampling = Sampling { steps: STEPS, ..sampling(self.config) };
        let sets = [Some(&self.validation), self.test.as_ref(), self.unseen.as_ref()];
        for prompts in sets.into_iter().flatten() {
            let evaluator = Evaluator {
                pipeline: &self.pipeline,
                workers: self.trainer.workers(),
                device: self.device,
                sampling,
            };
            evaluator.generate(policy.clone(), prompts, &self.rows(prompts))?;
        }
        drop(policy);
        Ok(self.trainer.iterate()?.metrics.updates)
    }

    /// As many rows of an evaluation as make a full batch and the last one.
    fn rows(&self, prompts: &Prompts<P::Condition>) -> Vec<Row> {
        let mut rows = prompts.rows(self.config.evaluation_samples);
        let batch = self.pipeline.footprint().rows_together;
        rows.truncate(sizes(rows.len(), batch).into_iter().sum());
        rows
    }
}

/// The sizes of the full batch and of the last batch of `rows` rows.
fn sizes(rows: usize, batch: usize) -> [usize; 2] {
    [batch.min(rows), if rows > batch { rows % batch } else { 0 }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_has_the_sizes_of_an_evaluations_batches() {
        assert_eq!(sizes(1000, 256), [256, 232]);
        assert_eq!(sizes(512, 256), [256, 0]);
        assert_eq!(sizes(100, 256), [100, 0]);
    }
}
