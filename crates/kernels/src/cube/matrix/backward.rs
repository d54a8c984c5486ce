//! The two kernels of the backward pass on tensor cores, on the device.

#![allow(clippy::too_many_arguments, reason = "a kernel has an argument for each tensor")]

use cubecl::{ir::FastMath, prelude::*};

use super::{
    super::tile::head,
    fragments::{
        EIGHT, Layout, PLANES, UNITS, add_mixed, column, first, forget, load, products, row, store,
        zeros,
    },
};

/// Gradient of the queries of a tile, and `δ = Σ dy·y` of each.
#[cube(launch, fast_math = FastMath::ReducedPrecision | FastMath::NotNaN | FastMath::NotInf)]
pub(in crate::cube) fn of_queries<F: Float, N: Size, M: Size>(
    query: &Tensor<Vector<F, N>>,
    key: &Tensor<Vector<F, N>>,
    value: &Tensor<Vector<F, N>>,
    output: &Tensor<Vector<F, N>>,
    gradient: &Tensor<Vector<F, N>>,
    log_sum_exp: &Tensor<f32>,
    delta: &mut Tensor<f32>,
    of_query: &mut Tensor<Vector<F, M>>,
    scale: f32,
    #[comptime] layout: Layout,
    #[define(F)] _dtype: StorageType,
) {
    let (rows, columns, pitch) = comptime!((layout.rows(), layout.columns, layout.pitch()));
    let mut queries = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(rows * pitch), 16usize);
    let mut gradients = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(rows * pitch), 16usize);
    let mut keys = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(columns * pitch), 16usize);
    let mut values = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(columns * pitch), 16usize);
    let mut deltas_of_tile = SharedMemory::<f32>::new(rows);

    load::<F, N>(&mut queries, query, first(layout), rows, layout);
    load::<F, N>(&mut gradients, gradient, first(layout), rows, layout);
    sync_cube();
    with_gradients::<F, N>(&mut deltas_of_tile, output, &gradients, delta, layout);
    sync_cube();
    let rows_of_unit = comptime!(2 * layout.blocks);
    let mut factors = Array::<f32>::new(rows_of_unit);
    let mut deltas = Array::<f32>::new(rows_of_unit);
    let mut logs = Array::<f32>::new(rows_of_unit);
    #[unroll]
    for r in 0..rows_of_unit {
        let (block, half) = comptime!((r / 2, r % 2));
        let of_tile = row(block, layout) + half * EIGHT;
        let token = min(first(layout) + of_tile, log_sum_exp.shape(2) - 1);
        factors[r] = scale;
        deltas[r] = deltas_of_tile[of_tile];
        logs[r] = log_sum_exp[head(log_sum_exp) + token];
    }

    let mut mixed = zeros(comptime!(layout.blocks * layout.vectors()));
    let length = key.shape(2);
    let mut start = 0;
    while start < length {
        sync_cube();
        load::<F, N>(&mut keys, key, start, columns, layout);
        load::<F, N>(&mut values, value, start, columns, layout);
        sync_cube();
        let mut of_scores = products::<F, N>(&queries, &keys, layout);
        forget(&mut of_scores, start, length, layout);
        let of_weights = products::<F, N>(&gradients, &values, layout);
        #[unroll]
        for i in 0..comptime!(layout.blocks * layout.column_tiles()) {
            let block = comptime!(i / layout.column_tiles());
            let scores = of_scores.index_mut(i);
            #[unroll]
            for half in 0..2usize {
                let r = comptime!(2 * block + half);
                let weights = (scores[half] * Vector::new(scale) - Vector::new(logs[r])).exp();
                scores[half] = weights * (of_weights.index(i)[half] - Vector::new(deltas[r]));
            }
        }
        add_mixed::<F, N>(&mut mixed, &of_scores, &keys, layout);
        start += columns;
    }
    store::<F, M>(of_query, &mixed, &factors, layout);
}

