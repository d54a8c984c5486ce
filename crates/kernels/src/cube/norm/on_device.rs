//! The kernels of the layer norm, on the device.

#![allow(clippy::too_many_arguments, reason = "a kernel has an argument for each tensor")]

use cubecl::prelude::*;

use super::super::rows::{Units, sum_across, sum_down, total};
use crate::plain::EPSILON;

/// The rows of each `y`, by the cube's `y`.
#[cube(launch)]
pub(super) fn forward<F: Float, N: Size>(
    x: &Sequence<Tensor<Vector<F, N>>>,
    shift: &Sequence<Tensor<Vector<F, N>>>,
    scale: &Sequence<Tensor<Vector<F, N>>>,
    y: &mut Sequence<Tensor<Vector<F, N>>>,
    #[comptime] units: Units,
    #[define(F)] _dtype: StorageType,
) {
    let mut scratch = SharedMemory::<f32>::new(comptime!(units.count()));
    #[unroll]
    for i in 0..comptime!(x.len()) {
        if CUBE_POS_Y == comptime!(i as u32) {
            let (x, shift, scale) = (x.index(i), shift.index(i), scale.index(i));
            write::<F, N>(x, shift, scale, y.index_mut(i), &mut scratch, units);
        }
    }
}

#[cube]
fn write<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    shift: &Tensor<Vector<F, N>>,
    scale: &Tensor<Vector<F, N>>,
    y: &mut Tensor<Vector<F, N>>,
    scratch: &mut SharedMemory<f32>,
    #[comptime] units: Units,
) {
    let rows = x.shape(0) * x.shape(1);
    let vectors = x.shape(2) / N::value();
    let mut first = CUBE_POS_X as usize * units.down;
    while first < rows {
        // Units without a row repeat the last one, so that all of them take part in the sums.
        let row = first + UNIT_POS_Y as usize;
        let repeated = min(row, rows - 1);
        let from = token(x, repeated) / N::value();
        let mean = mean_of::<F, N>(x, from, scratch, units);
        let per_std = per_std_of::<F, N>(x, from, mean, scratch, units);
        if row < rows {
            let shift_from = sample(shift, x, row) / N::value();
            let scale_from = sample(scale, x, row) / N::value();
            let to = token(y, row) / N::value();
            let mut i = UNIT_POS_X as usize;
            while i < vectors {
                let normed = normed_at::<F, N>(x, from + i, mean, per_std);
                let factor = factor_at::<F, N>(scale, scale_from + i);
                let result = normed * factor + Vector::<f32, N>::cast_from(shift[shift_from + i]);
                y[to + i] = Vector::cast_from(result);
                i += units.across;
            }
        }
        first += CUBE_COUNT_X as usize * units.down;
    }
}

/// Gradient of each `x`, by the cube's `y`; mean and `r` of each row if `keeps` is set.
#[cube(launch)]
pub(super) fn of_rows<F: Float, N: Size>(
    x: &Sequence<Tensor<Vector<F, N>>>,
    scale: &Sequence<Tensor<Vector<F, N>>>,
    gradient: &Sequence<Tensor<Vector<F, N>>>,
    of_x: &mut Sequence<Tensor<Vector<F, N>>>,
    statistics: &mut Sequence<Tensor<f32>>,
    #[comptime] keeps: bool,
    #[comptime] units: Units,
    #[define(F)] _dtype: StorageType,
) {
    let mut scratch = SharedMemory::<f32>::new(comptime!(units.count()));
    #[unroll]
    for i in 0..comptime!(x.len()) {
        if CUBE_POS_Y == comptime!(i as u32) {
            differentiate::<F, N>(
                x.index(i),
                scale.index(i),
                gradient.index(i),
                of_x.index_mut(i),
                statistics.index_mut(i),
                &mut scratch,
                keeps,
                units,
            );
        }
    }
}

#[cube]
fn differentiate<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    scale: &Tensor<Vector<F, N>>,
    gradient: &Tensor<Vector<F, N>>,
    of_x: &mut Tensor<Vector<F, N>>,
    statistics: &mut Tensor<f32>,
    scratch: &mut SharedMemory<f32>,
    #[comptime] keeps: bool,
    #[comptime] units: Units,
) {
    let rows = x.shape(0) * x.shape(1);
    let vectors = x.shape(2) / N::value();
    let width = f32::cast_from(x.shape(2));
    let mut first = CUBE_POS_X as usize * units.down;
    while first < rows {
        let row = first + UNIT_POS_Y as usize;
        let repeated = min(row, rows - 1);
        let from = token(x, repeated) / N::value();
        let gradient_from = token(gradient, repeated) / N::value();
        let scale_from = sample(scale, x, repeated) / N::value();
        let mean = mean_of::<F, N>(x, from, scratch, units);
        let per_std = per_std_of::<F, N>(x, from, mean, scratch, units);

        let mut sum = Vector::<f32, N>::new(0.0);
        let mut along = Vector::<f32, N>::new(0.0);
        let mut i = UNIT_POS_X as usize;
        while i < vectors {
            let factor = factor_at::<F, N>(scale, scale_from + i);
            let of_normed = Vector::<f32, N>::cast_from(gradient[gradient_from + i]) * factor;
            sum += of_normed;
            along += of_normed * normed_at::<F, N>(x, from + i, mean, per_std);
            i += units.across;
        }
        let mean_of_gradient = sum_across(scratch, total::<N>(sum), units) / width;
        let mean_along = sum_across(scratch, total::<N>(along), units) / width;

        if row < rows {
            if comptime!(keeps) {
                if UNIT_POS_X == 0 {
                    statistics[2 * row] = mean;
                    statistics[2 * row + 1] = per_std;
                }
            }
            let to = token(of_x, row) / N::value();
            let mut j = UNIT_POS_X as usize;
            while j < vectors {
                let factor = factor_at::<F, N>(scale, scale_from + j);
                let of_normed = Vector::<f32, N>::cast_from(gradient[gradient_from + j]) * factor;
                let normed = normed_at::<F, N>(x, from + j, mean, per_std);
                let inner = of_normed - Vector::new(mean_of_gradient);
                let result = (inner - normed * Vector::new(mean_along)) * Vector::new(per_std);
                of_x[to + j] = Vector::cast_from(result);
                j += units.across;
            }
        }
        first += CUBE_COUNT_X as usize * units.down;
    }
}

