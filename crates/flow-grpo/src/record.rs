//! The lines of a training run's `metrics.jsonl`, and what is remembered of them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use grpo::evaluate::EncodedPrompt;
use models::weights::sha256;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    evaluation::{Evaluation, Prompts},
    monitors::{self, BASE_DISTANCE, Features, Monitors},
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
    /// On the validation prompts.
    #[serde(flatten)]
    pub validation: Evaluation,
    /// The mean of every gold reward.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub gold: BTreeMap<String, f64>,
    /// What is watched beside the rewards.
    pub monitors: Monitors,
    /// The same relative to the base model's pictures for the same prompts from the same noise.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub drift: BTreeMap<String, f64>,
    /// On the test prompts, at both ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Evaluation>,
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

/// Digests of what a run was begun with and reads again when it goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The base model's file.
    pub base: String,
    /// The prompts that are trained on and evaluated on, with what they ask for.
    pub prompts: String,
}

impl Inputs {
    /// The inputs of a run.
    pub fn of<'a, C: 'a>(base: String, sets: impl IntoIterator<Item = &'a [EncodedPrompt<C>]>) -> Self {
        let prompts: String = sets.into_iter().flatten().map(|prompt| format!("{:?}\n", prompt.prompt)).collect();
        Self { base, prompts: sha256(prompts.as_bytes()) }
    }

    /// # Errors
    /// If they are others than those that the run was begun with.
    pub fn check(&self, begun: &Self) -> Result<()> {
        ensure!(self.base == begun.base, "`base` is another file than the one that the run was begun with");
        ensure!(self.prompts == begun.prompts, "the prompts are others than those that the run was begun with");
        Ok(())
    }
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
    /// The monitors of the base model's pictures.
    pub base_monitors: Monitors,
    /// Whether a rule has ended the run.
    pub stopped: bool,
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
pub fn numbers<C>(config: &TrainConfig, validation: &Prompts<C>, picture_shape: [usize; 3]) -> Vec<String> {
    let rewards = config.rewards.keys().map(|name| format!("rewards.{name}"));
    let gold = config.gold.iter().map(|name| format!("gold.{name}"));
    let accuracies = validation.accuracies();
    let watched = monitors::names(picture_shape, validation.leave_a_color_open());
    let monitors = watched.iter().map(|name| format!("monitors.{name}"));
    let drift = watched.iter().filter(|name| **name != BASE_DISTANCE).map(|name| format!("drift.{name}"));
    accuracies.into_iter().chain(rewards).chain(gold).chain(monitors).chain(drift).collect()
}

/// The number of an evaluation that a dotted name stands for.
pub fn number(evaluation: &Value, name: &str) -> Result<f64> {
    let value = evaluation.pointer(&format!("/{}", name.replace('.', "/"))).and_then(Value::as_f64);
    value.with_context(|| format!("the evaluation has no number `{name}`"))
}
