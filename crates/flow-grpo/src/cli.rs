//! The command line.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::{
    backend::Device,
    config::{self, Checked, Preset},
    interrupt,
    pretrain::{self, PretrainConfig},
    run_dir::RunDir,
};

/// Train flow-matching image models by reinforcement learning.
#[derive(Debug, Parser)]
#[command(name = "flow-grpo", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Train the base model on rendered scenes.
    Pretrain(RunArgs),
}

/// What every run takes.
#[derive(Args, Debug)]
struct RunArgs {
    /// A configuration that comes with the program.
    #[arg(long)]
    preset: Option<String>,
    /// A TOML file; its keys replace those of the preset.
    #[arg(long)]
    config: Option<PathBuf>,
    /// One key, e.g. --set steps=100 or --set optimizer.learning_rate=1e-3; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Where the run goes [default: runs/PRESET-DATE].
    #[arg(long, conflicts_with = "resume")]
    out: Option<PathBuf>,
    /// Continues an interrupted run.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["preset", "config", "set"])]
    resume: Option<PathBuf>,
}

const PRETRAIN_PRESETS: [Preset; 1] =
    [Preset { name: "shapes-base", text: include_str!("../../../assets/presets/shapes-base.toml") }];

/// Runs what the command line asks for.
pub fn run() -> Result<()> {
    let cli = Cli::parse();
    interrupt::listen()?;
    match cli.verb {
        Verb::Pretrain(args) => pretrain(&args),
    }
}

fn pretrain(args: &RunArgs) -> Result<()> {
    let (config, mut run): (PretrainConfig, _) = open_run(args, &PRETRAIN_PRESETS)?;
    let checkpoint = pretrain::pretrain(&config, &mut run, &Device::default())?;
    println!("base model: {}", checkpoint.display());
    Ok(())
}

/// The configuration and directory of a new run, or of one that goes on.
fn open_run<C: Checked>(args: &RunArgs, presets: &[Preset]) -> Result<(C, RunDir)> {
    if let Some(path) = &args.resume {
        let (run, text) = RunDir::resume(path)?;
        return Ok((config::reread(&text)?, run));
    }
    let preset = config::preset(presets, args.preset.as_deref().unwrap_or(presets[0].name))?;
    let config: C = config::resolve(preset, args.config.as_deref(), &args.set)?;
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/{}-{}", preset.name, timestamp())));
    let run = RunDir::create(&out, &config)?;
    Ok((config, run))
}

/// Seconds since 1970: sorts by time and needs no time zone.
fn timestamp() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
