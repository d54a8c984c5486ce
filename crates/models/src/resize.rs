//! Bicubic resizing of images with antialiasing, exactly as Pillow does it for 8-bit images and
//! PyTorch for f32 images.
//!
//! Both resize the columns first and the rows after, with the same weights. Pillow computes with
//! integers of 22 fractional bits and rounds the image between the two passes to 8 bits.

use std::ops::Range;

use crate::rgb8::Rgb8;

/// Fractional bits of Pillow's integer weights: 32, less 8 for the pixel and 2 for the sum.
const FRACTION_BITS: u32 = 22;

/// Half the width of the bicubic filter, in pixels of the smaller image.
const SUPPORT: f64 = 2.0;

/// The bicubic filter with `a = −1/2` (Keys 1981):
///
/// ```text
/// w(x) = (a + 2)·|x|³ − (a + 3)·|x|² + 1            |x| < 1
///        a·|x|³ − 5a·|x|² + 8a·|x| − 4a             1 ≤ |x| < 2
///        0                                          otherwise
/// ```
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// The weights of one output position: the first input position, and a weight for it and each that
/// follows.
#[derive(Clone, Debug)]
struct Taps<W> {
    first: usize,
    weights: Vec<W>,
}

/// Weights of the output positions `wanted` of a line that is resized from `from` to `to` pixels;
/// their sum is 1. A line that shrinks by a factor is read through a filter that is wider by this
/// factor.
fn taps(from: usize, to: usize, wanted: Range<usize>) -> Vec<Taps<f64>> {
    let scale = from as f64 / to as f64;
    let widening = scale.max(1.0);
    let support = SUPPORT * widening;
    let of_position = |position: usize| {
        let centre = (position as f64 + 0.5) * scale;
        // A cast to an unsigned integer truncates, and negative numbers become 0.
        let first = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let at = |input: usize| bicubic((input as f64 - centre + 0.5) * (1.0 / widening));
        let mut weights: Vec<f64> = (first..end).map(at).collect();
        let sum: f64 = weights.iter().sum();
        for weight in &mut weights {
            *weight /= sum;
        }
        Taps { first, weights }
    };
    wanted.map(of_position).collect()
}

/// Rounds weights to integers of [`FRACTION_BITS`] fractional bits; halves go away from zero.
fn fixed(taps: Vec<Taps<f64>>) -> Vec<Taps<i32>> {
    let one = f64::from(1 << FRACTION_BITS);
    let round = |weight: f64| (weight * one + 0.5_f64.copysign(weight)) as i32;
    let of = |Taps { first, weights }| Taps {
        first,
        weights: Vec::into_iter(weights).map(round).collect(),
    };
    taps.into_iter().map(of).collect()
}

/// A part of an image: its rows and columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The rows.
    pub rows: Range<usize>,
    /// The columns.
    pub columns: Range<usize>,
}

impl Window {
    /// All rows and columns of an image.
    pub fn all([height, width]: [usize; 2]) -> Self {
        Self { rows: 0..height, columns: 0..width }
    }
}

/// Resizes an image to `size`, height and width, as Pillow's `Image.resize(size, BICUBIC)`, and
/// crops the result to `window`. Pixels outside the window are never computed.
///
/// Source: Pillow, `src/libImaging/Resample.c`.
///
/// # Panics
/// If the window is empty or not inside `size`.
pub fn resized(image: &Rgb8, size: [usize; 2], window: &Window) -> Rgb8 {
    assert!(window.rows.end <= size[0] && window.columns.end <= size[1], "{window:?} in {size:?}");
    let [columns, rows] = [
        (image.width(), size[1], window.columns.clone()),
        (image.height(), size[0], window.rows.clone()),
    ]
    .map(|(from, to, wanted)| fixed(taps(from, to, wanted)));
    // Only the rows that the second pass reads; Pillow skips the others too.
    let needed = span(&rows);
    let sum = |weights: &[i32], pixels: &[u8], stride: usize| {
        let half = 1_i64 << (FRACTION_BITS - 1);
        let terms = weights.iter().zip(pixels.iter().step_by(stride));
        let sum =
            terms.fold(half, |sum, (weight, pixel)| sum + i64::from(*weight) * i64::from(*pixel));
        (sum >> FRACTION_BITS).clamp(0, 255) as u8
    };
    let across = pass(image.pixels(), image.width(), needed.clone(), &columns, sum);
    let down = down(&across, columns.len(), needed.start, &rows, sum);
    Rgb8::new([rows.len(), columns.len()], down).expect("one byte per pixel and channel")
}

/// Resizes an image of f32 values to `size`, height and width, as torchvision's `resize` with
/// bicubic interpolation and antialiasing. Values may leave the range of the image.
///
/// Source: PyTorch, `aten/src/ATen/native/cpu/UpSampleKernel.cpp`.
///
/// # Shapes
/// `pixels`: `[H, W, 3]`, `from`: `[H, W]`; the result: `[size[0], size[1], 3]`
///
/// # Panics
/// If `pixels` has another length, or a side is zero.
pub fn resized_f32(pixels: &[f32], from: [usize; 2], size: [usize; 2]) -> Vec<f32> {
    assert_eq!(pixels.len(), 3 * from[0] * from[1], "pixels of an image of {from:?}");
    let sum = |weights: &[f64], pixels: &[f32], stride: usize| {
        let terms = weights.iter().zip(pixels.iter().step_by(stride));
        terms.map(|(weight, pixel)| *weight as f32 * pixel).sum::<f32>()
    };
    let columns = taps(from[1], size[1], 0..size[1]);
    let rows = taps(from[0], size[0], 0..size[0]);
    let across = pass(pixels, from[1], 0..from[0], &columns, sum);
    down(&across, size[1], 0, &rows, sum)
}

/// The input positions that some weights read.
fn span<W>(taps: &[Taps<W>]) -> Range<usize> {
    let first = taps.iter().map(|taps| taps.first).min().unwrap_or(0);
    first..taps.iter().map(|taps| taps.first + taps.weights.len()).max().unwrap_or(0)
}

/// Resizes the lines `rows` of an image of `width` columns. `sum` adds pixels, a stride apart, times
/// their weights.
fn pass<T: Copy, W>(
    pixels: &[T],
    width: usize,
    rows: Range<usize>,
    columns: &[Taps<W>],
    sum: impl Fn(&[W], &[T], usize) -> T,
) -> Vec<T> {
    let mut result = Vec::with_capacity(3 * rows.len() * columns.len());
    for row in rows {
        for taps in columns {
            let begin = 3 * (row * width + taps.first);
            result
                .extend([0, 1, 2].map(|channel| sum(&taps.weights, &pixels[begin + channel..], 3)));
        }
    }
    result
}

/// Resizes the columns of an image of `width` columns, whose first line is line `first`.
fn down<T: Copy, W>(
    pixels: &[T],
    width: usize,
    first: usize,
    rows: &[Taps<W>],
    sum: impl Fn(&[W], &[T], usize) -> T,
) -> Vec<T> {
    let line = 3 * width;
    let mut result = Vec::with_capacity(line * rows.len());
    for taps in rows {
        let begin = (taps.first - first) * line;
        result
            .extend((begin..begin + line).map(|index| sum(&taps.weights, &pixels[index..], line)));
    }
    result
}
