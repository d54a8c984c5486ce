//! Optical character recognition in the process, and the text-rendering reward of Flow-GRPO.
//!
//! [`Reader`] finds lines of text in an RGB image and reads them, with the steps and constants of
//! PaddleOCR 2.9.1: a detector gives the probability of text per pixel, boxes are drawn around it,
//! every box is cut out, and a recogniser reads it. [`target`] and [`reward`] score the text.
//!
//! Two small networks (PP-OCRv6 tiny, 3.1 MB) are part of the program; larger ones with the same
//! interface are read from a directory. Everything runs on the CPU, without tensors of Burn.
//!
//! ```
//! use ocr::{Options, Reader, reward, target, text};
//!
//! let reader = Reader::built_in(Options::default())?;
//! let white = vec![255; 3 * 64 * 64];
//! let lines = reader.read(&white, 64, 64)?;
//! let target = target("a shop sign that says \"Open\"")?;
//! assert_eq!(reward(&text(&lines), target), 0.0);
//! assert_eq!(reward("We are OPEN", target), 1.0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod crop;
mod detect;
mod error;
#[cfg(test)]
mod golden;
mod network;
mod options;
mod reader;
mod recognise;
mod resize;
mod reward;

pub use error::OcrError;
pub use options::{Channels, Lines, Options, Resize};
pub use reader::{Line, Reader, text};
pub use reward::{PromptError, reward, target};

/// Name of the detector in a model directory.
pub const DETECTOR: &str = "detector.onnx";
/// Name of the recogniser in a model directory.
pub const RECOGNISER: &str = "recogniser.onnx";
/// The largest width and height of an image, in pixels.
pub const MAX_SIDE: usize = 4096;

/// A point in pixels, `[x, y]`, from the top left corner.
pub(crate) type Point = [f32; 2];

/// An image of bytes: `height` rows of `width` pixels of three channels.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Image {
    pub width: usize,
    pub height: usize,
    pub pixels: Vec<u8>,
}

impl Image {
    /// The three channels of a pixel.
    fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let start = 3 * (y * self.width + x);
        [self.pixels[start], self.pixels[start + 1], self.pixels[start + 2]]
    }
}
