//! Configurations by their schema: checks every value against the range that its type declares,
//! and explains every key.
//!
//! A setting has one place, its field: the doc comment says what it means, `#[schemars(range(…))]`
//! and `#[schemars(extend("exclusiveMinimum" = …))]` say which values it takes. Relations between
//! several settings are not in a schema; their types check them.

mod explain;
mod range;

pub use explain::{Explanation, explain, field, is_optional, keys};

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Serialize;
use serde_json::Value;

/// Lists all values that are out of range, one sentence each, beginning with the dotted key.
///
/// # Panics
/// If the value is no plain data.
pub fn problems<T: Serialize + JsonSchema>(settings: &T) -> Vec<String> {
    let value = toml::Value::try_from(settings).expect("settings are plain data");
    let mut problems = Vec::new();
    check(&schema::<T>(), &value, "", &mut problems);
    problems
}

/// The JSON schema of a type, without references to other schemas.
pub fn schema<T: JsonSchema>() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn check(schema: &Value, value: &toml::Value, path: &str, problems: &mut Vec<String>) {
    problems.extend(range::Range::of(schema).and_then(|range| range.problem(path, value)));
    for option in options(schema).filter(|option| is_of(option, value)) {
        check(option, value, path, problems);
    }
    if let toml::Value::Table(fields) = value {
        for (name, value) in fields {
            if let Some(schema) = property(schema, name) {
                check(schema, value, &dotted(path, name), problems);
            }
        }
    }
    if let (toml::Value::Array(items), Some(schema)) = (value, schema.get("items")) {
        for (index, item) in items.iter().enumerate() {
            check(schema, item, &format!("{path}[{index}]"), problems);
        }
    }
}

/// The key of a field within a table.
fn dotted(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The alternatives of a schema: the kinds of a choice, or a value and its absence.
fn options(schema: &Value) -> impl Iterator<Item = &Value> {
    ["oneOf", "anyOf"].into_iter().filter_map(|key| schema.get(key)?.as_array()).flatten()
}

/// The name of the field that names the kind of a choice.
const KIND: &str = "kind";

/// Whether a value, which is there, is of an alternative: it has its kind, if it has one.
fn is_of(option: &Value, value: &toml::Value) -> bool {
    let kind = option.pointer("/properties/kind/const").and_then(Value::as_str);
    let found = value.get(KIND).and_then(toml::Value::as_str);
    kind.is_none_or(|kind| found == Some(kind)) && option["type"] != "null"
}

/// The schema of a field, or of any name in a table of names.
fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    let named = schema.get("properties").and_then(|properties| properties.get(name));
    named.or_else(|| schema.get("additionalProperties").filter(|names| names.is_object()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// How a run is made.
    #[derive(Serialize, JsonSchema)]
    #[serde(deny_unknown_fields)]
    struct Run {
        /// Number of epochs.
        #[schemars(range(min = 1, max = 100))]
        epochs: usize,
        /// The rate, if there is one.
        #[schemars(extend("exclusiveMinimum" = 0))]
        rate: Option<f64>,
        /// The decay.
        #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
        decay: f64,
        /// The step.
        step: Step,
        /// Weights by name.
        weights: BTreeMap<String, Weight>,
        /// The parts.
        parts: Vec<Weight>,
    }

    /// A step.
    #[derive(Serialize, JsonSchema)]
    #[serde(tag = "kind", rename_all = "snake_case")]
    enum Step {
        /// Draws noise.
        Noisy(Noisy),
        /// Draws none.
        Plain {
            /// The length.
            #[schemars(extend("exclusiveMinimum" = 0))]
            length: f64,
        },
    }

    #[derive(Serialize, JsonSchema)]
    struct Noisy {
        /// The level of the noise.
        #[schemars(range(min = 0.0, max = 2.0))]
        level: f64,
    }

    #[derive(Serialize, JsonSchema)]
    struct Weight {
        /// The number.
        #[schemars(range(min = 0.0))]
        number: f64,
    }

    fn good() -> Run {
        Run {
            epochs: 1,
            rate: None,
            decay: 0.0,
            step: Step::Noisy(Noisy { level: 2.0 }),
            weights: BTreeMap::from([("red".to_owned(), Weight { number: 0.0 })]),
            parts: vec![Weight { number: 1.0 }],
        }
    }

    #[test]
    fn every_value_out_of_its_range_is_named() {
        assert_eq!(problems(&good()), Vec::<String>::new());
        let bad = Run {
            epochs: 0,
            rate: Some(0.0),
            decay: 1.0,
            step: Step::Noisy(Noisy { level: 2.5 }),
            weights: BTreeMap::from([("red".to_owned(), Weight { number: -1.0 })]),
            parts: vec![Weight { number: f64::NAN }],
        };
        let mut found = problems(&bad);
        found.sort_unstable();
        assert_eq!(
            found,
            [
                "decay (1) must be at least 0 and below 1",
                "epochs (0) must lie between 1 and 100",
                "parts[0].number (NaN) must be at least 0",
                "rate (0) must be a positive number",
                "step.level (2.5) must lie between 0 and 2",
                "weights.red.number (-1) must be at least 0",
            ]
        );
        let plain = Run { step: Step::Plain { length: -0.5 }, ..good() };
        assert_eq!(problems(&plain), ["step.length (-0.5) must be a positive number"]);
    }

    #[test]
    fn every_key_has_its_meaning_type_and_range() {
        let schema = schema::<Run>();
        let said = |key: &str| explain(&schema, key).map(|explanation| explanation.to_string());
        assert_eq!(
            said("epochs").expect("a key"),
            "Number of epochs.\nvalues: an integer from 1 to 100\n"
        );
        assert_eq!(
            said("rate").expect("a key"),
            "The rate, if there is one.\nvalues: a number above 0, or none\n"
        );
        let step = said("step").expect("a key");
        assert!(step.contains("kind = \"noisy\": Draws noise.\n    level: The level of the noise. (a number from 0 to 2)"), "{step}");
        assert_eq!(
            said("step.level").expect("a key"),
            "The level of the noise.\nvalues: a number from 0 to 2\n"
        );
        assert_eq!(
            said("weights.red.number").expect("a key"),
            "The number.\nvalues: a number of at least 0\n"
        );
        assert!(said("epoch").is_none() && said("epochs.x").is_none());
        assert_eq!(
            keys(&schema),
            ["decay", "epochs", "parts", "rate", "step", "weights"].map(str::to_owned)
        );
    }
}
