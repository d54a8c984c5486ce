//! Matrix products that are correct on every backend, with the linear layer and the attention built
//! on them.
//!
//! `CubeCL`'s double-buffered products, on wgpu and cuda, read the inner dimension in pairs of
//! stages, but check for its end only if it is not a whole number of stages: if the number of
//! stages is odd, they add what lies beyond the end (tracel-ai/cubek issue 434; no version that
//! Burn 0.21 can use has the fix). A stage has 2 to 32 numbers, a power of two. On these backends
//! an even inner dimension is therefore padded with zeros to a multiple of 64; an odd one is never
//! a whole number of stages. In a product with a single row or column a stage can have 256 numbers:
//! such a side is padded by two rows or columns.
//!
//! In a differentiated product every side is the inner dimension of one of three products, the
//! forward one and two gradients, so all sides are padded. A linear layer with a frozen weight has
//! no gradient of it, and [`Kernels::linear_layer`](crate::Kernels::linear_layer) pads no rows.

use burn::tensor::{Tensor, activation, backend::Backend, module, ops::AttentionModuleOptions};

/// Matrix product `a·b`.
///
/// # Shapes
/// `a`: `[…, M, K]`; `b`: `[…, K, N]`; result: `[…, M, N]`
pub fn matmul<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    if fills_up::<B>(&a.device()) { filled_matmul(a, b) } else { a.matmul(b) }
}

/// Linear layer `x·W + b`.
///
/// # Shapes
/// `x`: `[…, M, inputs]`; `weight`: `[inputs, outputs]`; `bias`: `[outputs]`; result: `[…, M,
/// outputs]`
pub fn linear<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, D> {
    if fills_up::<B>(&x.device()) {
        filled_linear(x, weight, bias)
    } else {
        flat_linear(x, weight, bias)
    }
}

/// [`linear`] as one product of all rows. A batch of products would copy a transposed weight, as
/// that of every published model is, on each call.
fn flat_linear<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, D> {
    let mut dims = x.dims();
    let rows: Tensor<B, 2> = x.reshape([-1, dims[D - 1] as i32]);
    dims[D - 1] = weight.dims()[1];
    module::linear(rows, weight, bias).reshape(dims)
}

/// The rank that the factors of a product of low rank are padded to. They are small, and `x·A` is
/// not.
pub(crate) fn filled_rank<B: Backend>(device: &B::Device, rank: usize) -> usize {
    if fills_up::<B>(device) { filled_length(rank) } else { rank }
}

/// Attention `softmax(scale·q·kᵀ + bias)·v`, where `scale` is `1/√w` unless given.
///
/// # Shapes
/// `query`: `[B, heads, Q, w]`; `key`, `value`: `[B, heads, L, w]`; `bias`: `[B or 1, heads, Q,
/// L]`; result: `[B, heads, Q, w]`
pub fn attention<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    bias: Option<Tensor<B, 4>>,
    scale: Option<f64>,
) -> Tensor<B, 4> {
    let ([.., queries, width], [.., keys, _]) = (query.dims(), key.dims());
    let as_they_are = [queries, keys, width].iter().all(|&side| filled_length(side) == side);
    if as_they_are || !fills_up::<B>(&query.device()) {
        let options = AttentionModuleOptions { scale, ..AttentionModuleOptions::default() };
        return module::attention(query, key, value, None, bias, options);
    }
    filled_attention(query, key, value, bias, scale)
}

/// [`matmul`] with zero-padded sides, on any backend.
pub fn filled_matmul<B: Backend, const D: usize>(a: Tensor<B, D>, b: Tensor<B, D>) -> Tensor<B, D> {
    filled(a, b, Tensor::matmul)
}

/// A product `f(a, b)` of zero-padded factors, on any backend.
///
/// # Shapes
/// As in [`matmul`].
pub fn filled<B: Backend, const D: usize>(
    a: Tensor<B, D>,
    b: Tensor<B, D>,
    f: impl Fn(Tensor<B, D>, Tensor<B, D>) -> Tensor<B, D>,
) -> Tensor<B, D> {
    let (rows, columns) = (a.dims()[D - 2], b.dims()[D - 1]);
    cut(cut(f(fill_left(a), fill_right(b)), D - 2, rows), D - 1, columns)
}

