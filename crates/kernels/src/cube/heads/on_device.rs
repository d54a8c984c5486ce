//! The kernels of normalised heads, on the device.

#![allow(clippy::too_many_arguments, reason = "a kernel has an argument for each tensor")]

use cubecl::prelude::*;

use super::super::rows::{Units, first_row, step, sum_across, sum_down, total};
use crate::plain::EPSILON;

/// Query, key and value of every head of streams `a` and `b`.
#[cube(launch)]
pub(super) fn forward<F: Float, S: Float, N: Size>(
    a: &Tensor<Vector<F, N>>,
    b: &Tensor<Vector<F, N>>,
    query_scale_of_a: &Tensor<Vector<S, N>>,
    key_scale_of_a: &Tensor<Vector<S, N>>,
    query_scale_of_b: &Tensor<Vector<S, N>>,
    key_scale_of_b: &Tensor<Vector<S, N>>,
    query: &mut Tensor<Vector<F, N>>,
    key: &mut Tensor<Vector<F, N>>,
    value: &mut Tensor<Vector<F, N>>,
    #[comptime] normalised: bool,
    #[comptime] units: Units,
    #[define(F, S)] _dtypes: [StorageType; 2],
) {
    let mut scratch = SharedMemory::<f32>::new(comptime!(units.count()));
    if CUBE_POS_Z == 0 {
        write_stream(
            a,
            query_scale_of_a,
            key_scale_of_a,
            query,
            key,
            value,
            0usize,
            &mut scratch,
            normalised,
            units,
        );
    } else {
        write_stream(
            b,
            query_scale_of_b,
            key_scale_of_b,
            query,
            key,
            value,
            a.shape(1),
            &mut scratch,
            normalised,
            units,
        );
    }
}

/// The queries, keys or values, by the cube's `y`, of a stream whose tokens begin at `start`.
#[cube]
fn write_stream<F: Float, S: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    query_scale: &Tensor<Vector<S, N>>,
    key_scale: &Tensor<Vector<S, N>>,
    query: &mut Tensor<Vector<F, N>>,
    key: &mut Tensor<Vector<F, N>>,
    value: &mut Tensor<Vector<F, N>>,
    start: usize,
    scratch: &mut SharedMemory<f32>,
    #[comptime] normalised: bool,
    #[comptime] units: Units,
) {
    if CUBE_POS_Y == 0 {
        write(x, query_scale, query, 0usize, start, scratch, normalised, units);
    } else if CUBE_POS_Y == 1 {
        write(x, key_scale, key, 1usize, start, scratch, normalised, units);
    } else {
        write(x, key_scale, value, 2usize, start, scratch, false, units);
    }
}

/// Writes the queries (`part` 0), keys (1) or values (2) of a stream whose tokens begin at `start`.
#[cube]
fn write<F: Float, S: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    scale: &Tensor<Vector<S, N>>,
    heads: &mut Tensor<Vector<F, N>>,
    #[comptime] part: usize,
    start: usize,
    scratch: &mut SharedMemory<f32>,
    #[comptime] normalised: bool,
    #[comptime] units: Units,
) {
    let width = heads.shape(3);
    let vectors = width / N::value();
    let rows = x.shape(0) * x.shape(1) * heads.shape(1);
    let mut first = CUBE_POS_X as usize * units.down;
    while first < rows {
        // Units without a row repeat the last one, so that all of them take part in the sums.
        let row = first + UNIT_POS_Y as usize;
        let repeated = min(row, rows - 1);
        let from = in_stream(x, repeated, heads.shape(1), width, part) / N::value();
        let mut per_rms = 1.0f32;
        if comptime!(normalised) {
            per_rms = per_rms_of::<F, N>(x, from, width, scratch, units);
        }
        if row < rows {
            let to = in_heads(heads, x, row, start) / N::value();
            let mut i = UNIT_POS_X as usize;
            while i < vectors {
                if comptime!(normalised) {
                    let scaled = Vector::<f32, N>::cast_from(scale[i]) * Vector::new(per_rms);
                    let number = Vector::<f32, N>::cast_from(x[from + i]);
                    heads[to + i] = Vector::cast_from(number * scaled);
                } else {
                    heads[to + i] = x[from + i];
                }
                i += units.across;
            }
        }
        first += CUBE_COUNT_X as usize * units.down;
    }
}

