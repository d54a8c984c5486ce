//! The kernels as compositions of tensor operations, which run on every backend.

use burn::tensor::{Tensor, activation, backend::Backend};

use crate::product::matmul;

/// Added to a mean square before the square root.
pub(crate) const EPSILON: f32 = 1e-6;

/// Plain composition of [`Kernels::modulated_norm`](crate::Kernels::modulated_norm).
pub fn modulated_norm<B: Backend>(
    x: Tensor<B, 2>,
    shift: Tensor<B, 2>,
    scale: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let shape = x.dims();
    (per_token(normalize(x), &shift) * (scale + 1.0) + shift).reshape(shape)
}

/// Plain composition of [`Kernels::gated_residual`](crate::Kernels::gated_residual).
pub fn gated_residual<B: Backend>(
    x: Tensor<B, 2>,
    branch: Tensor<B, 2>,
    gate: Tensor<B, 2>,
) -> Tensor<B, 2> {
    let shape = x.dims();
    x + (per_token(branch, &gate) * gate).reshape(shape)
}

/// Plain composition of [`Kernels::squared_relu`](crate::Kernels::squared_relu).
pub fn squared_relu<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let positive = activation::relu(x);
    positive.clone() * positive
}

/// Plain composition of [`Kernels::normalized_attention`](crate::Kernels::normalized_attention).
pub fn normalized_attention<B: Backend>(
    query: Tensor<B, 2>,
    key: Tensor<B, 2>,
    value: Tensor<B, 2>,
    query_scale: Tensor<B, 1>,
    key_scale: Tensor<B, 1>,
    rows: usize,
) -> Tensor<B, 2> {
    let [tokens_and_rows, d] = query.dims();
    let width = query_scale.dims()[0];
    let (length, heads) = (tokens_and_rows / rows, d / width);
    let features = |x: Tensor<B, 2>| x.reshape([length * rows * heads, width]);
    let split = |x: Tensor<B, 2>| x.reshape([length, rows * heads, width]).swap_dims(0, 1); // [B·heads, L, w]
    let query = normalize(features(query)) * (query_scale / (width as f64).sqrt()).unsqueeze();
    let key = normalize(features(key)) * key_scale.unsqueeze();
    let weights = activation::softmax(matmul(split(query), split(key).transpose()), 2); // [B·heads, L, L]
    let mixed = matmul(weights, split(value)); // [B·heads, L, w]
    mixed.swap_dims(0, 1).reshape([tokens_and_rows, d])
}

/// `x / √(mean(x²) + ε)` over the last dimension.
pub(crate) fn normalize<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let mean_square = (x.clone() * x.clone()).mean_dim(1);
    x / (mean_square + EPSILON).sqrt()
}

/// Reshapes `[L·B, D]` to `[L, B·D]`: the CPU backends have fast loops for broadcasts over all but
/// the last dimension.
fn per_token<B: Backend>(x: Tensor<B, 2>, conditioning: &Tensor<B, 2>) -> Tensor<B, 2> {
    x.reshape([-1, conditioning.dims()[1] as i32])
}
