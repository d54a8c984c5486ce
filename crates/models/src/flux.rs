//! FLUX.1: the transformer, and the time grid that belongs to it.
//!
//! `tests/src/flux.rs` compares it with diffusers number by number.

mod blocks;
mod config;
mod rope;
mod transformer;

pub use config::FluxConfig;
pub use transformer::{FluxCondition, FluxEmbedding, FluxTransformer};

/// The shift `e^μ` of the time grid for an image of `tokens` tokens; μ is linear in the tokens, 0.5
/// at 256 and 1.15 at 4096.
///
/// Source: diffusers' `FluxPipeline.calculate_shift` with the configuration of FLUX.1-dev. The grid
/// is `GridKind::Shifted` of the crate `flow` with this shift.
pub fn grid_shift(tokens: usize) -> f64 {
    let slope = (1.15 - 0.5) / (4096.0 - 256.0);
    (0.5 + slope * (tokens as f64 - 256.0)).exp()
}
