//! The Euler-Maruyama step of `DanceGRPO`'s SDE, with the same diffusion at all times.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Affine, NoiseLevel, Rule, flow_sde::euler_maruyama};
use crate::time_grid::Step;

/// One step of the SDE of `DanceGRPO`.
///
/// ```text
/// mean = x + [v + η²/(2t) · (x + (1 − t)·v)] · Δt        std = η·√|Δt|        Δt = t' − t < 0
/// ```
///
/// Source: arXiv 2505.07818, section 3. Equals the Flow-GRPO SDE with `σ = η`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dance {
    /// The diffusion `η`; 0.3 in the paper.
    pub noise_level: NoiseLevel,
}

impl Rule for Dance {
    fn affine(&self, step: Step) -> Affine {
        euler_maruyama(step, self.noise_level.get())
    }
}
