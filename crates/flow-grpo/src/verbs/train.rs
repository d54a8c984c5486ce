//! `train`: improves a base model by Flow-GRPO.

use std::{io::IsTerminal, path::PathBuf};

use anyhow::{Result, ensure};
use clap::Args;

use super::run_options::{self, RunArgs};
use crate::{
    config, machine,
    terminal::interrupt,
    train::{
        self,
        config::TrainConfig,
        presets::{PROFILES, TRAIN_PRESETS},
    },
};

/// Options of `train`.
#[derive(Args, Debug)]
pub struct TrainArgs {
    #[command(flatten)]
    run: RunArgs,
    /// A profile, which changes settings of the preset: `flow_grpo` follows the reference code in
    /// every choice that the paper leaves open.
    #[arg(long, conflicts_with = "resume")]
    profile: Option<String>,
    /// The base model: a model directory in the layout of diffusers, hub:OWNER/NAME, which is
    /// downloaded, or a checkpoint. Equivalent to --set base=….
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    model: Option<PathBuf>,
    /// Shows curves and the newest numbers in a full-screen view.
    #[arg(long)]
    live: bool,
}

/// Starts or resumes a training run.
///
/// # Errors
/// If the configuration is refused, or the run breaks off.
pub fn run(args: &TrainArgs) -> Result<()> {
    interrupt::listen()?;
    let device = machine::device()?; // Before a directory is made.
    ensure!(
        !args.live || std::io::stderr().is_terminal(),
        "--live needs a terminal on standard error"
    );
    let (run_args, layer) = args.resolvable()?;
    let (config, mut run): (TrainConfig, _) =
        run_options::open("train", &run_args, &TRAIN_PRESETS, layer)?;
    train::train(&config, &mut run, args.live, &device)
}

impl TrainArgs {
    /// The options of the run with the model among the settings, and the profile.
    fn resolvable(&self) -> Result<(RunArgs, Option<&'static str>)> {
        let mut run_args = self.run.clone();
        let layer = self
            .profile
            .as_deref()
            .map(|name| config::preset(&PROFILES, name))
            .transpose()?
            .map(|profile| profile.text);
        // Quote the path: it is data, not TOML.
        run_args.set.extend(
            self.model
                .iter()
                .map(|path| format!("base={}", toml::Value::String(path.display().to_string()))),
        );
        Ok((run_args, layer))
    }

    /// The configuration of the run, of which nothing is written.
    ///
    /// # Errors
    /// If it is refused, or that of the run to resume cannot be read.
    pub(super) fn configuration(&self) -> Result<TrainConfig> {
        let (run_args, layer) = self.resolvable()?;
        run_options::configuration(&run_args, &TRAIN_PRESETS, layer)
    }
}
