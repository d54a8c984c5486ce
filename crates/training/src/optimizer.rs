//! The optimiser over [`Parameters`]: AdamW with one clip of the global gradient norm, and Muon for
//! selected matrices.
//!
//! Burn's own optimisers clip every tensor separately, have other defaults and keep their state in
//! their own format. Here the state is two vectors per parameter, which a checkpoint stores
//! unchanged.

mod adamw;
mod muon;

use std::collections::BTreeMap;

use burn::prelude::*;

pub use adamw::AdamWConfig;
pub use muon::MuonConfig;

use crate::parameters::Parameters;
use muon::{Factors, Muon};

/// The optimiser: Muon for the matrices given to [`Self::with_muon`], AdamW for all other
/// parameters.
#[derive(Clone, Debug)]
pub struct Optimizer<B: Backend> {
    config: AdamWConfig,
    muon: Option<Muon>,
    state: OptimizerState<B>,
}

/// The result of [`Optimizer::update`].
#[derive(Clone, Debug)]
pub struct Stepped<B: Backend> {
    /// The new parameters, or the old ones if the norm is not finite.
    pub parameters: Parameters<B>,
    /// The global norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// The root mean square of the clipped gradient over the parameters that AdamW moves; 0 if
    /// AdamW moves none. Far below [`AdamWConfig::epsilon`] no parameter moves.
    pub gradient_rms: f64,
}

/// The state of the optimiser that a checkpoint saves.
#[derive(Clone, Debug)]
pub struct OptimizerState<B: Backend> {
    /// Number of updates taken.
    pub updates: usize,
    /// The mean of gradients; for Muon's matrices the decayed sum of gradients.
    pub first: Parameters<B>,
    /// The mean of squared gradients; unused for Muon's matrices.
    pub second: Parameters<B>,
}

impl<B: Backend> Optimizer<B> {
    /// Creates an optimiser without any updates taken; AdamW takes all parameters.
    pub fn new(config: AdamWConfig, parameters: &Parameters<B>) -> Self {
        let zeros = parameters.zeros_like();
        Self {
            config,
            muon: None,
            state: OptimizerState { updates: 0, first: zeros.clone(), second: zeros },
        }
    }

    /// Uses Muon for these matrices, given by parameter identity with shape `[inputs, outputs]`,
    /// unless its learning rate is 0.
    #[must_use]
    pub fn with_muon(mut self, config: MuonConfig, matrices: BTreeMap<u64, [usize; 2]>) -> Self {
        self.muon = (config.learning_rate > 0.0).then_some(Muon { config, matrices });
        self
    }

    /// Restores a saved state.
    pub(crate) fn restore(&mut self, state: OptimizerState<B>) {
        self.state = state;
    }

    /// The state to save.
    pub fn state(&self) -> &OptimizerState<B> {
        &self.state
    }

    /// Takes one update.
    ///
    /// ```text
    /// g ← g·min(1, c/‖g‖)      m ← β₁·m + (1 − β₁)·g      s ← β₂·s + (1 − β₂)·g²
    /// θ ← θ·(1 − η·λ) − η·m̂ / (√ŝ + ε)                    m̂ = m/(1 − β₁ⁿ), ŝ = s/(1 − β₂ⁿ)
    /// ```
    ///
    /// Source: arXiv 1711.05101, algorithm 2; `torch.optim.AdamW` and
    /// `torch.nn.utils.clip_grad_norm_`.
    ///
    /// `rate` scales the learning rate of this update (warm-up, cool-down). A gradient whose norm
    /// is not finite changes nothing: the caller must check the norm.
    pub fn update(
        &mut self,
        parameters: &Parameters<B>,
        gradient: &Parameters<B>,
        rate: f64,
    ) -> Stepped<B> {
        let squares = gradient.squares();
        let norm = squares.values().sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Stepped {
                parameters: parameters.clone(),
                gradient_norm: norm,
                gradient_rms: norm,
            };
        }
        let clip = self.config.clip(norm);
        let gradient_rms = clip * self.adam_rms(&squares, &gradient.layout());
        self.state.updates += 1;
        let first = self.muon.as_ref().map(|_| self.state.first.clone());
        self.config.accumulate(&mut self.state, gradient, clip);
        let mut moved = self.config.step(&self.state, parameters, rate);
        if let (Some(muon), Some(first)) = (&self.muon, first) {
            let keep = 1.0 - self.config.learning_rate * rate * self.config.weight_decay;
            let factors = Factors { clip, rate, keep };
            muon.step(&mut self.state, &first, parameters, gradient, &mut moved, factors);
        }
        Stepped { parameters: moved, gradient_norm: norm, gradient_rms }
    }

    /// The root mean square over the parameters that AdamW moves, from sums of squares and counts.
    fn adam_rms(&self, squares: &BTreeMap<u64, f64>, layout: &BTreeMap<u64, usize>) -> f64 {
        let of_muon =
            |id: &u64| self.muon.as_ref().is_some_and(|muon| muon.matrices.contains_key(id));
        let adams = squares.iter().filter(|(id, _)| !of_muon(id));
        let (sum, count) =
            adams.fold((0.0, 0), |(sum, count), (id, square)| (sum + square, count + layout[id]));
        (sum / count.max(1) as f64).sqrt()
    }
}