/// Gradients of shift and scale: sums over the tokens of a sample. A cube has as many vectors of
/// features as units side by side.
#[cube(launch)]
pub(super) fn of_columns<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    gradient: &Tensor<Vector<F, N>>,
    statistics: &Tensor<f32>,
    of_shift: &mut Tensor<Vector<F, N>>,
    of_scale: &mut Tensor<Vector<F, N>>,
    #[comptime] units: Units,
    #[define(F)] _dtype: StorageType,
) {
    let mut scratch = SharedMemory::<Vector<f32, N>>::new(comptime!(units.count()));
    let length = x.shape(1);
    let vectors = x.shape(2) / N::value();
    let across = comptime!(units.across);
    let parts = vectors.div_ceil(across);
    let mut part = CUBE_POS;
    while part < x.shape(0) * parts {
        let first = part / parts * length;
        let feature = part % parts * across + UNIT_POS_X as usize;
        let mut shift = Vector::<f32, N>::new(0.0);
        let mut scale = Vector::<f32, N>::new(0.0);
        if feature < vectors {
            let mut l = UNIT_POS_Y as usize;
            while l < length {
                let row = first + l;
                let from = token(gradient, row) / N::value() + feature;
                let of_y = Vector::<f32, N>::cast_from(gradient[from]);
                let mean = statistics[2 * row];
                let per_std = statistics[2 * row + 1];
                let at = token(x, row) / N::value() + feature;
                shift += of_y;
                scale += of_y * normed_at::<F, N>(x, at, mean, per_std);
                l += units.down;
            }
        }
        let all_of_shift = sum_down::<N>(&mut scratch, shift, units);
        let all_of_scale = sum_down::<N>(&mut scratch, scale, units);
        if UNIT_POS_Y == 0 && feature < vectors {
            let to = part / parts * vectors + feature;
            of_shift[to] = Vector::cast_from(all_of_shift);
            of_scale[to] = Vector::cast_from(all_of_scale);
        }
        part += CUBE_COUNT;
    }
}

/// Offset of a row in a tensor `[B, L, D]`, in numbers.
#[cube]
fn token<T: CubePrimitive>(of: &Tensor<T>, row: usize) -> usize {
    let length = of.shape(1);
    row / length * of.stride(0) + row % length * of.stride(1)
}

/// Offset in a tensor `[B, 1, D]` of the sample that a row of `x` belongs to, in numbers.
#[cube]
fn sample<T: CubePrimitive>(of: &Tensor<T>, x: &Tensor<T>, row: usize) -> usize {
    row / x.shape(1) * of.stride(0)
}

/// Mean of the row that begins at the vector `from`.
#[cube]
fn mean_of<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    from: usize,
    scratch: &mut SharedMemory<f32>,
    #[comptime] units: Units,
) -> f32 {
    let vectors = x.shape(2) / N::value();
    let mut sum = Vector::<f32, N>::new(0.0);
    let mut i = UNIT_POS_X as usize;
    while i < vectors {
        sum += Vector::<f32, N>::cast_from(x[from + i]);
        i += units.across;
    }
    sum_across(scratch, total::<N>(sum), units) / f32::cast_from(x.shape(2))
}

/// `1 / √(variance + ε)` of the row that begins at the vector `from`.
#[cube]
fn per_std_of<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    from: usize,
    mean: f32,
    scratch: &mut SharedMemory<f32>,
    #[comptime] units: Units,
) -> f32 {
    let vectors = x.shape(2) / N::value();
    let mut sum = Vector::<f32, N>::new(0.0);
    let mut i = UNIT_POS_X as usize;
    while i < vectors {
        let centred = Vector::<f32, N>::cast_from(x[from + i]) - Vector::new(mean);
        sum += centred * centred;
        i += units.across;
    }
    let variance = sum_across(scratch, total::<N>(sum), units) / f32::cast_from(x.shape(2));
    1.0 / (variance + EPSILON).sqrt()
}

/// `n` of the vector at a place.
#[cube]
fn normed_at<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    at: usize,
    mean: f32,
    per_std: f32,
) -> Vector<f32, N> {
    (Vector::<f32, N>::cast_from(x[at]) - Vector::new(mean)) * Vector::new(per_std)
}

/// `1 + scale` of the vector at a place.
#[cube]
fn factor_at<F: Float, N: Size>(scale: &Tensor<Vector<F, N>>, at: usize) -> Vector<f32, N> {
    Vector::<f32, N>::cast_from(scale[at]) + Vector::<f32, N>::new(1.0)
}