/// Writes `Σ dy·y` of the tile's rows to `deltas`, from the output and a tile of `dy`.
#[cube]
fn with_gradients<F: Float, N: Size>(
    deltas: &mut SharedMemory<f32>,
    output: &Tensor<Vector<F, N>>,
    gradients: &SharedMemory<Vector<F, N>>,
    delta: &mut Tensor<f32>,
    #[comptime] layout: Layout,
) {
    let features = output.shape(3) / N::value();
    let stride = output.stride(2) / N::value();
    let mut row = UNIT_POS as usize;
    while row < comptime!(layout.rows()) {
        let token = first(layout) + row;
        let mut sum = 0.0f32;
        if token < output.shape(2) {
            for feature in 0..features {
                let y = output[head(output) / N::value() + token * stride + feature];
                let dy = gradients[row * comptime!(layout.pitch()) + feature];
                sum += Vector::<f32, N>::cast_from(y).dot(Vector::<f32, N>::cast_from(dy));
            }
            delta[head(delta) + token] = sum;
        }
        deltas[row] = sum;
        row += comptime!(PLANES * UNITS);
    }
}

/// Gradients of the keys and values of a tile. Rows are keys here and columns are queries.
#[cube(launch, fast_math = FastMath::ReducedPrecision | FastMath::NotNaN | FastMath::NotInf)]
pub(in crate::cube) fn of_keys<F: Float, N: Size, M: Size>(
    query: &Tensor<Vector<F, N>>,
    key: &Tensor<Vector<F, N>>,
    value: &Tensor<Vector<F, N>>,
    gradient: &Tensor<Vector<F, N>>,
    log_sum_exp: &Tensor<f32>,
    delta: &Tensor<f32>,
    of_key: &mut Tensor<Vector<F, M>>,
    of_value: &mut Tensor<Vector<F, M>>,
    scale: f32,
    #[comptime] layout: Layout,
    #[define(F)] _dtype: StorageType,
) {
    let (rows, columns, pitch) = comptime!((layout.rows(), layout.columns, layout.pitch()));
    let mut keys = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(rows * pitch), 16usize);
    let mut values = SharedMemory::<Vector<F, N>>::new_aligned(comptime!(rows * pitch), 16usize);
    let mut queries =
        SharedMemory::<Vector<F, N>>::new_aligned(comptime!(columns * pitch), 16usize);
    let mut gradients =
        SharedMemory::<Vector<F, N>>::new_aligned(comptime!(columns * pitch), 16usize);
    let mut logs = SharedMemory::<f32>::new(columns);
    let mut deltas = SharedMemory::<f32>::new(columns);

    load::<F, N>(&mut keys, key, first(layout), rows, layout);
    load::<F, N>(&mut values, value, first(layout), rows, layout);
    let mut for_keys = zeros(comptime!(layout.blocks * layout.vectors()));
    let mut for_values = zeros(comptime!(layout.blocks * layout.vectors()));
    let length = query.shape(2);
    let mut start = 0;
    while start < length {
        sync_cube();
        load::<F, N>(&mut queries, query, start, columns, layout);
        load::<F, N>(&mut gradients, gradient, start, columns, layout);
        if (UNIT_POS as usize) < columns {
            let token = min(start + UNIT_POS as usize, length - 1);
            logs[UNIT_POS as usize] = log_sum_exp[head(log_sum_exp) + token];
            deltas[UNIT_POS as usize] = delta[head(delta) + token];
        }
        sync_cube();
        let mut of_scores = products::<F, N>(&keys, &queries, layout);
        forget(&mut of_scores, start, length, layout);
        let mut of_weights = products::<F, N>(&values, &gradients, layout);
        #[unroll]
        for i in 0..comptime!(layout.blocks * layout.column_tiles()) {
            let first = comptime!(i % layout.column_tiles() * EIGHT) + column();
            let scores = of_scores.index_mut(i);
            let weights = of_weights.index_mut(i);
            #[unroll]
            for half in 0..2usize {
                let (mut score, mut weight) = (scores[half], weights[half]);
                #[unroll]
                for e in 0..2usize {
                    let p = (score[e] * scale - logs[first + e]).exp();
                    score[e] = p * (weight[e] - deltas[first + e]);
                    weight[e] = p;
                }
                scores[half] = score;
                weights[half] = weight;
            }
        }
        add_mixed::<F, N>(&mut for_values, &of_weights, &gradients, layout);
        add_mixed::<F, N>(&mut for_keys, &of_scores, &queries, layout);
        start += columns;
    }
    let mut factors = Array::<f32>::new(comptime!(2 * layout.blocks));
    #[unroll]
    for r in 0..comptime!(2 * layout.blocks) {
        factors[r] = 1.0;
    }
    store::<F, M>(of_value, &for_values, &factors, layout);
    #[unroll]
    for r in 0..comptime!(2 * layout.blocks) {
        factors[r] = scale;
    }
    store::<F, M>(of_key, &for_keys, &factors, layout);
}
