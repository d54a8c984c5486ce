//! One denoising step as a Gaussian: the mean and std of `x'` given `x_t`, the velocity and the
//! step.
//!
//! Every transition in use is affine in latent and velocity, so a transition is a rule that gives
//! three numbers per step: no tensors, one file per rule. [`Transition`] is the table of rules.
//!
//! Rollout and replay get the Gaussian from the same function, so the ratio is 1 on-policy.

mod dance;
mod flow_cps;
mod flow_sde;
mod ode;

use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use dance::Dance;
pub use flow_cps::FlowCps;
pub use flow_sde::FlowSde;
pub use ode::Ode;

use crate::{gaussian::IsotropicGaussian, time_grid::Step};

/// The Gaussian of a step, `x' ~ N(latent·x + velocity·v, std²·I)`, as three numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Affine {
    /// The coefficient of the latent `x` in the mean.
    pub latent: f64,
    /// The coefficient of the velocity `v` in the mean.
    pub velocity: f64,
    /// The standard deviation of every element, in latent units; 0 is a deterministic step.
    pub std: f64,
}

/// A transition rule. To add one, implement this trait in a new file and name the type in the table
/// below.
pub trait Rule {
    /// Computes the Gaussian of a step from `t = step.from` to `t' = step.to`.
    fn affine(&self, step: Step) -> Affine;
}

