//! The errors of opening a reader and reading an image.

use std::path::PathBuf;

use thiserror::Error;

use crate::MAX_SIDE;

/// An image could not be read, or the networks could not be opened.
#[derive(Debug, Error)]
pub enum OcrError {
    /// A model file cannot be read.
    #[error("cannot read the OCR model {}: {source}; the directory needs `{}` and `{}`",
        path.display(), crate::DETECTOR, crate::RECOGNISER)]
    File {
        /// The file.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A model file is damaged, or holds another kind of network.
    #[error("the OCR model {} cannot be used: {reason}", path.display())]
    Model {
        /// The file.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
    /// An option is outside its range.
    #[error("OCR option `{option}` is {value}; {range}")]
    Option {
        /// The field of [`Options`](crate::Options).
        option: &'static str,
        /// The refused value.
        value: f64,
        /// The range, as a sentence.
        range: &'static str,
    },
    /// A side of the image is zero or too large.
    #[error(
        "an image of {width} x {height} pixels cannot be read: sides are 1 to {MAX_SIDE} pixels"
    )]
    Sides {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
    },
    /// The number of bytes does not fit the size.
    #[error("an RGB image of {width} x {height} pixels has {expected} bytes, not {found}")]
    Bytes {
        /// Width in pixels.
        width: usize,
        /// Height in pixels.
        height: usize,
        /// `3 · width · height`.
        expected: usize,
        /// Length of the slice.
        found: usize,
    },
    /// A network failed on an image.
    #[error("the OCR {network} failed: {reason}")]
    Network {
        /// `detector` or `recogniser`.
        network: &'static str,
        /// Description of the problem.
        reason: String,
    },
}
