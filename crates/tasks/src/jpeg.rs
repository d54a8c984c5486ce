//! The size of an image as a JPEG of quality 95, and a reward for small sizes.
//!
//! The bytes are counted, not kept. The reference code calls Pillow, and the file is the one that
//! Pillow writes by default: baseline, chroma at half the resolution (4:2:0), the tables of the
//! standard's annex K. Only the cosine transform differs: f32 here, integers in libjpeg-turbo.
//!
//! Source: ITU-T T.81 (1992); sampling and edges as libjpeg-turbo 3.2.

mod tables;

use std::{array, f32::consts::PI, sync::LazyLock};

use thiserror::Error;

use self::tables::{CHROMA, Codes, LUMA, Tables, ZIGZAG};
use crate::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, Unjudged},
};

/// Reward for small JPEGs: the size of the image in kB, divided by −500. Dense and easy to raise:
/// smooth images are small.
///
/// Source: the reward `jpeg_compressibility` of the reference code.
#[derive(Clone, Copy, Debug)]
pub struct JpegCompressibility;

impl Reward for JpegCompressibility {
    fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let score = |(index, image)| {
            let kilobytes = jpeg_kilobytes(image).map_err(|error| Unjudged::image(index, error))?;
            Ok(-kilobytes as f32 / 500.0)
        };
        images.iter().enumerate().map(score).collect()
    }
}

/// An image cannot be a JPEG.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum JpegError {
    /// The number of channels is not three.
    #[error("only RGB images can be JPEGs, this one has {0} channels")]
    NotRgb(usize),
    /// The image has more rows or columns than a JPEG can have, or none.
    #[error(
        "a JPEG has 1 to 65535 rows and columns, this image has {height} rows and {width} columns"
    )]
    Size {
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
    },
}

/// The size of an RGB image as a JPEG of quality 95, in kB (1000 bytes).
///
/// # Errors
/// If the image cannot be a JPEG.
pub fn jpeg_kilobytes(image: &Image) -> Result<f64, JpegError> {
    let (height, width) = (image.height, image.width);
    if image.channels != 3 {
        return Err(JpegError::NotRgb(image.channels));
    }
    if [height, width].iter().any(|side| !(1..=65535).contains(side)) {
        return Err(JpegError::Size { height, width });
    }
    let [luma, blue, red] = planes(image);
    let (blue, red) = (blue.halved(), red.halved());
    let mut scan = Scan::default();
    for row in 0..height.div_ceil(2 * SIDE) {
        for column in 0..width.div_ceil(2 * SIDE) {
            for (down, right) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                scan.write(0, &LUMA, luma.block(2 * row + down, 2 * column + right).as_ref());
            }
            scan.write(1, &CHROMA, blue.block(row, column).as_ref());
            scan.write(2, &CHROMA, red.block(row, column).as_ref());
        }
    }
    Ok((AROUND_THE_SCAN + scan.bits.finished()) as f64 / 1000.0)
}

/// Bytes outside the coefficients: JFIF header 20, quantisation 2 · 69, frame 19, Huffman codes 2 ·
/// (33 + 183), scan 14, end 2.
const AROUND_THE_SCAN: usize = 20 + 138 + 19 + 432 + 14 + 2;

/// Rows and columns of a block.
const SIDE: usize = 8;

type Block = [[f32; SIDE]; SIDE];

/// One component of an image, with values in `0..=255`.
struct Plane {
    height: usize,
    width: usize,
    values: Vec<i32>,
}

/// Converts an image to luma, blue chroma and red chroma (ITU-T T.871), in 16-bit fixed point.
fn planes(image: &Image) -> [Plane; 3] {
    const ROUND: i32 = 1 << 15;
    // Chroma rounds halves down; otherwise pure blue and pure red would give 256.
    const CENTRE: i32 = (128 << 16) + ROUND - 1;
    let (height, width) = (image.height, image.width);
    let byte = |value: f32| (value * 255.0).round_ties_even() as i32;
    let pixels =
        (0..height).flat_map(|row| (0..width).map(move |column| image.rgb(row, column).map(byte)));
    let pixels: Vec<[i32; 3]> = pixels.collect();
    let plane = |red: i32, green: i32, blue: i32, offset: i32| {
        let values = pixels
            .iter()
            .map(|[r, g, b]| (red * r + green * g + blue * b + offset) >> 16)
            .collect();
        Plane { height, width, values }
    };
    [
        plane(19_595, 38_470, 7471, ROUND),
        plane(-11_059, -21_709, 32_768, CENTRE),
        plane(32_768, -27_439, -5329, CENTRE),
    ]
}

