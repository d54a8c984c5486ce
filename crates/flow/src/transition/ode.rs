//! The Euler step of the probability-flow ODE `dx = v(x, t) dt`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Affine, Rule};
use crate::time_grid::Step;

/// One Euler step of the ODE.
///
/// ```text
/// mean = x + v·Δt        std = 0        Δt = t' − t < 0
/// ```
///
/// Source: arXiv 2210.02747, section 2; diffusers' `FlowMatchEulerDiscreteScheduler.step`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ode {}

// ANCHOR: rule
impl Rule for Ode {
    fn affine(&self, step: Step) -> Affine {
        Affine { latent: 1.0, velocity: -step.duration(), std: 0.0 }
    }
}
// ANCHOR_END: rule
