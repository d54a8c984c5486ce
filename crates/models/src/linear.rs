//! A linear layer that can carry a low-rank adapter.

use burn::{module::Param, prelude::*, tensor::FloatDType};
use kernels::product::{linear, low_rank, matmul};

/// A linear layer with an optional low-rank adapter.
///
/// ```text
/// y = x·W + b + (x·A)·(α/r·B)
/// ```
///
/// Source: LoRA, arXiv 2106.09685, section 4.1. Without an adapter the last term is absent, not
/// zero.
///
/// # Shapes
/// - `weight`: `[inputs, outputs]`, the transpose of PyTorch's; `bias`: `[outputs]`
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    /// `W`
    pub weight: Param<Tensor<B, 2>>,
    /// `b`
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// `A`, `B` and `α`
    pub adapter: Option<LowRank<B>>,
}

impl<B: Backend> LowRank<B> {
    /// `α/r`
    fn scale(&self) -> f64 {
        self.alpha / self.b.dims()[0] as f64
    }
}

/// The low-rank adapter of one linear layer.
///
/// # Shapes
/// - `a`: `[inputs, r]`; `b`: `[r, outputs]`: the transposes of PEFT's `lora_A` and `lora_B`
#[derive(Module, Debug)]
pub struct LowRank<B: Backend> {
    /// Down to rank `r`.
    pub a: Param<Tensor<B, 2>>,
    /// Up from rank `r`; initially zero, so that a fresh adapter changes nothing.
    pub b: Param<Tensor<B, 2>>,
    /// `α`
    #[module(skip)]
    pub alpha: f64,
}

impl<B: Backend> Linear<B> {
    /// A layer without an adapter.
    pub fn new(weight: Param<Tensor<B, 2>>, bias: Option<Param<Tensor<B, 1>>>) -> Self {
        Self { weight, bias, adapter: None }
    }

    // ANCHOR: linear
    /// Applies the layer, and its adapter if there is one.
    ///
    /// # Shapes
    /// - `input`: `[…, inputs]`; the result: `[…, outputs]`
    pub fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        let bias = self.bias.as_ref().map(Param::val);
        // Weights may be stored in fewer bits than the layer computes in.
        let weight = self.weight.val().cast(FloatDType::from(input.dtype()));
        let Some(adapter) = &self.adapter else { return linear(input, weight, bias) };
        // The adapter may be in f32 while the weights are in 16 bits.
        let own = FloatDType::from(adapter.a.val().dtype());
        let low =
            low_rank(input.clone().cast(own), adapter.a.val(), adapter.b.val() * adapter.scale());
        let output = linear(input, weight, bias);
        let low = low.cast(FloatDType::from(output.dtype()));
        output + low
    }
    // ANCHOR_END: linear

    /// Merges the adapter into the weights: `W ← W + (α/r)·A·B`.
    #[must_use]
    pub fn merged(mut self) -> Self {
        if let Some(adapter) = self.adapter.take() {
            let change = matmul(adapter.a.val(), adapter.b.val()) * adapter.scale();
            self.weight = self.weight.map(|weight| {
                let change = change.cast(FloatDType::from(weight.dtype()));
                weight + change
            });
        }
        self
    }
}
