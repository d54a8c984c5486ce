//! The forward pass, on the device.

#![allow(clippy::too_many_arguments, reason = "a kernel has an argument for each tensor")]

use cubecl::prelude::*;

use super::tile::{
    ACROSS, NO_KEY, PER_UNIT, Tile, Weights, across, add_mixed, first, head, load, products, share,
    store, top, zeros,
};

/// Output and log-sum-exp of the queries of a tile; the module says how.
#[cube(launch)]
pub(super) fn forward<F: Float, N: Size>(
    query: &Tensor<Vector<F, N>>,
    key: &Tensor<Vector<F, N>>,
    value: &Tensor<Vector<F, N>>,
    output: &mut Tensor<Vector<F, N>>,
    log_sum_exp: &mut Tensor<f32>,
    scale: f32,
    #[comptime] tile: Tile,
    #[define(F)] _dtype: StorageType,
) {
    let mut queries = SharedMemory::<Vector<f32, N>>::new(comptime!(tile.rows * tile.pitch()));
    // Keys, and then values.
    let mut others = SharedMemory::<Vector<f32, N>>::new(comptime!(tile.columns * tile.pitch()));
    let mut weights = SharedMemory::<Weights>::new(comptime!(tile.columns * tile.weights_pitch()));
    let mut scratch = SharedMemory::<f32>::new(comptime!(tile.rows * (ACROSS + 1)));

    let vectors = query.shape(3) / N::value();
    let length = key.shape(2);
    let mut largest = Array::<f32>::new(PER_UNIT);
    let mut sum = Array::<f32>::new(PER_UNIT);
    let mut mixed = zeros::<N>(tile);
    #[unroll]
    for r in 0..PER_UNIT {
        largest[r] = NO_KEY;
        sum[r] = 0.0;
    }
    load::<F, N>(&mut queries, query, first(tile), scale, tile.rows, tile);

    let mut start = 0;
    while start < length {
        sync_cube();
        load::<F, N>(&mut others, key, start, 1.0, tile.columns, tile);
        sync_cube();
        let mut scores = products::<N>(&queries, &others, vectors, tile);
        let shrink =
            take_weights(&mut scores, &mut largest, &mut sum, &mut scratch, start, length, tile);
        let features = comptime!(tile.vectors_per_unit());
        #[unroll]
        for i in 0..comptime!(PER_UNIT * features) {
            mixed[i] = mixed[i] * Vector::new(shrink[comptime!(i / features)]);
        }
        share(&mut weights, &scores, tile);
        load::<F, N>(&mut others, value, start, 1.0, tile.columns, tile);
        sync_cube();
        add_mixed::<N>(&mut mixed, &weights, &others, vectors, tile);
        start += tile.columns;
    }

    sync_cube();
    across(&mut scratch, &mut sum, false);
    let mut factors = Array::<f32>::new(PER_UNIT);
    #[unroll]
    for r in 0..PER_UNIT {
        factors[r] = 1.0 / sum[r];
        let token = first(tile) + top() + r;
        if UNIT_POS_X == 0 && token < log_sum_exp.shape(2) {
            log_sum_exp[head(log_sum_exp) + token] = largest[r] + sum[r].ln();
        }
    }
    store::<F, N>(output, &mixed, &factors, tile);
}

/// Turns scores into weights `exp(s − m')`, updates the maximum of each row and this unit's part of
/// its sum, and returns `exp(m − m')`, the factor of what was summed before.
#[cube]
fn take_weights(
    scores: &mut Array<f32>,
    largest: &mut Array<f32>,
    sum: &mut Array<f32>,
    scratch: &mut SharedMemory<f32>,
    start: usize,
    length: usize,
    #[comptime] tile: Tile,
) -> Array<f32> {
    let columns = comptime!(tile.columns_per_unit());
    let mut now = Array::<f32>::new(PER_UNIT);
    #[unroll]
    for r in 0..PER_UNIT {
        now[r] = largest[r];
        #[unroll]
        for c in 0..columns {
            if start + UNIT_POS_X as usize + c * ACROSS < length {
                now[r] = max(now[r], scores[comptime!(r * columns + c)]);
            }
        }
    }
    across(scratch, &mut now, true);
    let mut shrink = Array::<f32>::new(PER_UNIT);
    #[unroll]
    for r in 0..PER_UNIT {
        shrink[r] = (largest[r] - now[r]).exp();
        largest[r] = now[r];
        sum[r] *= shrink[r];
        #[unroll]
        for c in 0..columns {
            let i = comptime!(r * columns + c);
            let inside = start + UNIT_POS_X as usize + c * ACROSS < length;
            scores[i] = select(inside, (scores[i] - now[r]).exp(), 0.0);
            sum[r] += scores[i];
        }
    }
    shrink
}
