//! Detection: an image in, the boxes of its lines out, in reading order.
//!
//! The detector gives the probability of text for every pixel ("differentiable binarization",
//! arXiv 1911.08947). Every connected region of likely pixels becomes the smallest rectangle around
//! it, which then grows.

mod fill;
mod grow;
mod order;
mod outline;
mod rectangle;

use std::sync::Arc;

use rten::ThreadPool;

pub(crate) use order::sort;
#[cfg(test)]
pub(crate) use {fill::mean, grow::grow, outline::outlines, rectangle::around};

use crate::{
    Image, OcrError, Options, Point, Resize,
    crop::distance,
    network::{Array, Network},
    resize::resize,
};

/// Mean and standard deviation of the channels in the training images, in the order of the input.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const STD: [f32; 3] = [0.229, 0.224, 0.225];
/// The shortest side of the rectangle around a region, and of the box that it becomes, in pixels
/// of the detector.
const SMALLEST_REGION: f32 = 3.0;
const SMALLEST_BOX: f32 = 5.0;

/// The corners of a box: top left, top right, bottom right, bottom left.
pub(crate) type Corners = [Point; 4];

/// Finds the boxes of text in an image, in pixels of the image.
///
/// Source: `DBPostProcess` and `TextDetector` of PaddleOCR 2.9.1.
pub(crate) fn detect(
    image: &Image,
    detector: &Network,
    options: &Options,
    pool: &Arc<ThreadPool>,
) -> Result<Vec<Corners>, OcrError> {
    let map = probability(image, detector, options.resize, pool)?;
    let outlines = outline::outlines(&map, options.pixel_threshold);
    let boxes = outlines.iter().take(options.candidates);
    Ok(boxes.filter_map(|outline| corners(outline, &map, image, options)).collect())
}

/// A map of numbers, row by row.
pub(crate) struct Map {
    pub width: usize,
    pub height: usize,
    pub numbers: Vec<f32>,
}

/// The probability of text per pixel of the resized image.
pub(crate) fn probability(
    image: &Image,
    detector: &Network,
    limits: Resize,
    pool: &Arc<ThreadPool>,
) -> Result<Map, OcrError> {
    let (width, height) = size(image.width, image.height, limits);
    let resized = resize(image, width, height);
    let output: Array<4> = detector.run(&normalised(&resized), pool)?;
    if output.shape != [1, 1, height, width] {
        let reason = format!(
            "the output has shape {:?}, not [1, 1, {height}, {width}]; it is no detector of text",
            output.shape
        );
        return Err(OcrError::Network { network: "detector", reason });
    }
    Ok(Map { width, height, numbers: output.numbers })
}

/// The width and height of the image for the detector: multiples of 32.
fn size(width: usize, height: usize, limits: Resize) -> (usize, usize) {
    let (shorter, longer) = (width.min(height) as f64, width.max(height) as f64);
    let enlarge = (limits.shortest as f64 / shorter).max(1.0);
    let ratio = if longer * enlarge > limits.longest as f64 {
        limits.longest as f64 / longer
    } else {
        enlarge
    };
    let multiple = |side: usize| {
        let side = (side as f64 * ratio).floor();
        ((side / 32.0).round_ties_even() as usize * 32).max(32)
    };
    (multiple(width), multiple(height))
}

/// The input of the detector: channels normalised with the statistics of the training images.
fn normalised(image: &Image) -> Array<4> {
    let channel = |channel: usize| {
        let bytes = image.pixels[channel..].iter().step_by(3);
        bytes.map(move |byte| (f32::from(*byte) * (1.0 / 255.0) - MEAN[channel]) / STD[channel])
    };
    let numbers = (0..3).flat_map(channel).collect();
    Array { shape: [1, 3, image.height, image.width], numbers }
}

/// The box around an outline in pixels of the image, unless it is small or improbable.
fn corners(outline: &[Point], map: &Map, image: &Image, options: &Options) -> Option<Corners> {
    let (region, side) = rectangle::around(outline);
    if side < SMALLEST_REGION || fill::mean(map, &region) < f64::from(options.box_threshold) {
        return None;
    }
    let (grown, side) = rectangle::around(&grow::grow(&region, options.unclip));
    if side < SMALLEST_BOX {
        return None;
    }
    let scale = |position: f32, from: usize, to: usize| {
        let position = (position / from as f32 * to as f32).round_ties_even();
        position.clamp(0.0, to as f32)
    };
    let placed =
        grown.map(|[x, y]| [scale(x, map.width, image.width), scale(y, map.height, image.height)]);
    let inside = order::clockwise(placed)
        .map(|[x, y]| [x.min(image.width as f32 - 1.0), y.min(image.height as f32 - 1.0)]);
    // Whole pixels: a side of 3.9 counts as 3.
    let long = |end| distance(inside[0], inside[end]) >= 4.0;
    (long(1) && long(3)).then_some(inside)
}
