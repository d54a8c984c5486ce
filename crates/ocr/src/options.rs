//! The constants of reading, with the values of PP-OCRv6 tiny and of PaddleOCR 2.9.1.

use crate::OcrError;

/// The constants of detection and recognition.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// The order of the channels that the networks get.
    pub channels: Channels,
    /// The lines that are read.
    pub lines: Lines,
    /// The size of the image for the detector.
    pub resize: Resize,
    /// A pixel is text if its probability exceeds this number, in `[0, 1]`.
    pub pixel_threshold: f32,
    /// A box is text if the mean probability inside is at least this number, in `[0, 1]`.
    pub box_threshold: f64,
    /// A box grows by `unclip · area / perimeter` pixels to every side, in `(0, 10]`: detectors are
    /// trained on shrunk boxes.
    pub unclip: f64,
    /// The largest number of outlines that are examined, at least 1.
    pub candidates: usize,
    /// A line is dropped if its score is smaller, in `[0, 1]`.
    pub drop_score: f32,
    /// Lines that are padded to a common width, at least 1. The networks see one line at a time.
    pub lines_per_batch: usize,
    /// Threads per image, at least 1. They change the speed, not the result.
    pub threads: usize,
}

/// The order of the channels that the networks get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Blue first, as the networks were trained.
    Bgr,
    /// Red first. Deviation `swapped`: the public Flow-GRPO code gives PaddleOCR an RGB array where it
    /// expects BGR.
    Rgb,
}

/// The lines that are read in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// Those that the detector finds.
    Detected,
    /// The whole image as one line, for images that show one short text and little else. Reading
    /// takes a fifth of the time.
    ///
    /// Deviation `whole-image`: there is no detector, and the image is stretched to one and a half
    /// times its width and not padded.
    Whole,
}

/// The size of the image for the detector: sides are scaled together, then rounded to multiples
/// of 32.
///
/// PaddleOCR has one of the two limits at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resize {
    /// A smaller image is enlarged until its shorter side has this length; 0 for no enlargement.
    pub shortest: usize,
    /// A larger image is reduced until its longer side has this length, 32 to 4096.
    pub longest: usize,
}

impl Options {
    /// The options of PaddleOCR 2.9.1, which the public Flow-GRPO code uses.
    pub fn paddle_2_9() -> Self {
        Self {
            resize: Resize { shortest: 0, longest: 960 },
            pixel_threshold: 0.3,
            box_threshold: 0.6,
            unclip: 1.5,
            candidates: 1000,
            ..Self::default()
        }
    }

    /// Checks every option against its range.
    pub(crate) fn check(&self) -> Result<(), OcrError> {
        let unit = |number: f64| (0.0..=1.0).contains(&number);
        let [pixel, drop] = [self.pixel_threshold, self.drop_score].map(f64::from);
        let share = "choose a number from 0 to 1";
        let count = "choose a number of at least 1";
        let sides = "choose a length up to 4096 pixels, and at least 32 for `longest`";
        let checks = [
            ("pixel_threshold", pixel, unit(pixel), share),
            ("box_threshold", self.box_threshold, unit(self.box_threshold), share),
            ("drop_score", drop, unit(drop), share),
            (
                "unclip",
                self.unclip,
                self.unclip > 0.0 && self.unclip <= 10.0,
                "choose a number above 0, up to 10",
            ),
            ("candidates", self.candidates as f64, self.candidates > 0, count),
            ("lines_per_batch", self.lines_per_batch as f64, self.lines_per_batch > 0, count),
            (
                "threads",
                self.threads as f64,
                (1..=256).contains(&self.threads),
                "choose a number from 1 to 256",
            ),
            ("shortest", self.resize.shortest as f64, self.resize.shortest <= 4096, sides),
            (
                "longest",
                self.resize.longest as f64,
                (32..=4096).contains(&self.resize.longest),
                sides,
            ),
        ];
        match checks.into_iter().find(|check| !check.2) {
            Some((option, value, _, range)) => Err(OcrError::Option { option, value, range }),
            None => Ok(()),
        }
    }
}

impl Default for Options {
    /// The thresholds of the model card of PP-OCRv6 tiny; everything else as in PaddleOCR 2.9.1.
    ///
    /// Deviation `enlarged`: an image below 128 pixels is enlarged for the detector, which misses
    /// most words in images of 32 pixels otherwise.
    fn default() -> Self {
        Self {
            channels: Channels::Bgr,
            lines: Lines::Detected,
            resize: Resize { shortest: 128, longest: 960 },
            pixel_threshold: 0.2,
            box_threshold: 0.4,
            unclip: 1.4,
            candidates: 3000,
            drop_score: 0.5,
            lines_per_batch: 6,
            threads: 1,
        }
    }
}
