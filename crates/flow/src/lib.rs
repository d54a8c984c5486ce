//! Flow matching as a stochastic policy.
//!
//! One notation throughout: time `t` runs from 1 (pure noise) to 0 (data), `x_t = (1 − t)·x_0 +
//! t·x_1` with `x_1 ~ N(0, I)`, and the velocity is `v = x_1 − x_0`. A step goes from `t` to `t' <
//! t`.
//!
//! Pure tensor maths: no files, no random numbers (noise is an argument), no reinforcement
//! learning. Latents are always `[B, C, H, W]`; a point in the plane is a `[B, 2, 1, 1]` latent.
//!
//! The book derives the mathematics in its chapters *Flow matching*, *Noise*, *From the ODE to the
//! SDE* and *The sampler as a policy*.
//!
//! # A first sample
#![doc = include_str!("sampling.md")]

pub mod analytic;
mod field;
mod gaussian;
mod kl;
pub mod matching;
mod sampler;
mod time_grid;
mod transition;

pub use field::{
    Checkpointed, Guidance, GuidanceGradient, Guided, Query, TrainableField, VelocityField,
};
pub use gaussian::{IsotropicGaussian, Reduction, row_mean};
pub use kl::KlForm;
pub use sampler::{Sampler, Trajectory, velocity_at};
pub use time_grid::{GridError, GridKind, Step, TimeGrid};
pub use transition::{Affine, Dance, FlowCps, FlowSde, NoiseLevel, Ode, Rule, Transition};
