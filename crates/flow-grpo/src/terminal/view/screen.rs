//! The screen of the live view: progress, curves, numbers and the log.

use std::{collections::VecDeque, time::Duration};

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style},
    symbols::Marker,
    text::Line,
    widgets::{Axis, Block, Chart, Dataset, Gauge, GraphType, Paragraph},
};
use serde_json::Value;

use crate::terminal::progress::whole_seconds;

/// The content of the screen.
pub struct Shown<'a> {
    /// Number of finished epochs.
    pub done: usize,
    /// Number of epochs of the run.
    pub epochs: usize,
    /// The estimated time left.
    pub remaining: Duration,
    /// Mean training reward by epoch.
    pub rewards: &'a [(f64, f64)],
    /// Validation accuracy by epoch.
    pub validation: &'a [(f64, f64)],
    /// The newest line of an epoch.
    pub latest: &'a Value,
    /// The log, oldest line first.
    pub said: &'a VecDeque<String>,
}

impl Shown<'_> {
    /// Draws the screen.
    pub fn draw(&self, frame: &mut Frame<'_>) {
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
    use ratatui::{Terminal, backend::TestBackend};
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
