//! The kernels of normalised heads, on the device.

#![allow(clippy::too_many_arguments, reason = "a kernel has an argument for each tensor")]

use cubecl::prelude::*;

use super::super::rows::{Units, first_row, step, sum_across, sum_down, total};
use crate::plain::EPSILON;

/// Heads of a stream, normalised and scaled, at the tokens from `start` on.
#[cube(launch)]
pub(super) fn forward<F: Float, S: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    scale: &Tensor<Vector<S, N>>,
    heads: &mut Tensor<Vector<F, N>>,
    start: usize,
    #[comptime] units: Units,
    #[define(F, S)] _dtypes: [StorageType; 2],
) {
    let mut scratch = SharedMemory::<f32>::new(comptime!(units.count()));
    let width = scale.shape(0);
    let vectors = width / N::value();
    let rows = x.shape(0) * x.shape(1) * heads.shape(1);
    let mut first = first_row(units);
    while first < rows {
        // Units without a row repeat the last one, so that all of them take part in the sums.
        let row = first + UNIT_POS_Y as usize;
        let repeated = min(row, rows - 1);
        let from = in_stream(x, repeated, width) / N::value();
        let per_rms = per_rms_of::<F, N>(x, from, width, &mut scratch, units);
        if row < rows {
            let to = in_heads(heads, x, row, start) / N::value();
            let mut i = UNIT_POS_X as usize;
            while i < vectors {
                let scaled = Vector::<f32, N>::cast_from(scale[i]) * Vector::new(per_rms);
                let result = Vector::<f32, N>::cast_from(x[from + i]) * scaled;
                heads[to + i] = Vector::cast_from(result);
                i += units.across;
            }
        }
        first += step(units);
    }
}

/// Gradient of a stream's `x`; `r` of each row.
#[cube(launch)]
pub(super) fn of_rows<F: Float, S: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    scale: &Tensor<Vector<S, N>>,
    gradient: &Tensor<Vector<F, N>>,
    of_x: &mut Tensor<Vector<F, N>>,
    per_rms_of_rows: &mut Tensor<f32>,
    start: usize,
    #[comptime] units: Units,
    #[define(F, S)] _dtypes: [StorageType; 2],
) {
    let mut scratch = SharedMemory::<f32>::new(comptime!(units.count()));
    let width = scale.shape(0);
    let vectors = width / N::value();
    let rows = x.shape(0) * x.shape(1) * gradient.shape(1);
    let mut first = first_row(units);
    while first < rows {
        let row = first + UNIT_POS_Y as usize;
        let repeated = min(row, rows - 1);
        let from = in_stream(x, repeated, width) / N::value();
        let gradient_from = in_heads(gradient, x, repeated, start) / N::value();
        let per_rms = per_rms_of::<F, N>(x, from, width, &mut scratch, units);

        let mut sum = Vector::<f32, N>::new(0.0);
        let mut i = UNIT_POS_X as usize;
        while i < vectors {
            let of_y = Vector::<f32, N>::cast_from(gradient[gradient_from + i]);
            let of_normed = of_y * Vector::<f32, N>::cast_from(scale[i]);
            sum += of_normed * Vector::<f32, N>::cast_from(x[from + i]);
            i += units.across;
        }
        let mean = sum_across(&mut scratch, total::<N>(sum), units) / f32::cast_from(width);
        let along = mean * per_rms * per_rms;

        if row < rows {
            if UNIT_POS_X == 0 {
                per_rms_of_rows[row] = per_rms;
            }
            let to = row * vectors;
            let mut j = UNIT_POS_X as usize;
            while j < vectors {
                let of_y = Vector::<f32, N>::cast_from(gradient[gradient_from + j]);
                let of_normed = of_y * Vector::<f32, N>::cast_from(scale[j]);
                let parallel = Vector::<f32, N>::cast_from(x[from + j]) * Vector::new(along);
                let result = (of_normed - parallel) * Vector::new(per_rms);
                of_x[to + j] = Vector::cast_from(result);
                j += units.across;
            }
        }
        first += step(units);
    }
}

