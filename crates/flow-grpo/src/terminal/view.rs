//! Display of training: lines and a bar, or optionally a full-screen live view.

mod screen;

use std::{
    collections::VecDeque,
    io::{Stderr, stderr},
    time::Duration,
};

use anyhow::{Context, Result};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen},
    },
};
use serde_json::Value;

use screen::Shown;

use crate::terminal::{
    output,
    progress::{self, Progress},
};

/// The display of a training run.
pub enum View {
    /// Lines, with a bar below them on a terminal.
    Lines(Progress),
    /// The full-screen view.
    Live(Box<Live>),
}

impl View {
    /// Creates the display of a run with `epochs` epochs, of which `done` are finished.
    ///
    /// # Errors
    /// If a live view is requested and the terminal cannot be drawn on.
    pub fn new(live: bool, done: usize, epochs: usize) -> Result<Self> {
        if live {
            return Ok(Self::Live(Box::new(Live::new(done, epochs)?)));
        }
        let progress = Progress::new("training", epochs, "epochs");
        progress.start_at(done);
        Ok(Self::Lines(progress))
    }

    /// Shows a line.
    pub fn say(&mut self, line: &str) {
        match self {
            Self::Lines(progress) => progress.say(line),
            Self::Live(live) => {
                live.said.extend(line.lines().map(str::to_owned));
                live.draw();
            }
        }
    }

    /// Ends the bar; a live view stays until it is dropped.
    pub fn finish(&self) {
        if let Self::Lines(progress) = self {
            progress.finish();
        }
    }

    /// Shows a line of `metrics.jsonl`, with the time left.
    pub fn take(&mut self, line: &Value, remaining: Duration) {
        match self {
            Self::Lines(progress) if line["event"] == "epoch" => progress.advance(1),
            Self::Lines(_) => {}
            Self::Live(live) => {
                live.take(line, remaining);
                live.draw();
            }
        }
    }
}

/// A full-screen view of curves, the newest numbers and the log. Dropping it restores the terminal.
pub struct Live {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    done: usize,
    epochs: usize,
    remaining: Duration,
    rewards: Vec<(f64, f64)>,
    validation: Vec<(f64, f64)>,
    latest: Value,
    said: VecDeque<String>,
}

/// Number of log lines that are kept, more than any terminal shows.
const REMEMBERED: usize = 200;

impl Live {
    fn new(done: usize, epochs: usize) -> Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(stderr()))
            .context("cannot draw on the terminal")?;
        // Not in raw mode: Ctrl-C must stay the signal that ends a run with a checkpoint.
        execute!(stderr(), EnterAlternateScreen, Hide).context("cannot take over the terminal")?;
        progress::hide_bars(true);
        let (rewards, validation, said) = (Vec::new(), Vec::new(), VecDeque::new());
        Ok(Self {
            terminal,
            done,
            epochs,
            remaining: Duration::ZERO,
            rewards,
            validation,
            latest: Value::Null,
            said,
        })
    }

    fn take(&mut self, line: &Value, remaining: Duration) {
        let epoch = line["epoch"].as_f64().unwrap_or(0.0);
        if line["event"] == "epoch" {
            self.rewards.extend(line["reward"].as_f64().map(|reward| (epoch, reward)));
            self.done = epoch as usize;
            self.latest = line.clone();
            self.remaining = remaining;
        } else if let Some(overall) = line["overall"].as_f64() {
            self.validation.push((epoch, overall));
        }
    }

    fn draw(&mut self) {
        while self.said.len() > REMEMBERED {
            self.said.pop_front();
        }
        let Self { terminal, done, epochs, remaining, rewards, validation, latest, said } = self;
        let shown = Shown {
            done: *done,
            epochs: *epochs,
            remaining: *remaining,
            rewards,
            validation,
            latest,
            said,
        };
        // A failure to draw is no reason to lose a run.
        let _ = terminal.draw(|frame| shown.draw(frame));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        give_back_terminal();
        // Repeat the log on the ordinary screen.
        self.said.iter().for_each(output::log);
    }
}

/// Restores the terminal if a live view uses it.
pub fn give_back_terminal() {
    if progress::hide_bars(false) {
        let _ = execute!(stderr(), LeaveAlternateScreen, Show);
    }
}
