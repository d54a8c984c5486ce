//! Fused operations of a transformer block and of an autoencoder, and matrix products that are
//! correct on every backend.
//!
//! [`Kernels`] is a backend extension. [`plain`] and [`product`] define each operation as a
//! composition of tensor operations. The CPU backends run the same formula as one loop over the
//! numbers, with a backward pass written by hand, because a composition of `n` operations reads and
//! writes its tensors `n` times. GPUs have kernels (`cube`) for attention, whose composition writes
//! a score for every pair of tokens, and for the norms of large transformers; they run the
//! composition of everything else.
//!
//! Knows nothing of models, conditioning or images. The fused path of the CPU backends takes f32
//! tensors only, that of GPUs f32, f16 and bf16; other precisions take the plain path.

// Without a CPU backend there is nothing to fuse.
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod attention;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod attention_graph;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod convolution;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod elementwise;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]
mod frozen;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod group_norm;
pub mod heads;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod layer_norm;
pub mod low_rank;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]
mod outputs;
pub mod plain;
pub mod product;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]
mod pull;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod simd;
#[cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]
mod split;

use burn::tensor::{FloatDType, Tensor, backend::Backend};

/// The fused operations of a transformer block and of an autoencoder.
///
/// Where `x` is `[L·B, D]`, rows are token-major: row `l·B + b` belongs to token `l` of sample `b`.
/// Shift, scale and gate are `[1, B·D]`, the same for every token.
pub trait Kernels: Backend {
    /// Root-mean-square norm, then scale and shift.
    ///
    /// ```text
    /// y = x / √(mean(x²) + ε) · (1 + scale) + shift
    /// ```
    ///
    /// Source: arXiv 1910.07467 for the norm, arXiv 2212.09748 (adaLN) for the rest.
    ///
    /// # Shapes
    /// `x`: `[L·B, D]`; `shift`, `scale`: `[1, B·D]`; result: `[L·B, D]`
    fn modulated_norm(
        x: Tensor<Self, 2>,
        shift: Tensor<Self, 2>,
        scale: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        plain::modulated_norm(x, shift, scale)
    }

    /// Adds a gated branch: `x + branch·gate`.
    ///
    /// # Shapes
    /// `x`, `branch`: `[L·B, D]`; `gate`: `[1, B·D]`; result: `[L·B, D]`
    fn gated_residual(
        x: Tensor<Self, 2>,
        branch: Tensor<Self, 2>,
        gate: Tensor<Self, 2>,
    ) -> Tensor<Self, 2> {
        plain::gated_residual(x, branch, gate)
    }

