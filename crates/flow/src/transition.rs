//! One denoising step as a Gaussian: the mean and std of `x'` given `x_t`, the velocity and the step.
//!
//! Sampling and training call the same function here, so that on-policy the ratio of the two is 1.
//! One file per transition; [`Transition`] names them.

mod flow_sde;
mod ode;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

pub use flow_sde::{NoiseLevel, flow_sde};
pub use ode::ode;

use crate::{gaussian::IsotropicGaussian, time_grid::Step};

/// The kinds of denoising step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Transition {
    /// The Euler step of the probability-flow ODE: deterministic.
    Ode,
    /// The Euler-Maruyama step of the Flow-GRPO SDE.
    FlowSde {
        /// How much noise is put back.
        noise_level: NoiseLevel,
    },
}

impl Transition {
    /// The Gaussian that this transition draws `x'` from.
    ///
    /// # Shapes
    /// - `latent`, `velocity`: `[B, C, H, W]`, f32
    pub fn gaussian<B: Backend>(self, latent: Tensor<B, 4>, velocity: Tensor<B, 4>, step: Step) -> IsotropicGaussian<B> {
        match self {
            Self::Ode => ode(latent, velocity, step),
            Self::FlowSde { noise_level } => flow_sde(latent, velocity, step, noise_level),
        }
    }

    /// The standard deviation of what the step draws, in latent units; 0 for a deterministic step.
    pub fn std(self, step: Step) -> f64 {
        match self {
            Self::Ode => 0.0,
            Self::FlowSde { noise_level } => noise_level.std(step),
        }
    }

    /// What the step's mean has of the velocity: `c` in `mean = … + c·v`.
    pub fn velocity_coefficient(self, step: Step) -> f64 {
        match self {
            Self::Ode => -step.duration(),
            Self::FlowSde { noise_level } => noise_level.coefficients(step)[1],
        }
    }

    /// Whether the step draws noise, so that it has a log-probability and can be trained.
    pub fn is_random(self) -> bool {
        match self {
            Self::Ode => false,
            Self::FlowSde { noise_level } => noise_level.get() > 0.0,
        }
    }
}
