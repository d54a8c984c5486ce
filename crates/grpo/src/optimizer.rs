//! AdamW over [`Parameters`] with one clip of the global gradient norm, and Muon for selected
//! matrices.
//!
//! Burn's own optimisers clip every tensor separately, have other defaults and keep their state in
//! their own format. Here the state is two vectors per parameter, which a checkpoint stores
//! unchanged.

use std::collections::BTreeMap;

use burn::prelude::*;
use kernels::product::matmul;
use serde::{Deserialize, Serialize};

use crate::{parameters::Parameters, ranges};

/// The hyperparameters of AdamW, all of them, because libraries disagree on defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment, the mean of gradients.
    pub beta1: f64,
    /// Decay of the second moment, the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f64,
    /// The largest global gradient norm; longer gradients are scaled down to it.
    pub max_gradient_norm: f64,
}

impl Default for AdamWConfig {
    /// The values of the reference code.
    fn default() -> Self {
        Self {
            learning_rate: 3e-4,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 1e-4,
            max_gradient_norm: 1.0,
        }
    }
}

impl AdamWConfig {
    /// Lists all values that are out of range, one sentence each, beginning with the key.
    pub fn problems(&self) -> Vec<String> {
        let numbers = [
            ranges::positive("learning_rate", self.learning_rate),
            ranges::positive("epsilon", self.epsilon),
            ranges::positive("max_gradient_norm", self.max_gradient_norm),
            ranges::decay("beta1", self.beta1),
            ranges::decay("beta2", self.beta2),
            ranges::not_negative("weight_decay", self.weight_decay),
        ];
        numbers.into_iter().flatten().collect()
    }
}

/// The hyperparameters of Muon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MuonConfig {
    /// Peak learning rate of the matrices; 0 leaves them to AdamW.
    pub learning_rate: f64,
    /// Decay of the sum of gradients.
    pub momentum: f64,
}

impl Default for MuonConfig {
    /// AdamW for all parameters.
    fn default() -> Self {
        Self { learning_rate: 0.0, momentum: 0.95 }
    }
}

impl MuonConfig {
    /// Lists all values that are out of range, one sentence each, beginning with the key.
    pub fn problems(&self) -> Vec<String> {
        let numbers = [
            ranges::not_negative("learning_rate", self.learning_rate),
            ranges::decay("momentum", self.momentum),
        ];
        numbers.into_iter().flatten().collect()
    }
}

/// The optimiser: AdamW, with Muon for the matrices given to [`Self::with_muon`].
#[derive(Clone, Debug)]
pub struct AdamW<B: Backend> {
    config: AdamWConfig,
    muon: Option<(MuonConfig, BTreeMap<u64, [usize; 2]>)>,
    state: AdamWState<B>,
}

/// The result of an update.
#[derive(Clone, Debug)]
pub struct Updated<B: Backend> {
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
pub struct AdamWState<B: Backend> {
    /// Number of updates taken.
    pub updates: usize,
    /// The mean of gradients; for Muon's matrices the decayed sum of gradients.
    pub first: Parameters<B>,
    /// The mean of squared gradients; unused for Muon's matrices.
    pub second: Parameters<B>,
}

impl<B: Backend> AdamW<B> {
    /// Creates an optimiser without any updates taken.
    pub fn new(config: AdamWConfig, parameters: &Parameters<B>) -> Self {
        let zeros = parameters.zeros_like();
        Self {
            config,
            muon: None,
            state: AdamWState { updates: 0, first: zeros.clone(), second: zeros },
        }
    }

    /// Uses Muon for these matrices, given by parameter identity with shape `[inputs, outputs]`.
    #[must_use]
    pub fn with_muon(mut self, config: MuonConfig, matrices: BTreeMap<u64, [usize; 2]>) -> Self {
        self.muon = (config.learning_rate > 0.0).then_some((config, matrices));
        self
    }

    /// Restores a saved state.
    pub fn restore(&mut self, state: AdamWState<B>) {
        self.state = state;
    }

