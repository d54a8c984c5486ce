//! The files of published models: tensors, configurations, schedulers, and the errors that name
//! everything that is wrong with them.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use thiserror::Error;

pub(crate) mod index;
pub(crate) mod layout;
pub(crate) mod part;
mod pytorch;
pub mod scheduler;
pub mod source;
pub(crate) mod streamed;
pub mod tensor_files;

pub use source::Source;
pub use tensor_files::{Stored, TensorFiles};

use crate::weights::WeightsError;

/// File stem of the weights that diffusers writes.
pub(crate) const DIFFUSERS: &str = "diffusion_pytorch_model";
/// File stem of the weights that transformers writes.
pub(crate) const TRANSFORMERS: &str = "model";

/// A model could not be used.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file of the model cannot be used.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The file or directory.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
    /// The path is not a model of a known family.
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

impl ModelError {
    pub(crate) fn unreadable(path: &Path, reason: impl ToString) -> Self {
        Self::Unreadable { path: path.to_owned(), reason: reason.to_string() }
    }

    pub(crate) fn wrong_kind(path: &Path, reason: impl ToString) -> Self {
        Self::WrongKind { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Problems of a model, collected and reported together.
#[derive(Debug, Default)]
pub(crate) struct Problems(pub Vec<String>);

impl Problems {
    /// Adds the problems of one part, each with the name of the part.
    pub fn add(&mut self, part: &str, problems: Vec<String>) {
        self.0.extend(problems.into_iter().map(|problem| format!("{part}: {problem}")));
    }

    /// Adds a problem if `found` is one.
    pub fn note(&mut self, found: Option<String>) {
        self.0.extend(found);
    }

    /// The error about the model in `path`.
    pub fn of(self, path: &Path) -> ModelError {
        ModelError::Problems { path: path.to_owned(), problems: self.0.join("\n  - ") }
    }

    /// Returns `value` if there are no problems.
    pub fn none<T>(self, path: &Path, value: T) -> Result<T, ModelError> {
        if self.0.is_empty() { Ok(value) } else { Err(self.of(path)) }
    }
}

/// Reads a JSON file.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, ModelError> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| ModelError::unreadable(path, format!("cannot be read: {error}")))?;
    serde_json::from_str(&text).map_err(|error| ModelError::unreadable(path, error))
}

/// An error and its source, in one line.
pub(crate) fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {source}"))
}