impl Plane {
    /// Value at a position; the last row and the last column are repeated beyond the edge.
    fn at(&self, row: usize, column: usize) -> i32 {
        self.values[row.min(self.height - 1) * self.width + column.min(self.width - 1)]
    }

    /// Halves the resolution by means of 2 x 2 values, with columns up to whole blocks; halves are
    /// rounded down and up in turn, column by column.
    fn halved(&self) -> Self {
        let (height, width) =
            (self.height.div_ceil(2), self.width.div_ceil(2).next_multiple_of(SIDE));
        let mean = |row: usize, column: usize| {
            let sum: i32 = [(0, 0), (0, 1), (1, 0), (1, 1)]
                .map(|(down, right)| self.at(2 * row + down, 2 * column + right))
                .iter()
                .sum();
            (sum + 1 + column as i32 % 2) / 4
        };
        let values =
            (0..height).flat_map(|row| (0..width).map(move |column| mean(row, column))).collect();
        Self { height, width, values }
    }

    /// A block of values centred on 0; `None` if it begins outside the plane.
    fn block(&self, row: usize, column: usize) -> Option<Block> {
        let (top, left) = (row * SIDE, column * SIDE);
        let inside = top < self.height && left < self.width;
        inside.then(|| {
            array::from_fn(|y| array::from_fn(|x| (self.at(top + y, left + x) - 128) as f32))
        })
    }
}

/// Matrix of the cosine transform, `C[u][x] = c(u) · cos((2x + 1)uπ/16)`, `c(0) = 1`, otherwise √2:
/// √8 times the orthogonal matrix.
static COSINES: LazyLock<Block> = LazyLock::new(|| {
    let scale = |u: usize| if u == 0 { 1.0 } else { 2.0_f32.sqrt() };
    array::from_fn(|u| {
        array::from_fn(|x| scale(u) * ((2 * x + 1) as f32 * u as f32 * PI / 16.0).cos())
    })
});

/// Cosine transform in units of 1/8 (annex A.3.3), rounded where libjpeg-turbo rounds: rows to
/// quarters, then columns.
fn transformed(block: &Block) -> Block {
    let cosines = &*COSINES;
    let round = |x: f32| (x + 0.5).floor();
    let rows: Block = block.map(|row| cosines.map(|cosine| round(4.0 * dot(row, cosine)))); // [y][u]
    let columns: Block = array::from_fn(|u| rows.map(|row| row[u])); // [u][y]
    cosines.map(|cosine| columns.map(|column| round(dot(column, cosine) / 4.0)))
}

fn dot(a: [f32; SIDE], b: [f32; SIDE]) -> f32 {
    (0..SIDE).map(|i| a[i] * b[i]).sum()
}

/// Quantises a coefficient in units of 1/8 to the nearest number of steps.
fn quantised(eighths: f32, step: i32) -> i32 {
    let eighths = eighths as i32;
    eighths.signum() * ((eighths.abs() + 4 * step) / (8 * step))
}

/// The scan of Huffman-coded blocks (annex F.1.2).
#[derive(Default)]
struct Scan {
    bits: Bits,
    /// The mean (DC coefficient) of the last block of each component: means are coded as
    /// differences.
    mean: [i32; 3],
}

impl Scan {
    /// Codes a block; a block outside the image has the mean of the last block and no other
    /// coefficients.
    fn write(&mut self, component: usize, tables: &Tables, block: Option<&Block>) {
        let before = self.mean[component];
        let mut coefficients = [0; SIDE * SIDE];
        coefficients[0] = before;
        if let Some(block) = block {
            let frequencies = transformed(block);
            coefficients = array::from_fn(|i| {
                quantised(frequencies[ZIGZAG[i] / SIDE][ZIGZAG[i] % SIDE], tables.steps[i].into())
            });
        }
        self.mean[component] = coefficients[0];
        self.number(&tables.means, 0, coefficients[0] - before);
        let mut zeros = 0;
        for coefficient in &coefficients[1..] {
            if *coefficient == 0 {
                zeros += 1;
                continue;
            }
            (0..zeros / 16).for_each(|_| self.bits.push(tables.others.code(SIXTEEN_ZEROS)));
            self.number(&tables.others, zeros % 16, *coefficient);
            zeros = 0;
        }
        if zeros > 0 {
            self.bits.push(tables.others.code(END_OF_BLOCK));
        }
    }

