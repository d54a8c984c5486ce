//! Fused operations of a transformer block, and matrix products that are correct on every backend.
//!
//! [`Kernels`] is a backend extension. [`plain`] and [`product`] define each operation as a
//! composition of tensor operations. The CPU backends run the same formula as one loop over the
//! numbers, with a backward pass written by hand, because a composition of `n` operations reads and
//! writes its tensors `n` times. GPUs run the composition, except for attention, which is three
//! kernels (`cube`), because the composition writes a score for every pair of tokens.
//!
//! Knows nothing of models, conditioning or images. The fused path of the CPU backends takes f32
//! tensors only; other precisions take the plain path.

// Without a CPU backend there is nothing to fuse.
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod attention;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod elementwise;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod host;
pub mod plain;
pub mod product;
#[cfg(any(feature = "flex", feature = "ndarray"))]
mod simd;

use burn::tensor::{Tensor, backend::Backend};

/// The fused operations of a transformer block.
///
/// Rows are token-major: row `l·B + b` belongs to token `l` of sample `b`. Shift, scale and gate
/// are `[1, B·D]`, the same for every token.
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
