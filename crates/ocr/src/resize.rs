//! Bilinear resizing of bytes in fixed point, with the rounding of OpenCV.

use crate::Image;

/// One in the fixed point of the weights: 11 bits.
const ONE: f32 = 2048.0;

/// For every new position: the source positions left and right of it, and their weights.
struct Axis {
    near: Vec<[usize; 2]>,
    weights: Vec<[i32; 2]>,
}

impl Axis {
    /// The taps of an axis of `from` pixels that becomes `to` pixels.
    ///
    /// ```text
    /// x = (x' + 1/2) · from / to − 1/2
    /// ```
    fn new(from: usize, to: usize, clamp_weights: bool) -> Self {
        let scale = 1.0 / (to as f64 / from as f64);
        let (mut near, mut weights) = (Vec::with_capacity(to), Vec::with_capacity(to));
        for position in 0..to {
            let source = ((position as f64 + 0.5) * scale - 0.5) as f32;
            let left = source.floor();
            let outside = left < 0.0 || left as usize + 1 >= from;
            let share = if clamp_weights && outside { 0.0 } else { source - left };
            let fixed = [(1.0 - share) * ONE, share * ONE].map(|w| w.round_ties_even() as i32);
            let place = |x: f32| (x.max(0.0) as usize).min(from - 1);
            near.push([place(left), place(left + 1.0)]);
            weights.push(fixed);
        }
        Self { near, weights }
    }
}

/// Resizes an image to `width` × `height` pixels.
///
/// Equals `cv2.resize` with `INTER_LINEAR` on bytes, which averages four pixels if both sides are
/// halved exactly.
pub(crate) fn resize(image: &Image, width: usize, height: usize) -> Image {
    if image.width == 2 * width && image.height == 2 * height {
        return halve(image);
    }
    let across = Axis::new(image.width, width, true);
    let down = Axis::new(image.height, height, false);
    let rows: Vec<Vec<i32>> = (0..image.height).map(|y| stretch(image, y, &across)).collect();
    let mut pixels = Vec::with_capacity(3 * width * height);
    for (near, weights) in down.near.iter().zip(&down.weights) {
        for (upper, lower) in rows[near[0]].iter().zip(&rows[near[1]]) {
            let part = |weight: i32, value: i32| (weight * (value >> 4)) >> 16;
            let sum = (part(weights[0], *upper) + part(weights[1], *lower) + 2) >> 2;
            pixels.push(sum.clamp(0, 255) as u8);
        }
    }
    Image { width, height, pixels }
}

/// A row of the image at the new width, in fixed point.
fn stretch(image: &Image, y: usize, across: &Axis) -> Vec<i32> {
    let mut row = Vec::with_capacity(3 * across.near.len());
    for (near, weights) in across.near.iter().zip(&across.weights) {
        let (left, right) = (image.pixel(near[0], y), image.pixel(near[1], y));
        for channel in 0..3 {
            let [left, right] = [left, right].map(|pixel| i32::from(pixel[channel]));
            row.push(left * weights[0] + right * weights[1]);
        }
    }
    row
}

/// The image at half its size: means of two by two pixels.
fn halve(image: &Image) -> Image {
    let (width, height) = (image.width / 2, image.height / 2);
    let mut pixels = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            for channel in 0..3 {
                let at = |dx, dy| u32::from(image.pixel(2 * x + dx, 2 * y + dy)[channel]);
                pixels.push(((at(0, 0) + at(1, 0) + at(0, 1) + at(1, 1) + 2) / 4) as u8);
            }
        }
    }
    Image { width, height, pixels }
}