    /// Writes the code for the zeros before a number and its bit length, then its bits.
    fn number(&mut self, codes: &Codes, zeros: u8, number: i32) {
        let bits = (i32::BITS - number.abs().leading_zeros()) as u8;
        self.bits.push(codes.code(zeros << 4 | bits));
        // A negative number is written as the complement of its absolute value.
        let written = if number < 0 { number + (1 << bits) - 1 } else { number };
        self.bits.push((written as u32, bits));
    }
}

/// Special symbols of the codes for all coefficients but the mean.
const SIXTEEN_ZEROS: u8 = 0xf0;
const END_OF_BLOCK: u8 = 0;

/// A stream of bits that counts its bytes.
#[derive(Default)]
struct Bits {
    bytes: usize,
    /// The last `waiting < 8` bits.
    pending: u32,
    waiting: u8,
}

impl Bits {
    /// Appends the lowest bits of a number, at most 16.
    fn push(&mut self, (number, bits): (u32, u8)) {
        self.pending = self.pending << bits | number;
        self.waiting += bits;
        while self.waiting >= 8 {
            self.waiting -= 8;
            let byte = self.pending >> self.waiting;
            self.pending &= (1 << self.waiting) - 1;
            // A byte of ones would begin a marker, so a byte of zeros follows it.
            self.bytes += if byte == 0xff { 2 } else { 1 };
        }
    }

    /// The number of bytes, with the last one padded with ones.
    fn finished(mut self) -> usize {
        self.push((0x7f, 7));
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(channels: usize, height: usize, width: usize, value: impl Fn(usize) -> f32) -> Image {
        Image {
            channels,
            height,
            width,
            pixels: (0..channels * height * width).map(value).collect(),
        }
    }

    #[test]
    fn the_reward_is_minus_the_kilobytes_over_500() {
        // Pillow 13.0.0 writes a black image of 24 x 24 in 643 bytes.
        let images = [drawn(3, 24, 24, |_| 0.0)];
        assert_eq!(jpeg_kilobytes(&images[0]), Ok(0.643));
        let prompt = Prompt::plain("");
        assert_eq!(JpegCompressibility.score(&images, &[&prompt]), Ok(vec![-0.643 / 500.0]));
    }

    #[test]
    fn noise_is_larger_than_one_colour() {
        let size =
            |value: &dyn Fn(usize) -> f32| jpeg_kilobytes(&drawn(3, 24, 24, value)).expect("RGB");
        assert!(size(&|i| (i * 37 % 101) as f32 / 100.0) > 2.0 * size(&|_| 0.5));
    }

    #[test]
    fn what_cannot_be_a_jpeg_is_refused_by_name() {
        assert_eq!(jpeg_kilobytes(&drawn(2, 1, 1, |_| 0.0)), Err(JpegError::NotRgb(2)));
        for (height, width) in [(0, 1), (1, 0), (65_536, 1), (1, 65_536)] {
            assert_eq!(
                jpeg_kilobytes(&drawn(3, height, width, |_| 0.0)),
                Err(JpegError::Size { height, width })
            );
        }
        let refused = JpegCompressibility.score(&[drawn(1, 1, 1, |_| 0.0)], &[]).expect_err("grey");
        assert_eq!(refused.to_string(), "only RGB images can be JPEGs, this one has 1 channels");
    }

    #[test]
    fn the_transform_keeps_lengths_and_gathers_a_constant_in_the_mean() {
        let mut constant: Block = [[0.0; SIDE]; SIDE];
        constant[0][0] = 8.0 * 8.0;
        assert_eq!(transformed(&[[1.0; SIDE]; SIDE]), constant);
        let block: Block =
            array::from_fn(|y| array::from_fn(|x| ((y * 8 + x) * 37 % 101) as f32 - 50.0));
        let length = |block: &Block| block.iter().flatten().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length(&transformed(&block)) / length(&block) / 8.0 - 1.0).abs() < 1e-3);
    }
}
