//! `warm-up`: compiles and tunes the kernels of a training run before it starts.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::Result;
use clap::Args;

use super::train::TrainArgs;
use crate::{
    backend::{self, ON_CPU},
    machine::{self, counts},
    terminal::{interrupt, output, progress::whole_seconds},
    train,
};

/// Options of `warm-up`: those of the run.
#[derive(Args, Debug)]
pub struct WarmUpArgs {
    #[command(flatten)]
    train: TrainArgs,
}

/// Does the work of the run's first epoch in small and throws the results away.
///
/// # Errors
/// If the run could not start.
pub fn run(args: &WarmUpArgs) -> Result<()> {
    if ON_CPU {
        return output::print(format!(
            "nothing to warm up: the backend {} compiles no kernels while it runs\n",
            backend::NAME
        ));
    }
    interrupt::listen()?;
    counts::start();
    let device = machine::device()?;
    let config = args.train.configuration()?;
    let reports = Reports::begin();
    let warmed = train::warm_up(&config, &device);
    reports.end();
    warmed
}

/// A thread that shows how many kernels were compiled.
struct Reports {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

/// Time between two lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Reports {
    fn begin() -> Self {
        let (stop, stopped) = channel();
        Self { stop, thread: thread::spawn(move || report(&stopped)) }
    }

    /// Shows the last line.
    fn end(self) {
        drop(self.stop);
        // The thread only prints, and a line that is lost is lost.
        let _ = self.thread.join();
    }
}

fn report(stopped: &Receiver<()>) {
    let started = Instant::now();
    loop {
        let ends = stopped.recv_timeout(LINE_EVERY) == Err(RecvTimeoutError::Disconnected);
        if let Some(counts) = counts::so_far() {
            output::log(line(counts, started.elapsed()));
        }
        if ends {
            return;
        }
    }
}

fn line(counts: counts::Counts, elapsed: Duration) -> String {
    let counts::Counts { compiled, cached, .. } = counts;
    format!(
        "warm-up: {compiled} kernels compiled, {cached} taken from the cache, {}",
        whole_seconds(elapsed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_counts_new_and_known_kernels() {
        let counts = counts::Counts { launched: 9, compiled: 194, cached: 3 };
        assert_eq!(
            line(counts, Duration::from_secs(100)),
            "warm-up: 194 kernels compiled, 3 taken from the cache, 1m40s"
        );
        let later = counts::Counts { launched: 20, compiled: 195, cached: 3 };
        let between = counts::Counts { launched: 11, compiled: 1, cached: 0 };
        assert_eq!(later.since(counts), between);
    }
}
