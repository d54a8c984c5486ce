//! A session of a run, from its start or from a checkpoint to its end: the loop over epochs.

mod actions;
mod best;
mod epoch;
mod evaluate;
mod groups;
mod plan;
mod report;
mod start;
mod warm_up;

pub use evaluate::sampling;
pub use start::Setup;

use std::time::{Duration, Instant};

use anyhow::Result;
use grpo::{Trainer, TrainerState};
use pipelines::Pipeline;
use run::{Expected, Recorded, RunDir, report::Report};
use tasks::reward::WeightedReward;
use training::workers::Stopped;

use crate::{
    backend::{Device, Training},
    checkpoints::training_state,
    evaluation::Prompts,
    machine::memory,
    terminal::{interrupt, progress::whole_seconds, view::View},
    train::{
        config::TrainConfig,
        record::{Inputs, Watched},
        resume::Counters,
        tuning::write_policy,
        warnings::Warnings,
    },
};

/// A run in progress.
pub struct Session<'a, P: Pipeline<Training>> {
    config: &'a TrainConfig,
    device: &'a Device,
    pipeline: P,
    trainer: Trainer<Training, P::Trained>,
    validation: Prompts<P::Condition>,
    test: Option<Prompts<P::Condition>>,
    unseen: Option<Prompts<P::Condition>>,
    gold: WeightedReward,
    /// Memory of the models of all rewards, in bytes.
    reward_bytes: u64,
    view: View,
    watched: Watched,
    inputs: Inputs,
    evaluation_due: bool,
    page: Report,
    /// Time and duration of the last report.
    reported: Option<(Instant, Duration)>,
    warnings: Warnings,
}

impl<P: Pipeline<Training>> Session<'_, P> {
    /// Trains until the end of the run, an interruption or an error.
    ///
    /// # Errors
    /// If the run breaks off, or the user interrupts it.
    pub fn run(mut self, run: &mut RunDir) -> Result<()> {
        if let Some(note) = run.describe(self.config)? {
            self.view.say(&note);
        }
        let done = self.trainer.epoch();
        let fresh = run.newest_checkpoints()?.is_empty();
        run.set_aside_after(done)?;
        let recorded = (!fresh).then_some(Recorded { done, evaluation_due: self.evaluation_due });
        let hole = run.record_after(recorded, Expected { event: "epoch", every: 1 })?;
        self.view.say(&self.plan(run));
        if !fresh {
            self.view.say(&format!("resuming after epoch {done}"));
            if let Some(hole) = hole {
                self.view.say(&hole);
            }
            if self.watched.stopped {
                self.view
                    .say("a rule has ended this run; to train further, begin another run from its weights");
            }
            // A kill may have come between a checkpoint and the files derived from it.
            self.save(run)?;
            self.write_best(run)?;
        }
        let started = Instant::now();
        match self.go_on(run, started) {
            Err(error) if error.is::<Stopped>() => {
                self.save(run)?;
                self.report(run);
                return Err(interrupt::Interrupted { resume: run.resume_command("train") }.into());
            }
            result => result?,
        }
        self.view.finish();
        self.report(run);
        let memory = memory::peak_of_tensors_mib()
            .map(|peak| format!(" and {peak} MiB of memory"))
            .unwrap_or_default();
        let (took, report) = (whole_seconds(started.elapsed()), run.path().join("report.html"));
        self.view.say(&format!("training took {took}{memory}; see {}", report.display()));
        Ok(())
    }

    /// Trains until the last epoch.
    ///
    /// # Errors
    /// [`Stopped`] if the user interrupts; unfinished work has no effect.
    fn go_on(&mut self, run: &mut RunDir, started: Instant) -> Result<()> {
        let done = self.trainer.epoch();
        if self.evaluation_due {
            self.evaluate(run)?;
            let estimate = whole_seconds(self.estimated_time(started.elapsed()));
            self.view.say(&format!("estimated time: {estimate}"));
            self.save(run)?;
        }
        while !self.is_done() {
            let iteration = self.iterate(run)?;
            self.end_epoch(&iteration, self.remaining(done, started), run)?;
            if interrupt::requested() && !self.is_done() {
                return Err(Stopped.into());
            }
        }
        Ok(())
    }

    /// Whether nothing is left to train.
    fn is_done(&self) -> bool {
        self.watched.stopped || self.trainer.epoch() >= self.config.epochs
    }

    fn remaining(&self, done: usize, started: Instant) -> Duration {
        let epochs = (self.trainer.epoch() - done).max(1) as f64;
        started.elapsed().mul_f64((self.config.epochs - self.trainer.epoch()) as f64 / epochs)
    }

    /// Writes the resumable state and the policy, each atomically.
    fn save(&self, run: &RunDir) -> Result<()> {
        run.sync_records()?;
        let TrainerState { optimisation, kl_weight, epoch } = self.trainer.state();
        let policy = self.trainer.averaged_policy();
        let counters = Counters {
            epoch,
            evaluation_due: self.evaluation_due,
            kl_weight,
            inputs: self.inputs.clone(),
            watched: self.watched.clone(),
            config: self.config.clone(),
        };
        training_state::write(&optimisation, &policy, &counters, &run.checkpoint(epoch))?;
        run.retain_checkpoints(
            self.config.keep_checkpoints,
            self.watched.best.map(|best| best.epoch),
        )?;
        write_policy(self.config, &self.pipeline, policy, &run.policy_checkpoint(), &run.adapter())
    }
}
