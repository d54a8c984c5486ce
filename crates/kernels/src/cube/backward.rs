//! The two kernels of the backward pass, on the device.

#![allow(clippy::too_many_arguments, reason = "a kernel has an argument for each tensor")]

use cubecl::prelude::*;

use super::tile::{
    ACROSS, PER_UNIT, Tile, Weights, across, add_mixed, first, head, load, products, share, store,
    top, zeros,
};

/// Gradient of the queries of a tile, and `δ = Σ dy·y` of each.
#[cube(launch)]
pub(super) fn of_queries<F: Float, N: Size>(
    query: &Tensor<Vector<F, N>>,
    key: &Tensor<Vector<F, N>>,
    value: &Tensor<Vector<F, N>>,
    output: &Tensor<Vector<F, N>>,
    gradient: &Tensor<Vector<F, N>>,
    log_sum_exp: &Tensor<f32>,
    delta: &mut Tensor<f32>,
    of_query: &mut Tensor<Vector<F, N>>,
    scale: f32,
    #[comptime] tile: Tile,
    #[define(F)] _dtype: StorageType,
) {
    let mut queries = SharedMemory::<Vector<f32, N>>::new(comptime!(tile.rows * tile.pitch()));
    let mut gradients = SharedMemory::<Vector<f32, N>>::new(comptime!(tile.rows * tile.pitch()));
    let mut keys = SharedMemory::<Vector<f32, N>>::new(comptime!(tile.columns * tile.pitch()));
    let mut values = SharedMemory::<Vector<f32, N>>::new(comptime!(tile.columns * tile.pitch()));
    let mut weights = SharedMemory::<Weights>::new(comptime!(tile.columns * tile.weights_pitch()));
    let mut scratch = SharedMemory::<f32>::new(comptime!(tile.rows * (ACROSS + 1)));

    let vectors = query.shape(3) / N::value();
    let columns = comptime!(tile.columns_per_unit());
    load::<F, N>(&mut queries, query, first(tile), scale, tile.rows, tile);
    load::<F, N>(&mut gradients, gradient, first(tile), 1.0, tile.rows, tile);
    sync_cube();
    let mut deltas = with_gradients::<F, N>(output, &gradients, vectors, tile);
    across(&mut scratch, &mut deltas, false);
    let mut factors = Array::<f32>::new(PER_UNIT);
    let mut logs = Array::<f32>::new(PER_UNIT);
    #[unroll]
    for r in 0..PER_UNIT {
        let token = first(tile) + top() + r;
        factors[r] = scale;
        logs[r] = log_sum_exp[head(log_sum_exp) + min(token, log_sum_exp.shape(2) - 1)];
        if UNIT_POS_X == 0 && token < delta.shape(2) {
            delta[head(delta) + token] = deltas[r];
        }
    }

    let mut mixed = zeros::<N>(tile);
    let length = key.shape(2);
    let mut start = 0;
    while start < length {
        sync_cube();
        load::<F, N>(&mut keys, key, start, 1.0, tile.columns, tile);
        load::<F, N>(&mut values, value, start, 1.0, tile.columns, tile);
        sync_cube();
        let mut of_scores = products::<N>(&queries, &keys, vectors, tile);
        let of_weights = products::<N>(&gradients, &values, vectors, tile);
        #[unroll]
        for r in 0..PER_UNIT {
            #[unroll]
            for c in 0..columns {
                let i = comptime!(r * columns + c);
                let inside = start + UNIT_POS_X as usize + c * ACROSS < length;
                let weight = select(inside, (of_scores[i] - logs[r]).exp(), 0.0);
                of_scores[i] = weight * (of_weights[i] - deltas[r]);
            }
        }
        share(&mut weights, &of_scores, tile);
        sync_cube();
        add_mixed::<N>(&mut mixed, &weights, &keys, vectors, tile);
        start += tile.columns;
    }
    store::<F, N>(of_query, &mixed, &factors, tile);
}

