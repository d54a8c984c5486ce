//! `--set KEY=VALUE`: one key of a configuration.

use anyhow::{Result, anyhow};
use toml::{Table, Value};

use crate::config::OPEN_TABLES;

/// Parses `a.b.c=value` into a table to merge into `table`. A value that is not TOML becomes a
/// string.
pub fn parse_setting(setting: &str, table: &Table) -> Result<Table, String> {
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
    use crate::config::merge::merge;

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