    /// The state to save.
    pub fn state(&self) -> &AdamWState<B> {
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
    ) -> Updated<B> {
        let squares = gradient.squares();
        let norm = squares.values().sum::<f64>().sqrt();
        if !norm.is_finite() {
            return Updated {
                parameters: parameters.clone(),
                gradient_norm: norm,
                gradient_rms: norm,
            };
        }
        let AdamWConfig { learning_rate, beta1, beta2, epsilon, weight_decay, max_gradient_norm } =
            self.config;
        let clip = (max_gradient_norm / (norm + 1e-6)).min(1.0);
        let gradient_rms = clip * self.adam_rms(&squares, &gradient.layout());
        let state = &mut self.state;
        state.updates += 1;
        let before = self.muon.as_ref().map(|_| state.first.clone());
        state.first = state.first.zip(gradient, |m, g| m * beta1 + g * (clip * (1.0 - beta1)));
        state.second = state
            .second
            .zip(gradient, |s, g| s * beta2 + g.powi_scalar(2) * (clip * clip * (1.0 - beta2)));
        let n = i32::try_from(state.updates).unwrap_or(i32::MAX);
        let (bias1, bias2) = (1.0 - beta1.powi(n), 1.0 - beta2.powi(n));
        let adam_rate = learning_rate * rate;
        let direction = state.first.zip(&state.second, |m, s| m / ((s / bias2).sqrt() + epsilon));
        let mut moved = parameters
            .zip(&direction, |p, d| p * (1.0 - adam_rate * weight_decay) - d * (adam_rate / bias1));
        if let (Some((config, matrices)), Some(before)) = (&self.muon, before) {
            for (&id, &shape) in matrices {
                let sum = before.get(id) * config.momentum + gradient.get(id) * clip;
                let ahead = sum.clone() * config.momentum + gradient.get(id) * clip;
                let step = orthogonal(ahead.reshape(shape)).reshape([-1])
                    * (config.learning_rate * rate * muon_scale(shape));
                moved.set(id, parameters.get(id) * (1.0 - adam_rate * weight_decay) - step);
                state.first.set(id, sum);
            }
        }
        Updated { parameters: moved, gradient_norm: norm, gradient_rms }
    }

    /// The root mean square over the parameters that AdamW moves, from sums of squares and counts.
    fn adam_rms(&self, squares: &BTreeMap<u64, f64>, layout: &BTreeMap<u64, usize>) -> f64 {
        let of_muon =
            |id: &u64| self.muon.as_ref().is_some_and(|(_, matrices)| matrices.contains_key(id));
        let adams = squares.iter().filter(|(id, _)| !of_muon(id));
        let (sum, count) =
            adams.fold((0.0, 0), |(sum, count), (id, square)| (sum + square, count + layout[id]));
        (sum / count.max(1) as f64).sqrt()
    }
}

/// Scale that gives the steps of matrices of all shapes the same size per element of the output.
fn muon_scale([inputs, outputs]: [usize; 2]) -> f64 {
    (outputs as f64 / inputs as f64).max(1.0).sqrt()
}

/// An approximation of the nearest matrix with all singular values near 1, by five Newton-Schulz
/// iterations.
///
/// ```text
/// X ← G/‖G‖      five times:  A = X·Xᵀ,  X ← 3.4445·X + (−4.7750·A + 2.0315·A²)·X
/// ```
///
/// Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); arXiv
/// 2502.16982.
///
/// # Shapes
/// - `gradient` and the result: `[m, n]`
fn orthogonal<B: Backend>(gradient: Tensor<B, 2>) -> Tensor<B, 2> {
    let [rows, columns] = gradient.dims();
    // The products are smaller for a wide matrix.
    let wide = if rows > columns { gradient.transpose() } else { gradient };
    let norm = (wide.clone() * wide.clone()).sum().sqrt() + 1e-7;
    let mut x = wide / norm.reshape([1, 1]);
    for _ in 0..5 {
        let a = matmul(x.clone(), x.clone().transpose());
        let b = matmul(a.clone(), a.clone()) * 2.0315 - a * 4.775;
        x = x.clone() * 3.4445 + matmul(b, x);
    }
    if rows > columns { x.transpose() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tall_outputs_take_larger_steps() {
        assert_eq!(muon_scale([4, 16]), 2.0);
        assert_eq!(muon_scale([16, 4]), 1.0);
    }
}
