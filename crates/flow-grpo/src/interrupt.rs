//! Ctrl-C ends a long phase after its current step, with a checkpoint.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Listens for Ctrl-C from now on; a second one ends the process at once.
pub fn listen() -> Result<()> {
    ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            crate::view::give_back_terminal();
            std::process::exit(EXIT_CODE.into());
        }
        eprintln!("\nending after the current step, with a checkpoint; Ctrl-C again ends at once without one");
    })
    .context("cannot listen for Ctrl-C")
}

/// Whether the user asked for the end.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// The exit code of an interrupted run.
pub const EXIT_CODE: u8 = 130;

/// The user ended a run that can be continued.
#[derive(Debug)]
pub struct Interrupted {
    /// The command that goes on.
    pub resume: String,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted; go on with: {}", self.resume)
    }
}

impl std::error::Error for Interrupted {}
