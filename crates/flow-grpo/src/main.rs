//! Train flow-matching image models by reinforcement learning.
//!
//! The application: one backend per build, the command line, and the run directories.

// Only `output` prints lines: the macros of the standard library panic without a reader.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod backend;
mod bench;
mod bench_directory;
mod checkpoints;
mod cli;
mod compare;
mod config;
mod evaluation;
mod examples;
mod figure;
#[cfg(test)]
mod fuzz;
mod host;
mod interrupt;
mod intervals;
mod memory;
mod model_config;
mod monitors;
mod named;
mod outcome;
mod output;
mod presets;
mod pretrain;
mod program;
mod progress;
mod proxy;
mod record;
mod rewards;
mod rules;
mod sample;
mod scale;
mod train;
mod train_config;
mod training_state;
mod tuning;
mod verbs;
mod view;
mod warnings;

use std::process::ExitCode;

/// Burn allocates and frees a tensor for every operation; mimalloc keeps the pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Leave the live view first: its screen would take the message of the panic with it.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        view::give_back_terminal();
        hook(panic);
    }));
    outcome::report(cli::run())
}
