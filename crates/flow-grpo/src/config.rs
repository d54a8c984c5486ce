//! Configurations: a preset, overridden by a profile, a file and `--set key=value`, in this order.
//!
//! A preset is whole, by itself or with the preset that it `extends`; settings that may be absent are
//! known by the schema of the configuration. Unknown keys, wrong types and values out of range are
//! refused together, each by name.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result, anyhow, bail};
use files::text_file;
use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use toml::{Table, Value};

/// Tables whose keys are names: a table replaces them as a whole, `--set` with a dotted key changes
/// one name.
const OPEN_TABLES: [&str; 3] = ["rewards", "gold", "mix"];

/// A configuration that can validate itself.
pub trait Checked: Serialize + DeserializeOwned + JsonSchema {
    /// Keys that may change on resume: length, output and memory of a run. They do not change its
    /// results, except for the order in which sums are rounded.
    const MAY_CHANGE: &'static [&'static str];

    /// Lists all values that are out of range, one sentence each, beginning with the key.
    fn problems(&self) -> Vec<String>;
}

/// A preset that is part of the program.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// Name of the preset on the command line.
    pub name: &'static str,
    /// The preset as TOML.
    pub text: &'static str,
}

/// The key by which a preset names the preset that it changes.
const EXTENDS: &str = "extends";

impl Preset {
    /// The whole preset, with the values of the preset that it extends.
    ///
    /// # Panics
    /// If a preset of the program is not TOML, or extends one that is not there.
    pub fn table(&self, presets: &[Self]) -> Table {
        let mut own: Table = self.text.parse().expect("a preset is TOML");
        let Some(base) = own.remove(EXTENDS) else { return own };
        let base = base.as_str().expect("`extends` names a preset");
        let mut table = preset(presets, base).expect("`extends` names a preset").table(presets);
        let mut problems = Vec::new();
        merge(&mut table, own, None, "", &mut problems);
        assert!(problems.is_empty(), "{}: {problems:?}", self.name);
        table
    }
}

impl Preset {
    /// The preset's comment on a dotted key: the lines above it, in this preset or in the one that
    /// it extends.
    pub fn comment(&self, presets: &[Self], key: &str) -> Option<String> {
        let (mut section, mut comment) = (String::new(), Vec::new());
        for line in self.text.lines().map(str::trim) {
            if let Some(text) = line.strip_prefix('#') {
                comment.push(text.trim());
                continue;
            }
            let header = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let name = match (header, line.split_once('=')) {
                (Some(name), _) => {
                    section = format!("{name}.");
                    name.to_owned()
                }
                (None, Some((name, _))) => format!("{section}{}", name.trim()),
                (None, None) => String::new(),
            };
            if name == key && !comment.is_empty() {
                return Some(comment.join(" "));
            }
            comment.clear();
        }
        let own: Table = self.text.parse().ok()?;
        preset(presets, own.get(EXTENDS)?.as_str()?).ok()?.comment(presets, key)
    }
}

/// Parses TOML.
///
/// # Errors
/// If the text is not TOML.
pub fn parse(text: &str) -> Result<Table> {
    text.parse().context("not TOML")
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
        let given: Table =
            text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
        merge(&mut table, given, &mut problems);
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

/// Checks that a resumed run keeps its configuration.
///
/// # Errors
/// Lists every key whose value in `begun`, the configuration of the run's checkpoint, differs in
/// `now`, unless it may change.
pub fn check_unchanged<C: Checked>(begun: &C, now: &C) -> Result<()> {
    let flat = |config: &C| -> Result<BTreeMap<String, Value>> {
        let mut values = BTreeMap::new();
        flatten("", Value::try_from(config).context("a configuration is plain data")?, &mut values);
        Ok(values)
    };
    let (begun, now) = (flat(begun)?, flat(now)?);
    let keys: BTreeSet<&String> = begun.keys().chain(now.keys()).collect();
    let said = |value: Option<&Value>| value.map_or("absent".to_owned(), ToString::to_string);
    let changed: Vec<String> = keys
        .into_iter()
        .filter(|key| begun.get(*key) != now.get(*key) && !C::MAY_CHANGE.contains(&key.as_str()))
        .map(|key| {
            format!("{key} is {} in the run, {} now", said(begun.get(key)), said(now.get(key)))
        })
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    bail!(
        "the run cannot resume with another configuration:\n  - {}\nonly {} may change; for anything else begin a new run from its \
         weights, with --set base=CHECKPOINT",
        changed.join("\n  - "),
        C::MAY_CHANGE.join(", ")
    )
}

/// Collects every value that is not a table, under its dotted key.
fn flatten(prefix: &str, value: Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
                flatten(&name, value, into);
            }
        }
        value => drop(into.insert(prefix.to_owned(), value)),
    }
}

