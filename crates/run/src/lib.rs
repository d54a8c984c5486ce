//! Run directories, their records, and everything that draws them.
//!
//! Knows JSON lines, images in host memory and the names of files; no tensors, no backend, no
//! training. Metrics arrive as [`serde::Serialize`]. Prints nothing: what a person should read is
//! returned.

mod chart;
pub mod checkpoints;
pub mod compare;
pub mod curves;
pub mod diagram;
mod directory;
mod error;
mod lines;
mod lock;
pub mod png;
mod program;
pub mod record;
mod recorder;
pub mod report;
mod samples;
pub mod scatter;
pub mod tensorboard;

pub use chart::bars;
pub use directory::RunDir;
pub use error::RunError;
pub use lines::{Expected, Recorded};
pub use program::Program;
pub use samples::SampleSet;
