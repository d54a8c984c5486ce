//! Linear layers that can carry low-rank adapters: a single one, or several of one input as one
//! product ([`Joined`]).

use std::ops::Range;

use burn::{
    module::{Param, ParamId},
    prelude::*,
    tensor::FloatDType,
};
use kernels::{
    Kernels,
    low_rank::{self, Factors, Pair},
    product::{linear, matmul},
};

mod joined;

pub use joined::{Joined, Part};

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
    /// What [`Linear::prepare`] keeps; `None` in a joined layer.
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

    /// The factors of a layer whose outputs begin at `from`.
    fn pair(&self, from: usize) -> Pair<B> {
        Pair { a: self.a.val(), b: self.b.val(), scale: self.scale(), from }
    }

    fn factors(&self) -> Factors<B> {
        let outputs = self.b.dims()[1];
        Factors { pairs: vec![self.pair(0)], outputs, kept: self.ready.clone() }
    }

    /// The change of the weight, `(α/r)·A·B`.
    fn change(&self) -> Tensor<B, 2> {
        matmul(self.a.val(), self.b.val()) * self.scale()
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

    /// Merges the adapter into the weights: `W ← W + (α/r)·A·B`.
    fn merge(&mut self) {
        if let Some(adapter) = self.adapter.take() {
            self.weight = self.weight.clone().map(|weight| {
                let change = adapter.change().cast(FloatDType::from(weight.dtype()));
                weight + change
            });
        }
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
        let Some(adapter) = &self.adapter else { return B::linear_layer(input, weight, bias) };
        // First, so that a backend that fuses operations adds it where it adds the bias.
        let change = B::low_rank(input.clone(), adapter.factors());
        B::linear_layer(input, weight, bias) + change
    }
    // ANCHOR_END: linear

    /// Keeps the adapter's factors as products in `precision` need them, which takes several kernels
    /// per layer. Until it is called again, outputs and gradients are those of these factors.
    pub fn prepare(&mut self, precision: FloatDType) {
        if let Some(adapter) = &mut self.adapter {
            adapter.ready = Some(B::ready_factors(&adapter.factors(), precision));
        }
    }
}

/// The linear layers that one product computes: a single one, or several joined ones.
#[derive(Debug)]
pub enum Product<'a, B: Backend> {
    /// A layer of its own.
    Single(&'a mut Linear<B>),
    /// Layers of the same input, in the order of their columns.
    Joined {
        /// The layers' weights.
        joined: &'a mut Joined<B>,
        /// Each layer's name and adapter.
        parts: Vec<(&'static str, &'a mut Part<B>)>,
    },
}

impl<'a, B: Backend> Product<'a, B> {
    /// The layers with their paths, given the path of a single layer or of what holds joined ones.
    /// Joined layers forget the factors that they keep, because their adapters may change.
    pub(crate) fn layers(self, path: String) -> Vec<(String, Layer<'a, B>)> {
        match self {
            Self::Single(Linear { weight, adapter, .. }) => {
                let columns = 0..weight.dims()[1];
                let id = weight.id;
                vec![(path, Layer { weight, columns, id, adapter })]
            }
            Self::Joined { joined, parts } => {
                let Joined { weight, ready, .. } = joined;
                *ready = None;
                let weight: &'a _ = weight;
                let layer = |(name, part): (_, &'a mut Part<B>)| {
                    let Part { adapter, columns, id } = part;
                    let layer = Layer { weight, columns: columns.clone(), id: *id, adapter };
                    (format!("{path}.{name}"), layer)
                };
                parts.into_iter().map(layer).collect()
            }
        }
    }

    /// Merges the adapters into the weights.
    pub(crate) fn merge(self) {
        match self {
            Self::Single(linear) => linear.merge(),
            Self::Joined { joined, parts } => {
                joined.merge(parts.into_iter().map(|(_, part)| part));
            }
        }
    }
}

impl<B: Kernels> Product<'_, B> {
    /// Keeps the adapters' factors as products in `precision` need them: see [`Linear::prepare`].
    pub(crate) fn prepare(self, precision: FloatDType) {
        match self {
            Self::Single(linear) => linear.prepare(precision),
            Self::Joined { joined, parts } => {
                let parts: Vec<&Part<B>> = parts.iter().map(|(_, part)| &**part).collect();
                joined.prepare(&parts, precision);
            }
        }
    }
}

/// A linear layer as its adapter sees it.
#[derive(Debug)]
pub struct Layer<'a, B: Backend> {
    /// The weight of the layer, or of all layers that it is joined with, `[inputs, outputs]`.
    pub weight: &'a Param<Tensor<B, 2>>,
    /// The layer's columns of the weight.
    pub columns: Range<usize>,
    /// Identity of the layer's weight, or the one that it would have alone.
    pub id: ParamId,
    /// The adapter, if there is one.
    pub adapter: &'a mut Option<LowRank<B>>,
}

impl<B: Backend> Layer<'_, B> {
    /// Inputs and outputs.
    pub fn size(&self) -> [usize; 2] {
        [self.weight.dims()[0], self.columns.len()]
    }
}