/// Gradients of what is projected of streams `a` and `b`; `r` of each row of queries and keys if
/// `keeps` is set, `[streams, 2, rows]`.
#[cube(launch)]
pub(super) fn of_rows<F: Float, S: Float, N: Size>(
    a: &Tensor<Vector<F, N>>,
    b: &Tensor<Vector<F, N>>,
    query_scale_of_a: &Tensor<Vector<S, N>>,
    key_scale_of_a: &Tensor<Vector<S, N>>,
    query_scale_of_b: &Tensor<Vector<S, N>>,
    key_scale_of_b: &Tensor<Vector<S, N>>,
    of_query: &Tensor<Vector<F, N>>,
    of_key: &Tensor<Vector<F, N>>,
    of_value: &Tensor<Vector<F, N>>,
    of_a: &mut Tensor<Vector<F, N>>,
    of_b: &mut Tensor<Vector<F, N>>,
    kept: &mut Tensor<f32>,
    #[comptime] normalised: bool,
    #[comptime] keeps: bool,
    #[comptime] units: Units,
    #[define(F, S)] _dtypes: [StorageType; 2],
) {
    let mut scratch = SharedMemory::<f32>::new(comptime!(units.count()));
    let how = comptime!([normalised, keeps]);
    if CUBE_POS_Z == 0 {
        differentiate_stream(
            a,
            query_scale_of_a,
            key_scale_of_a,
            of_query,
            of_key,
            of_value,
            of_a,
            kept,
            0usize,
            &mut scratch,
            how,
            units,
        );
    } else {
        differentiate_stream(
            b,
            query_scale_of_b,
            key_scale_of_b,
            of_query,
            of_key,
            of_value,
            of_b,
            kept,
            a.shape(1),
            &mut scratch,
            how,
            units,
        );
    }
}

/// Gradient of the queries, keys or values, by the cube's `y`, of a stream whose tokens begin at
/// `start`.
#[cube]
fn differentiate_stream<F: Float, S: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    query_scale: &Tensor<Vector<S, N>>,
    key_scale: &Tensor<Vector<S, N>>,
    of_query: &Tensor<Vector<F, N>>,
    of_key: &Tensor<Vector<F, N>>,
    of_value: &Tensor<Vector<F, N>>,
    of_x: &mut Tensor<Vector<F, N>>,
    kept: &mut Tensor<f32>,
    start: usize,
    scratch: &mut SharedMemory<f32>,
    #[comptime] how: [bool; 2],
    #[comptime] units: Units,
) {
    if CUBE_POS_Y == 0 {
        differentiate(x, query_scale, of_query, of_x, kept, 0usize, start, scratch, how, units);
    } else if CUBE_POS_Y == 1 {
        differentiate(x, key_scale, of_key, of_x, kept, 1usize, start, scratch, how, units);
    } else {
        let copied = comptime!([false, false]);
        differentiate(x, key_scale, of_value, of_x, kept, 2usize, start, scratch, copied, units);
    }
}

