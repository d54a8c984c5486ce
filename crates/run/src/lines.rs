//! The lines of a run's `metrics.jsonl`: intact, damaged, missing, and those that a state covers.

use std::collections::BTreeSet;

use serde_json::Value;

/// The part of the metrics that belongs to a state.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// Number of finished epochs or steps.
    pub done: usize,
    /// Whether the evaluation after them is still due.
    pub evaluation_due: bool,
}

impl Recorded {
    /// Whether a line was written before the state.
    pub(crate) fn keeps(self, line: &Value) -> bool {
        let of_training = line["event"] == "epoch" || line["event"] == "step";
        position(line).is_some_and(|at| {
            at < self.done || (at == self.done && (of_training || !self.evaluation_due))
        })
    }
}

/// A line that every run writes regularly, so that its absence is a hole.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The event of the line.
    pub event: &'static str,
    /// Number of epochs or steps between two lines, at least 1.
    pub every: usize,
}

impl Expected {
    /// The multiples of `every` up to `done` without a line, as ranges.
    pub(crate) fn missing(self, lines: &[Line], done: usize) -> String {
        let there: BTreeSet<usize> = lines
            .iter()
            .filter(|line| line.value["event"] == self.event)
            .filter_map(|line| position(&line.value))
            .collect();
        let every = self.every;
        let missing: Vec<usize> =
            (1..=done / every).map(|i| i * every).filter(|at| !there.contains(at)).collect();
        let ranges = missing.chunk_by(|a, b| b - a == every).map(|range| match range {
            [first, .., last] => format!("{first} to {last}"),
            one => one[0].to_string(),
        });
        ranges.collect::<Vec<_>>().join(", ")
    }
}

/// The epoch or step of a line.
pub(crate) fn position(line: &Value) -> Option<usize> {
    line["epoch"].as_u64().or_else(|| line["step"].as_u64()).map(|position| position as usize)
}

/// The lines of one kind of event.
pub(crate) fn of_event<'a>(lines: &'a [Value], event: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["event"] == event)
}

/// The number with a dotted name in a line, `rewards.darkness`.
pub(crate) fn number(line: &Value, name: &str) -> Option<f64> {
    line.pointer(&format!("/{}", name.replace('.', "/")))?.as_f64()
}

/// An intact line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// The bytes as written, without the line break.
    pub text: String,
    /// The parsed content.
    pub value: Value,
}

/// The lines of a metrics file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lines {
    /// The intact lines.
    pub whole: Vec<Line>,
    /// Number of damaged lines, without the last line, which a kill may cut short.
    pub damaged: usize,
}

impl Lines {
    /// Splits the content of a metrics file.
    pub fn of(bytes: &[u8]) -> Self {
        let mut lines = Self::default();
        let mut cut = false;
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            lines.damaged += usize::from(cut);
            let parsed = std::str::from_utf8(line).ok().and_then(parse);
            cut = parsed.is_none();
            lines.whole.extend(parsed);
        }
        lines
    }
}

fn parse(text: &str) -> Option<Line> {
    Some(Line { text: text.to_owned(), value: serde_json::from_str(text).ok()? })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_in_the_middle_is_damaged_and_the_last_one_may_be_cut_short() {
        let lines = |text: &[u8]| {
            let Lines { whole, damaged } = Lines::of(text);
            (whole.len(), damaged)
        };
        assert_eq!(lines(b"{\"epoch\":1}\n{\"epoch\":2}\n{\"ep"), (2, 0));
        assert_eq!(lines(b"{\"epoch\":1}\n{\"ep\n{\"epoch\":3}\n"), (2, 1));
        assert_eq!(lines(b"{\"epoch\":1}\n\xff\n\0\0\0\n{\"epoch\":3}\n"), (2, 2));
        assert_eq!(lines(b""), (0, 0));
    }

    #[test]
    fn a_hole_is_named() {
        let lines = |epochs: &[usize]| {
            let value = |epoch: &usize| json!({"event": "epoch", "epoch": epoch});
            let line = |epoch| Line { text: String::new(), value: value(epoch) };
            epochs.iter().map(line).collect::<Vec<_>>()
        };
        let every = |every| Expected { event: "epoch", every };
        assert_eq!(every(1).missing(&lines(&[1, 2, 3]), 3), "");
        assert_eq!(every(1).missing(&lines(&[1, 5, 7]), 9), "2 to 4, 6, 8 to 9");
        assert_eq!(every(50).missing(&lines(&[50, 150]), 199), "100");
    }

    #[test]
    fn a_state_covers_its_own_epoch_and_its_evaluation_unless_that_is_due() {
        let [epoch, eval] = ["epoch", "eval"].map(|event| json!({"event": event, "epoch": 2}));
        let later = json!({"event": "epoch", "epoch": 3});
        for due in [false, true] {
            let recorded = Recorded { done: 2, evaluation_due: due };
            assert!(recorded.keeps(&epoch) && !recorded.keeps(&later));
            assert_eq!(recorded.keeps(&eval), !due);
        }
    }
}
