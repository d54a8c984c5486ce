//! Signals: Ctrl-C, and the signals by which a system ends programs, end a run with a checkpoint.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};

use crate::terminal::output;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts to listen for signals that end a run: Ctrl-C, whose second press ends the process at
/// once, and SIGTERM, SIGHUP and SIGUSR1, which Slurm, Kubernetes, systemd or a closing terminal
/// send, sometimes twice. Signals that were ignored at the start, as under `nohup`, stay ignored.
///
/// # Errors
/// If the system refuses a handler or a thread.
#[cfg(unix)]
pub fn listen() -> Result<()> {
    use signal_hook::{
        consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1},
        iterator::Signals,
    };
    let heard =
        [SIGINT, SIGTERM, SIGHUP, SIGUSR1].into_iter().filter(|signal| !is_ignored(*signal));
    let mut signals = Signals::new(heard).context("cannot listen for signals")?;
    let listener = move || signals.forever().for_each(|signal| end(signal == SIGINT));
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listener)
        .context("cannot start a thread")?;
    Ok(())
}

/// Whether the process was started with a signal ignored; known on Linux.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// Starts to listen for Ctrl-C; the second press ends the process at once.
#[cfg(not(unix))]
pub fn listen() -> Result<()> {
    ctrlc::set_handler(|| end(true)).context("cannot listen for Ctrl-C")
}

/// Requests the end; a person's second request ends the process at once.
fn end(by_hand: bool) {
    if !REQUESTED.swap(true, Ordering::SeqCst) {
        output::log(
            "\nending with a checkpoint when the work in hand is done; Ctrl-C again ends at once without one",
        );
    } else if by_hand {
        crate::terminal::view::give_back_terminal();
        exit_at_once();
    }
}

/// Ends the process without exit handlers: one of them frees the memory of a compiler that may still
/// be at work.
#[cfg(unix)]
fn exit_at_once() -> ! {
    signal_hook::low_level::exit(EXIT_CODE.into())
}

#[cfg(not(unix))]
fn exit_at_once() -> ! {
    std::process::exit(EXIT_CODE.into())
}

/// Whether the end was requested.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// The exit code of an interrupted run.
pub const EXIT_CODE: u8 = 130;

/// The user interrupted a run that can be resumed.
#[derive(Debug)]
pub struct Interrupted {
    /// The command that resumes the run.
    pub resume: String,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "interrupted; resume with: {}", self.resume)
    }
}

impl std::error::Error for Interrupted {}
