//! The kernels of factors of low rank, on the device: one number per unit and step.

#![allow(clippy::too_many_arguments, reason = "a kernel has an argument for each tensor")]

use cubecl::prelude::*;

/// The factors of all layers side by side, `[inputs, r]`, and one below the other along a diagonal,
/// `[r, outputs]`, with zeros in all other places. Cubes with `y` 0 write the first.
#[cube(launch)]
pub(super) fn join<T: Float, P: Float>(
    a: &Sequence<Tensor<T>>,
    b: &Sequence<Tensor<T>>,
    scales: &Sequence<f32>,
    from: &Sequence<usize>,
    joined_a: &mut Tensor<P>,
    joined_b: &mut Tensor<P>,
    #[define(T, P)] _dtypes: [StorageType; 2],
) {
    let step = CUBE_COUNT_X as usize * CUBE_DIM_X as usize;
    let mut i = CUBE_POS_X as usize * CUBE_DIM_X as usize + UNIT_POS_X as usize;
    if CUBE_POS_Y == 0 {
        let width = joined_a.shape(1);
        while i < joined_a.shape(0) * width {
            let (row, column) = (i / width, i % width);
            let mut value = f32::new(0.0);
            let mut first = 0usize;
            #[unroll]
            for layer in 0..comptime!(a.len()) {
                let of_layer = a.index(layer);
                let rank = of_layer.shape(1);
                if column >= first && column < first + rank {
                    let at = row * of_layer.stride(0) + (column - first) * of_layer.stride(1);
                    value = f32::cast_from(of_layer[at]);
                }
                first += rank;
            }
            joined_a[i] = P::cast_from(value);
            i += step;
        }
    } else {
        let width = joined_b.shape(1);
        while i < joined_b.shape(0) * width {
            let (row, column) = (i / width, i % width);
            let mut value = f32::new(0.0);
            let mut first = 0usize;
            #[unroll]
            for layer in 0..comptime!(b.len()) {
                let of_layer = b.index(layer);
                let (rank, outputs) = (of_layer.shape(0), of_layer.shape(1));
                let left = *from.index(layer);
                let here = row >= first && row < first + rank;
                if here && column >= left && column < left + outputs {
                    let at =
                        (row - first) * of_layer.stride(0) + (column - left) * of_layer.stride(1);
                    value = f32::cast_from(of_layer[at]) * *scales.index(layer);
                }
                first += rank;
            }
            joined_b[i] = P::cast_from(value);
            i += step;
        }
    }
}

/// Gradients of the factors of each layer, from that of the transposed first joined factor, `[r,
/// inputs]`, and that of the second, `[r, outputs]`. Cubes with another `y` write another factor.
#[cube(launch)]
pub(super) fn cut<P: Float, T: Float>(
    of_joined_a: &Tensor<P>,
    of_joined_b: &Tensor<P>,
    scales: &Sequence<f32>,
    from: &Sequence<usize>,
    a: &mut Sequence<Tensor<T>>,
    b: &mut Sequence<Tensor<T>>,
    #[define(P, T)] _dtypes: [StorageType; 2],
) {
    let step = CUBE_COUNT_X as usize * CUBE_DIM_X as usize;
    let begin = CUBE_POS_X as usize * CUBE_DIM_X as usize + UNIT_POS_X as usize;
    let mut first = 0usize;
    #[unroll]
    for layer in 0..comptime!(a.len()) {
        let of_a = a.index_mut(layer);
        let of_b = b.index_mut(layer);
        let rank = of_b.shape(0);
        let mut i = begin;
        if CUBE_POS_Y == comptime!(2 * layer as u32) {
            while i < of_a.shape(0) * rank {
                let at =
                    (first + i % rank) * of_joined_a.stride(0) + i / rank * of_joined_a.stride(1);
                of_a[i] = T::cast_from(of_joined_a[at]);
                i += step;
            }
        } else if CUBE_POS_Y == comptime!(2 * layer as u32 + 1) {
            let outputs = of_b.shape(1);
            let left = *from.index(layer);
            while i < rank * outputs {
                let at = (first + i / outputs) * of_joined_b.stride(0)
                    + (left + i % outputs) * of_joined_b.stride(1);
                let value = f32::cast_from(of_joined_b[at]) * *scales.index(layer);
                of_b[i] = T::cast_from(value);
                i += step;
            }
        }
        first += rank;
    }
}
