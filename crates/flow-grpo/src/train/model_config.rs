//! Settings of a model directory in a training run.

use std::path::PathBuf;

use models::Choices;
use pipelines::{Cache, DirectorySettings, Size};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of a model directory, of any family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Height and width of the images, in pixels.
    #[schemars(range(min = 1, max = MOST_PIXELS))]
    pub resolution: usize,
    /// Tokens of a prompt that T5 reads.
    #[schemars(range(min = 1, max = MOST_TOKENS))]
    pub max_sequence_length: usize,
    /// Whether T5 reads prompts; without T5 its features are zeros. FLUX.1 needs T5.
    pub t5: bool,
    /// A single file of weights in the publisher's layout, as ComfyUI reads it. It replaces the
    /// transformer of the directory, and the autoencoder if the file has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single_file: Option<PathBuf>,
    /// Activation checkpointing: the backward pass recomputes every block instead of keeping its
    /// activations. This takes less memory and more time, and gives the same gradients.
    pub recompute: bool,
}

/// Upper bound on the tokens that T5 reads.
const MOST_TOKENS: usize = 512;
/// Upper bound on the height and width of images.
const MOST_PIXELS: usize = 8192;

impl ModelConfig {
    /// How the directory is used; encoded prompts are kept in `cache`.
    pub fn settings(&self, cache: Cache) -> DirectorySettings {
        DirectorySettings { cache: Some(cache), ..self.settings_in_memory() }
    }

    /// How the directory is used, without files of encoded prompts.
    pub fn settings_in_memory(&self) -> DirectorySettings {
        DirectorySettings {
            size: Size::Pixels { height: Some(self.resolution), width: Some(self.resolution) },
            max_sequence_length: Some(self.max_sequence_length),
            choices: Choices { single_file: self.single_file.clone(), without_t5: !self.t5 },
            recompute: self.recompute,
            cache: None,
        }
    }
}