/// This unit's part of `Σ dy·y` for each of its rows, from the output and a tile of `dy`.
#[cube]
fn with_gradients<F: Float, N: Size>(
    output: &Tensor<Vector<F, N>>,
    gradients: &SharedMemory<Vector<f32, N>>,
    vectors: usize,
    #[comptime] tile: Tile,
) -> Array<f32> {
    let stride = output.stride(2) / N::value();
    let mut out = Array::<f32>::new(PER_UNIT);
    #[unroll]
    for r in 0..PER_UNIT {
        out[r] = 0.0;
        let token = first(tile) + top() + r;
        #[unroll]
        for c in 0..comptime!(tile.vectors_per_unit()) {
            let feature = UNIT_POS_X as usize + c * ACROSS;
            if token < output.shape(2) && feature < vectors {
                let at = head(output) / N::value() + token * stride + feature;
                let y = Vector::<f32, N>::cast_from(output[at]);
                out[r] += y.dot(gradients[(top() + r) * comptime!(tile.pitch()) + feature]);
            }
        }
    }
    out
}

/// Gradients of the keys and values of a tile. Rows are keys here and columns are queries.
#[cube(launch)]
pub(super) fn of_keys<F: Float, N: Size>(
    query: &Tensor<Vector<F, N>>,
    key: &Tensor<Vector<F, N>>,
    value: &Tensor<Vector<F, N>>,
    gradient: &Tensor<Vector<F, N>>,
    log_sum_exp: &Tensor<f32>,
    delta: &Tensor<f32>,
    of_key: &mut Tensor<Vector<F, N>>,
    of_value: &mut Tensor<Vector<F, N>>,
    scale: f32,
    #[comptime] tile: Tile,
    #[define(F)] _dtype: StorageType,
) {
    let mut keys = SharedMemory::<Vector<f32, N>>::new(comptime!(tile.rows * tile.pitch()));
    let mut values = SharedMemory::<Vector<f32, N>>::new(comptime!(tile.rows * tile.pitch()));
    let mut queries = SharedMemory::<Vector<f32, N>>::new(comptime!(tile.columns * tile.pitch()));
    let mut gradients = SharedMemory::<Vector<f32, N>>::new(comptime!(tile.columns * tile.pitch()));
    let mut weights = SharedMemory::<Weights>::new(comptime!(tile.columns * tile.weights_pitch()));

    let vectors = query.shape(3) / N::value();
    let columns = comptime!(tile.columns_per_unit());
    load::<F, N>(&mut keys, key, first(tile), 1.0, tile.rows, tile);
    load::<F, N>(&mut values, value, first(tile), 1.0, tile.rows, tile);
    let mut for_keys = zeros::<N>(tile);
    let mut for_values = zeros::<N>(tile);
    let length = query.shape(2);
    let mut start = 0;
    while start < length {
        sync_cube();
        load::<F, N>(&mut queries, query, start, scale, tile.columns, tile);
        load::<F, N>(&mut gradients, gradient, start, 1.0, tile.columns, tile);
        sync_cube();
        let mut of_scores = products::<N>(&keys, &queries, vectors, tile);
        let mut of_weights = products::<N>(&values, &gradients, vectors, tile);
        #[unroll]
        for c in 0..columns {
            let column = start + UNIT_POS_X as usize + c * ACROSS;
            let log = log_sum_exp[head(log_sum_exp) + min(column, length - 1)];
            let delta_of_column = delta[head(delta) + min(column, length - 1)];
            #[unroll]
            for r in 0..PER_UNIT {
                let i = comptime!(r * columns + c);
                let weight = select(column < length, (of_scores[i] - log).exp(), 0.0);
                of_scores[i] = weight * (of_weights[i] - delta_of_column);
                of_weights[i] = weight;
            }
        }
        share(&mut weights, &of_weights, tile);
        sync_cube();
        add_mixed::<N>(&mut for_values, &weights, &gradients, vectors, tile);
        sync_cube();
        share(&mut weights, &of_scores, tile);
        sync_cube();
        add_mixed::<N>(&mut for_keys, &weights, &queries, vectors, tile);
        start += tile.columns;
    }
    let mut factors = Array::<f32>::new(PER_UNIT);
    #[unroll]
    for r in 0..PER_UNIT {
        factors[r] = 1.0;
    }
    store::<F, N>(of_key, &for_keys, &factors, tile);
    store::<F, N>(of_value, &for_values, &factors, tile);
}
