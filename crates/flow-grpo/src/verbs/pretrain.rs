//! `pretrain`: trains a base model by flow matching.

use anyhow::Result;
use clap::Args;

use super::run_options::{self, RunArgs};
use crate::{
    machine,
    pretrain::{self, config::PretrainConfig, presets::PRETRAIN_PRESETS},
    terminal::{interrupt, output},
};

/// Options of `pretrain`.
#[derive(Args, Debug)]
pub struct PretrainArgs {
    #[command(flatten)]
    run: RunArgs,
}

/// Starts or resumes pre-training.
///
/// # Errors
/// If the configuration is refused, or the run breaks off.
pub fn run(args: &PretrainArgs) -> Result<()> {
    interrupt::listen()?;
    let device = machine::device()?; // Before a directory is made.
    let (config, mut run): (PretrainConfig, _) =
        run_options::open("pretrain", &args.run, &PRETRAIN_PRESETS, None)?;
    let checkpoint = pretrain::pretrain(&config, &mut run, &device)?;
    output::print(format!("base model: {}\n", checkpoint.display()))
}
