//! What a training run is told.

use std::collections::BTreeMap;

use grpo::{
    GrpoConfig,
    ranges::{self, MOST},
    schedule,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::Checked,
    evaluation::{REWARDS, TO_COME},
    rules::{Action, Rule},
    sd3::Sd3Config,
    tuning::Tuning,
};

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of every random draw.
    pub seed: u64,
    /// Iterations of Flow-GRPO.
    pub epochs: usize,
    /// The base model: the name of a built-in checkpoint, the path of one, or a model directory in the layout of diffusers.
    pub base: String,
    /// What is trained: all weights or an adapter.
    pub tuning: Tuning,
    /// An adapter to start from, a directory of PEFT's or a file of diffusers'; empty for a fresh one.
    pub adapter: String,
    /// Epochs between two checkpoints.
    pub checkpoint_every: usize,
    /// How many of the newest checkpoints are kept, beside that of the best evaluation.
    pub keep_checkpoints: usize,
    /// The number of an evaluation that says which one is best: `overall`, `tags.KIND`, `rewards.NAME`, ….
    pub best_by: String,
    /// Epochs between two evaluations; there is one before the first epoch and one after the last as well.
    pub evaluate_every: usize,
    /// Pictures of each kind of prompt in an evaluation, spread evenly over the prompts of the kind; 0 takes every prompt once.
    pub evaluation_samples: usize,
    /// Scale of classifier-free guidance in evaluations; 1 is none.
    pub evaluation_guidance: f64,
    /// What is asked for.
    pub prompts: PromptsConfig,
    /// Rewards by name, with their weights.
    pub rewards: BTreeMap<String, f32>,
    /// Rewards that are measured on the same pictures and not trained on: what the trained ones stand in for.
    pub gold: Vec<String>,
    /// What a run does by itself when a number of an evaluation goes wrong.
    pub rules: Vec<Rule>,
    /// What a model directory leaves open; absent for other base models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sd3: Option<Sd3Config>,
    /// The algorithm.
    pub grpo: GrpoConfig,
}

/// What the model is asked for: built-in sets (`shapes:train`, …) or prompt files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptsConfig {
    /// Trained on.
    pub train: String,
    /// Evaluated on while training goes on: chooses the best checkpoint, and people choose settings by it.
    pub validation: String,
    /// Evaluated on at the start and the end, so it chooses nothing; empty for none.
    pub test: String,
    /// The same for prompts of another sort; empty for none.
    pub unseen: String,
    /// How often each kind of prompt is drawn, relative to the others; empty draws every prompt equally often.
    pub mix: BTreeMap<String, f64>,
}

impl Checked for TrainConfig {
    const MAY_CHANGE: &'static [&'static str] = &[
        "epochs",
        "checkpoint_every",
        "keep_checkpoints",
        "evaluate_every",
        "grpo.micro_batch",
        "grpo.rollout_batch",
        "grpo.rollout.trajectories",
        "sd3.recompute",
    ];

    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.grpo.problems().into_iter().map(|problem| format!("grpo.{problem}")).collect();
        match &self.tuning {
            Tuning::Lora(lora) => problems.extend(lora.problems().into_iter().map(|problem| format!("tuning.{problem}"))),
            Tuning::Full {} if !self.adapter.is_empty() => {
                problems
                    .push("adapter is for tuning.kind = \"lora\"; merge it into the base model to train all weights".to_owned());
            }
            Tuning::Full {} => {}
        }
        problems.extend(self.sd3.iter().flat_map(Sd3Config::problems).map(|problem| format!("sd3.{problem}")));
        if self.sd3.is_some() && matches!(self.tuning, Tuning::Full {}) {
            problems.push(
                "tuning.kind must be \"lora\" for a model directory: its transformer is too large to be written whole".to_owned(),
            );
        }
        let counts = [
            ("epochs", self.epochs),
            ("checkpoint_every", self.checkpoint_every),
            ("keep_checkpoints", self.keep_checkpoints),
            ("evaluate_every", self.evaluate_every),
            ("evaluation_samples", self.evaluation_samples.max(1)),
        ];
        problems.extend(counts.into_iter().filter_map(|(key, value)| ranges::count(key, value, MOST)));
        problems.extend(ranges::guidance("evaluation_guidance", self.evaluation_guidance));
        problems.extend(schedule::problem(
            ("grpo.warm_up", self.grpo.warm_up),
            ("grpo.cool_down", self.grpo.cool_down),
            ("epochs", self.epochs),
        ));
        if self.rewards.is_empty() {
            problems.push(format!("rewards must name at least one of {}", REWARDS.join(", ")));
        }
        for (name, weight) in &self.rewards {
            if TO_COME.contains(&name.as_str()) {
                problems.push(format!(
                    "rewards.{name}: this version cannot compute it yet; to try everything else, pass --set \"rewards={{ \
                     jpeg_compressibility = 1 }}\" --set best_by=rewards.jpeg_compressibility"
                ));
            } else if !REWARDS.contains(&name.as_str()) {
                problems.push(format!("rewards.{name}: there is no such reward; there are: {}", REWARDS.join(", ")));
            }
            if !weight.is_finite() {
                problems.push(format!("rewards.{name} ({weight}) must be a finite number"));
            }
        }
        for name in self.gold.iter().filter(|name| !REWARDS.contains(&name.as_str())) {
            problems.push(format!("gold: there is no reward `{name}`; there are: {}", REWARDS.join(", ")));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            problems.extend(rule.problems().into_iter().map(|problem| format!("rules[{index}].{problem}")));
            if matches!(rule.action, Action::RaiseKl { .. }) && self.grpo.objective.kl_weight() == 0.0 {
                problems.push(format!("rules[{index}].action: raise_kl multiplies grpo.objective.kl_weight, which is 0"));
            }
        }
        let mix = self.prompts.mix.iter();
        problems.extend(mix.filter_map(|(tag, &weight)| ranges::not_negative(&format!("prompts.mix.{tag}"), weight)));
        problems
    }
}
