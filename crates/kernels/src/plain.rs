//! The kernels as compositions of tensor operations, which run on every backend.

use burn::tensor::{
    FloatDType, Tensor, activation, backend::Backend, module::conv2d, ops::ConvOptions,
};

use crate::product::matmul;

/// Added to a mean square before the square root.
pub(crate) const EPSILON: f32 = 1e-6;

/// Factor of the cube in [`gelu_tanh`].
pub(crate) const GELU_CUBE: f32 = 0.044_715;

/// `√(2/π)`
pub(crate) const GELU_SLOPE: f32 = 0.797_884_6;

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

/// Plain composition of [`Kernels::add_gated`](crate::Kernels::add_gated).
pub fn add_gated<B: Backend>(
    x: Tensor<B, 3>,
    branch: Tensor<B, 3>,
    gate: Tensor<B, 3>,
) -> Tensor<B, 3> {
    x + branch * gate
}

/// Plain composition of [`Kernels::gelu_tanh`](crate::Kernels::gelu_tanh).
pub fn gelu_tanh<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let cube = x.clone() * x.clone() * x.clone();
    let inner = (x.clone() + cube * GELU_CUBE) * GELU_SLOPE;
    x * 0.5 * (inner.tanh() + 1.0)
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

/// Plain composition of [`Kernels::modulated_layer_norm`](crate::Kernels::modulated_layer_norm).
pub fn modulated_layer_norm<B: Backend>(
    x: Tensor<B, 3>,
    shift: Tensor<B, 3>,
    scale: Tensor<B, 3>,
) -> Tensor<B, 3> {
    let precision = FloatDType::from(x.dtype());
    let [x, shift, scale] = [x, shift, scale].map(|x| x.cast(FloatDType::F32));
    let centred = x.clone() - x.mean_dim(2);
    let variance = (centred.clone() * centred.clone()).mean_dim(2); // [B, L, 1]
    let normed = centred / (variance + EPSILON).sqrt();
    (normed * (scale + 1.0) + shift).cast(precision)
}

/// Plain composition of [`Kernels::split`](crate::Kernels::split).
pub fn split<B: Backend, const D: usize, const N: usize>(
    x: Tensor<B, D>,
    dim: usize,
    sizes: [usize; N],
) -> [Tensor<B, D>; N] {
    let [all, sum] = [x.dims()[dim], sizes.iter().sum()];
    assert_eq!(all, sum, "pieces of {sizes:?} along dimension {dim}");
    let mut from = 0;
    sizes.map(|size| {
        from += size;
        x.clone().narrow(dim, from - size, size)
    })
}

/// Plain composition of [`Kernels::group_norm_silu`](crate::Kernels::group_norm_silu).
pub fn group_norm_silu<B: Backend>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    groups: usize,
) -> Tensor<B, 4> {
    activation::silu(group_norm(x, weight, bias, groups))
}

/// Group norm with learned weight and bias, as in
/// [`Kernels::group_norm_silu`](crate::Kernels::group_norm_silu).
pub fn group_norm<B: Backend>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    groups: usize,
) -> Tensor<B, 4> {
    let (precision, shape) = (FloatDType::from(x.dtype()), x.dims());
    let [rows, channels, ..] = shape;
    assert!(channels.is_multiple_of(groups), "{channels} channels are not {groups} groups");
    let grouped: Tensor<B, 2> = x.cast(FloatDType::F32).reshape([(rows * groups) as i32, -1]);
    let centred = grouped.clone() - grouped.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let normed = centred / (variance + EPSILON).sqrt();
    normed.reshape(shape).cast(precision) * weight.reshape([1, -1, 1, 1])
        + bias.reshape([1, -1, 1, 1])
}

/// Plain composition of [`Kernels::convolution`](crate::Kernels::convolution).
pub fn convolution<B: Backend>(
    x: Tensor<B, 4>,
    weight: Tensor<B, 4>,
    bias: Tensor<B, 1>,
) -> Tensor<B, 4> {
    conv2d(x, weight, Some(bias), ConvOptions::new([1; 2], [1; 2], [1; 2], 1))
}

/// Panics unless each modulation (shift, scale, gate) is `[B, 1, D]` for an `x` `[B, L, D]`.
#[cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]
pub(crate) fn check_modulation<B: Backend, const N: usize>(
    x: &Tensor<B, 3>,
    modulations: [&Tensor<B, 3>; N],
) {
    let [rows, _, features] = x.dims();
    for modulation in modulations {
        assert_eq!(modulation.dims(), [rows, 1, features], "modulation of {:?}", x.dims());
    }
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
