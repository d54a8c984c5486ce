//! The metadata of a checkpoint, and how a run resumes from it.

use anyhow::{Result, bail, ensure};
use grpo::{Trainer, TrainerState};
use pipelines::Trainable;
use run::RunDir;
use serde::{Deserialize, Serialize};
use training::schedule;

use crate::{
    backend::{Device, Training},
    checkpoints::training_state::SavedState,
    config,
    terminal::output,
    train::{
        config::TrainConfig,
        record::{Best, Inputs, Watched},
    },
};

/// # Errors
/// If the run has a checkpoint and cannot resume from it under this configuration.
pub fn check_begun(config: &TrainConfig, run: &RunDir) -> Result<()> {
    let Some((saved, warning)) = SavedState::newest(run)? else { return Ok(()) };
    warning.into_iter().for_each(output::log);
    let counters: Counters = saved.counters()?;
    counters.check(&saved)?;
    let Counters { epoch, config: begun, .. } = counters;
    config::check_unchanged(&begun, config)?;
    ensure!(
        config.rules.is_empty() || begun.evaluate_every == config.evaluate_every,
        "evaluate_every is {} in the run, {} now: with rules, which act at evaluations, it stays",
        begun.evaluate_every,
        config.evaluate_every
    );
    ensure!(
        epoch <= config.epochs,
        "epochs ({}) must be at least {epoch}: the run has done as many",
        config.epochs
    );
    let rate = |config: &TrainConfig, epoch| {
        schedule::rate(epoch, config.epochs, config.grpo.warm_up, config.grpo.cool_down)
    };
    let differs = (0..epoch).find(|&epoch| rate(&begun, epoch) != rate(config, epoch));
    if let Some(first) = differs {
        bail!(
            "epochs is {} in the run, {} now: with grpo.cool_down = {} the learning rate falls towards the last epoch, and epoch {} was trained at \
             another rate than a run of {1} epochs has there; resume with --set epochs={0}, or begin a new run from the weights of this one, \
             with --set base=CHECKPOINT",
            begun.epochs,
            config.epochs,
            config.grpo.cool_down,
            first + 1
        );
    }
    Ok(())
}

/// The metadata of a checkpoint. The streams of random numbers need no position besides the epoch.
#[derive(Debug, Serialize, Deserialize)]
pub struct Counters {
    /// Number of finished epochs.
    pub epoch: usize,
    /// Whether the evaluation after this epoch is still due.
    pub evaluation_due: bool,
    /// The weight of the KL penalty.
    pub kl_weight: f64,
    /// Digests of the inputs of the run.
    pub inputs: Inputs,
    /// What evaluations left for later ones.
    pub watched: Watched,
    /// The configuration of the run.
    pub config: TrainConfig,
}

impl Counters {
    /// # Errors
    /// If a value is impossible for a run.
    fn check(&self, saved: &SavedState) -> Result<()> {
        let Self { epoch, kl_weight, watched, config, .. } = self;
        saved.check_name(*epoch)?;
        let updates = saved.updates()?;
        let most = epoch.saturating_mul(config.grpo.updates_per_epoch);
        ensure!(
            updates <= most,
            "the checkpoint counts {updates} updates; {epoch} epochs make {most} at most"
        );
        ensure!(
            *kl_weight >= 0.0 && kl_weight.is_finite(),
            "the checkpoint's KL weight is {kl_weight}"
        );
        saved.loss_scale()?;
        if let Some(Best { epoch: best, value }) = watched.best {
            ensure!(
                value.is_finite() && best <= *epoch,
                "the checkpoint's best evaluation is {value} after epoch {best} of {epoch}"
            );
        }
        Ok(())
    }
}

/// The state of a run besides that of its trainer.
pub struct Restored {
    /// What evaluations left for later ones.
    pub watched: Watched,
    /// Whether an evaluation is due before the next epoch.
    pub evaluation_due: bool,
}

/// Restores the newest checkpoint of a run, if it has one.
pub fn restore<N: Trainable<Training>>(
    trainer: &mut Trainer<Training, N>,
    run: &RunDir,
    now: &Inputs,
    device: &Device,
) -> Result<Restored> {
    let Some((saved, _)) = SavedState::newest(run)? else {
        return Ok(Restored { watched: Watched::default(), evaluation_due: true });
    };
    let Counters { epoch, kl_weight, inputs, watched, evaluation_due, .. } = saved.counters()?;
    now.check(&inputs)?;
    let optimisation = saved.state(&trainer.averaged_policy(), trainer.weights(), device)?;
    trainer.restore(TrainerState { optimisation, kl_weight, epoch });
    Ok(Restored { watched, evaluation_due })
}
