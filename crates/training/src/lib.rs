//! Training by gradients, without reinforcement learning: keyed noise, parameters as flat vectors,
//! the optimiser with its schedule, the moving average, loss scaling and worker threads.
//!
//! Knows tensors; nothing of fields, networks, rewards or files. Start at [`optimisation::Optimisation`].

pub mod ema;
pub mod loss_scale;
pub mod noise;
pub mod optimisation;
pub mod optimizer;
pub mod parameters;
pub mod ranges;
pub mod schedule;
pub mod workers;
