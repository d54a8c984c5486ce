//! Convolution with 3×3 weights by Winograd's method: a small tile of the result costs a quarter of
//! the products that its definition has.
//!
//! The image is cut into tiles of 6×6 pixels that overlap by 2. A linear map turns each tile into 36
//! numbers, another turns the weights of each pair of channels into 36. The product over channels
//! is then 36 independent matrix products, and a third map turns its 36 numbers into 4×4 pixels.
//!
//! Source: Lavin and Gray, arXiv 1509.09308, section 4: F(4×4, 3×3).
//!
//! Deviation: the paper's maps are those of the points 0, ±1, ±2 and ∞. With 0, ±1/√2, ±√2 and ∞ the
//! rounding error is half as large: 4 instead of 9 times that of the definition in f32.

// A function call per vector would cost more than the work on it.
#![allow(clippy::inline_always)]

use std::{
    array::from_fn,
    f32::consts::{FRAC_1_SQRT_2, SQRT_2},
};

use burn::tensor::{Tensor, TensorData, backend::Backend};
use rayon::prelude::*;
use wide::f32x8;

use crate::{
    host::{Host, primitive},
    simd::{LANES, load, padded},
};

/// Pixels of the result along a side of a tile.
const STEP: usize = 4;
/// Pixels of the image along a side of a tile.
const SIDE: usize = STEP + 2;
/// Numbers per tile.
const AREA: usize = SIDE * SIDE;
/// Tiles whose products are computed together, if an image has that many. With more, a thread needs
/// more memory and is no faster.
const TILES: usize = 128;

/// Map of the three weights along a side: their polynomial at the points 0, ±1/√2, ±√2 and ∞, over
/// the products of the differences of the points.
const OF_WEIGHTS: [[f32; 3]; SIDE] = [
    [1.0, 0.0, 0.0],
    [-2.0 / 3.0, -FRAC_1_SQRT_2 * 2.0 / 3.0, -1.0 / 3.0],
    [-2.0 / 3.0, FRAC_1_SQRT_2 * 2.0 / 3.0, -1.0 / 3.0],
    [1.0 / 6.0, SQRT_2 / 6.0, 1.0 / 3.0],
    [1.0 / 6.0, -SQRT_2 / 6.0, 1.0 / 3.0],
    [0.0, 0.0, 1.0],
];

/// Map of the pixels along a side of a tile of the image.
#[inline(always)]
fn of_pixels([a, b, c, d, e, f]: [f32x8; SIDE]) -> [f32x8; SIDE] {
    let near = [e - times(c, 2.0), times(d - times(b, 2.0), FRAC_1_SQRT_2)];
    let far = [e - times(c, 0.5), times(d - times(b, 0.5), SQRT_2)];
    [
        a - times(c, 2.5) + e,
        near[0] + near[1],
        near[0] - near[1],
        far[0] + far[1],
        far[0] - far[1],
        b - times(d, 2.5) + f,
    ]
}

/// Map of the products along a side of a tile to pixels of the result: a polynomial's coefficients
/// from its values at the points.
#[inline(always)]
fn to_pixels([a, b, c, d, e, f]: [f32x8; SIDE]) -> [f32x8; STEP] {
    let (near, far) = ([b + c, b - c], [d + e, d - e]);
    [
        a + near[0] + far[0],
        times(near[1], FRAC_1_SQRT_2) + times(far[1], SQRT_2),
        times(near[0], 0.5) + times(far[0], 2.0),
        times(near[1], FRAC_1_SQRT_2 / 2.0) + times(far[1], SQRT_2 * 2.0) + f,
    ]
}

/// Applies a map along the rows of the tile that `at(row, column)` reads, then along its columns.
// Constant bounds, because the compiler unrolls these loops; closures of `from_fn` it calls.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn along_both<'a, const N: usize>(
    at: impl Fn(usize, usize) -> &'a [f32],
    map: impl Fn([f32x8; SIDE]) -> [f32x8; N],
) -> [[f32x8; N]; N] {
    let mut rows = [[f32x8::ZERO; N]; SIDE];
    for i in 0..SIDE {
        let mut row = [f32x8::ZERO; SIDE];
        for j in 0..SIDE {
            row[j] = load(at(i, j));
        }
        rows[i] = map(row);
    }
    let mut both = [[f32x8::ZERO; N]; N];
    for j in 0..N {
        let mut column = [f32x8::ZERO; SIDE];
        for i in 0..SIDE {
            column[i] = rows[i][j];
        }
        let column = map(column);
        for i in 0..N {
            both[i][j] = column[i];
        }
    }
    both
}

