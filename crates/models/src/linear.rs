//! A linear layer that can carry a low-rank adapter.

use burn::{module::Param, prelude::*, tensor::FloatDType};
use kernels::{
    Kernels,
    low_rank::{self, Factors},
    product::{linear, matmul},
};

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
    /// What [`Linear::prepare`] keeps.
    ready: Option<[Tensor<B, 2>; 2]>,
}

impl<B: Backend> LowRank<B> {
    /// An adapter of one layer.
    pub fn new(a: Param<Tensor<B, 2>>, b: Param<Tensor<B, 2>>, alpha: f64) -> Self {
        Self { a, b, alpha, ready: None }
    }

    /// `α/r`
    fn scale(&self) -> f64 {
        self.alpha / self.b.dims()[0] as f64
    }

    fn factors(&self) -> Factors<B> {
        Factors { a: self.a.val(), b: self.b.val(), scale: self.scale(), kept: self.ready.clone() }
    }
}

impl<B: Backend> Linear<B> {
    /// A layer without an adapter.
    pub fn new(weight: Param<Tensor<B, 2>>, bias: Option<Param<Tensor<B, 1>>>) -> Self {
        Self { weight, bias, adapter: None }
    }

    /// [`Self::forward`] on a backend that may have no kernels, such as that of a browser.
    pub(crate) fn composed<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        let bias = self.bias.as_ref().map(Param::val);
        let weight = self.weight.val().cast(FloatDType::from(input.dtype()));
        let Some(adapter) = &self.adapter else { return linear(input, weight, bias) };
        linear(input.clone(), weight, bias) + low_rank::composed(input, adapter.factors())
    }

    /// Keeps the adapter's factors as products in `precision` need them, which takes several kernels
    /// per layer. Until it is called again, outputs and gradients are those of these factors.
    pub fn prepare(&mut self, precision: FloatDType) {
        if let Some(adapter) = &mut self.adapter {
            adapter.ready = Some(adapter.factors().ready(precision));
        }
    }

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

impl<B: Kernels> Linear<B> {
    // ANCHOR: linear
    /// Applies the layer, and its adapter if there is one.
    ///
    /// # Shapes
    /// - `input`: `[…, inputs]`; the result: `[…, outputs]`
    pub fn forward<const D: usize>(&self, input: Tensor<B, D>) -> Tensor<B, D> {
        let bias = self.bias.as_ref().map(Param::val);
        // Weights may be stored in fewer bits than the layer computes in.
        let weight = B::in_precision(self.weight.val(), FloatDType::from(input.dtype()));
        let Some(adapter) = &self.adapter else { return linear(input, weight, bias) };
        linear(input.clone(), weight, bias) + B::low_rank(input, adapter.factors())
    }
    // ANCHOR_END: linear
}
