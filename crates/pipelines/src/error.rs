//! Errors of pipelines.

use std::path::PathBuf;

use models::{ModelError, VocabularyError, WeightsError, lora::AdapterError};
use thiserror::Error;

/// A pipeline cannot do its work.
#[derive(Debug, Error)]
pub enum PipelineError {
    /// A model directory cannot be used, or a prompt not encoded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A weights file cannot be used.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// An adapter does not fit.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A prompt has words that the network does not know.
    #[error(transparent)]
    Vocabulary(#[from] VocabularyError),
    /// The model does not fit into memory, or cannot do what it was asked to do.
    #[error("{0}")]
    Refused(String),
    /// A file or directory cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of the embedding cache is damaged.
    #[error("{} cannot be used; if it is damaged, remove it: its prompts are read again: {reason}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// The user interrupted a run that can be resumed.
    #[error("interrupted; resume with: {resume}")]
    Interrupted {
        /// The command that resumes the run.
        resume: String,
    },
}
