//! The demos of the book, compiled to WebAssembly.
//!
//! Every demo is a plain struct whose methods take numbers and return numbers or vectors; the pages
//! of the book draw them. The mathematics comes from the other crates of the workspace.

mod baseline;
mod clip;
mod judge;
mod ode_sde;
mod pairs;
mod train_toy;

pub use baseline::{Baseline, BaselineKind};
pub use clip::Clip;
pub use judge::Judge;
pub use ode_sde::OdeSde;
pub use pairs::{Pairs, mean_and_std};
pub use train_toy::{Epoch, TrainToy};

/// The backend of every demo: Burn's CPU backend, on one thread.
pub type Plain = burn_flex::Flex;
