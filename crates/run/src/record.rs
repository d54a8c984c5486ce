//! The lines of a training run's `metrics.jsonl`.
//!
//! Results and metrics arrive as plain data; their fields are written into the line.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::{RunError, lines};

/// The line of an evaluation.
#[derive(Debug, Serialize)]
pub struct EvaluationLine<Evaluation, Monitors> {
    /// `eval`, `epoch` or `action`.
    pub event: &'static str,
    /// Number of finished epochs.
    pub epoch: usize,
    /// Results on the validation prompts.
    #[serde(flatten)]
    pub validation: Evaluation,
    /// The mean of every gold reward.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gold: BTreeMap<String, f64>,
    /// The monitors of the images.
    pub monitors: Monitors,
    /// Monitors relative to those of the base model's images for the same prompts from the same
    /// noise.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub drift: BTreeMap<String, f64>,
    /// Results on the test prompts, before the first and after the last epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Evaluation>,
    /// Results on the unseen prompts, before the first and after the last epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Evaluation>,
}

/// The line of an epoch.
#[derive(Debug, Serialize)]
pub struct EpochLine<Metrics, Monitors> {
    /// `eval`, `epoch` or `action`.
    pub event: &'static str,
    /// The metrics of training.
    #[serde(flatten)]
    pub metrics: Metrics,
    /// The mean of every gold reward.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gold: BTreeMap<String, f64>,
    /// The monitors of the images.
    pub monitors: Monitors,
}

/// The line of a rule's action.
#[derive(Debug, Serialize)]
pub struct ActionLine<Action> {
    /// `eval`, `epoch` or `action`.
    pub event: &'static str,
    /// Number of finished epochs.
    pub epoch: usize,
    /// The action.
    pub action: Action,
    /// The reason, with numbers.
    pub reason: String,
}

/// Looks up a number of an evaluation by its dotted name.
///
/// # Errors
/// If the evaluation has no such number.
pub fn number(evaluation: &Value, name: &str) -> Result<f64, RunError> {
    let number = lines::number(evaluation, name);
    number.ok_or_else(|| RunError::NoSuchNumber { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fields_of_an_evaluation_stand_in_the_line_and_empty_parts_are_left_out() {
        let line = EvaluationLine {
            event: "eval",
            epoch: 3,
            validation: json!({"overall": 0.5}),
            gold: BTreeMap::new(),
            monitors: json!({"diversity": 0.25}),
            drift: BTreeMap::new(),
            test: None,
            unseen: None,
        };
        let text = serde_json::to_string(&line).expect("JSON");
        let expected = r#"{"event":"eval","epoch":3,"overall":0.5,"monitors":{"diversity":0.25}}"#;
        assert_eq!(text, expected);
        let value = serde_json::to_value(&line).expect("JSON");
        assert_eq!(number(&value, "monitors.diversity").expect("a number"), 0.25);
        let error = number(&value, "rewards.x").expect_err("no such number");
        assert_eq!(error.to_string(), "the evaluation has no number `rewards.x`");
    }
}
