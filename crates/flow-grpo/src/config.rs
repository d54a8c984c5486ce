//! Configurations: a preset, overridden by a profile, a file and `--set key=value`, in this order.
//!
//! A preset is whole, by itself or with the preset that it `extends`; settings that may be absent are
//! known by the schema of the configuration. Unknown keys, wrong types and values out of range are
//! refused together, each by name.

mod merge;
mod preset;
mod set;
mod unchanged;

pub use preset::{Preset, preset};
pub use set::set_within;
pub use unchanged::check_unchanged;

use std::path::Path;

use anyhow::{Context, Result, bail};
use files::text_file;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

use crate::config::{merge::merge, set::parse_setting};

/// A configuration that can validate itself.
pub trait Checked: Serialize + DeserializeOwned + JsonSchema {
    /// Keys that may change on resume: length, output and memory of a run. They do not change its
    /// results, except for the order in which sums are rounded.
    const MAY_CHANGE: &'static [&'static str];

    /// Lists all values that are out of range, one sentence each, beginning with the key.
    fn problems(&self) -> Vec<String>;
}

/// Tables whose keys are names: a table replaces them as a whole, `--set` with a dotted key changes
/// one name.
const OPEN_TABLES: [&str; 3] = ["rewards", "gold", "mix"];

/// Parses TOML.
///
/// # Errors
/// If the text is not TOML.
pub fn parse(text: &str) -> Result<Table> {
    text.parse().context("not TOML")
}

/// Resolves a configuration from `table`, a preset or the configuration of a resumed run, and a
/// profile's `layer`, a file and settings on top.
///
/// # Errors
/// If the file cannot be read or parsed, or if a key is unknown or a value has the
/// wrong type or is out of range; the error lists all of these problems.
pub fn resolve<C: Checked>(
    mut table: Table,
    layer: Option<&str>,
    file: Option<&Path>,
    settings: &[String],
) -> Result<C> {
    let (schema, mut problems) = (settings::schema::<C>(), Vec::new());
    let merge = |table: &mut Table, given: Table, problems: &mut Vec<String>| {
        merge(table, given, Some(&schema), "", problems);
    };
    if let Some(layer) = layer {
        let layer = applicable(layer.parse().context("a profile is TOML")?, &table);
        merge(&mut table, layer, &mut problems);
    }
    if let Some(path) = file {
        let text = text_file::read(path)?;
        let mut given: Table =
            text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
        let on_gpu = preset::take_on_gpu(&mut given);
        merge(&mut table, given, &mut problems);
        merge(&mut table, on_gpu.unwrap_or_default(), &mut problems);
    }
    for setting in settings {
        match parse_setting(setting, &table) {
            Ok(given) => merge(&mut table, given, &mut problems),
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

/// The part of a profile that applies to `table`: its settings for another kind of tuning are left
/// out.
fn applicable(mut layer: Table, table: &Table) -> Table {
    let Some(Value::Table(mut tuning)) = layer.remove("tuning") else { return layer };
    let tuned = table.get("tuning").and_then(|tuning| tuning.get("kind"));
    if tuning.remove("kind").as_ref() == tuned {
        layer.insert("tuning".to_owned(), Value::Table(tuning));
    }
    layer
}

/// The value of a dotted key.
pub fn at<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    let (first, rest) = key.split_once('.').unwrap_or((key, ""));
    let value = table.get(first)?;
    if rest.is_empty() { Some(value) } else { at(value.as_table()?, rest) }
}