/// Gradient of the queries (`part` 0), keys (1) or values (2) of a stream whose tokens begin at
/// `start`; `how` says whether they are normalised and whether `r` is kept.
#[cube]
fn differentiate<F: Float, S: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    scale: &Tensor<Vector<S, N>>,
    gradient: &Tensor<Vector<F, N>>,
    of_x: &mut Tensor<Vector<F, N>>,
    kept: &mut Tensor<f32>,
    #[comptime] part: usize,
    start: usize,
    scratch: &mut SharedMemory<f32>,
    #[comptime] how: [bool; 2],
    #[comptime] units: Units,
) {
    let [normalised, keeps] = comptime!(how);
    let width = gradient.shape(3);
    let vectors = width / N::value();
    let count = gradient.shape(1);
    let rows = x.shape(0) * x.shape(1) * count;
    let mut first = CUBE_POS_X as usize * units.down;
    while first < rows {
        let row = first + UNIT_POS_Y as usize;
        let repeated = min(row, rows - 1);
        let from = in_stream(x, repeated, count, width, part) / N::value();
        let gradient_from = in_heads(gradient, x, repeated, start) / N::value();
        let mut per_rms = 1.0f32;
        let mut along = 0.0f32;
        if comptime!(normalised) {
            per_rms = per_rms_of::<F, N>(x, from, width, scratch, units);
            let mut sum = Vector::<f32, N>::new(0.0);
            let mut i = UNIT_POS_X as usize;
            while i < vectors {
                let of_y = Vector::<f32, N>::cast_from(gradient[gradient_from + i]);
                let of_normed = of_y * Vector::<f32, N>::cast_from(scale[i]);
                sum += of_normed * Vector::<f32, N>::cast_from(x[from + i]);
                i += units.across;
            }
            let mean = sum_across(scratch, total::<N>(sum), units) / f32::cast_from(width);
            along = mean * per_rms * per_rms;
        }
        if row < rows {
            if comptime!(keeps) {
                if UNIT_POS_X == 0 {
                    let place = CUBE_POS_Z as usize * 2 + part;
                    kept[place * kept.shape(2) + row] = per_rms;
                }
            }
            let to = in_stream(of_x, row, count, width, part) / N::value();
            let mut j = UNIT_POS_X as usize;
            while j < vectors {
                if comptime!(normalised) {
                    let of_y = Vector::<f32, N>::cast_from(gradient[gradient_from + j]);
                    let of_normed = of_y * Vector::<f32, N>::cast_from(scale[j]);
                    let parallel = Vector::<f32, N>::cast_from(x[from + j]) * Vector::new(along);
                    let result = (of_normed - parallel) * Vector::new(per_rms);
                    of_x[to + j] = Vector::cast_from(result);
                } else {
                    of_x[to + j] = gradient[gradient_from + j];
                }
                j += units.across;
            }
        }
        first += CUBE_COUNT_X as usize * units.down;
    }
}

/// Sums of `dy·x·r` over the rows that each cube takes, `[cubes, w]`, for the queries (`part` 0) or keys
/// (1) of a stream.
#[cube(launch)]
pub(super) fn sums_of_rows<F: Float, N: Size>(
    x: &Tensor<Vector<F, N>>,
    gradient: &Tensor<Vector<F, N>>,
    per_rms_of_rows: &Tensor<f32>,
    sums: &mut Tensor<Vector<f32, N>>,
    start: usize,
    stream: usize,
    part: usize,
    #[comptime] units: Units,
    #[define(F)] _dtype: StorageType,
) {
    let mut scratch = SharedMemory::<Vector<f32, N>>::new(comptime!(units.count()));
    let width = sums.shape(1);
    let vectors = width / N::value();
    let count = gradient.shape(1);
    let rows = x.shape(0) * x.shape(1) * count;
    let place = (stream * 2 + part) * per_rms_of_rows.shape(2);
    let mut start_of_features = 0;
    while start_of_features < vectors {
        let feature = start_of_features + UNIT_POS_X as usize;
        let mut sum = Vector::<f32, N>::new(0.0);
        if feature < vectors {
            let mut row = first_row(units) + UNIT_POS_Y as usize;
            while row < rows {
                let at = in_stream(x, row, count, width, part) / N::value() + feature;
                let gradient_at = in_heads(gradient, x, row, start) / N::value() + feature;
                let of_y = Vector::<f32, N>::cast_from(gradient[gradient_at]);
                let per_rms = per_rms_of_rows[place + row];
                sum += of_y * Vector::<f32, N>::cast_from(x[at]) * Vector::new(per_rms);
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

/// Offset in a stream `[B, L, 3·H·w]` of a row of queries (`part` 0), keys (1) or values (2), in
/// numbers.
#[cube]
fn in_stream<T: CubePrimitive>(
    x: &Tensor<T>,
    row: usize,
    count: usize,
    width: usize,
    part: usize,
) -> usize {
    let length = x.shape(1);
    let token = row / count;
    token / length * x.stride(0)
        + token % length * x.stride(1)
        + (part * count + row % count) * width
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