/// [`linear`] with zero-padded sides, on any backend.
pub fn filled_linear<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, D> {
    filled_linear_by(x, weight, bias, |x, weight| module::linear(x, weight, None))
}

/// [`filled_linear`] whose product is `f(x, weight)` of the zero-padded factors.
pub(crate) fn filled_linear_by<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
    f: impl FnOnce(Tensor<B, D>, Tensor<B, 2>) -> Tensor<B, D>,
) -> Tensor<B, D> {
    let (rows, outputs) = (x.dims()[D - 2], weight.dims()[1]);
    let product = f(fill_left(x), fill_right(weight));
    let product = cut(cut(product, D - 2, rows), D - 1, outputs);
    match bias {
        Some(bias) => product + bias.unsqueeze(),
        None => product,
    }
}

/// [`attention`] by products with zero-padded sides, on any backend.
pub fn filled_attention<B: Backend>(
    query: Tensor<B, 4>,
    key: Tensor<B, 4>,
    value: Tensor<B, 4>,
    bias: Option<Tensor<B, 4>>,
    scale: Option<f64>,
) -> Tensor<B, 4> {
    let scale = scale.unwrap_or_else(|| (query.dims()[3] as f64).sqrt().recip());
    let scores = filled_matmul(query * scale, key.transpose()); // [B, heads, Q, L]
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    filled_matmul(activation::softmax(scores, 3), value)
}

/// Whether products are padded on this backend, as they are on the backends of `CubeCL`.
pub fn fills_up<B: Backend>(device: &B::Device) -> bool {
    B::name(device).contains("cubecl")
}

/// Whether a product pads no inner dimension of this length.
#[cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]
pub(crate) fn stays_as_it_is<B: Backend>(device: &B::Device, side: usize) -> bool {
    filled_length(side) == side || !fills_up::<B>(device)
}

/// Padded length of a side.
fn filled_length(side: usize) -> usize {
    match side {
        1 => 3,
        side if side.is_multiple_of(2) => side.next_multiple_of(64),
        side => side,
    }
}

/// Pads the left factor, `[…, M, K]`.
fn fill_left<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let x = fill(x, D - 1);
    if is_filled(&x, D - 2) { fill(x, D - 2) } else { x }
}

/// Pads the right factor, `[…, K, N]`.
fn fill_right<B: Backend, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let x = fill(x, D - 2);
    if is_filled(&x, D - 1) { fill(x, D - 1) } else { x }
}

/// Whether to pad a side other than the inner dimension of the forward product.
fn is_filled<B: Backend, const D: usize>(x: &Tensor<B, D>, dim: usize) -> bool {
    x.dims()[dim] == 1 || B::ad_enabled(&x.device())
}

fn fill<B: Backend, const D: usize>(x: Tensor<B, D>, dim: usize) -> Tensor<B, D> {
    let (dims, mut filled) = (x.dims(), x.dims());
    filled[dim] = filled_length(dims[dim]);
    if filled == dims {
        return x;
    }
    // Two kernels, where a concatenation takes three.
    Tensor::zeros(filled, (&x.device(), x.dtype())).slice_assign(dims.map(|side| 0..side), x)
}

fn cut<B: Backend, const D: usize>(x: Tensor<B, D>, dim: usize, length: usize) -> Tensor<B, D> {
    if x.dims()[dim] == length { x } else { x.narrow(dim, 0, length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_is_filled_up_is_an_even_number_of_stages_of_any_size_and_any_other_is_none() {
        for side in 1..300_usize {
            let filled = filled_length(side);
            assert!(filled >= side && filled < side + 64 && filled > 1);
            for stage in [2, 4, 8, 16, 32] {
                assert!(
                    !filled.is_multiple_of(stage) || filled.is_multiple_of(2 * stage),
                    "{side} becomes {filled}"
                );
            }
        }
    }
}
