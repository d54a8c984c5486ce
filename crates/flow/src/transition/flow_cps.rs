//! Flow-CPS, coefficients-preserving sampling: the noise of a step replaces existing noise.

use std::f64::consts::FRAC_PI_2;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Affine, NoiseLevel, Rule};
use crate::time_grid::Step;

/// One step of Flow-CPS.
///
/// ```text
/// mean = (1 − t')·x̂_0 + √(t'² − std²)·x̂_1        x̂_0 = x − t·v,  x̂_1 = x + (1 − t)·v
/// std  = t'·|sin(η·π/2)|
/// ```
///
/// Source: arXiv 2509.05952. The noise of `x'` has the variance `t'²`, as at every point of the
/// flow; an Euler-Maruyama step leaves visibly more. But `std` does not shrink with the step, so
/// this is no discretisation of an SDE: `x̂_0` and `x̂_1` are means, and `x'` lacks the part of the
/// spread of `x_0` and `x_1` that they lack. At η = 1 all noise is new; beyond 1 the share
/// decreases again. The last step, to t' = 0, draws none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FlowCps {
    /// The noise level `η`; 0.8 in the paper, sensible up to 1.
    pub noise_level: NoiseLevel,
}

impl Rule for FlowCps {
    fn affine(&self, step: Step) -> Affine {
        let (t, next) = (step.from, step.to);
        let (sin, cos) = (self.noise_level.get() * FRAC_PI_2).sin_cos();
        let kept = next * cos.abs(); // of x̂_1
        Affine {
            latent: 1.0 - next + kept,
            velocity: kept * (1.0 - t) - (1.0 - next) * t,
            std: next * sin.abs(),
        }
    }
}
