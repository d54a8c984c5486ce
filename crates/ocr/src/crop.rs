//! Cutting a quadrilateral out of an image: a perspective transform with bicubic interpolation.
//!
//! Positions are rounded to 1/32 of a pixel and weights to 15 bits, as OpenCV's `warpPerspective`
//! does, so that a recogniser sees the same bytes.

use crate::{Image, Point};

/// Positions within a pixel that have weights of their own, per axis.
const STEPS: usize = 32;
/// One in the fixed point of the weights.
const ONE: i32 = 1 << 15;

/// A map of the projective plane, row by row.
type Homography = [[f64; 3]; 3];

/// Cuts out the box whose corners are `corners`: top left, top right, bottom right, bottom left.
///
/// The sides of the result are the longer ones of the two opposite sides of the box. If it is at
/// least 1.5 times as high as wide, it is turned a quarter counter-clockwise: such text usually
/// runs downwards.
///
/// Source: `get_rotate_crop_image` of PaddleOCR 2.9.1. A box that is thinner than a pixel gives a
/// side of one pixel.
pub(crate) fn crop(image: &Image, corners: &[Point; 4]) -> Image {
    let longer = |a: [usize; 2], b: [usize; 2]| {
        let side = |ends: [usize; 2]| distance(corners[ends[0]], corners[ends[1]]);
        (side(a).max(side(b)) as usize).max(1)
    };
    let (width, height) = (longer([0, 1], [2, 3]), longer([0, 3], [1, 2]));
    let flat = warp(image, &homography(width as f64, height as f64, corners), width, height);
    if height as f64 / width as f64 >= 1.5 { quarter_turn(&flat) } else { flat }
}

/// The distance of two points.
pub(crate) fn distance(a: Point, b: Point) -> f32 {
    let [x, y] = [a[0] - b[0], a[1] - b[1]];
    (x * x + y * y).sqrt()
}

/// The map that sends the rectangle from `(0, 0)` to `(width, height)` to four corners.
///
/// ```text
/// unit square → corners:  x = (a·u + b·v + c) / (g·u + h·v + 1), y likewise
/// ```
///
/// Source: P. Heckbert, "Fundamentals of texture mapping and image warping" (1989), section 2.2.3.
fn homography(width: f64, height: f64, corners: &[Point; 4]) -> Homography {
    let [p0, p1, p2, p3] = corners.map(|corner| corner.map(f64::from));
    let sum = [0, 1].map(|axis| p0[axis] - p1[axis] + p2[axis] - p3[axis]);
    let [d1, d2] = [p1, p3].map(|p| [p[0] - p2[0], p[1] - p2[1]]);
    let area = d1[0] * d2[1] - d2[0] * d1[1];
    let [g, h] = if area == 0.0 {
        [0.0, 0.0]
    } else {
        [(sum[0] * d2[1] - d2[0] * sum[1]) / area, (d1[0] * sum[1] - sum[0] * d1[1]) / area]
    };
    let row = |axis: usize| {
        let [a, b] = [p1[axis] - p0[axis] + g * p1[axis], p3[axis] - p0[axis] + h * p3[axis]];
        [a / width, b / height, p0[axis]]
    };
    [row(0), row(1), [g / width, h / height, 1.0]]
}

/// The image of `width` × `height` pixels that `map` takes from positions of the source.
///
/// Outside of the source, the nearest pixel of the border counts.
fn warp(image: &Image, map: &Homography, width: usize, height: usize) -> Image {
    let weights = weights();
    let mut pixels = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let [x, y] = [x as f64, y as f64];
            let [u, v, w] = map.map(|row| row[0] * x + row[1] * y + row[2]);
            let scale = if w == 0.0 { 0.0 } else { STEPS as f64 / w };
            let [u, v] = [u, v].map(|position| (position * scale).round_ties_even() as i32);
            let steps = STEPS as i32;
            let kernel = &weights[(v.rem_euclid(steps) * steps + u.rem_euclid(steps)) as usize];
            pixels.extend(sample(image, u.div_euclid(steps), v.div_euclid(steps), kernel));
        }
    }
    Image { width, height, pixels }
}

/// A pixel as the weighted sum of the 4 × 4 pixels around it; `(x, y)` is the second of each axis.
fn sample(image: &Image, x: i32, y: i32, kernel: &[i32; 16]) -> [u8; 3] {
    let inside = |position: i32, side: usize| position.clamp(0, side as i32 - 1) as usize;
    let mut sum = [ONE / 2; 3];
    for (index, weight) in kernel.iter().enumerate() {
        let column = x.saturating_add(index as i32 % 4 - 1);
        let row = y.saturating_add(index as i32 / 4 - 1);
        let pixel = image.pixel(inside(column, image.width), inside(row, image.height));
        for (sum, value) in sum.iter_mut().zip(pixel) {
            *sum += weight * i32::from(value);
        }
    }
    sum.map(|sum| (sum >> 15).clamp(0, 255) as u8)
}

/// The 4 × 4 weights of every position within a pixel, each summing to one exactly.
///
/// OpenCV stores a weight in 16 bits with sign, so one becomes 32767; the rest of the sum goes to
/// the largest or smallest of four weights at the centre.
fn weights() -> Vec<[i32; 16]> {
    let taps: Vec<[f32; 4]> = (0..STEPS).map(|step| cubic(step as f32 / STEPS as f32)).collect();
    let mut tables = Vec::with_capacity(STEPS * STEPS);
    for down in &taps {
        for across in &taps {
            let fixed = |index: usize| {
                let weight = down[index / 4] * across[index % 4] * ONE as f32;
                (weight.round_ties_even() as i32).clamp(-ONE, ONE - 1)
            };
            let mut table: [i32; 16] = std::array::from_fn(fixed);
            let excess = table.iter().sum::<i32>() - ONE;
            let (mut smallest, mut largest) = (10, 10);
            for index in [10, 11, 14, 15] {
                if table[index] < table[smallest] {
                    smallest = index;
                } else if table[index] > table[largest] {
                    largest = index;
                }
            }
            table[if excess < 0 { largest } else { smallest }] -= excess;
            tables.push(table);
        }
    }
    tables
}

/// The weights of four neighbours for a position `t` after the second one: Keys' cubic with
/// `a = −3/4`.
fn cubic(t: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let outer = |t: f32| ((A * (t + 1.0) - 5.0 * A) * (t + 1.0) + 8.0 * A) * (t + 1.0) - 4.0 * A;
    let inner = |t: f32| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let [first, second, third] = [outer(t), inner(t), inner(1.0 - t)];
    [first, second, third, 1.0 - first - second - third]
}

/// The image turned a quarter counter-clockwise.
fn quarter_turn(image: &Image) -> Image {
    let (width, height) = (image.height, image.width);
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for y in 0..height {
        for x in 0..width {
            pixels.extend(image.pixel(image.width - 1 - y, x));
        }
    }
    Image { width, height, pixels }
}
