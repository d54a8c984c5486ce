//! Progress of long work: a bar with the time left on a terminal, plain lines elsewhere.

use std::{
    io::IsTerminal,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::terminal::output;

/// Progress of one phase.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    name: String,
    started: Instant,
    last_line: Mutex<Instant>,
    on_terminal: bool,
}

/// Whether bars are hidden because a live view has the terminal.
static HIDDEN: AtomicBool = AtomicBool::new(false);

/// Hides or shows the bars of phases that start from now on; returns the previous setting.
pub fn hide_bars(hidden: bool) -> bool {
    HIDDEN.swap(hidden, Ordering::Relaxed)
}

/// Time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(20);

impl Progress {
    /// Starts a phase of `total` units.
    pub fn new(name: &str, total: usize, unit: &str) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let target = if on_terminal && !HIDDEN.load(Ordering::Relaxed) {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(total as u64), target);
        let template =
            format!("{{msg:<12}} {{bar:32}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left");
        bar.set_style(
            ProgressStyle::with_template(&template).expect("the template is well formed"),
        );
        bar.set_message(name.to_owned());
        Self {
            bar,
            name: name.to_owned(),
            started: Instant::now(),
            last_line: Mutex::new(Instant::now()),
            on_terminal,
        }
    }

    /// Sets the count to the units that an earlier session finished.
    pub fn start_at(&self, done: usize) {
        self.bar.set_position(done as u64);
        self.bar.reset_eta();
    }

    /// Adds `units` finished units.
    pub fn advance(&self, units: usize) {
        self.bar.inc(units as u64);
        if self.on_terminal {
            return;
        }
        let mut last = self.last_line.lock().expect("no thread panics while it holds the clock");
        if last.elapsed() >= LINE_EVERY {
            *last = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            output::log(format!(
                "{}: {done}/{total}, {} left",
                self.name,
                whole_seconds(self.bar.eta())
            ));
        }
    }

    /// Prints a line without breaking the bar, and delays the next plain line of progress.
    pub fn say(&self, line: &str) {
        *self.last_line.lock().expect("no thread panics while it holds the clock") = Instant::now();
        self.bar.suspend(|| output::log(line));
    }

    /// Ends the phase and returns its duration.
    pub fn finish(&self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}

/// Formats a duration, `1h02m` or `3m05s` or `12s`.
pub fn whole_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}
