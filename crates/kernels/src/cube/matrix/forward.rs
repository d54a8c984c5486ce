//! The forward pass on tensor cores, on the device.

#![allow(clippy::too_many_arguments, reason = "a kernel has an argument for each tensor")]

use cubecl::{ir::FastMath, prelude::*};

use super::{
    super::tile::{NO_KEY, head},
    fragments::{
        EIGHT, Layout, Sums, add_mixed, column, first, forget, load, products, row, store, zeros,
    },
};

/// Output and log-sum-exp of the queries of a tile.
#[cube(launch, fast_math = FastMath::ReducedPrecision | FastMath::NotNaN | FastMath::NotInf)]
pub(in crate::cube) fn forward<F: Float, N: Size, M: Size>(
    query: &Tensor<Vector<F, N>>,
    key: &Tensor<Vector<F, N>>,
    value: &Tensor<Vector<F, N>>,
    output: &mut Tensor<Vector<F, M>>,
    log_sum_exp: &mut Tensor<f32>,
    scale: f32,
    #[comptime] layout: Layout,
    #[define(F)] _dtype: StorageType,
) {
    let (rows, columns, pitch) = comptime!((layout.rows(), layout.columns, layout.pitch()));
    let mut queries = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(rows * pitch), 16usize);
    let mut keys = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(columns * pitch), 16usize);
    let mut values = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(columns * pitch), 16usize);

    let length = key.shape(2);
    let rows_of_unit = comptime!(2 * layout.blocks);
    let mut largest = Array::<f32>::new(rows_of_unit);
    let mut sum = Array::<f32>::new(rows_of_unit);
    let mut mixed = zeros(comptime!(layout.blocks * layout.vectors()));
    #[unroll]
    for r in 0..rows_of_unit {
        largest[r] = NO_KEY;
        sum[r] = 0.0;
    }
    load::<F, N>(&mut queries, query, first(layout), rows, layout);

    let mut start = 0;
    while start < length {
        sync_cube();
        load::<F, N>(&mut keys, key, start, columns, layout);
        load::<F, N>(&mut values, value, start, columns, layout);
        sync_cube();
        let mut scores = products::<F, N>(&queries, &keys, layout);
        forget(&mut scores, start, length, layout);
        let shrink = take_weights(&mut scores, &mut largest, &mut sum, scale, layout);
        #[unroll]
        for i in 0..comptime!(layout.blocks * layout.vectors()) {
            let block = comptime!(i / layout.vectors());
            let of_block = mixed.index_mut(i);
            of_block[0] = of_block[0] * Vector::new(shrink[comptime!(2 * block)]);
            of_block[1] = of_block[1] * Vector::new(shrink[comptime!(2 * block + 1)]);
        }
        add_mixed::<F, N>(&mut mixed, &scores, &values, layout);
        start += columns;
    }

    let mut factors = Array::<f32>::new(rows_of_unit);
    #[unroll]
    for r in 0..rows_of_unit {
        let all = across(sum[r], false);
        factors[r] = 1.0 / all;
        let (block, half) = comptime!((r / 2, r % 2));
        let token = first(layout) + row(block, layout) + half * EIGHT;
        if column() == 0 && token < log_sum_exp.shape(2) {
            log_sum_exp[head(log_sum_exp) + token] = largest[r] * scale + all.ln();
        }
    }
    store::<F, M>(output, &mixed, &factors, layout);
}

/// Turns scores into weights `exp(scale·(s − m'))`, updates the maximum of each row and this unit's
/// part of its sum, and returns `exp(scale·(m − m'))`, the factor of what was summed before.
#[cube]
fn take_weights(
    scores: &mut Sums,
    largest: &mut Array<f32>,
    sum: &mut Array<f32>,
    scale: f32,
    #[comptime] layout: Layout,
) -> Array<f32> {
    let tiles = comptime!(layout.column_tiles());
    let mut shrink = Array::<f32>::new(comptime!(2 * layout.blocks));
    #[unroll]
    for r in 0..comptime!(2 * layout.blocks) {
        let (block, half) = comptime!((r / 2, r % 2));
        let mut now = largest[r];
        #[unroll]
        for c in 0..tiles {
            let pair = scores.index(comptime!(block * tiles + c))[half];
            now = max(now, max(pair[0], pair[1]));
        }
        now = across(now, true);
        shrink[r] = ((largest[r] - now) * scale).exp();
        largest[r] = now;
        sum[r] *= shrink[r];
        #[unroll]
        for c in 0..tiles {
            let of_row = scores.index_mut(comptime!(block * tiles + c));
            let weights = ((of_row[half] - Vector::new(now)) * Vector::new(scale)).exp();
            sum[r] += weights[0] + weights[1];
            of_row[half] = weights;
        }
    }
    shrink
}

/// The sum or the maximum over the four units that share a row.
#[cube]
fn across(value: f32, #[comptime] largest: bool) -> f32 {
    let mut all = value;
    #[unroll]
    for i in 0..2u32 {
        let other = plane_shuffle_xor(all, comptime!(1 << i));
        if largest {
            all = max(all, other);
        } else {
            all += other;
        }
    }
    all
}
