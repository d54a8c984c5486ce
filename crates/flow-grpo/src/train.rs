//! Training: reinforcement learning from a base model, with evaluations on held-out prompts, in a
//! run directory. How a run starts.

pub mod config;
mod inputs;
pub mod model_config;
mod pinned;
pub mod presets;
mod record;
mod resume;
pub mod rules;
mod session;
pub mod tuning;
mod warm_up;
mod warnings;

pub use session::sampling;
pub use warm_up::warm_up;

use std::path::Path;

use anyhow::{Context, Error, Result, bail};
use flow::GridKind;
use pipelines::{Cache, DirectorySettings, ModelSource, Pipeline, Visitor};
use run::RunDir;

use crate::{
    backend::{Device, Training},
    checkpoints,
    machine::host,
    named,
    terminal::outcome::BrokeRun,
    train::{
        config::TrainConfig,
        inputs::{PromptSets, Rewards, check_numbers, mix},
        pinned::pinned,
        resume::check_begun,
        session::{Session, Setup},
    },
};

/// Trains from the configured base model; `live` shows the full-screen view.
pub fn train(config: &TrainConfig, run: &mut RunDir, live: bool, device: &Device) -> Result<()> {
    check_begun(config, run)?; // Before anything is written or takes its time.
    let config = &pinned(config)?;
    let cache = Cache { directory: run.prompt_embeddings(), resume: run.resume_command("train") };
    let source = source(config, cache)?;
    let work = Work { config, run, live, device };
    pipelines::open::<Training, _>(source, &host::machine(device), work)
}

/// The base model of a run; `cache` is for the embeddings of its prompts.
///
/// # Errors
/// If there is no such model, or it is none that the preset trains.
fn source(config: &TrainConfig, cache: Cache) -> Result<ModelSource> {
    let is_directory = named::is_name(&config.base) || Path::new(&config.base).is_dir();
    let settings = match (&config.model, is_directory) {
        (Some(model), true) => model.settings(cache),
        (None, false) => DirectorySettings::default(),
        (Some(_), false) => bail!(
            "base: `{}` is no directory; this preset trains a model in a directory of diffusers' layout: pass --model DIR",
            config.base
        ),
        (None, true) => bail!(
            "base: `{}` is a model directory, which the preset does not expect; use one of the presets sd35m-…",
            config.base
        ),
    };
    checkpoints::source(&config.base, settings)
}

/// Training on a model, whatever its pipeline is.
struct Work<'a> {
    config: &'a TrainConfig,
    run: &'a mut RunDir,
    live: bool,
    device: &'a Device,
}

impl Visitor<Training> for Work<'_> {
    type Output = ();
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<()> {
        let Self { config, run, live, device } = self;
        let config = &resolved(config, &pipeline)?;
        let sets = PromptSets::read(&config.prompts, &pipeline)?;
        // Report errors of the configuration before encoding, which takes time.
        mix(&sets.train, &config.prompts.mix)?;
        check_numbers(config, &sets.validation, pipeline.image_shape())?;
        pipeline.check_room()?;
        let rewards = Rewards::open(config, pipeline.image_shape(), &sets, device)?;
        if !pipeline.keeps_conditions() {
            let setup = Setup { config, pipeline, sets, rewards, live, device };
            return Session::start(setup, run)?.run(run).context(BrokeRun);
        }
        // From here on the run can be resumed. Encode all prompts at once and before the network is
        // loaded: text encoders can be larger than it.
        run.configure(config)?;
        pipeline.encode(&sets.all())?;
        let mend = format!(
            "the prompts are read; fix this, then resume with {} --set …",
            run.resume_command("train")
        );
        let setup = Setup { config, pipeline, sets, rewards, live, device };
        Session::start(setup, run).context(mend)?.run(run).context(BrokeRun)
    }
}

/// The configuration as the run keeps it: with the model's own time grid, if it asks for that, and
/// an absolute path of the base, so that the run resumes from any directory.
fn resolved<P: Pipeline<Training>>(config: &TrainConfig, pipeline: &P) -> Result<TrainConfig> {
    let mut config = config.clone();
    if !checkpoints::is_built_in(&config.base) && !named::is_name(&config.base) {
        let path = std::path::absolute(&config.base).context("base")?;
        config.base = path.to_string_lossy().into_owned();
    }
    if config.grpo.rollout.grid == (GridKind::OfModel {}) {
        config.grpo.rollout.grid = pipeline.grid()?;
    }
    Ok(config)
}
