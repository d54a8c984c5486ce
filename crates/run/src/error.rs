//! The errors of this crate.

use std::path::PathBuf;

use files::FileError;
use thiserror::Error;

/// A run directory could not be used, or a picture of it could not be made.
#[derive(Debug, Error)]
pub enum RunError {
    /// A file or directory could not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The directory could not be created.
    #[error("cannot make the run directory {}", path.display())]
    Create {
        /// The run directory.
        path: PathBuf,
        /// The failed action.
        source: FileError,
    },
    /// The directory has no readable configuration.
    #[error("{} is not a run directory: cannot read config.toml", path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The directory already holds a run.
    #[error("{0} already holds a run: choose another --out, or continue it with --resume {0}", path.display())]
    HoldsARun {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds something else.
    #[error("{} is no run directory, and not empty: it holds `{name}`; choose another --out", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// The name of one of its entries.
        name: String,
    },
    /// The directory could not be locked.
    #[error("cannot write to the run directory {}", path.display())]
    Lock {
        /// The run directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another process has locked the directory.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The run directory.
        path: PathBuf,
    },
    /// The lock file is a link, which could lead to somebody's file.
    #[error("{} is a link, where a run has a file of its own: remove it", path.display())]
    LockIsLink {
        /// The lock file.
        path: PathBuf,
    },
    /// The lock file is a directory or a device.
    #[error("{} is no ordinary file: remove it", path.display())]
    LockIsNoFile {
        /// The lock file.
        path: PathBuf,
    },
    /// `about.json` does not parse.
    #[error("cannot read {}", path.display())]
    BadAbout {
        /// The file.
        path: PathBuf,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// A configuration cannot be written as TOML.
    #[error("the configuration cannot be written as TOML")]
    BadConfiguration(#[from] toml::ser::Error),
    /// Metrics or programs cannot be written as JSON.
    #[error("metrics cannot be written as JSON")]
    BadLine(#[from] serde_json::Error),
    /// A line was appended before [`RunDir::record_after`](crate::RunDir::record_after).
    #[error("{} is not open for recording", path.display())]
    NotRecording {
        /// The metrics file.
        path: PathBuf,
    },
    /// The run has progressed, but its checkpoints have vanished.
    #[error(
        "{0}: there is no checkpoint in {0}/checkpoints, though metrics.jsonl goes up to {done}; put one back, or start again \
         with another --out",
        path.display()
    )]
    NoCheckpoint {
        /// The run directory.
        path: PathBuf,
        /// The last epoch or step in the metrics.
        done: usize,
    },
    /// The directory for TensorBoard could not be used.
    #[error("cannot write event files to {}", path.display())]
    EventDirectory {
        /// The directory.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The event file could not be written.
    #[error("cannot write to the TensorBoard event file")]
    EventFile(#[source] std::io::Error),
    /// An image file cannot be read.
    #[error("cannot read {}", path.display())]
    BadImage {
        /// The file.
        path: PathBuf,
        /// The error of the decoder.
        source: image::ImageError,
    },
    /// An image cannot be encoded.
    #[error("cannot encode the image as PNG")]
    Encode(#[source] image::ImageError),
    /// The directory of an output file does not exist.
    #[error("cannot write {}: there is no directory {}", path.display(), directory.display())]
    NoDirectory {
        /// The output file.
        path: PathBuf,
        /// The missing directory.
        directory: PathBuf,
    },
    /// Curves or captions cannot be drawn.
    #[error("cannot draw the {what}: {problem}")]
    Drawing {
        /// The name of the picture.
        what: &'static str,
        /// The problem.
        problem: String,
    },
    /// An evaluation has no number of the given name.
    #[error("the evaluation has no number `{name}`")]
    NoSuchNumber {
        /// The name.
        name: String,
    },
    /// No run of a comparison has the number.
    #[error("--number {number}: no run has it; there are: {numbers}")]
    NumberOfNoRun {
        /// The number.
        number: String,
        /// The numbers of the runs.
        numbers: String,
    },
}