/// Declares [`Transition`] from its table.
macro_rules! transitions {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// The transition rules, as a configuration names them:
        /// `transition = { kind = "flow_sde", noise_level = 0.7 }`.
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Transition {
            $($(#[$doc])* $name($name),)*
        }

        impl Transition {
            /// The Gaussian of a step as three numbers.
            pub fn affine(self, step: Step) -> Affine {
                match self {
                    $(Self::$name(rule) => rule.affine(step),)*
                }
            }
        }

        $(impl From<$name> for Transition {
            fn from(rule: $name) -> Self {
                Self::$name(rule)
            }
        })*
    };
}

// ANCHOR: table
transitions! {
    /// The Euler step of the probability-flow ODE: deterministic.
    Ode,
    /// The Euler-Maruyama step of the Flow-GRPO SDE.
    FlowSde,
    /// Flow-CPS: the noise that a step adds replaces existing noise.
    FlowCps,
    /// The Euler-Maruyama step of `DanceGRPO`'s SDE, whose diffusion is constant.
    Dance,
}
// ANCHOR_END: table

impl Transition {
    /// The Gaussian of `x'` given latent and velocity.
    ///
    /// # Shapes
    /// - `latent`, `velocity`: `[B, C, H, W]`, f32
    ///
    /// # Panics
    /// If `velocity` has another shape than `latent`.
    pub fn gaussian<B: Backend>(
        self,
        latent: Tensor<B, 4>,
        velocity: Tensor<B, 4>,
        step: Step,
    ) -> IsotropicGaussian<B> {
        assert_eq!(latent.dims(), velocity.dims(), "velocity and latent differ in shape");
        let affine = self.affine(step);
        let latent = if affine.latent == 1.0 { latent } else { latent * affine.latent };
        IsotropicGaussian { mean: latent + velocity * affine.velocity, std: affine.std }
    }

    /// Whether the step draws noise, so that it has a log-probability and can be trained.
    pub fn is_random(self, step: Step) -> bool {
        self.affine(step).std > 0.0
    }
}

/// The noise level of a transition, at least 0; at 0 every transition is the ODE.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(extend("minimum" = 0))]
pub struct NoiseLevel(f64);

impl NoiseLevel {
    /// Creates a noise level; `None` if `level` is negative or not finite.
    pub fn new(level: f64) -> Option<Self> {
        (level.is_finite() && level >= 0.0).then_some(Self(level))
    }

    /// The noise level as a number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for NoiseLevel {
    type Error = String;

    fn try_from(level: f64) -> Result<Self, Self::Error> {
        Self::new(level).ok_or_else(|| {
            format!("the noise level must be a finite number of at least 0, not {level}")
        })
    }
}

impl From<NoiseLevel> for f64 {
    fn from(level: NoiseLevel) -> Self {
        level.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Step = Step { index: 1, from: 0.75, to: 0.5 };

    fn level(level: f64) -> NoiseLevel {
        NoiseLevel::new(level).expect("valid")
    }

    /// Every rule except the ODE, at a noise level.
    fn stochastic(noise: f64) -> [Transition; 3] {
        let noise_level = level(noise);
        [
            FlowSde { noise_level }.into(),
            FlowCps { noise_level }.into(),
            Dance { noise_level }.into(),
        ]
    }

    fn steps() -> impl Iterator<Item = Step> {
        let times = [1.0, 0.9, 0.7, 0.45, 0.2, 0.05];
        (0..times.len() - 1).map(move |index| Step {
            index,
            from: times[index],
            to: times[index + 1],
        })
    }

    #[test]
    fn an_ode_step_draws_no_noise_and_moves_by_the_velocity_over_its_duration() {
        assert_eq!(Ode {}.affine(STEP), Affine { latent: 1.0, velocity: -0.25, std: 0.0 });
        assert!(!Transition::from(Ode {}).is_random(STEP));
    }

    #[test]
    fn the_std_of_every_kind_is_its_formula() {
        // σ = 0.7·√(0.75 / 0.25), std = σ·√0.25; t'·sin(0.7·π/2); 0.7·√0.25
        let std = stochastic(0.7).map(|transition| transition.affine(STEP).std);
        let expected = [0.35 * 3.0_f64.sqrt(), 0.5 * (0.35 * std::f64::consts::PI).sin(), 0.35];
        assert!(
            std.iter().zip(expected).all(|(std, expected)| (std - expected).abs() < 1e-12),
            "{std:?}"
        );
    }

    #[test]
    fn without_noise_every_kind_is_the_ode() {
        for step in steps() {
            let ode = Ode {}.affine(step);
            for transition in stochastic(0.0) {
                let Affine { latent, velocity, std } = transition.affine(step);
                assert!(
                    (latent - 1.0).abs() < 1e-12 && (velocity - ode.velocity).abs() < 1e-12,
                    "{transition:?}"
                );
                assert!(std == 0.0 && !transition.is_random(step), "{transition:?}");
            }
        }
    }

    /// With `x = (1 − t)·x_0 + t·x_1` and `v = x_1 − x_0`, a step's mean is `signal·x_0 +
    /// noise·x_1`.
    fn signal_and_noise(affine: Affine, t: f64) -> [f64; 2] {
        [affine.latent * (1.0 - t) - affine.velocity, affine.latent * t + affine.velocity]
    }

    #[test]
    fn every_kind_keeps_the_signal_and_flow_cps_the_noise_as_well() {
        for noise in [0.1, 0.5, 0.9] {
            for step in steps() {
                for transition in stochastic(noise) {
                    let affine = transition.affine(step);
                    let [signal, left] = signal_and_noise(affine, step.from);
                    assert!(
                        (signal - (1.0 - step.to)).abs() < 1e-12,
                        "{transition:?}: x_0 has the coefficient {signal}"
                    );
                    // Euler-Maruyama leaves an excess: the square of the score term, and σ²·|Δt|·(1
                    // − t'/t).
                    let excess = left.powi(2) + affine.std.powi(2) - step.to.powi(2);
                    let exact = matches!(transition, Transition::FlowCps(_));
                    assert!(
                        if exact { excess.abs() < 1e-12 } else { excess > 0.0 },
                        "{transition:?}: {excess:e} too much noise"
                    );
                }
            }
        }
    }

    #[test]
    fn a_noise_level_is_a_finite_number_of_at_least_0() {
        for number in [0.0, 0.7, 3.0] {
            assert_eq!(NoiseLevel::new(number).map(f64::from), Some(number));
        }
        for number in [-0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(NoiseLevel::new(number), None);
            assert!(NoiseLevel::try_from(number).expect_err("no level").contains("at least 0"));
        }
    }
}
