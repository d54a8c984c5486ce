//! Tasks: prompts, rewards that score images, and image statistics.
//!
//! Works on images in host memory. Knows no network, no tensor library and no training loop.

pub mod cache;
pub mod geneval;
mod hash;
pub mod image;
pub mod jpeg;
pub mod pixels;
pub mod prompts;
pub mod reward;
pub mod shapes;
pub mod text;
pub mod toy;