/// The value that removes a setting that may be absent.
const NONE: &str = "none";

/// Merges `given` into `table`, key by key; unknown keys and wrong types become problems.
fn merge(
    table: &mut Table,
    given: Table,
    schema: Option<&Json>,
    prefix: &str,
    problems: &mut Vec<String>,
) {
    for (key, value) in given {
        let name = format!("{prefix}{key}");
        let schema = schema.and_then(|schema| settings::field(schema, &key));
        if schema.is_some_and(settings::is_optional) {
            if value.as_str() == Some(NONE) {
                table.remove(&key);
                continue;
            }
            let absent = if value.is_table() { Value::Table(Table::new()) } else { value.clone() };
            table.entry(&key).or_insert(absent);
        }
        let Some(old) = table.get_mut(&key) else {
            problems.push(unknown(&name, &key, table));
            continue;
        };
        let (open, new_table) =
            (OPEN_TABLES.contains(&key.as_str()), old.as_table().is_some_and(Table::is_empty));
        match (old, value) {
            // Tables of names: any name is accepted here and checked where the table is used.
            (old @ Value::Table(_), new @ Value::Table(_)) if open || new_table => *old = new,
            // A choice with its own fields is replaced as a whole, because its fields depend on the
            // kind.
            (Value::Table(old), Value::Table(new))
                if !old.contains_key("kind") || !new.contains_key("kind") =>
            {
                merge(old, new, schema, &format!("{name}."), problems);
            }
            (old @ Value::Float(_), Value::Integer(number)) => *old = Value::Float(number as f64),
            (old, new) if old.same_type(&new) => *old = new,
            (old, new) => problems.push(format!(
                "{name}: {} is needed, not the {} {new}",
                a(old.type_str()),
                new.type_str()
            )),
        }
    }
}

