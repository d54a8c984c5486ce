//! Train flow-matching image models by reinforcement learning.
//!
//! The application: the only crate that names a backend, touches the clock and writes files.

mod backend;
mod bench;
mod bench_sd3;
mod cli;
mod compare;
mod config;
mod embeddings;
mod evaluation;
mod examples;
mod figure;
#[cfg(test)]
mod fuzz;
mod interrupt;
mod intervals;
mod memory;
mod monitors;
mod network;
mod outcome;
mod picture;
mod plot;
mod pretrain;
mod progress;
mod proxy;
mod record;
mod report;
mod rules;
mod run_dir;
mod sample_sd3;
mod scale;
mod sd3;
mod tensorboard;
mod train;
mod train_config;
mod training_state;
mod tuning;
mod view;

use std::process::ExitCode;

/// Burn allocates and frees a tensor for every operation; mimalloc keeps the pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    outcome::report(cli::run())
}