#[inline(always)]
fn times(x: f32x8, factor: f32) -> f32x8 {
    x * f32x8::splat(factor)
}

/// Sizes of a convolution and of its tiles.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    outputs: usize,
    height: usize,
    width: usize,
    /// Tiles per row of tiles, whole vector registers of them.
    columns: usize,
    /// Rows of tiles per strip.
    rows: usize,
}

impl Sizes {
    /// Tiles per strip.
    fn tiles(&self) -> usize {
        self.rows * self.columns
    }

    /// Pixels of a channel.
    fn plane(&self) -> usize {
        self.height * self.width
    }
}

/// [`Kernels::convolution`](crate::Kernels::convolution) on the CPU.
pub(crate) fn forward<B: Host>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 4> {
    let ([images, inputs, height, width], [outputs, ..]) = (x.dims(), weight.dims());
    assert_eq!((weight.dims(), bias.dims()), ([outputs, inputs, 3, 3], [outputs]), "weights");
    let columns = padded(width.div_ceil(STEP));
    let rows = (TILES / columns).clamp(1, height.div_ceil(STEP));
    let sizes = Sizes { outputs, height, width, columns, rows };
    let device = x.device();
    let weight = weights(weight);
    let [x, bias] = [primitive(x), primitive(bias)];
    let (x, bias) = (B::values(&x), B::values(&bias));
    let mut y = vec![0.0; images * outputs * sizes.plane()];
    strips(&mut y, sizes).into_par_iter().for_each(|strip| {
        let image = &x[strip.image * inputs * sizes.plane()..][..inputs * sizes.plane()];
        let mut tiles = vec![0.0; inputs * AREA * sizes.tiles()];
        tiles
            .par_chunks_exact_mut(AREA * sizes.tiles())
            .zip(image.par_chunks_exact(sizes.plane()))
            .for_each(|(tiles, plane)| cut(tiles, plane, strip.first, sizes));
        let tiles = TensorData::new(tiles, [inputs, AREA, sizes.tiles()]);
        let tiles = Tensor::<B, 3>::from_data(tiles, &device).swap_dims(0, 1);
        let products = primitive(weight.clone().matmul(tiles)); // [36, outputs, tiles]
        let products = B::values(&products);
        strip.channels.into_par_iter().enumerate().for_each(|(channel, pixels)| {
            let products =
                from_fn(|i| &products[(i * outputs + channel) * sizes.tiles()..][..sizes.tiles()]);
            join(pixels, &products, bias[channel], sizes);
        });
    });
    Tensor::from_data(TensorData::new(y, [images, outputs, height, width]), &device)
}

/// Maps the weights, `[outputs, inputs, 3, 3]` to `[36, outputs, inputs]`.
fn weights<B: Backend>(weight: Tensor<B, 4>) -> Tensor<B, 3> {
    let [outputs, inputs, ..] = weight.dims();
    let map: Vec<f32> = OF_WEIGHTS
        .iter()
        .flat_map(|row| OF_WEIGHTS.iter().map(move |column| (row, column)))
        .flat_map(|(row, column)| row.iter().flat_map(move |a| column.iter().map(move |b| a * b)))
        .collect();
    let map = Tensor::<B, 2>::from_data(TensorData::new(map, [AREA, 9]), &weight.device());
    map.matmul(weight.reshape([outputs * inputs, 9]).transpose()).reshape([AREA, outputs, inputs])
}

/// Rows of tiles of an image.
struct Strip<'a> {
    image: usize,
    /// First row of tiles.
    first: usize,
    /// Pixels of the result, by channel.
    channels: Vec<&'a mut [f32]>,
}

