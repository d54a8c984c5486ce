//! AdamW: a step by the mean of gradients, divided by the root of the mean of their squares.

use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OptimizerState;
use crate::parameters::Parameters;

/// The hyperparameters of AdamW, all of them, because libraries disagree on defaults.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdamWConfig {
    /// Peak learning rate.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Decay of the first moment, the mean of gradients.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub beta1: f64,
    /// Decay of the second moment, the mean of squared gradients.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub beta2: f64,
    /// Added to the root of the second moment.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub epsilon: f64,
    /// Decoupled weight decay, multiplied by the learning rate.
    #[schemars(range(min = 0.0))]
    pub weight_decay: f64,
    /// The largest global gradient norm; longer gradients are scaled down to it.
    #[schemars(extend("exclusiveMinimum" = 0))]
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
    /// The factor that clips a gradient with this global norm.
    pub(super) fn clip(&self, norm: f64) -> f64 {
        (self.max_gradient_norm / (norm + 1e-6)).min(1.0)
    }

    /// Adds a gradient to both moments; `clip` multiplies it.
    pub(super) fn accumulate<B: Backend>(
        &self,
        state: &mut OptimizerState<B>,
        gradient: &Parameters<B>,
        clip: f64,
    ) {
        let Self { beta1, beta2, .. } = *self;
        state.first = state.first.zip(gradient, |m, g| m * beta1 + g * (clip * (1.0 - beta1)));
        state.second = state
            .second
            .zip(gradient, |s, g| s * beta2 + g.powi_scalar(2) * (clip * clip * (1.0 - beta2)));
    }

    /// The parameters after a step by the moments, at `rate` times the peak learning rate.
    pub(super) fn step<B: Backend>(
        &self,
        state: &OptimizerState<B>,
        parameters: &Parameters<B>,
        rate: f64,
    ) -> Parameters<B> {
        let n = i32::try_from(state.updates).unwrap_or(i32::MAX);
        let (bias1, bias2) = (1.0 - self.beta1.powi(n), 1.0 - self.beta2.powi(n));
        let rate = self.learning_rate * rate;
        let direction =
            state.first.zip(&state.second, |m, s| m / ((s / bias2).sqrt() + self.epsilon));
        parameters.zip(&direction, |p, d| p * (1.0 - rate * self.weight_decay) - d * (rate / bias1))
    }
}
