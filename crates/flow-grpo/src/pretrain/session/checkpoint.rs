//! How pre-training resumes from a checkpoint, and saves one.

use anyhow::{Result, ensure};
use flow::VelocityField;
use models::{TokenIds, weights::StoredAs};
use pipelines::{Pipeline, Trainable};
use run::RunDir;
use serde::{Deserialize, Serialize};

use super::Session;
use crate::{
    backend::Training,
    checkpoints::training_state::{self, SavedState},
    config,
    pretrain::config::PretrainConfig,
    terminal::output,
};

/// Number of checkpoints that are kept.
const KEPT_CHECKPOINTS: usize = 2;

/// The counters of a pre-training checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Counters {
    step: usize,
    config: PretrainConfig,
}

impl<N> Session<'_, N>
where
    N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
{
    /// Resumes from the newest checkpoint of the run, if it has one.
    ///
    /// # Errors
    /// If the checkpoint cannot be resumed under this configuration.
    pub(super) fn resume(&mut self, run: &RunDir) -> Result<()> {
        let Some((saved, warning)) = SavedState::newest(run)? else { return Ok(()) };
        let (config, device) = (self.config, self.device);
        warning.into_iter().for_each(output::log);
        let Counters { step, config: begun } = saved.counters()?;
        saved.check_name(step)?;
        // Updates can be fewer than steps, because a scaled loss may have skipped some.
        let updates = saved.updates()?;
        let fits = if saved.loss_scale()?.is_some() { updates <= step } else { updates == step };
        ensure!(fits, "the checkpoint counts {updates} updates after {step} steps");
        config::check_unchanged(&begun, config)?;
        let state = saved.state(&self.network, self.optimisation.weights(), device)?;
        ensure!(
            step <= config.steps,
            "steps ({}) must be at least {step}: the run has done as many",
            config.steps
        );
        ensure!(
            (0..step).all(|step| begun.rate(step) == config.rate(step)),
            "steps is {} in the run, {} now: with cool_down = {} the learning rate falls towards the last step, and some of the {step} steps \
             that are done were trained at another rate than a run of {1} steps has there; resume with --set steps={0}, or begin a new run \
             with --set base=CHECKPOINT",
            begun.steps,
            config.steps,
            config.cool_down
        );
        self.network = state.weights.put_into(self.network.clone());
        self.optimisation.restore(state);
        self.step = step;
        Ok(())
    }

    /// Writes the resumable state and the base checkpoint, each atomically.
    pub(super) fn save(&self, run: &RunDir) -> Result<()> {
        run.sync_records()?;
        let counters = Counters { step: self.step, config: self.config.clone() };
        let state = self.optimisation.state();
        training_state::write(&state, &self.network, &counters, &run.checkpoint(self.step))?;
        run.retain_checkpoints(KEPT_CHECKPOINTS, None)?;
        Ok(self.own.write(&self.averaged(), StoredAs::F16, &run.base_checkpoint())?)
    }
}
