//! The Euler-Maruyama step of the Flow-GRPO SDE, which has the marginals of the ODE.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Affine, NoiseLevel, Rule};
use crate::time_grid::Step;

/// One step of the Flow-GRPO SDE.
///
/// ```text
/// mean = x + [v + σ²/(2t) · (x + (1 − t)·v)] · Δt        Δt = t' − t < 0
/// std  = σ · √|Δt|                                       σ  = a·√(t / (1 − t))
/// ```
///
/// Source: arXiv 2505.05470, section 4.1.
///
/// Deviation `sigma-at-one`: at t = 1 the denominator 1 − t is taken at the next grid point; the
/// formula is singular there.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowSde {
    /// The noise level `a`; 0.7 in the paper.
    pub noise_level: NoiseLevel,
}

impl Default for FlowSde {
    /// The paper's noise level, 0.7.
    fn default() -> Self {
        Self { noise_level: NoiseLevel(0.7) }
    }
}

impl FlowSde {
    // ANCHOR: sigma
    /// The diffusion `σ_t = a·√(t / (1 − t))`, with `1 − t'` for `1 − t` in a step that starts at t
    /// = 1.
    pub fn sigma(self, step: Step) -> f64 {
        let denominator = if step.from == 1.0 { 1.0 - step.to } else { 1.0 - step.from };
        self.noise_level.get() * (step.from / denominator).sqrt()
    }
    // ANCHOR_END: sigma
}

impl Rule for FlowSde {
    fn affine(&self, step: Step) -> Affine {
        euler_maruyama(step, self.sigma(step))
    }
}

// ANCHOR: rule
/// The Euler-Maruyama step of `dx = [v + σ²/(2t)·(x + (1 − t)·v)] dt + σ dw`, which has the
/// marginals of the ODE for any `σ ≥ 0`.
pub(super) fn euler_maruyama(step: Step, sigma: f64) -> Affine {
    let (t, dt) = (step.from, -step.duration());
    let pull = sigma.powi(2) / (2.0 * t);
    Affine {
        latent: 1.0 + pull * dt,
        velocity: (1.0 + pull * (1.0 - t)) * dt,
        std: sigma * step.duration().sqrt(),
    }
}
// ANCHOR_END: rule