    /// Squared ReLU, `max(x, 0)²` (arXiv 2109.08668), element by element.
    fn squared_relu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
        plain::squared_relu(x)
    }

    /// Adds a gated branch, `x + branch·gate`, with the same gate for every token of a sample.
    ///
    /// # Shapes
    /// `x`, `branch`: `[B, L, D]`; `gate`: `[B, 1, D]`; result: `[B, L, D]`
    fn add_gated(
        x: Tensor<Self, 3>,
        branch: Tensor<Self, 3>,
        gate: Tensor<Self, 3>,
    ) -> Tensor<Self, 3> {
        plain::add_gated(x, branch, gate)
    }

    /// GELU in its tanh form (arXiv 1606.08415, section 2), element by element.
    ///
    /// ```text
    /// y = x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))
    /// ```
    fn gelu_tanh<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
        plain::gelu_tanh(x)
    }

    /// Layer norm, then scale and shift, the same for every token of a sample.
    ///
    /// ```text
    /// y = (x − mean(x)) / √(variance(x) + ε) · (1 + scale) + shift        ε = 10⁻⁶
    /// ```
    ///
    /// Computes in f32; the result has the precision of `x`.
    ///
    /// Source: arXiv 1607.06450 for the norm, arXiv 2212.09748 (adaLN) for the rest.
    ///
    /// # Shapes
    /// `x`: `[B, L, D]`; `shift`, `scale`: `[B, 1, D]`; result: `[B, L, D]`
    fn modulated_layer_norm(
        x: Tensor<Self, 3>,
        shift: Tensor<Self, 3>,
        scale: Tensor<Self, 3>,
    ) -> Tensor<Self, 3> {
        plain::modulated_layer_norm(x, shift, scale)
    }

    /// [`Self::modulated_layer_norm`] of several tensors, each with its shift and scale.
    ///
    /// # Shapes
    /// As there for each; results in the order of `norms`
    fn modulated_layer_norms<const S: usize>(
        norms: [[Tensor<Self, 3>; 3]; S],
    ) -> [Tensor<Self, 3>; S] {
        norms.map(|[x, shift, scale]| Self::modulated_layer_norm(x, shift, scale))
    }

    /// Query, key and value of every head of one or several streams, the tokens of a stream after
    /// those of the stream before it. Queries and keys are RMS-normalised and scaled where the stream
    /// has scales.
    ///
    /// ```text
    /// y = x / √(mean(x²) + ε) · scale        over the w features of a head; ε = 10⁻⁶
    /// ```
    ///
    /// Computes in f32; the results have the precision of the streams.
    ///
    /// Source: arXiv 1910.07467 for the norm, arXiv 2403.03206, section 5.3.2, for its place.
    ///
    /// # Shapes
    /// `count`: `H`, the number of heads; stream `s`: `[B, L_s, 3·H·w]`; results: `[B, H, Σ L_s, w]`
    ///
    /// # Panics
    /// If the shapes are others.
    fn heads<const S: usize>(
        streams: [heads::Stream<Self>; S],
        count: usize,
    ) -> [Tensor<Self, 4>; 3] {
        heads::composed(streams, count)
    }

    /// Group norm with learned weight and bias, then SiLU.
    ///
    /// ```text
    /// y = z·σ(z)      z = (x − mean(x)) / √(variance(x) + ε) · weight + bias      ε = 10⁻⁶
    /// ```
    ///
    /// Mean and variance are those of a group, `C/groups` channels of an image. Computes in f32; the
    /// result has the precision of `x`.
    ///
    /// Source: arXiv 1803.08494 for the norm, arXiv 1606.08415 for SiLU.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`; `weight`, `bias`: `[C]`; result: `[B, C, H, W]`
    ///
    /// # Panics
    /// If `C` is not a multiple of `groups`.
    fn group_norm_silu(
        x: Tensor<Self, 4>,
        weight: Tensor<Self, 1>,
        bias: Tensor<Self, 1>,
        groups: usize,
    ) -> Tensor<Self, 4> {
        plain::group_norm_silu(x, weight, bias, groups)
    }

    /// Convolution with 3×3 weights that keeps the size of an image: the margin is one pixel of
    /// zeros.
    ///
    /// The CPU backends use Winograd's method (arXiv 1509.09308): a quarter of the multiplications,
    /// with a rounding error four times that of the definition in f32. A convolution that is
    /// differentiated is Burn's.
    ///
    /// # Shapes
    /// `x`: `[B, C, H, W]`; `weight`: `[outputs, C, 3, 3]`; `bias`: `[outputs]`; result: `[B, outputs,
    /// H, W]`
    ///
    /// # Panics
    /// If the shapes are others.
    fn convolution(
        x: Tensor<Self, 4>,
        weight: Tensor<Self, 4>,
        bias: Tensor<Self, 1>,
    ) -> Tensor<Self, 4> {
        plain::convolution(x, weight, bias)
    }

    /// A number whose backward pass brings `gradient` to `output`; what it is says nothing.
    ///
    /// Such numbers may be added to each other before the backward pass, and nothing else: it does
    /// not look at the gradient of the number, which is 1 then.
    ///
    /// # Shapes
    /// `gradient`: as `output`; result: `[1]`
    fn pulled<const D: usize>(
        output: Tensor<Self, D>,
        gradient: Tensor<Self, D>,
    ) -> Tensor<Self, 1> {
        (output * gradient).sum()
    }

    /// Pieces of a tensor along a dimension, in their order.
    ///
    /// On the backends with kernels the gradient of `x` is put together once from those of the pieces.
    ///
    /// # Shapes
    /// `sizes`: the length of each piece along `dim`
    ///
    /// # Panics
    /// If the sizes do not add up to the length of `x` along `dim`.
    fn split<const D: usize, const N: usize>(
        x: Tensor<Self, D>,
        dim: usize,
        sizes: [usize; N],
    ) -> [Tensor<Self, D>; N] {
        plain::split(x, dim, sizes)
    }

    /// A matrix of weights in another precision.
    ///
    /// # Shapes
    /// `weight` and the result: `[inputs, outputs]`
    fn in_precision(weight: Tensor<Self, 2>, precision: FloatDType) -> Tensor<Self, 2> {
        weight.cast(precision)
    }

    /// Linear layer `x·W + b`.
    ///
    /// Under autodiff, a weight that is not tracked costs no more than its products need on GPUs
    /// (see [`product`]).
    ///
    /// # Shapes
    /// `x`: `[…, M, inputs]`, at least two dimensions; `weight`: `[inputs, outputs]`; `bias`:
    /// `[outputs]`; result: `[…, M, outputs]`
    fn linear_layer<const D: usize>(
        x: Tensor<Self, D>,
        weight: Tensor<Self, 2>,
        bias: Option<Tensor<Self, 1>>,
    ) -> Tensor<Self, D> {
        product::linear(x, weight, bias)
    }

    /// Product with factors of low rank, of one layer or of several side by side, in the precision
    /// of `x`.
    ///
    /// ```text
    /// y = (x·[A₁ … A_N])·diag(s₁·B₁, …, s_N·B_N)
    /// ```
    ///
    /// Source: LoRA, arXiv 2106.09685, section 4.1.
    ///
    /// # Shapes
    /// `x`: `[…, M, inputs]`, at least two dimensions; result: `[…, M, outputs]`
    fn low_rank<const D: usize>(
        x: Tensor<Self, D>,
        factors: low_rank::Factors<Self>,
    ) -> Tensor<Self, D> {
        low_rank::composed(x, factors)
    }

    /// [`low_rank::Factors::ready`], in fewer steps where the backend has a kernel. Under autodiff the
    /// result has no graph.
    fn ready_factors(
        factors: &low_rank::Factors<Self>,
        precision: FloatDType,
    ) -> [Tensor<Self, 2>; 2] {
        factors.ready(precision)
    }

    /// [`low_rank::Factors::cut`], in fewer steps where the backend has a kernel.
    fn cut_factors(
        factors: &low_rank::Factors<Self>,
        of_joined: [Tensor<Self, 2>; 2],
    ) -> Vec<[Tensor<Self, 2>; 2]> {
        factors.cut(of_joined)
    }

    /// Softmax attention of every head of every sample.
    ///
    /// ```text
    /// y = softmax(q·kᵀ / √w)·v
    /// ```
    ///
    /// Source: arXiv 1706.03762, section 3.2.1. On wgpu and cuda, forward and backward pass use
    /// memory linear in the number of tokens.
    ///
    /// # Shapes
    /// `query`: `[B, heads, Q, w]`; `key`, `value`: `[B, heads, L, w]`; result: `[B, heads, Q, w]`
    fn softmax_attention(
        query: Tensor<Self, 4>,
        key: Tensor<Self, 4>,
        value: Tensor<Self, 4>,
    ) -> Tensor<Self, 4> {
        product::attention(query, key, value, None, None)
    }

    /// Softmax attention within each sample, with RMS-normalised queries and keys.
    ///
    /// ```text
    /// q̂ = q / rms(q) · query_scale / √w      k̂ = k / rms(k) · key_scale
    /// y = softmax(q̂·k̂ᵀ)·v
    /// ```
    ///
    /// Source: arXiv 2403.03206, section 4 (joint attention over text and image) and 5.3.2 (the
    /// normalisation).
    ///
    /// # Shapes
    /// `query`, `key`, `value`: `[L·B, D]`, where `D` holds the features of all heads one after the
    /// other; `query_scale`, `key_scale`: `[w]`, where `w` is the number of features per head;
    /// `rows`: `B`; result: `[L·B, D]`
    ///
    /// # Panics
    /// If `D` is not a multiple of `w`, or `L·B` is not a multiple of `rows`.
    fn normalized_attention(
        query: Tensor<Self, 2>,
        key: Tensor<Self, 2>,
        value: Tensor<Self, 2>,
        query_scale: Tensor<Self, 1>,
        key_scale: Tensor<Self, 1>,
        rows: usize,
    ) -> Tensor<Self, 2> {
        plain::normalized_attention(query, key, value, query_scale, key_scale, rows)
    }
}
