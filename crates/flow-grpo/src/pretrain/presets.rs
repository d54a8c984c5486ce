//! The configurations of pre-training that are part of the program.

use crate::config::Preset;

/// The presets of `pretrain`; the first is the default.
pub const PRETRAIN_PRESETS: [Preset; 6] = [
    Preset {
        name: "shapes-base",
        text: include_str!("../../../../assets/presets/shapes-base.toml"),
    },
    Preset {
        name: "shapes-64-base",
        text: include_str!("../../../../assets/presets/shapes-64-base.toml"),
    },
    Preset { name: "text-base", text: include_str!("../../../../assets/presets/text-base.toml") },
    Preset { name: "emoji-base", text: include_str!("../../../../assets/presets/emoji-base.toml") },
    Preset {
        name: "emoji-clean",
        text: include_str!("../../../../assets/presets/emoji-clean.toml"),
    },
    Preset {
        name: "toy-2d-base",
        text: include_str!("../../../../assets/presets/toy-2d-base.toml"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, pretrain::config::PretrainConfig};

    #[test]
    fn every_preset_is_valid() {
        for preset in PRETRAIN_PRESETS {
            config::resolve::<PretrainConfig>(preset.table(&PRETRAIN_PRESETS), None, None, &[])
                .unwrap_or_else(|error| panic!("{}: {error:#}", preset.name));
        }
    }
}
