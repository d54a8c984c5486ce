//! Velocity fields in closed form: the ground truth in tests of sampler and transitions.

mod gaussian;
mod mixture;
mod tilt;

use burn::prelude::*;

pub use gaussian::GaussianField;
pub use mixture::{Component, MixtureField};
pub use tilt::BestChange;

/// Computes the score from the velocity, for any flow with `x_1 ~ N(0, I)`.
///
/// ```text
/// ∇ log p_t(x) = − (x + (1 − t)·v(x, t)) / t
/// ```
///
/// Source: arXiv 2505.05470, appendix A.
///
/// # Shapes
/// - `latent`, `velocity`, the result: `[B, C, H, W]`; `t` in `(0, 1]`
pub fn score_from_velocity<B: Backend>(
    latent: Tensor<B, 4>,
    velocity: Tensor<B, 4>,
    t: f64,
) -> Tensor<B, 4> {
    (latent + velocity * (1.0 - t)) * (-1.0 / t)
}
