//! Options of the verbs that start a run, and the configuration and directory of that run.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use files::text_file;
use run::{Program, RunDir};

use crate::{
    backend,
    config::{self, Checked, Preset},
    machine,
};

/// Options of every run.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// A built-in configuration; `help` lists the presets of each verb.
    #[arg(long)]
    pub preset: Option<String>,
    /// A TOML file; its keys replace those of the preset.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Sets one key, e.g. `--set epochs=10` or `--set grpo.group_size=8`; may be repeated. `config
    /// --explain` lists the keys.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// The directory of the run [default: runs/PRESET-SECONDS, with the seconds since 1970].
    #[arg(long, conflicts_with = "resume")]
    pub out: Option<PathBuf>,
    /// Resumes the run in this directory. `--set epochs=300` lengthens it, unless its learning rate
    /// has begun to fall. Other settings that would change the results are refused.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["preset", "config"])]
    pub resume: Option<PathBuf>,
}

/// The configuration and directory of a new or resumed run.
pub fn open<C: Checked>(
    verb: &str,
    args: &RunArgs,
    presets: &[Preset],
    layer: Option<&str>,
) -> Result<(C, RunDir)> {
    if let Some(path) = &args.resume {
        let (run, text) = RunDir::open(path, program())?;
        let table =
            config::parse(&text).with_context(|| format!("{}/config.toml", path.display()))?;
        let of = if table.contains_key("grpo") { "train" } else { "pretrain" };
        ensure!(
            of == verb,
            "{} is a run of `{of}`: resume it with `{of} --resume`",
            path.display()
        );
        let file = || format!("{}/config.toml", path.display());
        config::resolve::<C>(table.clone(), None, None, &[]).with_context(|| {
            let weights = if verb == "train" { "policy.safetensors" } else { "base.safetensors" };
            format!(
                "{}: this program cannot read it. The run was started with {}: resume it with that version, or start a new run from its \
                 weights, with --set base={}/{weights}",
                file(),
                run.begun_with(),
                path.display()
            )
        })?;
        let config: C = config::resolve(table, None, None, &args.set).with_context(file)?;
        return Ok((config, run));
    }
    let config = configuration(args, presets, layer)?;
    let preset = args.preset.as_deref().unwrap_or(presets[0].name);
    let out =
        args.out.clone().unwrap_or_else(|| PathBuf::from(format!("runs/{preset}-{}", timestamp())));
    let run = RunDir::create(&out, program())?;
    Ok((config, run))
}

/// The configuration of a new run, or of the run to resume, without a directory.
///
/// # Errors
/// If the configuration is refused or cannot be read.
pub fn configuration<C: Checked>(
    args: &RunArgs,
    presets: &[Preset],
    layer: Option<&str>,
) -> Result<C> {
    if let Some(path) = &args.resume {
        let path = path.join("config.toml");
        let table = config::parse(&text_file::read(&path)?)?;
        return config::resolve(table, None, None, &args.set)
            .with_context(|| path.display().to_string());
    }
    let preset = config::preset(presets, args.preset.as_deref().unwrap_or(presets[0].name))?;
    config::resolve(preset.table(presets), layer, args.config.as_deref(), &args.set)
}

/// Seconds since 1970, which sort by time and need no time zone.
fn timestamp() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Describes this program.
fn program() -> Program {
    let arguments = std::env::args_os();
    Program {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: env!("FLOW_GRPO_REVISION").to_owned(),
        backend: backend::NAME.to_owned(),
        precision: backend::PRECISION_NAME.to_owned(),
        machine: machine::description(),
        started: Some(timestamp()),
        command: arguments.map(|argument| argument.to_string_lossy().into_owned()).collect(),
        by_xtask: std::env::var_os("FLOW_GRPO_XTASK").is_some(),
    }
}
