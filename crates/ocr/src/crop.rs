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
    let map = inverse(to_rectangle(corners, width as f64, height as f64));
    let flat = warp(image, &map, width, height);
    if height as f64 / width as f64 >= 1.5 { quarter_turn(&flat) } else { flat }
}

/// The distance of two points.
pub(crate) fn distance(a: Point, b: Point) -> f32 {
    let [x, y] = [a[0] - b[0], a[1] - b[1]];
    (x * x + y * y).sqrt()
}

/// The map that sends four corners to the rectangle from `(0, 0)` to `(width, height)`.
///
/// ```text
/// u = (a·x + b·y + c) / (g·x + h·y + 1),  v likewise with d, e, f
/// ```
///
/// Eight linear equations, one per coordinate of a corner. Source: P. Heckbert, "Fundamentals of
/// texture mapping and image warping" (1989), section 2.2.3.
fn to_rectangle(corners: &[Point; 4], width: f64, height: f64) -> Homography {
    let targets = [[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]];
    let mut equations = [[0.0; 9]; 8];
    for (index, (corner, target)) in corners.iter().zip(targets).enumerate() {
        let [x, y] = corner.map(f64::from);
        let [u, v] = target;
        equations[index] = [x, y, 1.0, 0.0, 0.0, 0.0, -x * u, -y * u, u];
        equations[index + 4] = [0.0, 0.0, 0.0, x, y, 1.0, -x * v, -y * v, v];
    }
    let [a, b, c, d, e, f, g, h] = solve(equations);
    [[a, b, c], [d, e, f], [g, h, 1.0]]
}

/// Solves linear equations, each a row with its right side last, by elimination with row pivots.
///
/// Positions in a box often lie halfway between two steps, so the order of operations decides:
/// it is that of OpenCV's `solve`. Equations without a unique solution give NaN.
fn solve(mut rows: [[f64; 9]; 8]) -> [f64; 8] {
    for pivot in 0..8 {
        let larger = |best: usize, row: usize| {
            if rows[row][pivot].abs() > rows[best][pivot].abs() { row } else { best }
        };
        let best = (pivot + 1..8).fold(pivot, larger);
        rows.swap(pivot, best);
        let upper = rows[pivot];
        let scale = -1.0 / upper[pivot];
        for row in &mut rows[pivot + 1..] {
            let factor = row[pivot] * scale;
            for column in pivot + 1..9 {
                row[column] += factor * upper[column];
            }
        }
    }
    let mut solution = [0.0; 8];
    for row in (0..8).rev() {
        let known = (row + 1..8).fold(rows[row][8], |sum, k| sum - rows[row][k] * solution[k]);
        solution[row] = known / rows[row][row];
    }
    solution
}

/// The inverse of a map, by cofactors.
fn inverse([[a, b, c], [d, e, f], [g, h, i]]: Homography) -> Homography {
    let determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
    let scale = 1.0 / determinant;
    [
        [(e * i - f * h) * scale, (c * h - b * i) * scale, (b * f - c * e) * scale],
        [(f * g - d * i) * scale, (a * i - c * g) * scale, (c * d - a * f) * scale],
        [(d * h - e * g) * scale, (b * g - a * h) * scale, (a * e - b * d) * scale],
    ]
}

/// The image of `width` × `height` pixels that `map` takes from positions of the source.
///
/// Outside of the source, the nearest pixel of the border counts.
fn warp(image: &Image, map: &Homography, width: usize, height: usize) -> Image {
    let weights = weights();
    let steps = STEPS as i32;
    // OpenCV computes positions from the left end of a block.
    let block = (1024 / height.min(16)).min(width);
    let mut pixels = Vec::with_capacity(3 * width * height);
    for y in 0..height {
        for x in 0..width {
            let (left, within) = ((x - x % block) as f64, (x % block) as f64);
            let [u, v, w] =
                map.map(|row| row[0] * left + row[1] * y as f64 + row[2] + row[0] * within);
            let scale = if w == 0.0 { 0.0 } else { STEPS as f64 / w };
            let [u, v] = [u, v].map(|position| (position * scale).round_ties_even() as i32);
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
