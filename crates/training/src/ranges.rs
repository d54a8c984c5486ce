//! Bounds of settings that several configurations share.

/// Upper bound on images, epochs and steps; a larger number is a typing error.
pub const MOST: usize = 100_000_000;

/// The largest guidance scale, far beyond useful ones.
pub const MOST_GUIDANCE: f64 = 100.0;
