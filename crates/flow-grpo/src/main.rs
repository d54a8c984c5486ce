//! Train flow-matching image models by reinforcement learning.
//!
//! The application: one backend per build, the command line, and the run directories.

// Only `output` prints lines: the macros of the standard library panic without a reader.
#![cfg_attr(not(test), warn(clippy::print_stdout, clippy::print_stderr))]

mod backend;
mod bench;
mod checkpoints;
mod config;
mod evaluation;
#[cfg(test)]
mod fuzz;
mod machine;
mod named;
mod pretrain;
mod rewards;
mod terminal;
mod train;
mod verbs;

use std::process::ExitCode;

/// Burn allocates and frees a tensor for every operation; mimalloc keeps the pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Leave the live view first: its screen would take the message of the panic with it.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        terminal::view::give_back_terminal();
        hook(panic);
    }));
    let outcome = verbs::run();
    let failed = outcome.is_err();
    let code = terminal::outcome::report(outcome);
    let finished = terminal::outcome::report(machine::finish());
    if failed { code } else { finished }
}
