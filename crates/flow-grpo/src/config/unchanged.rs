//! What may change when a run resumes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use toml::Value;

use crate::config::Checked;

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

#[cfg(test)]
mod tests {
    use schemars::JsonSchema;
    use serde::Serialize;

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
}
