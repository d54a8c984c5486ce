//! The training configurations that are part of the program.

use crate::config::Preset;

/// The presets of `train`; the first is the default.
pub const TRAIN_PRESETS: [Preset; 9] = [
    Preset { name: "shapes", text: include_str!("../../../../assets/presets/shapes.toml") },
    Preset { name: "shapes-64", text: include_str!("../../../../assets/presets/shapes-64.toml") },
    Preset { name: "emoji", text: include_str!("../../../../assets/presets/emoji.toml") },
    Preset { name: "text", text: include_str!("../../../../assets/presets/text.toml") },
    Preset { name: "toy-2d", text: include_str!("../../../../assets/presets/toy-2d.toml") },
    Preset {
        name: "sd35m-geneval",
        text: include_str!("../../../../assets/presets/sd35m-geneval.toml"),
    },
    Preset { name: "sd35m-ocr", text: include_str!("../../../../assets/presets/sd35m-ocr.toml") },
    Preset {
        name: "sd35m-ocr-1gpu",
        text: include_str!("../../../../assets/presets/sd35m-ocr-1gpu.toml"),
    },
    Preset {
        name: "sd35m-pickscore",
        text: include_str!("../../../../assets/presets/sd35m-pickscore.toml"),
    },
];

/// Profiles: joint settings for choices that the paper leaves open, applied to any preset.
pub const PROFILES: [Preset; 1] = [Preset {
    name: "flow_grpo",
    text: include_str!("../../../../assets/profiles/flow_grpo.toml"),
}];

#[cfg(test)]
mod reference;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, train::config::TrainConfig};

    #[test]
    fn every_preset_is_valid() {
        for preset in TRAIN_PRESETS {
            let table = preset.table(&TRAIN_PRESETS);
            config::resolve::<TrainConfig>(table, None, None, &[])
                .unwrap_or_else(|error| panic!("{}: {error:#}", preset.name));
        }
    }

    /// The dotted keys of a table, except keys that are names.
    pub fn keys(prefix: &str, table: &toml::Table) -> Vec<String> {
        let key = |(key, value): (&String, &toml::Value)| match value {
            toml::Value::Table(inner) if !["rewards", "mix"].contains(&key.as_str()) => {
                keys(&format!("{prefix}{key}."), inner)
            }
            _ => vec![format!("{prefix}{key}")],
        };
        table.iter().flat_map(key).collect()
    }

    #[test]
    fn a_preset_names_every_key_that_can_be_set() {
        for preset in TRAIN_PRESETS {
            let config: TrainConfig =
                config::resolve(preset.table(&TRAIN_PRESETS), None, None, &[]).expect("valid");
            let whole = toml::Table::try_from(&config).expect("plain data");
            let named = keys("", &preset.table(&TRAIN_PRESETS));
            for key in keys("", &whole) {
                assert!(named.contains(&key), "{}: {key}", preset.name);
            }
        }
    }
}
