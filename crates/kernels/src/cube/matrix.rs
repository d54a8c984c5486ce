//! The kernels on tensor cores: 16-bit tensors on CUDA.
//!
//! The same attention as the parent's, with its products computed 16 x 16 x 8 numbers at a time by
//! a plane (arXiv 2307.08691). Factors are the tensors' own 16 bits, in shared memory; the weights
//! and their gradients are rounded to 16 bits before they are factors. Sums, softmax and statistics
//! are f32, with the device's fast exponential.

mod backward;
mod forward;
mod fragments;

use burn::tensor::{DType, TensorMetadata};
use burn_cubecl::{
    CubeRuntime,
    cubecl::{
        CubeCount, CubeDim,
        features::MmaConfig,
        ir::{ElemType, FloatKind, StorageType},
    },
    tensor::CubeTensor,
};

use self::fragments::{EIGHT, Layout, PLANES, UNITS};
use super::{
    Attends, Saved,
    launch::{like, per_query},
    rows::readable,
};

/// Most features per head: with more, a plane's registers do not hold its sums.
const MOST_FEATURES: usize = 128;

/// Whether the device has tensor cores for heads of `width` features in this precision.
pub(super) fn takes<R: CubeRuntime>(device: &R::Device, dtype: DType, width: usize) -> bool {
    let kind = match dtype {
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => return false,
    };
    let [factor, sum] = [kind, FloatKind::F32].map(|kind| StorageType::from(ElemType::Float(kind)));
    let product = MmaConfig { a_type: factor, b_type: factor, cd_type: sum, m: 16, n: 8, k: 16 };
    let client = R::client(device);
    let units = &client.features().matmul;
    let exist = units.mma.contains(&product) && units.ldmatrix.contains(&factor);
    exist && width.is_multiple_of(EIGHT) && width <= MOST_FEATURES
}

/// Largest number of features for which registers hold the sums of twice as many rows or columns.
const FEW_FEATURES: usize = 64;

fn features(width: usize) -> usize {
    width.next_multiple_of(2 * EIGHT)
}

fn for_forward(width: usize) -> Layout {
    let features = features(width);
    Layout { blocks: if features <= FEW_FEATURES { 2 } else { 1 }, columns: 64, features }
}

fn for_backward(width: usize) -> Layout {
    let features = features(width);
    Layout { blocks: 1, columns: if features <= FEW_FEATURES { 64 } else { 32 }, features }
}

/// A cube per tile of `rows`, head and sample.
fn cubes<R: CubeRuntime>(rows: &CubeTensor<R>, layout: Layout) -> CubeCount {
    let [samples, heads, tokens, _] = rows.shape().dims::<4>();
    CubeCount::Static(tokens.div_ceil(layout.rows()) as u32, heads as u32, samples as u32)
}

fn units() -> CubeDim {
    CubeDim::new_2d(UNITS as u32, PLANES as u32)
}

/// [`Attends::forward`]
pub(super) fn forward<R: CubeRuntime>(
    inputs: [CubeTensor<R>; 3],
    scale: f32,
) -> [CubeTensor<R>; 2] {
    let [query, key, value] = inputs.map(|x| readable(x, EIGHT));
    let layout = for_forward(query.shape()[3]);
    let (output, log_sum_exp) = (like(&query), per_query(&query));
    forward::forward::launch::<R>(
        &query.client.clone(),
        cubes(&query, layout),
        units(),
        EIGHT,
        2,
        query.into_tensor_arg(),
        key.into_tensor_arg(),
        value.into_tensor_arg(),
        output.clone().into_tensor_arg(),
        log_sum_exp.clone().into_tensor_arg(),
        scale,
        layout,
        output.dtype.into(),
    );
    [output, log_sum_exp]
}

/// [`Attends::backward`]
pub(super) fn backward<R, B>(saved: Saved<B>, gradient: CubeTensor<R>) -> [CubeTensor<R>; 3]
where
    R: CubeRuntime,
    B: Attends<FloatTensorPrimitive = CubeTensor<R>>,
{
    let Saved { inputs, output, log_sum_exp, scale } = saved;
    let [query, key, value] = inputs.map(|x| readable(x, EIGHT));
    let [output, gradient] = [output, gradient].map(|x| readable(x, EIGHT));
    let layout = for_backward(query.shape()[3]);
    let delta = per_query(&query);
    let results = [&query, &key, &value].map(like);
    let [of_query, of_key, of_value] = results.clone();
    let dtype = query.dtype;
    backward::of_queries::launch::<R>(
        &query.client,
        cubes(&query, layout),
        units(),
        EIGHT,
        2,
        query.clone().into_tensor_arg(),
        key.clone().into_tensor_arg(),
        value.clone().into_tensor_arg(),
        output.into_tensor_arg(),
        gradient.clone().into_tensor_arg(),
        log_sum_exp.clone().into_tensor_arg(),
        delta.clone().into_tensor_arg(),
        of_query.into_tensor_arg(),
        scale,
        layout,
        dtype.into(),
    );
    backward::of_keys::launch::<R>(
        &key.client.clone(),
        cubes(&key, layout),
        units(),
        EIGHT,
        2,
        query.into_tensor_arg(),
        key.into_tensor_arg(),
        value.into_tensor_arg(),
        gradient.into_tensor_arg(),
        log_sum_exp.into_tensor_arg(),
        delta.into_tensor_arg(),
        of_key.into_tensor_arg(),
        of_value.into_tensor_arg(),
        scale,
        layout,
        dtype.into(),
    );
    results
}