/// Cuts a result `[B, outputs, H, W]` into strips.
fn strips(y: &mut [f32], sizes: Sizes) -> Vec<Strip<'_>> {
    let rows = sizes.rows * STEP;
    let mut all = vec![];
    for (image, y) in y.chunks_exact_mut(sizes.outputs * sizes.plane()).enumerate() {
        let mut strips: Vec<Strip<'_>> = (0..sizes.height.div_ceil(rows))
            .map(|index| Strip { image, first: index * sizes.rows, channels: vec![] })
            .collect();
        for channel in y.chunks_exact_mut(sizes.plane()) {
            for (strip, pixels) in strips.iter_mut().zip(channel.chunks_mut(rows * sizes.width)) {
                strip.channels.push(pixels);
            }
        }
        all.extend(strips);
    }
    all
}

/// Cuts a channel of an image into tiles and maps them.
///
/// # Shapes
/// `tiles`: `[36, tiles]`; `plane`: `[H, W]`
fn cut(tiles: &mut [f32], plane: &[f32], first: usize, sizes: Sizes) {
    let length = sizes.columns + LANES;
    // `lines[row][phase][t]` is pixel `4·t + phase − 1` of a row.
    let mut lines = vec![0.0; SIDE * STEP * length];
    let mut line = vec![0.0; STEP * length];
    for row in 0..sizes.rows {
        for (i, phases) in lines.chunks_exact_mut(STEP * length).enumerate() {
            // The row above the image wraps to one far below it.
            let y = ((first + row) * STEP + i).wrapping_sub(1);
            if y < sizes.height {
                line[1..=sizes.width].copy_from_slice(&plane[y * sizes.width..][..sizes.width]);
                spread(phases, &line, length);
            } else {
                phases.fill(0.0);
            }
        }
        for t in (0..sizes.columns).step_by(LANES) {
            let pixel =
                |i: usize, j: usize| &lines[(i * STEP + j % STEP) * length + t + j / STEP..];
            let numbers = along_both(pixel, of_pixels);
            for (index, value) in numbers.as_flattened().iter().enumerate() {
                let at = index * sizes.tiles() + row * sizes.columns + t;
                tiles[at..at + LANES].copy_from_slice(&value.to_array());
            }
        }
    }
}

/// Deals the pixels of a line out to four lines of `length`.
fn spread(phases: &mut [f32], line: &[f32], length: usize) {
    let (a, rest) = phases.split_at_mut(length);
    let (b, rest) = rest.split_at_mut(length);
    let (c, d) = rest.split_at_mut(length);
    for ((((four, a), b), c), d) in line.as_chunks::<STEP>().0.iter().zip(a).zip(b).zip(c).zip(d) {
        [*a, *b, *c, *d] = *four;
    }
}

/// Maps the products of a channel to pixels of the result.
///
/// # Shapes
/// `pixels`: `[rows of the strip, W]`; `products`: 36 times `[tiles]`
fn join(pixels: &mut [f32], products: &[&[f32]; AREA], bias: f32, sizes: Sizes) {
    let length = sizes.columns;
    let mut lines = vec![0.0; STEP * STEP * length];
    for (row, pixels) in pixels.chunks_mut(STEP * sizes.width).enumerate() {
        for t in (0..length).step_by(LANES) {
            let product = |i: usize, j: usize| &products[i * SIDE + j][row * length + t..];
            let values = along_both(product, to_pixels);
            for (line, value) in lines.chunks_exact_mut(length).zip(values.as_flattened()) {
                line[t..t + LANES].copy_from_slice(&(*value + f32x8::splat(bias)).to_array());
            }
        }
        for (pixels, phases) in
            pixels.chunks_exact_mut(sizes.width).zip(lines.chunks_exact(STEP * length))
        {
            gather(pixels, phases, length);
        }
    }
}

/// Deals the pixels of four lines of `length` back to one.
fn gather(pixels: &mut [f32], phases: &[f32], length: usize) {
    let (a, rest) = phases.split_at(length);
    let (b, rest) = rest.split_at(length);
    let (c, d) = rest.split_at(length);
    let (whole, last) = pixels.as_chunks_mut::<STEP>();
    let t = whole.len();
    for ((((four, a), b), c), d) in whole.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *four = [*a, *b, *c, *d];
    }
    for (pixel, line) in last.iter_mut().zip([a, b, c]) {
        *pixel = line[t];
    }
}