/// Sums of `dy·x·r` over the rows that each cube takes, `[cubes, w]`.
#[cube(launch)]
pub(super) fn sums_of_rows<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    gradient: &Tensor<Vector<F, N>>,
    per_rms_of_rows: &Tensor<f32>,
    sums: &mut Tensor<Vector<f32, N>>,
    start: usize,
    #[comptime] units: Units,
    #[define(F)] _dtype: StorageType,
) {
    let mut scratch = SharedMemory::<Vector<f32, N>>::new(comptime!(units.count()));
    let width = sums.shape(1);
    let vectors = width / N::value();
    let rows = per_rms_of_rows.shape(0);
    let mut start_of_features = 0;
    while start_of_features < vectors {
        let feature = start_of_features + UNIT_POS_X as usize;
        let mut sum = Vector::<f32, N>::new(0.0);
        if feature < vectors {
            let mut row = first_row(units) + UNIT_POS_Y as usize;
            while row < rows {
                let at = in_stream(x, row, width) / N::value() + feature;
                let gradient_at = in_heads(gradient, x, row, start) / N::value() + feature;
                let of_y = Vector::<f32, N>::cast_from(gradient[gradient_at]);
                let normed = Vector::<f32, N>::cast_from(x[at]) * Vector::new(per_rms_of_rows[row]);
                sum += of_y * normed;
                row += step(units);
            }
        }
        let all = sum_down::<N>(&mut scratch, sum, units);
        if UNIT_POS_Y == 0 && feature < vectors {
            sums[CUBE_POS * vectors + feature] = all;
        }
        start_of_features += units.across;
    }
}

/// Sum over the first dimension of `[parts, w]`. A cube has as many vectors as units side by side.
#[cube(launch)]
pub(super) fn sum_of_sums<S: Float, N: Size>(
    sums: &Tensor<Vector<f32, N>>,
    of_scale: &mut Tensor<Vector<S, N>>,
    #[comptime] units: Units,
    #[define(S)] _dtype: StorageType,
) {
    let mut scratch = SharedMemory::<Vector<f32, N>>::new(comptime!(units.count()));
    let vectors = sums.shape(1) / N::value();
    let mut start_of_features = CUBE_POS * units.across;
    while start_of_features < vectors {
        let feature = start_of_features + UNIT_POS_X as usize;
        let mut sum = Vector::<f32, N>::new(0.0);
        if feature < vectors {
            let mut part = UNIT_POS_Y as usize;
            while part < sums.shape(0) {
                sum += sums[part * vectors + feature];
                part += units.down;
            }
        }
        let all = sum_down::<N>(&mut scratch, sum, units);
        if UNIT_POS_Y == 0 && feature < vectors {
            of_scale[feature] = Vector::cast_from(all);
        }
        start_of_features += CUBE_COUNT * units.across;
    }
}

/// Offset of a row in a stream `[B, L, H·w]`, in numbers.
#[cube]
fn in_stream<T: CubePrimitive>(x: &Tensor<T>, row: usize, width: usize) -> usize {
    let length = x.shape(1);
    let heads = x.shape(2) / width;
    let token = row / heads;
    token / length * x.stride(0) + token % length * x.stride(1) + row % heads * width
}

/// Offset in `[B, H, L', w]` of a row of a stream `x` whose tokens begin at `start`, in numbers.
#[cube]
fn in_heads<T: CubePrimitive>(heads: &Tensor<T>, x: &Tensor<T>, row: usize, start: usize) -> usize {
    let length = x.shape(1);
    let count = heads.shape(1);
    let token = row / count;
    token / length * heads.stride(0)
        + row % count * heads.stride(1)
        + (start + token % length) * heads.stride(2)
}

/// `1 / √(mean(x²) + ε)` of the row that begins at the vector `from`.
#[cube]
fn per_rms_of<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    from: usize,
    width: usize,
    scratch: &mut SharedMemory<f32>,
    #[comptime] units: Units,
) -> f32 {
    let mut sum = Vector::<f32, N>::new(0.0);
    let mut i = UNIT_POS_X as usize;
    while i < width / N::value() {
        let number = Vector::<f32, N>::cast_from(x[from + i]);
        sum += number * number;
        i += units.across;
    }
    let mean_square = sum_across(scratch, total::<N>(sum), units) / f32::cast_from(width);
    1.0 / (mean_square + EPSILON).sqrt()
}
