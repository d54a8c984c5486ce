//! The clipped objective of GRPO.

use burn::prelude::*;
use flow::KlForm;
use serde::{Deserialize, Serialize};

/// What is minimised.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// The ratio counts only within `1 ± clip_range`. 1e-4 in the paper, because log-probabilities are means over elements.
    pub clip_range: f64,
    /// The weight `β` of the KL divergence to the reference policy; at 0 the reference is not evaluated.
    pub kl_weight: f64,
    /// Which KL expression.
    pub kl_form: KlForm,
}

/// The policy loss of every row, with the ratio it came from.
#[derive(Clone, Debug)]
pub struct PolicyLoss<B: Backend> {
    /// To be minimised, `[B]`.
    pub loss: Tensor<B, 1>,
    /// `π_new / π_old`, `[B]`.
    pub ratio: Tensor<B, 1>,
}

/// The clipped surrogate loss of PPO, row by row.
///
/// ```text
/// r = exp(log π_new − log π_old)        L = max( −A·r, −A·clip(r, 1 − c, 1 + c) )
/// ```
///
/// Source: arXiv 2505.05470, equation 6; arXiv 1707.06347, equation 7.
///
/// # Shapes
/// - all: `[B]`, f32
// ANCHOR: clipped
pub fn clipped_loss<B: Backend>(
    new_log_prob: Tensor<B, 1>,
    old_log_prob: Tensor<B, 1>,
    advantage: Tensor<B, 1>,
    clip_range: f64,
) -> PolicyLoss<B> {
    // f32 from here on: just above 1, bf16 numbers are 0.0078 apart, so a clip range of 1e-4 could never be seen.
    let ratio = (new_log_prob - old_log_prob).exp();
    let clipped = ratio.clone().clamp(1.0 - clip_range, 1.0 + clip_range);
    let loss = (advantage.clone().neg() * ratio.clone()).max_pair(advantage.neg() * clipped);
    PolicyLoss { loss, ratio }
}
// ANCHOR_END: clipped
