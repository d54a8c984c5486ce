//! Display of training: lines and a bar, or optionally a full-screen live view.

use std::{
    collections::VecDeque,
    io::{Stderr, stderr},
    time::Duration,
};

use anyhow::{Context, Result};
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen},
    },
    layout::{Constraint, Layout, Rect},
    style::{Color, Style},
    symbols::Marker,
    text::Line,
    widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph},
};
use serde_json::Value;

use crate::terminal::{
    output,
    progress::{self, Progress, whole_seconds},
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

/// The content of the screen.
struct Shown<'a> {
    done: usize,
    epochs: usize,
    remaining: Duration,
    rewards: &'a [(f64, f64)],
    validation: &'a [(f64, f64)],
    latest: &'a Value,
    said: &'a VecDeque<String>,
}

impl Shown<'_> {
    fn draw(&self, frame: &mut Frame<'_>) {
        let [bar, middle, log] = Layout::vertical([
            Constraint::Length(3),
            Constraint::Min(10),
            Constraint::Percentage(35),
        ])
        .areas(frame.area());
        let [curves, numbers] =
            Layout::horizontal([Constraint::Min(30), Constraint::Length(36)]).areas(middle);
        self.draw_bar(frame, bar);
        self.draw_curves(frame, curves);
        frame.render_widget(
            Paragraph::new(self.numbers()).block(Block::bordered().title(" the newest epoch ")),
            numbers,
        );
        let room = log.height.saturating_sub(2) as usize;
        let newest: Vec<Line<'_>> = self
            .said
            .iter()
            .skip(self.said.len().saturating_sub(room))
            .map(|line| line.as_str().into())
            .collect();
        frame.render_widget(
            Paragraph::new(newest)
                .block(Block::bordered().title(" log; Ctrl-C ends with a checkpoint ")),
            log,
        );
    }

    fn draw_bar(&self, frame: &mut Frame<'_>, area: Rect) {
        let label = format!(
            "epoch {} of {}, {} left",
            self.done,
            self.epochs,
            whole_seconds(self.remaining)
        );
        let share = (self.done as f64 / self.epochs.max(1) as f64).clamp(0.0, 1.0);
        let gauge = Gauge::default()
            .block(Block::bordered().title(" Flow-GRPO "))
            .ratio(share)
            .label(label);
        frame.render_widget(gauge.gauge_style(Style::new().fg(Color::Blue)), area);
    }

    fn draw_curves(&self, frame: &mut Frame<'_>, area: Rect) {
        let values = || self.rewards.iter().chain(self.validation).map(|point| point.1);
        let (low, high) =
            (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let (low, high) = if low < high { (low, high) } else { (0.0, 1.0) };
        let curve = |name: &'static str, color, data| {
            Dataset::default()
                .name(name)
                .marker(Marker::Braille)
                .graph_type(GraphType::Line)
                .style(Style::new().fg(color))
                .data(data)
        };
        let sets = vec![
            curve("training reward", Color::Blue, self.rewards),
            curve("validation", Color::Green, self.validation),
        ];
        let epochs = self.epochs as f64;
        let x =
            Axis::default().bounds([0.0, epochs]).labels(["0".to_owned(), self.epochs.to_string()]);
        let y =
            Axis::default().bounds([low, high]).labels([format!("{low:.2}"), format!("{high:.2}")]);
        // Keep the legend if there is hardly room for it: two curves without names say nothing.
        let chart = Chart::new(sets)
            .hidden_legend_constraints((Constraint::Ratio(1, 2), Constraint::Ratio(1, 2)));
        frame.render_widget(chart.x_axis(x).y_axis(y).block(Block::bordered()), area);
    }

    fn numbers(&self) -> Vec<Line<'static>> {
        let number = |name: &str, pointer: &str| {
            let value = self.latest.pointer(pointer).and_then(Value::as_f64)?;
            let shown = if value != 0.0 && value.abs() < 1e-3 {
                format!("{value:.2e}")
            } else {
                format!("{value:.4}")
            };
            Some(Line::from(format!("{name:<20}{shown:>12}")))
        };
        let rows = [
            ("reward", "/reward"),
            ("its std", "/reward_std"),
            ("groups without spread", "/zero_spread"),
            ("smallest ratio", "/ratio/min"),
            ("largest ratio", "/ratio/max"),
            ("clipped below", "/clipped_low"),
            ("clipped above", "/clipped_high"),
            ("KL to the reference", "/kl_reference"),
            ("its weight", "/kl_weight"),
            ("gradient norm", "/gradient_norm"),
            ("diversity", "/monitors/diversity"),
            ("images/s", "/time/images_per_second"),
            ("transitions/s", "/time/transitions_per_second"),
        ];
        let kinds = self.latest["kinds"].as_object().into_iter().flat_map(|kinds| kinds.keys());
        let kinds = kinds.filter_map(|kind| number(kind, &format!("/kinds/{kind}")));
        rows.into_iter().filter_map(|(name, pointer)| number(name, pointer)).chain(kinds).collect()
    }
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_screen_shows_the_epoch_its_numbers_and_what_was_said() {
        let latest = json!({"epoch": 3, "reward": 0.625, "kinds": {"counting": 0.5}});
        let said = VecDeque::from(["epoch    3  validation: overall 0.700".to_owned()]);
        let shown = Shown {
            done: 3,
            epochs: 12,
            remaining: Duration::from_secs(75),
            rewards: &[(1.0, 0.5), (2.0, 0.55), (3.0, 0.625)],
            validation: &[(0.0, 0.6), (3.0, 0.7)],
            latest: &latest,
            said: &said,
        };
        let mut terminal = Terminal::new(TestBackend::new(100, 30)).expect("a screen in memory");
        terminal.draw(|frame| shown.draw(frame)).expect("drawn");
        let screen = terminal.backend().to_string();
        for part in [
            "epoch 3 of 12, 1m15s left",
            "training reward",
            "0.6250",
            "counting",
            "0.5000",
            "validation: overall 0.700",
            "0.70",
        ] {
            assert!(screen.contains(part), "`{part}` is missing on:\n{screen}");
        }
    }

    #[test]
    fn an_empty_screen_and_a_tiny_one_can_be_drawn() {
        let (latest, said) = (Value::Null, VecDeque::new());
        for (width, height) in [(100, 30), (10, 3), (1, 1)] {
            let shown = Shown {
                done: 0,
                epochs: 0,
                remaining: Duration::MAX,
                rewards: &[],
                validation: &[],
                latest: &latest,
                said: &said,
            };
            let mut terminal =
                Terminal::new(TestBackend::new(width, height)).expect("a screen in memory");
            terminal.draw(|frame| shown.draw(frame)).expect("drawn");
        }
    }
}
