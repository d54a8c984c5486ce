//! One table of settings on top of another.

use serde_json::Value as Json;
use toml::{Table, Value};

use crate::config::OPEN_TABLES;

/// The value that removes a setting that may be absent.
const NONE: &str = "none";

/// Merges `given` into `table`, key by key; unknown keys and wrong types become problems.
pub fn merge(
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
