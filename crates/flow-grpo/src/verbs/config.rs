//! `config`: shows a configuration, or explains its keys.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use settings::Explanation;
use toml::{Table, Value};

use crate::{
    config::{self, Checked, Preset},
    pretrain::{config::PretrainConfig, presets::PRETRAIN_PRESETS},
    terminal::output,
    train::{
        config::TrainConfig,
        presets::{PROFILES, TRAIN_PRESETS},
    },
};

/// Options of `config`.
#[derive(Args, Debug)]
pub struct ConfigArgs {
    /// The verb whose configuration is shown.
    #[arg(value_enum, default_value_t = Of::Train)]
    of: Of,
    /// A built-in configuration [default: shapes, or shapes-base for pretrain].
    #[arg(long)]
    preset: Option<String>,
    /// A profile, which changes settings of the preset.
    #[arg(long)]
    profile: Option<String>,
    /// A TOML file; its keys replace those of the preset.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Sets one key; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Explains a key: its meaning, its values, its value here, and the preset's comment. Without a
    /// key, lists every key with its meaning.
    #[arg(long, value_name = "KEY", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "clap's type of an option with an optional value")]
    explain: Option<Option<String>>,
}

/// A verb with a configuration.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Of {
    /// Reinforcement learning.
    Train,
    /// Pre-training of a base model.
    Pretrain,
}

/// Prints the configuration or the explanation.
///
/// # Errors
/// If the configuration is refused, or there is no such key.
pub fn run(args: &ConfigArgs) -> Result<()> {
    match args.of {
        Of::Train => show::<TrainConfig>(args, &TRAIN_PRESETS),
        Of::Pretrain => show::<PretrainConfig>(args, &PRETRAIN_PRESETS),
    }
}

fn show<C: Checked>(args: &ConfigArgs, presets: &[Preset]) -> Result<()> {
    let preset = config::preset(presets, args.preset.as_deref().unwrap_or(presets[0].name))?;
    let profile =
        args.profile.as_deref().map(|name| config::preset(&PROFILES, name)).transpose()?;
    let resolved: C = config::resolve(
        preset.table(presets),
        profile.map(|profile| profile.text),
        args.config.as_deref(),
        &args.set,
    )?;
    let table = Table::try_from(&resolved).context("a configuration is plain data")?;
    let schema = settings::schema::<C>();
    match &args.explain {
        None => output::print(toml::to_string_pretty(&table)?),
        Some(None) => output::print(
            settings::keys(&schema)
                .iter()
                .filter_map(|key| Some((key, settings::explain(&schema, key)?)))
                .map(|(key, explanation)| format!("{key:<36} {}\n", explanation.in_a_line()))
                .collect::<String>(),
        ),
        Some(Some(key)) => match settings::explain(&schema, key) {
            Some(explanation) => {
                let comment = preset.comment(presets, key);
                output::print(explained(key, &explanation, config::at(&table, key), comment))
            }
            None => bail!(
                "there is no key `{key}`; the keys are:\n  {}",
                settings::keys(&schema).join("\n  ")
            ),
        },
    }
}

fn explained(
    key: &str,
    explanation: &Explanation,
    value: Option<&Value>,
    comment: Option<String>,
) -> String {
    let value = value.map_or_else(|| "none".to_owned(), ToString::to_string);
    let comment = comment.map(|text| format!("preset: {text}\n")).unwrap_or_default();
    format!("{key}: {explanation}here: {value}\n{comment}")
}
