//! Layers that the published networks share. Normalisations compute in f32, whatever the precision
//! of the network.

use burn::{
    module::{Module, Param},
    prelude::*,
    tensor::{DType, FloatDType, module::conv2d, ops::ConvOptions},
};
use kernels::{Kernels, plain};

/// Applies `f` to `x` in f32 and casts back.
pub(crate) fn in_f32<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    f: impl FnOnce(Tensor<B, D>) -> Tensor<B, D>,
) -> Tensor<B, D> {
    match x.dtype() {
        DType::F32 => f(x),
        dtype => f(x.cast(FloatDType::F32)).cast(FloatDType::from(dtype)),
    }
}

/// Normalises to mean 0 and variance 1: `(x − mean) / √(variance + ε)` over the last dimension.
pub(crate) fn normalized<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    epsilon: f64,
) -> Tensor<B, D> {
    in_f32(x, |x| {
        let centred = x.clone() - x.mean_dim(D - 1);
        let variance = (centred.clone() * centred.clone()).mean_dim(D - 1);
        centred / (variance + epsilon).sqrt()
    })
}

/// RMS norm: `x / √(mean(x²) + ε)` over the last dimension, times a learned scale.
pub(crate) fn rms_normalized<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    scale: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, D> {
    in_f32(x, |x| {
        let mean_square = (x.clone() * x.clone()).mean_dim(D - 1);
        x / (mean_square + epsilon).sqrt() * scale.cast(FloatDType::F32).unsqueeze()
    })
}

/// Layer normalisation over features, with learned scale and shift.
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    pub(crate) weight: Param<Tensor<B, 1>>,
    pub(crate) bias: Param<Tensor<B, 1>>,
    #[module(skip)]
    pub(crate) epsilon: f64,
}

impl<B: Backend> LayerNorm<B> {
    /// Normalises the last dimension.
    ///
    /// # Shapes
    /// `x` and the result: `[…, features]`
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<B, D>) -> Tensor<B, D> {
        normalized(x, self.epsilon) * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}

/// Group normalisation over groups of channels, with learned scale and shift (arXiv 1803.08494).
#[derive(Module, Debug)]
pub struct GroupNorm<B: Backend> {
    pub(crate) weight: Param<Tensor<B, 1>>,
    pub(crate) bias: Param<Tensor<B, 1>>,
    #[module(skip)]
    pub(crate) groups: usize,
}

impl<B: Kernels> GroupNorm<B> {
    /// Normalises each group of channels.
    ///
    /// # Shapes
    /// `x` and the result: `[B, C, H, W]`
    pub(crate) fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        plain::group_norm(x, self.weight.val(), self.bias.val(), self.groups)
    }

    /// [`Self::forward`], then SiLU.
    ///
    /// # Shapes
    /// `x` and the result: `[B, C, H, W]`
    pub(crate) fn silu(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        B::group_norm_silu(x, self.weight.val(), self.bias.val(), self.groups)
    }
}

/// A convolution that keeps the size of an image.
#[derive(Module, Debug)]
pub struct Conv<B: Backend> {
    pub(crate) weight: Param<Tensor<B, 4>>,
    pub(crate) bias: Param<Tensor<B, 1>>,
}

impl<B: Kernels> Conv<B> {
    /// Convolves with stride 1.
    ///
    /// # Shapes
    /// `x`: `[B, inputs, H, W]`; the result: `[B, outputs, H, W]`
    pub(crate) fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        match self.weight.dims()[2] {
            3 => B::convolution(x, self.weight.val(), self.bias.val()),
            side => self.convolve(x, 1, side / 2),
        }
    }

    /// Convolves with stride 2, after one row of zeros at the bottom and one column at the right
    /// are added.
    ///
    /// # Shapes
    /// `x`: `[B, inputs, H, W]`; the result: `[B, outputs, H/2, W/2]`
    pub(crate) fn halved(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        self.convolve(x.pad((0, 1, 0, 1), 0.0), 2, 0)
    }

    fn convolve(&self, x: Tensor<B, 4>, stride: usize, margin: usize) -> Tensor<B, 4> {
        let options = ConvOptions::new([stride; 2], [margin; 2], [1; 2], 1);
        conv2d(x, self.weight.val(), Some(self.bias.val()), options)
    }
}

/// `[B, L, heads·w]` to `[B, heads, L, w]`
pub(crate) fn split_heads<B: Backend>(x: Tensor<B, 3>, heads: usize) -> Tensor<B, 4> {
    let [rows, length, features] = x.dims();
    x.reshape([rows, length, heads, features / heads]).swap_dims(1, 2)
}

/// `[B, heads, L, w]` to `[B, L, heads·w]`
pub(crate) fn join_heads<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 3> {
    let [rows, heads, length, width] = x.dims();
    x.swap_dims(1, 2).reshape([rows, length, heads * width])
}

/// Attention `softmax(q·kᵀ/√w)·v`.
///
/// # Shapes
/// all: `[B, heads, L, w]`
pub(crate) fn attend<B: Kernels>([query, key, value]: [Tensor<B, 4>; 3]) -> Tensor<B, 4> {
    B::softmax_attention(query, key, value)
}

/// The `N` modulations (shifts, scales, gates) that lie side by side in the outputs of their layers.
///
/// # Shapes
/// `outputs`: `[B, N·D]`; results: `[B, 1, D]`
pub(crate) fn modulations<B: Kernels, const N: usize>(outputs: Tensor<B, 2>) -> [Tensor<B, 3>; N] {
    let [rows, features] = outputs.dims();
    B::split(outputs.reshape([rows, N, features / N]), 1, [1; N])
}
