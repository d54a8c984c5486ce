//! The description of a checkpoint of the program's own networks.
//!
//! A checkpoint is one safetensors file: the weights, with sizes, vocabulary and origin in the
//! metadata.

use grpo::images::Decoder;
use models::{DitConfig, MlpConfig, TokenIds, Vocabulary, WeightsFile};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::PipelineError;

/// The kind and sizes of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Architecture {
    /// A diffusion transformer over pixels.
    Dit(DitConfig),
    /// An MLP over points of the plane.
    Mlp(MlpConfig),
}

impl Architecture {
    /// Lists everything that is wrong with the sizes, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Dit(sizes) => sizes.problems(),
            Self::Mlp(sizes) => settings::problems(sizes),
        }
    }

    /// Number of parameters of a network of these sizes, for a vocabulary of `vocabulary` ids.
    pub fn count(&self, vocabulary: usize) -> usize {
        match self {
            Self::Dit(sizes) => sizes.count(vocabulary),
            Self::Mlp(sizes) => sizes.count(),
        }
    }

    /// Number of values per row that a forward pass keeps for its backward pass.
    pub fn kept_per_row(&self) -> usize {
        match self {
            Self::Dit(sizes) => sizes.kept_per_row(),
            Self::Mlp(sizes) => sizes.kept_per_row(),
        }
    }

    /// `[C, H, W]` of a latent, which is an image or a point.
    pub fn latent_shape(&self) -> [usize; 3] {
        match self {
            Self::Dit(sizes) => [sizes.channels, sizes.image_size, sizes.image_size],
            Self::Mlp(sizes) => [sizes.elements, 1, 1],
        }
    }

    /// The decoder of final latents.
    pub fn decoder(&self) -> Decoder {
        match self {
            Self::Dit(_) => Decoder::Pixels,
            Self::Mlp(_) => Decoder::Points,
        }
    }
}

/// The description of a checkpoint, enough to use its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Kind and sizes.
    pub architecture: Architecture,
    /// The words that the network knows.
    pub vocabulary: Vocabulary,
    /// The origin of the network, for people: command, seed, steps, version.
    pub made_by: String,
}

/// The metadata key of the card.
pub(crate) const CARD: &str = "flow_grpo";

impl Card {
    /// Reads the card of a checkpoint.
    ///
    /// # Errors
    /// If the file is no checkpoint, or its sizes are impossible.
    pub fn of(file: &WeightsFile) -> Result<Self, PipelineError> {
        let card: Self = file.parsed_metadata(CARD)?;
        let problems = card.architecture.problems();
        if !problems.is_empty() {
            return Err(PipelineError::Refused(format!(
                "the checkpoint's network sizes are invalid: {}",
                problems.join("; ")
            )));
        }
        // Check before anything of these sizes is allocated; reading the weights reports which
        // tensors are missing.
        let (asked, held) = (card.architecture.count(card.vocabulary.len()), file.count());
        if asked > 2 * held {
            return Err(PipelineError::Refused(format!(
                "{}: the network's sizes ask for {asked} numbers, the file holds {held}: they do not belong together",
                file.path().display()
            )));
        }
        Ok(card)
    }

    /// Encodes a prompt's text as the network's condition.
    ///
    /// # Errors
    /// If the network does not know a word, or the text is too long for it.
    pub fn condition(&self, text: &str) -> Result<TokenIds, PipelineError> {
        match &self.architecture {
            Architecture::Dit(config) => Ok(self.vocabulary.encode(text, config.text_length)?),
            Architecture::Mlp(_) => Ok(TokenIds::from([])),
        }
    }
}
