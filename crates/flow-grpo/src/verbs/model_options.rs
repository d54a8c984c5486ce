//! Options of verbs that use a model.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use models::lora;
use pipelines::{ModelSource, Pipeline};
use training::{
    noise::{Key, Purpose},
    ranges::MOST_GUIDANCE,
};

use crate::{
    backend::Training, checkpoints, evaluation::Sampling, named, train::model_config::ModelConfig,
};

/// The network and how it samples.
#[derive(Args, Clone, Debug)]
pub struct ModelArgs {
    /// A checkpoint file, or a built-in checkpoint: shapes-base, text-base, emoji-base, emoji-clean, toy-2d-base
    /// [default: the base of the adapter, otherwise shapes-base].
    #[arg(long)]
    pub checkpoint: Option<String>,
    /// A LoRA adapter for the model: RUN/adapter, any directory of PEFT or diffusers, a file of
    /// diffusers, or hub:OWNER/NAME, which is downloaded.
    #[arg(long, value_name = "PATH")]
    pub adapter: Option<PathBuf>,
    /// Number of ODE steps.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=MOST_STEPS))]
    pub steps: u32,
    /// Scale of classifier-free guidance; 1 turns it off [default: 1; with --model, the scale of the
    /// published model: 4.5 for SD3.5, and 3.5 for FLUX.1-dev, whose network takes the scale as an
    /// input].
    #[arg(long, value_parser = guidance)]
    pub guidance: Option<f64>,
    /// Seed of the noise.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Upper bound on images per prompt or kind of prompt.
pub const MOST_IMAGES: i64 = 1_000_000;
/// Upper bound on ODE steps.
const MOST_STEPS: i64 = 10_000;

/// Parses a guidance scale.
fn guidance(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let within = (0.0..=MOST_GUIDANCE).contains(&scale);
    within.then_some(scale).ok_or_else(|| format!("it must lie between 0 and {MOST_GUIDANCE}"))
}

impl ModelArgs {
    /// The options with the place of a named adapter, which is downloaded if it is not in the cache.
    ///
    /// # Errors
    /// If it cannot be downloaded.
    pub fn fetched(&self) -> Result<Self> {
        let adapter = self.adapter.as_deref().map(named::place).transpose()?;
        Ok(Self { adapter, ..self.clone() })
    }

    /// How these options sample a model.
    ///
    /// # Errors
    /// If the settings of the model cannot be read.
    pub fn sampling<P: Pipeline<Training>>(&self, pipeline: &P) -> Result<Sampling> {
        Ok(Sampling {
            key: Key::new(self.seed, Purpose::Sampling),
            grid: pipeline.grid()?,
            steps: self.steps as usize,
            guidance: self.guidance.unwrap_or(pipeline.defaults().guidance),
        })
    }

    /// The model of these options: the given checkpoint, the base of the adapter, or the default.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn checkpoint(&self) -> Result<ModelSource> {
        source(self.checkpoint.as_deref(), self.adapter.as_deref(), None)
    }
}

/// The model of `--checkpoint` or `--adapter`. `trained` has the model settings of the run that
/// trained the adapter; a model directory is used with the same settings.
///
/// # Errors
/// If it cannot be read.
pub fn source(
    checkpoint: Option<&str>,
    adapter: Option<&Path>,
    trained: Option<&ModelConfig>,
) -> Result<ModelSource> {
    let named = adapter.map(lora::base_of).transpose()?.flatten();
    let name = checkpoint.or(named.as_deref()).unwrap_or(checkpoints::DEFAULT);
    let settings = trained.map(ModelConfig::settings_in_memory).unwrap_or_default();
    checkpoints::source(name, settings)
}
