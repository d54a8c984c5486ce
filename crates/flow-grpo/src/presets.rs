//! The configurations that are part of the program.

use crate::config::Preset;

/// The presets of `train`; the first is the default.
pub const TRAIN_PRESETS: [Preset; 8] = [
    Preset { name: "shapes", text: include_str!("../../../assets/presets/shapes.toml") },
    Preset { name: "shapes-64", text: include_str!("../../../assets/presets/shapes-64.toml") },
    Preset { name: "text", text: include_str!("../../../assets/presets/text.toml") },
    Preset { name: "toy-2d", text: include_str!("../../../assets/presets/toy-2d.toml") },
    Preset {
        name: "sd35m-geneval",
        text: include_str!("../../../assets/presets/sd35m-geneval.toml"),
    },
    Preset { name: "sd35m-ocr", text: include_str!("../../../assets/presets/sd35m-ocr.toml") },
    Preset {
        name: "sd35m-ocr-1gpu",
        text: include_str!("../../../assets/presets/sd35m-ocr-1gpu.toml"),
    },
    Preset {
        name: "sd35m-pickscore",
        text: include_str!("../../../assets/presets/sd35m-pickscore.toml"),
    },
];

/// Profiles: joint settings for choices that the paper leaves open, applied to any preset.
pub const PROFILES: [Preset; 1] =
    [Preset { name: "flow_grpo", text: include_str!("../../../assets/profiles/flow_grpo.toml") }];

/// The presets of `pretrain`; the first is the default.
pub const PRETRAIN_PRESETS: [Preset; 4] = [
    Preset { name: "shapes-base", text: include_str!("../../../assets/presets/shapes-base.toml") },
    Preset {
        name: "shapes-64-base",
        text: include_str!("../../../assets/presets/shapes-64-base.toml"),
    },
    Preset { name: "text-base", text: include_str!("../../../assets/presets/text-base.toml") },
    Preset { name: "toy-2d-base", text: include_str!("../../../assets/presets/toy-2d-base.toml") },
];
