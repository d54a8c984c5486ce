//! Several linear layers of one input as one product.

use std::ops::Range;

use burn::{
    module::{Param, ParamId},
    prelude::*,
    tensor::FloatDType,
};
use kernels::{Kernels, low_rank::Factors};

use super::LowRank;

/// The weights of linear layers of the same input, side by side. Each layer has a [`Part`] with an
/// optional low-rank adapter.
///
/// ```text
/// y = x·[W₁ … W_N] + [b₁ … b_N] + (x·[A₁ … A_N])·diag(α₁/r₁·B₁, …, α_N/r_N·B_N)
/// ```
///
/// There are no copies of the single weights: what is trained is the joined weight.
///
/// # Shapes
/// - `weight`: `[inputs, outputs of all layers]`; `bias`: `[outputs of all layers]`
#[derive(Module, Debug)]
pub struct Joined<B: Backend> {
    /// `[W₁ … W_N]`
    pub weight: Param<Tensor<B, 2>>,
    /// `[b₁ … b_N]`
    pub bias: Option<Param<Tensor<B, 1>>>,
    /// What [`Self::prepare`] keeps.
    pub(super) ready: Option<[Tensor<B, 2>; 2]>,
}

/// What a joined layer has for itself: its adapter, and its place among the layers.
///
/// It lies beside the [`Joined`] weights and not inside, so that the path of an adapter in the network
/// is that of a layer of its own.
#[derive(Module, Debug)]
pub struct Part<B: Backend> {
    /// `A`, `B` and `α`
    pub adapter: Option<LowRank<B>>,
    /// The layer's columns of the joined weight.
    #[module(skip)]
    pub(super) columns: Range<usize>,
    /// The identity that the weight would have alone.
    #[module(skip)]
    pub(super) id: ParamId,
}

impl<B: Backend> Part<B> {
    /// A layer without an adapter.
    pub fn new(columns: Range<usize>, id: ParamId) -> Self {
        Self { adapter: None, columns, id }
    }
}

impl<B: Backend> Joined<B> {
    /// Layers with these joined weights.
    pub fn new(weight: Param<Tensor<B, 2>>, bias: Option<Param<Tensor<B, 1>>>) -> Self {
        Self { weight, bias, ready: None }
    }

    /// The factors of the layers that have an adapter; `None` if none has.
    fn factors(&self, parts: &[&Part<B>]) -> Option<Factors<B>> {
        let pairs: Vec<_> = parts
            .iter()
            .filter_map(|part| Some(part.adapter.as_ref()?.pair(part.columns.start)))
            .collect();
        let outputs = self.weight.dims()[1];
        (!pairs.is_empty()).then(|| Factors { pairs, outputs, kept: self.ready.clone() })
    }

    /// Merges the adapters into the weights: `Wᵢ ← Wᵢ + (αᵢ/rᵢ)·Aᵢ·Bᵢ`.
    pub(super) fn merge<'a>(&mut self, parts: impl Iterator<Item = &'a mut Part<B>>) {
        self.ready = None;
        for Part { adapter, columns, .. } in parts {
            let Some(adapter) = adapter.take() else { continue };
            self.weight = self.weight.clone().map(|weight| {
                let change = adapter.change().cast(FloatDType::from(weight.dtype()));
                let place = [0..weight.dims()[0], columns.clone()];
                weight.clone().slice_assign(place.clone(), weight.slice(place) + change)
            });
        }
    }
}

impl<B: Kernels> Joined<B> {
    /// Applies the layers, and their adapters, in the order of their columns.
    ///
    /// # Shapes
    /// - `input`: `[…, inputs]`; the result: `[…, outputs of all layers]`
    pub fn forward<const D: usize>(&self, input: Tensor<B, D>, parts: &[&Part<B>]) -> Tensor<B, D> {
        let bias = self.bias.as_ref().map(Param::val);
        let weight = B::in_precision(self.weight.val(), FloatDType::from(input.dtype()));
        let Some(factors) = self.factors(parts) else {
            return B::linear_layer(input, weight, bias);
        };
        let change = B::low_rank(input.clone(), factors); // first, as in `Linear::forward`
        B::linear_layer(input, weight, bias) + change
    }

    /// Keeps the adapters' factors: see [`Linear::prepare`](super::Linear::prepare).
    pub fn prepare(&mut self, parts: &[&Part<B>], precision: FloatDType) {
        self.ready = self.factors(parts).map(|factors| B::ready_factors(&factors, precision));
    }
}
