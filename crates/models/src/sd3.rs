//! Stable Diffusion 3 and 3.5: networks, model files and prompt encoding.
//!
//! Sizes come from the configurations beside the weights: SD3-Medium, SD3.5-Medium and SD3.5-Large
//! share the same code. `tests/src/sd3.rs` compares it with diffusers number by number.

use std::path::{Path, PathBuf};

use thiserror::Error;

pub mod clip;
pub mod directory;
pub(crate) mod layers;
pub mod prompt;
pub mod random;
mod single_file;
pub mod source;
pub mod t5;
pub mod tokenizer;
pub mod transformer;
pub mod vae;

pub use directory::{Choices, ModelDirectory};
pub use prompt::{ClipReader, Embedding, Features, PromptEmbedding, T5Reader};
pub use transformer::{Transformer, TransformerConfig};
pub use vae::{Vae, VaeConfig};

use crate::weights::WeightsError;

/// Upper bound on every size of a network.
const LARGEST: usize = 1 << 20;
/// Upper bound on the number of layers.
const MOST_LAYERS: usize = 1024;

/// Lists the sizes and the number of layers of a configuration that are out of range, one sentence
/// each.
pub(crate) fn out_of_range(sizes: &[(&str, usize)], layers: (&str, usize)) -> Vec<String> {
    let all = sizes.iter().map(|&(name, value)| (name, value, LARGEST)).chain([(
        layers.0,
        layers.1,
        MOST_LAYERS,
    )]);
    let wrong = all.filter(|(_, value, most)| !(1..=*most).contains(value));
    wrong
        .map(|(name, value, most)| format!("{name} ({value}) must lie between 1 and {most}"))
        .collect()
}

/// Explains why an epsilon is not between 0 and 1; `None` if it is.
fn not_an_epsilon(name: &str, value: f64) -> Option<String> {
    (!(value > 0.0 && value < 1.0))
        .then(|| format!("{name} ({value}) must be a small positive number"))
}

/// A model could not be used.
#[derive(Debug, Error)]
pub enum Sd3Error {
    /// A file of the model cannot be used.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
    /// The path is not a model of the SD3 family.
    #[error("{} {reason}", path.display())]
    WrongKind {
        /// The file or directory.
        path: PathBuf,
        /// Description of what was found, and advice.
        reason: String,
    },
    /// Parts of the model are missing or do not fit.
    #[error("the model in {} cannot be used:\n  - {problems}", path.display())]
    Problems {
        /// The directory.
        path: PathBuf,
        /// One problem per line.
        problems: String,
    },
    /// A prompt cannot be encoded.
    #[error("the prompt `{prompt}` cannot be read: {reason}")]
    Prompt {
        /// The prompt.
        prompt: String,
        /// Description of the problem.
        reason: String,
    },
    /// A weights file cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

impl Sd3Error {
    fn unreadable(path: &Path, reason: impl ToString) -> Self {
        Self::Unreadable { path: path.to_owned(), reason: reason.to_string() }
    }

    fn wrong_kind(path: &Path, reason: &str) -> Self {
        Self::WrongKind { path: path.to_owned(), reason: reason.to_owned() }
    }
}
