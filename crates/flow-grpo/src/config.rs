//! Configurations: a preset, then a file, then `--set key=value`, each on top of the one before.
//!
//! A preset names every key, so it is the list of what may be set. Unknown keys, wrong types and values out of range are
//! refused together, each named.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

/// Tables whose keys are names, replaced as a whole.
const OPEN_TABLES: [&str; 2] = ["rewards", "mix"];

/// A configuration that can say what is wrong with it.
pub trait Checked: Serialize + DeserializeOwned {
    /// All that is out of range, one sentence each, beginning with the key.
    fn problems(&self) -> Vec<String>;
}

/// A preset that comes with the program.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// What it is called on the command line.
    pub name: &'static str,
    /// Its TOML text.
    pub text: &'static str,
}

/// Finds a preset by name.
pub fn preset(presets: &[Preset], name: &str) -> Result<Preset> {
    let names = || presets.iter().map(|preset| preset.name).collect::<Vec<_>>().join(", ");
    presets
        .iter()
        .copied()
        .find(|preset| preset.name == name)
        .with_context(|| format!("there is no preset `{name}`; there are: {}", names()))
}

/// Resolves a configuration.
///
/// # Errors
/// If the file cannot be read or parsed; or with the list of all unknown keys, wrong types and values out of range.
pub fn resolve<C: Checked>(preset: Preset, file: Option<&Path>, settings: &[String]) -> Result<C> {
    let mut table: Table = preset.text.parse().with_context(|| format!("preset {}", preset.name))?;
    let mut problems = Vec::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let given: Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
        merge(&mut table, given, "", &mut problems);
    }
    for setting in settings {
        match parse_setting(setting) {
            Ok(given) => merge(&mut table, given, "", &mut problems),
            Err(problem) => problems.push(problem),
        }
    }
    match Value::Table(table).try_into::<C>() {
        Ok(config) => {
            problems.extend(config.problems());
            if problems.is_empty() {
                return Ok(config);
            }
        }
        Err(error) => problems.push(error.to_string().trim().replace('\n', " ")),
    }
    bail!("the configuration is refused:\n  - {}", problems.join("\n  - "))
}

/// Reads a configuration back from a run directory.
pub fn reread<C: Checked>(text: &str) -> Result<C> {
    let config: C = toml::from_str(text).context("config.toml of the run")?;
    match config.problems() {
        problems if problems.is_empty() => Ok(config),
        problems => bail!("config.toml of the run is refused:\n  - {}", problems.join("\n  - ")),
    }
}

/// Puts `given` into `table`, key by key; what the table does not know, or knows as another type, is a problem.
fn merge(table: &mut Table, given: Table, prefix: &str, problems: &mut Vec<String>) {
    for (key, value) in given {
        let name = format!("{prefix}{key}");
        let Some(old) = table.get_mut(&key) else {
            problems.push(unknown(&name, &key, table));
            continue;
        };
        match (old, value) {
            // Lists by name: any name may be given, and what reads the list knows which there are.
            (old @ Value::Table(_), new @ Value::Table(_)) if OPEN_TABLES.contains(&key.as_str()) => *old = new,
            // A choice with its own fields is replaced as a whole: its fields depend on the kind.
            (Value::Table(old), Value::Table(new)) if !old.contains_key("kind") || !new.contains_key("kind") => {
                merge(old, new, &format!("{name}."), problems);
            }
            (old @ Value::Float(_), Value::Integer(number)) => *old = Value::Float(number as f64),
            (old, new) if old.same_type(&new) => *old = new,
            (old, new) => problems.push(format!("{name}: a {} is needed, not the {} {new}", old.type_str(), new.type_str())),
        }
    }
}

fn unknown(name: &str, key: &str, table: &Table) -> String {
    let near = table.keys().map(|known| (strsim::levenshtein(known, key), known)).min().filter(|(distance, _)| *distance <= 3);
    match near {
        Some((_, known)) => format!("{name}: unknown key; did you mean `{known}`?"),
        None => format!("{name}: unknown key; known here: {}", table.keys().cloned().collect::<Vec<_>>().join(", ")),
    }
}

/// `a.b.c=value` as a table. A value that is not TOML is taken as a string.
fn parse_setting(setting: &str) -> Result<Table, String> {
    let (key, value) = setting.split_once('=').ok_or_else(|| format!("--set {setting}: write key=value"))?;
    let parse = |value: &str| format!("v = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("v"));
    let value = parse(value.trim()).unwrap_or_else(|| Value::String(value.trim().to_owned()));
    let nested = key.trim().rsplit('.').fold(value, |value, key| Value::Table(Table::from_iter([(key.to_owned(), value)])));
    match nested {
        Value::Table(table) => Ok(table),
        _ => Err(format!("--set {setting}: write key=value")),
    }
}
