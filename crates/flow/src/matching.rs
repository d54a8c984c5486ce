//! The supervised flow-matching loss, and the distributions of its times.

use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{field::VelocityField, gaussian::row_mean};

/// The conditional flow-matching loss of every row.
///
/// ```text
/// L = mean( (v(x_t, t, c) − (x_1 − x_0))² )        x_t = (1 − t)·x_0 + t·x_1
/// ```
///
/// Source: arXiv 2210.02747, equation 14; arXiv 2209.03003.
///
/// # Shapes
/// - `data` (`x_0`), `noise` (`x_1`): `[B, C, H, W]`; `time`: `[B]`, in `(0, 1]`
/// - the result: `[B]`
// ANCHOR: loss
pub fn flow_matching_loss<B: Backend, F: VelocityField<B>>(
    field: &F,
    data: Tensor<B, 4>,
    noise: Tensor<B, 4>,
    time: Tensor<B, 1>,
    conditions: &[F::Condition],
) -> Tensor<B, 1> {
    let t: Tensor<B, 4> = time.clone().reshape([-1, 1, 1, 1]); // [B, 1, 1, 1]
    let target = noise.clone() - data.clone();
    let latent = data + target.clone() * t;
    row_mean((field.velocity(latent, time, conditions) - target).powi_scalar(2))
}
// ANCHOR_END: loss

/// The distribution of the times in the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TimeDistribution {
    /// The uniform distribution `t ~ U(0, 1)`.
    Uniform {},
    /// The logit-normal distribution `logit t ~ N(mean, std²)` (arXiv 2403.03206, section 3.1):
    /// more weight on the middle times, which are the hardest.
    LogitNormal {
        /// Mean of the logit; positive favours noise.
        mean: f64,
        /// Standard deviation of the logit.
        #[schemars(range(min = 0.0))]
        std: f64,
    },
}

impl TimeDistribution {
    /// Computes a time from draws of `U(0, 1)` and `N(0, 1)`, of which one is used.
    pub fn time(self, uniform: f64, normal: f64) -> f64 {
        match self {
            Self::Uniform {} => uniform,
            Self::LogitNormal { mean, std } => 1.0 / (1.0 + (-(mean + std * normal)).exp()),
        }
    }
}
