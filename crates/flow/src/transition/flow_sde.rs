//! The Euler-Maruyama step of the Flow-GRPO SDE, which has the marginals of the ODE.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{gaussian::IsotropicGaussian, time_grid::Step};

/// One step of the Flow-GRPO SDE, as the Gaussian it draws from.
///
/// ```text
/// mean = x + [v + σ²/(2t) · (x + (1 − t)·v)] · Δt        Δt = t' − t < 0
/// std  = σ · √|Δt|                                       σ  = a·√(t / (1 − t))
/// ```
///
/// Source: arXiv 2505.05470, section 4.1.
///
/// # Shapes
/// - `latent`, `velocity`: `[B, C, H, W]`, f32
/// - mean: `[B, C, H, W]`; std: one number per step, in latent units
///
/// # Panics
/// If `velocity` has another shape than `latent`.
///
/// Deviation `sigma-at-one`: at t = 1 the denominator 1 − t is taken at the next grid point; the formula is singular there.
pub fn flow_sde<B: Backend>(latent: Tensor<B, 4>, velocity: Tensor<B, 4>, step: Step, level: NoiseLevel) -> IsotropicGaussian<B> {
    assert_eq!(latent.dims(), velocity.dims(), "velocity and latent differ in shape");
    // In f64, and the tensors are touched twice, not six times.
    let [of_latent, of_velocity] = level.coefficients(step);
    let mean = latent * of_latent + velocity * of_velocity;
    IsotropicGaussian { mean, std: level.std(step) }
}

/// The noise level `a ≥ 0` of the SDE; 0.7 in the paper, 0 is the ODE.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct NoiseLevel(f64);

impl NoiseLevel {
    /// A noise level, or `None` if `a` is negative or not finite.
    pub fn new(a: f64) -> Option<Self> {
        (a.is_finite() && a >= 0.0).then_some(Self(a))
    }

    /// The number `a`.
    pub fn get(self) -> f64 {
        self.0
    }

    /// `σ_t = a·√(t / (1 − t))`, with `1 − t'` for `1 − t` in a step that starts at t = 1.
    pub fn sigma(self, step: Step) -> f64 {
        let denominator = if step.from == 1.0 { 1.0 - step.to } else { 1.0 - step.from };
        self.0 * (step.from / denominator).sqrt()
    }

    /// The coefficients of `x` and `v` in the mean of [`flow_sde`].
    pub fn coefficients(self, step: Step) -> [f64; 2] {
        let (t, dt) = (step.from, -step.duration());
        let pull = self.sigma(step).powi(2) / (2.0 * t);
        [1.0 + pull * dt, (1.0 + pull * (1.0 - t)) * dt]
    }

    /// The standard deviation of a step's noise, `σ_t·√|Δt|`, in latent units.
    pub fn std(self, step: Step) -> f64 {
        self.sigma(step) * step.duration().sqrt()
    }
}

impl TryFrom<f64> for NoiseLevel {
    type Error = String;

    fn try_from(a: f64) -> Result<Self, Self::Error> {
        Self::new(a).ok_or_else(|| format!("the noise level must be a finite number of at least 0, not {a}"))
    }
}

impl From<NoiseLevel> for f64 {
    fn from(level: NoiseLevel) -> Self {
        level.0
    }
}
