//! AdamW over [`Parameters`], with one clip of the global gradient norm and no hidden defaults.
//!
//! Burn's own optimiser clips every tensor by itself, has other defaults and keeps its state in a format of its own; here the
//! state is two vectors per parameter, which a checkpoint stores as they are.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::parameters::Parameters;

/// The constants of AdamW; all of them, since libraries disagree on defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// The largest norm of all gradients together; a longer gradient is scaled down to it.
    pub max_gradient_norm: f64,
}

/// The optimiser's state.
#[derive(Clone, Debug)]
pub struct AdamW<B: Backend> {
    config: AdamWConfig,
    state: AdamWState<B>,
}

/// What must be saved to continue.
#[derive(Clone, Debug)]
pub struct AdamWState<B: Backend> {
    /// Updates taken.
    pub updates: usize,
    /// The mean of gradients.
    pub first: Parameters<B>,
    /// The mean of squared gradients.
    pub second: Parameters<B>,
}

impl<B: Backend> AdamW<B> {
    /// An optimiser that has not moved yet.
    pub fn new(config: AdamWConfig, parameters: &Parameters<B>) -> Self {
        let zeros = parameters.zeros_like();
        Self { config, state: AdamWState { updates: 0, first: zeros.clone(), second: zeros } }
    }

    /// An optimiser that goes on from a saved state.
    pub fn resume(config: AdamWConfig, state: AdamWState<B>) -> Self {
        Self { config, state }
    }

    /// The state to save.
    pub fn state(&self) -> &AdamWState<B> {
        &self.state
    }

    /// One update. Returns the new parameters and the norm of the gradient before it was clipped.
    ///
    /// ```text
    /// g ← g·min(1, c/‖g‖)      m ← β₁·m + (1 − β₁)·g      s ← β₂·s + (1 − β₂)·g²
    /// θ ← θ·(1 − η·λ) − η·m̂ / (√ŝ + ε)                    m̂ = m/(1 − β₁ⁿ), ŝ = s/(1 − β₂ⁿ)
    /// ```
    ///
    /// Source: arXiv 1711.05101, algorithm 2; `torch.optim.AdamW` and `torch.nn.utils.clip_grad_norm_`.
    ///
    /// `rate` scales the learning rate of this update (warm-up, cosine). A gradient whose norm is not finite changes nothing:
    /// the caller must look at the norm.
    pub fn update(&mut self, parameters: &Parameters<B>, gradient: &Parameters<B>, rate: f64) -> (Parameters<B>, f64) {
        let norm = gradient.norm();
        if !norm.is_finite() {
            return (parameters.clone(), norm);
        }
        let AdamWConfig { learning_rate, beta1, beta2, epsilon, weight_decay, max_gradient_norm } = self.config;
        let clip = (max_gradient_norm / (norm + 1e-6)).min(1.0);
        let state = &mut self.state;
        state.updates += 1;
        state.first = state.first.zip(gradient, |m, g| m * beta1 + g * (clip * (1.0 - beta1)));
        state.second = state.second.zip(gradient, |s, g| s * beta2 + g.powi_scalar(2) * (clip * clip * (1.0 - beta2)));
        let n = i32::try_from(state.updates).unwrap_or(i32::MAX);
        let (bias1, bias2) = (1.0 - beta1.powi(n), 1.0 - beta2.powi(n));
        let rate = learning_rate * rate;
        let direction = state.first.zip(&state.second, |m, s| m / ((s / bias2).sqrt() + epsilon));
        let moved = parameters.zip(&direction, |p, d| p * (1.0 - rate * weight_decay) - d * (rate / bias1));
        (moved, norm)
    }
}
