//! An epoch: its iteration, and what its end does.

use std::time::Duration;

use anyhow::{Context, Result};
use grpo::{Iteration, TrainError};
use pipelines::Pipeline;
use run::{RunDir, record::EpochLine};
use tasks::prompts::Prompt;

use super::Session;
use crate::{
    backend::Training,
    evaluation::monitors::{self, Monitors},
    machine::memory,
    terminal::progress::whole_seconds,
};

impl<P: Pipeline<Training>> Session<'_, P> {
    /// Runs the next epoch; if it is stopped, the state before it is restored.
    pub(super) fn iterate(&mut self, run: &RunDir) -> Result<Iteration> {
        let before = self.trainer.state();
        match self.trainer.iterate() {
            Err(TrainError::Stopped(stopped)) => {
                self.trainer.restore(before);
                Err(stopped.into())
            }
            result => result.with_context(|| match run.newest_checkpoints() {
                Ok(all) if !all.is_empty() => format!(
                    "the newest checkpoint, from before this epoch, is {}",
                    all[0].display()
                ),
                _ => "there is no checkpoint yet".to_owned(),
            }),
        }
    }

    /// Ends an epoch: shows and records its numbers, and evaluates, saves and reports if it is time.
    pub(super) fn end_epoch(
        &mut self,
        iteration: &Iteration,
        remaining: Duration,
        run: &mut RunDir,
    ) -> Result<()> {
        self.view.say(&epoch_line(&iteration.metrics, remaining));
        for warning in self.warnings.of(&iteration.metrics, self.config.grpo.optimizer.epsilon) {
            self.view.say(&warning);
        }
        let line = self.epoch_metrics(iteration)?;
        run.append(&line)?;
        self.view.take(&serde_json::to_value(&line)?, remaining);
        let epoch = self.trainer.epoch();
        let last = epoch == self.config.epochs;
        let evaluates = last || epoch.is_multiple_of(self.config.evaluate_every);
        self.evaluation_due = evaluates;
        if evaluates {
            self.write_groups(iteration, run)?;
            self.evaluate(run)?;
        }
        if last || self.must_save(epoch) || epoch.is_multiple_of(self.config.checkpoint_every) {
            self.save(run)?;
        }
        if evaluates {
            self.report_if_due(run);
        }
        Ok(())
    }

    /// The line of an epoch for `metrics.jsonl`, with gold rewards and monitors of its images.
    fn epoch_metrics(
        &self,
        iteration: &Iteration,
    ) -> Result<EpochLine<grpo::EpochMetrics, Monitors>> {
        let prompts = self.trainer.prompts();
        let prompts: Vec<&Prompt> =
            iteration.rows.iter().map(|row| &prompts[row.prompt].prompt).collect();
        let mut metrics = iteration.metrics.clone();
        metrics.time.peak_memory_mib = memory::peak_mib();
        let gold = monitors::means(&self.gold, &iteration.images, &prompts)?;
        let monitors = Monitors::of(&iteration.images, &iteration.rows, &prompts)?;
        Ok(EpochLine { event: "epoch", metrics, gold, monitors })
    }
}

/// The line of an epoch for people.
fn epoch_line(metrics: &grpo::EpochMetrics, remaining: Duration) -> String {
    if metrics.updates == 0 {
        return format!(
            "epoch {:>4}  reward {:.3} ± {:.3}  no group has spread, no update  {:.1}s  {} left",
            metrics.epoch,
            metrics.reward,
            metrics.reward_std,
            metrics.time.seconds,
            whole_seconds(remaining),
        );
    }
    format!(
        "epoch {:>4}  reward {:.3} ± {:.3}  {}  grad {:.2e}  {:.1}s  {} left",
        metrics.epoch,
        metrics.reward,
        metrics.reward_std,
        metrics.headline,
        metrics.gradient_norm,
        metrics.time.seconds,
        whole_seconds(remaining),
    )
}