/// A noun with its article.
fn a(noun: &str) -> String {
    format!("{} {noun}", if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" })
}

fn unknown(name: &str, key: &str, table: &Table) -> String {
    let near = table
        .keys()
        .map(|known| (strsim::levenshtein(known, key), known))
        .min()
        .filter(|(distance, _)| *distance <= 3);
    match near {
        Some((_, known)) => format!("{name}: unknown key; did you mean `{known}`?"),
        None => format!(
            "{name}: unknown key; known here: {}",
            table.keys().cloned().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// Parses `a.b.c=value` into a table to merge into `table`. A value that is not TOML becomes a
/// string.
fn parse_setting(setting: &str, table: &Table) -> Result<Table, String> {
    let (key, value) =
        setting.split_once('=').ok_or_else(|| format!("--set {setting}: write key=value"))?;
    let path: Vec<&str> = key.trim().split('.').collect();
    if path.contains(&"") {
        return Err(format!("--set {setting}: write key=value"));
    }
    let value = match format!("v = {}", value.trim()).parse::<Table>() {
        Ok(mut parsed) if parsed.len() == 1 => parsed.remove("v").expect("the one that was given"),
        Ok(_) => return Err(format!("--set {setting}: give every key a --set of its own")),
        Err(_) => Value::String(value.trim().to_owned()),
    };
    Ok(nest(&path, value, table))
}

/// Sets one dotted key of a table of names, given as `NAME.KEY=VALUE`.
///
/// # Errors
/// If the setting is malformed.
pub fn set_within(table: &mut Table, setting: &str) -> Result<()> {
    let parsed = parse_setting(
        &format!("{}.{setting}", OPEN_TABLES[0]),
        &Table::from_iter([(OPEN_TABLES[0].to_owned(), Value::Table(table.clone()))]),
    );
    let mut parsed = parsed.map_err(|problem| anyhow!(problem))?;
    if let Some(Value::Table(set)) = parsed.remove(OPEN_TABLES[0]) {
        *table = set;
    }
    Ok(())
}

/// Builds the table in which `value` is under `path`. A name in a table of names keeps the other
/// names of `old`, and a setting of a name its other settings.
fn nest(path: &[&str], value: Value, old: &Table) -> Table {
    let [key, rest @ ..] = path else { unreachable!("splitting gives at least one part") };
    let inner = match (rest, old.get(*key)) {
        ([], _) => value,
        (rest, Some(Value::Table(old))) if OPEN_TABLES.contains(key) => {
            Value::Table(within(rest, value, old.clone()))
        }
        (rest, old) => {
            let empty = Table::new();
            Value::Table(nest(rest, value, old.and_then(Value::as_table).unwrap_or(&empty)))
        }
    };
    Table::from_iter([((*key).to_owned(), inner)])
}

/// `old` with `value` under `path`. A bare number on the way is a weight.
fn within(path: &[&str], value: Value, mut old: Table) -> Table {
    let [key, rest @ ..] = path else { unreachable!("splitting gives at least one part") };
    let inner = match (rest, old.remove(*key)) {
        ([], _) => value,
        (rest, Some(Value::Table(old))) => Value::Table(within(rest, value, old)),
        (rest, Some(weight @ (Value::Float(_) | Value::Integer(_)))) => {
            Value::Table(within(rest, value, Table::from_iter([("weight".to_owned(), weight)])))
        }
        (rest, _) => Value::Table(within(rest, value, Table::new())),
    };
    old.insert((*key).to_owned(), inner);
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Serialize, serde::Deserialize, JsonSchema)]
    struct Small {
        epochs: u32,
        rewards: BTreeMap<String, f64>,
    }

    impl Checked for Small {
        const MAY_CHANGE: &'static [&'static str] = &["epochs"];

        fn problems(&self) -> Vec<String> {
            Vec::new()
        }
    }

    #[test]
    fn only_what_may_change_changes_when_a_run_goes_on() {
        let begun = Small { epochs: 3, rewards: [("red".to_owned(), 1.0)].into() };
        assert!(check_unchanged(&begun, &Small { epochs: 9, ..begun.clone() }).is_ok());
        let other = Small {
            rewards: [("red".to_owned(), 2.0), ("blue".to_owned(), 1.0)].into(),
            ..begun.clone()
        };
        let text = check_unchanged(&begun, &other).expect_err("another reward").to_string();
        assert!(
            text.contains("rewards.red is 1.0 in the run, 2.0 now")
                && text.contains("rewards.blue is absent"),
            "{text}"
        );
    }

    fn settled(settings: &[&str]) -> Table {
        let mut table: Table =
            "epochs = 3\n[rewards]\nred = 1.0\nblue = 2.0".parse().expect("TOML");
        let mut problems = Vec::new();
        for setting in settings {
            let given = parse_setting(setting, &table).expect("key=value");
            merge(&mut table, given, None, "", &mut problems);
        }
        assert!(problems.is_empty(), "{problems:?}");
        table
    }

    #[test]
    fn a_setting_is_one_key_with_one_value() {
        let table = Table::new();
        for (setting, says) in [
            ("=5", "write key=value"),
            ("a..b=1", "write key=value"),
            ("epochs", "write key=value"),
        ] {
            assert!(
                parse_setting(setting, &table).expect_err("no key").contains(says),
                "{setting}"
            );
        }
        assert!(
            parse_setting("epochs=1\nseed=99", &table)
                .expect_err("two")
                .contains("a --set of its own")
        );
    }

    #[test]
    fn a_dotted_key_changes_one_name_of_a_list_and_a_table_replaces_the_list() {
        assert_eq!(
            settled(&["rewards.red=5.0"])["rewards"].to_string(),
            "{ blue = 2.0, red = 5.0 }"
        );
        assert_eq!(
            settled(&["rewards.green=5.0"])["rewards"].to_string(),
            "{ blue = 2.0, green = 5.0, red = 1.0 }"
        );
        assert_eq!(settled(&["rewards={ green = 5.0 }"])["rewards"].to_string(), "{ green = 5.0 }");
        assert_eq!(settled(&["epochs=4"])["epochs"].as_integer(), Some(4));
        let settings = ["rewards.red.kind=ruby", "rewards.red.size=3", "rewards.green.size=4"];
        assert_eq!(
            settled(&settings)["rewards"].to_string(),
            "{ blue = 2.0, green = { size = 4 }, red = { kind = \"ruby\", size = 3, weight = 1.0 } }"
        );
    }
}
