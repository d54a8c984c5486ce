//! The Euler step of the probability-flow ODE `dx = v(x, t) dt`.

use burn::prelude::*;

use crate::{gaussian::IsotropicGaussian, time_grid::Step};

/// One Euler step of the ODE, as a point mass.
///
/// ```text
/// mean = x + v·Δt        std = 0        Δt = t' − t < 0
/// ```
///
/// Source: arXiv 2210.02747, section 2; diffusers' `FlowMatchEulerDiscreteScheduler.step`.
///
/// # Shapes
/// - `latent`, `velocity`, mean: `[B, C, H, W]`
///
/// # Panics
/// If `velocity` has another shape than `latent`.
pub fn ode<B: Backend>(latent: Tensor<B, 4>, velocity: Tensor<B, 4>, step: Step) -> IsotropicGaussian<B> {
    assert_eq!(latent.dims(), velocity.dims(), "velocity and latent differ in shape");
    IsotropicGaussian { mean: latent - velocity * step.duration(), std: 0.0 }
}
