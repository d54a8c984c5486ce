//! An epoch: its iteration, and what its end does.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result};
use grpo::{Iteration, TrainError};
use pipelines::Pipeline;
use run::{RunDir, record::EpochLine};
use tasks::{image::Image, prompts::Prompt};

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
        metrics.time.peak_memory_mib = memory::peak_of_tensors_mib();
        let gold = self.gold_of(&iteration.images, &prompts)?;
        let monitors = Monitors::of(&iteration.images, &iteration.rows, &prompts)?;
        Ok(EpochLine { event: "epoch", metrics, gold, monitors })
    }

    /// The mean of every gold reward on the share of an epoch's images that is judged.
    fn gold_of(&self, images: &[Image], prompts: &[&Prompt]) -> Result<BTreeMap<String, f64>> {
        let judged = spread_evenly(images.len(), self.config.gold_share);
        let (images, prompts): (Vec<Image>, Vec<&Prompt>) =
            judged.map(|row| (images[row].clone(), prompts[row])).unzip();
        monitors::means(&self.gold, &images, &prompts)
    }
}

/// A share of `count` rows, rounded up, each from the middle of its part of the rows.
fn spread_evenly(count: usize, share: f64) -> impl Iterator<Item = usize> {
    let taken = (count as f64 * share).ceil() as usize;
    (0..taken).map(move |part| (2 * part + 1) * count / (2 * taken))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_rows_takes_as_many_of_every_group() {
        let all: Vec<usize> = spread_evenly(7, 1.0).collect();
        assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
        let mut of_group = [0; 32];
        spread_evenly(512, 0.125).for_each(|row| of_group[row / 16] += 1);
        assert_eq!(of_group, [2; 32]);
        assert_eq!(spread_evenly(10, 0.01).collect::<Vec<_>>(), [5], "never none");
    }
}
