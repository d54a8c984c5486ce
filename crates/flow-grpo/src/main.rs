//! Train flow-matching image models by reinforcement learning.
//!
//! The application: the only crate that names a backend, touches the clock and writes files.

mod backend;
mod cli;
mod config;
mod evaluation;
mod examples;
mod figure;
mod interrupt;
mod network;
mod picture;
mod plot;
mod pretrain;
mod progress;
mod report;
mod run_dir;
mod train;
mod training_state;

use std::process::ExitCode;

/// Burn allocates and frees a tensor for every operation; mimalloc keeps the pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Interrupted>() => {
            eprintln!("{error}");
            ExitCode::from(interrupt::EXIT_CODE)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
