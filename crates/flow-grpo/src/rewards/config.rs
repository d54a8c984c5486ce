//! A reward in a configuration.

use anyhow::{Context as _, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use toml::{Table, Value};

use crate::rewards::{Kind, REWARDS, names};

/// An instance of a reward in a configuration: a bare weight, or a table.
#[derive(Clone, Debug, PartialEq)]
pub struct RewardConfig {
    /// The weight in the sum.
    pub weight: f32,
    /// The kind; absent if the instance's name is the kind.
    pub kind: Option<String>,
    /// The settings of the kind.
    pub settings: Table,
}

impl RewardConfig {
    /// The kind of an instance.
    ///
    /// # Errors
    /// If there is no such kind.
    pub fn kind(&self, name: &str) -> Result<&'static Kind> {
        let wanted = self.kind.as_deref().unwrap_or(name);
        REWARDS.iter().find(|kind| kind.name == wanted).with_context(|| {
            format!("there is no reward `{wanted}`; there are: {}", names().join(", "))
        })
    }

    /// Lists everything that is wrong with an instance before it is opened.
    pub fn problems(&self, name: &str) -> Vec<String> {
        let kind = self.kind(name).err().map(|error| error.to_string());
        let weight = (!self.weight.is_finite())
            .then(|| format!("the weight ({}) must be a finite number", self.weight));
        kind.into_iter().chain(weight).collect()
    }
}

const KIND: &str = "kind";
const WEIGHT: &str = "weight";

impl Serialize for RewardConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.kind.is_none() && self.settings.is_empty() {
            return self.weight.serialize(serializer);
        }
        let mut table = self.settings.clone();
        table.extend(self.kind.clone().map(|kind| (KIND.to_owned(), Value::String(kind))));
        table.insert(WEIGHT.to_owned(), Value::Float(self.weight.into()));
        table.serialize(serializer)
    }
}

impl JsonSchema for RewardConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RewardConfig".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A weight, or a table with `kind`, `weight` and the settings of the kind.",
            "anyOf": [{ "type": "number" }, { "type": "object" }],
        })
    }
}

impl<'de> Deserialize<'de> for RewardConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let weight = |value: Value| value.try_into::<f32>().map_err(D::Error::custom);
        match Value::deserialize(deserializer)? {
            Value::Table(mut settings) => Ok(Self {
                weight: settings.remove(WEIGHT).map_or(Ok(1.0), weight)?,
                kind: settings
                    .remove(KIND)
                    .map(|kind| kind.try_into().map_err(D::Error::custom))
                    .transpose()?,
                settings,
            }),
            value => Ok(Self { weight: weight(value)?, kind: None, settings: Table::new() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> RewardConfig {
        let mut table: Table = format!("it = {text}").parse().expect("TOML");
        table.remove("it").expect("it").try_into().expect("a reward")
    }

    #[test]
    fn a_bare_number_is_a_weight_and_a_table_has_kind_weight_and_settings() {
        for (text, weight, kind, written) in [
            ("2", 2.0, None, "2.0"),
            ("{}", 1.0, None, "1.0"),
            ("{ weight = 0.5 }", 0.5, None, "0.5"),
            (
                "{ kind = \"darkness\" }",
                1.0,
                Some("darkness"),
                "{ kind = \"darkness\", weight = 1.0 }",
            ),
        ] {
            let config = config(text);
            assert_eq!((config.weight, config.kind.as_deref()), (weight, kind), "{text}");
            assert_eq!(Value::try_from(&config).expect("TOML").to_string(), written);
        }
    }
}
