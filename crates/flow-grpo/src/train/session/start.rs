//! How a session starts: everything is opened, and the newest checkpoint restored.

use anyhow::{Context, Error, Result};
use grpo::{Task, Trainer};
use pipelines::Pipeline;
use run::{RunDir, report::Report};
use tasks::{prompts::Prompt, reward::WeightedReward};
use training::{loss_scale::LossScale, workers::Workers};

use super::Session;
use crate::{
    backend::{self, Device, Training},
    evaluation::Prompts,
    machine::memory,
    terminal::{interrupt, view::View},
    train::{
        config::TrainConfig,
        inputs::{PromptSets, Rewards, mix},
        record::Inputs,
        resume::{Restored, restore},
        tuning::policy,
        warnings::Warnings,
    },
};

/// What a session starts from.
pub struct Setup<'a, P> {
    /// The configuration, as the run keeps it.
    pub config: &'a TrainConfig,
    /// The pipeline of the base model.
    pub pipeline: P,
    /// The prompts.
    pub sets: PromptSets,
    /// The rewards.
    pub rewards: Rewards,
    /// Whether the full-screen view is shown.
    pub live: bool,
    /// The device of the tensors.
    pub device: &'a Device,
}

impl<'a, P: Pipeline<Training>> Session<'a, P> {
    /// Starts training, or resumes it from the run directory.
    pub fn start(setup: Setup<'a, P>, run: &RunDir) -> Result<Self> {
        let Setup { config, pipeline, sets, rewards, live, device } = setup;
        let Rewards { trained: reward, gold } = rewards;
        let reward_bytes = reward.bytes() + gold.bytes();
        let encode = |prompts: &[Prompt]| Ok::<_, Error>(Prompts(pipeline.encode(prompts)?));
        let validation = encode(&sets.validation).context("prompts.validation")?;
        let optional = |set: &Option<Vec<Prompt>>| set.as_deref().map(encode).transpose();
        let test = optional(&sets.test).context("prompts.test")?;
        let unseen = optional(&sets.unseen).context("prompts.unseen")?;
        let mut trainer = trainer(config, &pipeline, &sets.train, reward, device)?;
        let held_out =
            std::iter::once(&validation).chain(&test).chain(&unseen).map(|prompts| &prompts.0[..]);
        let inputs =
            Inputs::of(pipeline.digest()?, std::iter::once(trainer.prompts()).chain(held_out));
        let Restored { watched, evaluation_due } = restore(&mut trainer, run, &inputs, device)?;
        let view = View::new(live, trainer.epoch(), config.epochs)?;
        let session = Self {
            config,
            device,
            pipeline,
            trainer,
            validation,
            test,
            unseen,
            gold,
            reward_bytes,
            view,
            watched,
            inputs,
            evaluation_due,
            page: Report::default(),
            reported: None,
            warnings: Warnings::default(),
        };
        session.needs().check()?;
        Ok(session)
    }
}

/// The trainer of a run, before its first epoch.
fn trainer<P: Pipeline<Training>>(
    config: &TrainConfig,
    pipeline: &P,
    prompts: &[Prompt],
    reward: WeightedReward,
    device: &Device,
) -> Result<Trainer<Training, P::Trained>> {
    let task = Task {
        mix: mix(prompts, &config.prompts.mix)?,
        prompts: pipeline.encode(prompts).context("prompts.train")?,
        reward,
        latent_shape: pipeline.latent_shape(),
        decoder: pipeline.decoder()?,
        unconditional: pipeline.conditions(&[""])?.remove(0),
        on_policy_limit: backend::ON_POLICY_LIMIT,
    };
    let workers = Workers::new(backend::workers()).context("cannot start worker threads")?;
    let workers = workers.stopping_when(interrupt::requested);
    let mut grpo = config.grpo.clone();
    let base = pipeline.guide(pipeline.network()?, grpo.rollout.guidance);
    grpo.rollout.guidance = pipeline.classifier_free(grpo.rollout.guidance);
    let policy = policy(config, base, device)?;
    let trainer = Trainer::new(grpo, config.epochs, config.seed, task, policy, workers);
    let trainer = trainer.differentiating(pipeline.differentiate()).at_phase_end(memory::note);
    Ok(if backend::SCALES_LOSS { trainer.scaling_loss(LossScale::default()) } else { trainer })
}
