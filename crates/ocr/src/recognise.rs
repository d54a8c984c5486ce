//! Recognition: images of single lines in, text and score out.

use std::sync::Arc;

use rten::ThreadPool;

use crate::{
    Image, OcrError,
    network::{Array, Network},
    resize::resize,
};

/// Height of the input in pixels.
pub(crate) const HEIGHT: usize = 48;
/// Smallest width of the input; narrower lines are padded with grey.
const SMALLEST_WIDTH: usize = 320;
/// The input's width, in multiples of its height, for a square image that is read as one line.
const STRETCH: f64 = 1.5;
/// Pixels across for one step of the output.
const STEP: usize = 8;
/// Largest width of the input; longer lines are squeezed. PaddleOCR 3 has the same limit.
const LARGEST_WIDTH: usize = 3200;

/// A recogniser with its alphabet.
pub(crate) struct Recogniser {
    pub network: Network,
    /// Text of each label but the first, which is the blank.
    pub alphabet: Vec<String>,
}

/// The text of a line, and the mean probability of its characters; 0 without characters.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub text: String,
    pub score: f32,
}

impl Recogniser {
    /// Reads lines, one result per image.
    ///
    /// Lines of similar shape form a batch, which is padded to its widest line. The networks see one
    /// line at a time, so a batch costs no memory.
    ///
    /// Source: `TextRecognizer` of PaddleOCR 2.9.1.
    pub fn read(
        &self,
        lines: &[Image],
        per_batch: usize,
        pool: &Arc<ThreadPool>,
    ) -> Result<Vec<Reading>, OcrError> {
        let ratio = |line: usize| lines[line].width as f64 / lines[line].height as f64;
        let mut order: Vec<usize> = (0..lines.len()).collect();
        order.sort_by(|a, b| ratio(*a).total_cmp(&ratio(*b)));
        let mut readings = vec![Reading { text: String::new(), score: 0.0 }; lines.len()];
        for batch in order.chunks(per_batch) {
            let smallest = SMALLEST_WIDTH as f64 / HEIGHT as f64;
            let widest = batch.iter().map(|line| ratio(*line)).fold(smallest, f64::max);
            let padded = ((HEIGHT as f64 * widest) as usize).min(LARGEST_WIDTH);
            for line in batch {
                let output = self.probabilities(&lines[*line], padded, pool)?;
                readings[*line] = self.decode(&output);
            }
        }
        Ok(readings)
    }

    /// Reads a whole image as one line, stretched and without padding.
    pub fn read_whole(&self, image: &Image, pool: &Arc<ThreadPool>) -> Result<Reading, OcrError> {
        let ratio = STRETCH * image.width as f64 / image.height as f64;
        let steps = (HEIGHT as f64 * ratio / STEP as f64).ceil() as usize;
        let width = (STEP * steps).min(LARGEST_WIDTH);
        let output = self.probabilities(&resize(image, width, HEIGHT), width, pool)?;
        Ok(self.decode(&output))
    }

    /// The probabilities of the labels at every step of a line, `[1, steps, labels]`.
    pub fn probabilities(
        &self,
        line: &Image,
        padded: usize,
        pool: &Arc<ThreadPool>,
    ) -> Result<Array<3>, OcrError> {
        let output: Array<3> = self.network.run(&input(line, padded), pool)?;
        let labels = self.alphabet.len() + 1;
        if output.shape[0] != 1 || output.shape[2] != labels {
            let reason = format!(
                "the output has shape {:?}, but the alphabet has {labels} labels with the blank",
                output.shape
            );
            return Err(OcrError::Network { network: "recogniser", reason });
        }
        Ok(output)
    }

    /// Greedy decoding of connectionist temporal classification: the likeliest label of every
    /// step, without repetitions, then without blanks.
    ///
    /// Source: Graves et al., "Connectionist temporal classification" (2006), section 3.2.
    fn decode(&self, probabilities: &Array<3>) -> Reading {
        let (mut text, mut sum, mut count, mut previous) = (String::new(), 0.0, 0, 0);
        for step in probabilities.numbers.chunks(self.alphabet.len() + 1) {
            let label = likeliest(step);
            if label != 0 && label != previous {
                text.push_str(&self.alphabet[label - 1]);
                sum += step[label];
                count += 1;
            }
            previous = label;
        }
        Reading { text, score: if count == 0 { 0.0 } else { sum / count as f32 } }
    }
}

/// The first label with the largest probability.
fn likeliest(step: &[f32]) -> usize {
    (1..step.len()).fold(0, |best, label| if step[label] > step[best] { label } else { best })
}

/// The input of the recogniser: a line at a height of 48 pixels, in `[−1, 1]`, with zeros on the
/// right up to the padded width.
fn input(line: &Image, padded: usize) -> Array<4> {
    let ratio = line.width as f64 / line.height as f64;
    let width = ((HEIGHT as f64 * ratio).ceil() as usize).clamp(1, padded);
    let resized = resize(line, width, HEIGHT);
    let mut numbers = vec![0.0; 3 * HEIGHT * padded];
    for (index, byte) in resized.pixels.iter().enumerate() {
        let (pixel, channel) = (index / 3, index % 3);
        let (x, y) = (pixel % width, pixel / width);
        numbers[(channel * HEIGHT + y) * padded + x] = (f32::from(*byte) / 255.0 - 0.5) / 0.5;
    }
    Array { shape: [1, 3, HEIGHT, padded], numbers }
}
