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

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Step = Step { index: 1, from: 0.75, to: 0.5 };

    fn sde(a: f64) -> Transition {
        Transition::FlowSde { noise_level: NoiseLevel::new(a).expect("valid") }
    }

    #[test]
    fn an_ode_step_draws_no_noise_and_moves_by_the_velocity_over_its_duration() {
        assert_eq!((Transition::Ode.is_random(), Transition::Ode.std(STEP)), (false, 0.0));
        assert_eq!(Transition::Ode.velocity_coefficient(STEP), -0.25);
    }

    #[test]
    fn an_sde_step_is_random_only_with_noise() {
        // σ = 0.7·√(0.75 / 0.25), std = σ·√0.25
        assert!(sde(0.7).is_random() && (sde(0.7).std(STEP) - 0.35 * 3.0_f64.sqrt()).abs() < 1e-12);
        assert_eq!((sde(0.0).is_random(), sde(0.0).std(STEP)), (false, 0.0));
        assert_eq!(sde(0.0).velocity_coefficient(STEP), -0.25);
    }

    #[test]
    fn a_noise_level_is_a_finite_number_of_at_least_0() {
        for a in [0.0, 0.7, 3.0] {
            assert_eq!(NoiseLevel::new(a).map(f64::from), Some(a));
        }
        for a in [-0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(NoiseLevel::new(a), None);
            assert!(NoiseLevel::try_from(a).expect_err("no level").contains("at least 0"));
        }
    }
}
