//! The lines of a training run's `metrics.jsonl`, and what is remembered of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    evaluation::{Evaluation, Prompts},
    monitors::{Features, MONITORS, Monitors},
    network::Card,
    rules::{Action, Peaks},
    train_config::TrainConfig,
};

/// The line of an evaluation.
#[derive(Debug, Serialize)]
pub struct EvaluationLine {
    /// `eval`, `epoch` or `action`.
    pub event: &'static str,
    /// Epochs done.
    pub epoch: usize,
    /// On the held-out prompts.
    #[serde(flatten)]
    pub test: Evaluation,
    /// The mean of every gold reward.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gold: BTreeMap<String, f64>,
    /// What is watched beside the rewards.
    pub monitors: Monitors,
    /// On the unseen prompts, at both ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Evaluation>,
}

/// The line of an epoch.
#[derive(Debug, Serialize)]
pub struct EpochLine {
    /// `eval`, `epoch` or `action`.
    pub event: &'static str,
    /// What training did.
    #[serde(flatten)]
    pub metrics: grpo::EpochMetrics,
    /// The mean of every gold reward.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gold: BTreeMap<String, f64>,
    /// What is watched beside the rewards.
    pub monitors: Monitors,
}

/// The line of what a rule did.
#[derive(Debug, Serialize)]
pub struct ActionLine {
    /// `eval`, `epoch` or `action`.
    pub event: &'static str,
    /// Epochs done.
    pub epoch: usize,
    /// What it did.
    pub action: Action,
    /// Why, with the numbers.
    pub reason: String,
}

/// What is remembered of the evaluations so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// The highest value so far of every number that a rule watches.
    pub peaks: Peaks,
    /// What the base model's pictures look like.
    pub base: Option<Features>,
}

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Epochs done.
    pub epoch: usize,
    /// What `best_by` names.
    pub value: f64,
}

/// The names of the numbers that every evaluation of a run has.
pub fn numbers(config: &TrainConfig, test: &Prompts, card: &Card) -> Vec<String> {
    let rewards = config.rewards.keys().map(|name| format!("rewards.{name}"));
    let gold = config.gold.iter().map(|name| format!("gold.{name}"));
    let monitors = if card.latent_shape()[0] == 3 { &MONITORS[..] } else { &MONITORS[..1] };
    let monitors = monitors.iter().map(|name| format!("monitors.{name}"));
    test.accuracies().into_iter().chain(rewards).chain(gold).chain(monitors).collect()
}

/// The number of an evaluation that a dotted name stands for.
pub fn number(evaluation: &Value, name: &str) -> Result<f64> {
    let value = evaluation.pointer(&format!("/{}", name.replace('.', "/"))).and_then(Value::as_f64);
    value.with_context(|| format!("the evaluation has no number `{name}`"))
}
