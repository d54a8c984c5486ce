//! Configuration of a training run.

use std::collections::BTreeMap;

use grpo::GrpoConfig;
use serde::{Deserialize, Serialize};
use training::{
    ranges::{self, MOST},
    schedule,
};

use crate::{
    config::Checked,
    model_config::ModelConfig,
    rewards::{self, RewardConfig},
    rules::{Action, Rule},
    tuning::Tuning,
};

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of every random draw.
    pub seed: u64,
    /// Number of epochs.
    pub epochs: usize,
    /// The base model: the name of a built-in checkpoint, the path of one, or a model directory in
    /// the layout of diffusers.
    pub base: String,
    /// The trained parameters: all weights or an adapter.
    pub tuning: Tuning,
    /// An adapter to start from, a directory of PEFT or a file of diffusers; empty for a new one.
    pub adapter: String,
    /// Epochs between two checkpoints.
    pub checkpoint_every: usize,
    /// Number of newest checkpoints that are kept, besides the checkpoint of the best evaluation.
    pub keep_checkpoints: usize,
    /// The number of an evaluation that chooses the best one: `overall`, `tags.KIND`,
    /// `rewards.NAME`, ….
    pub best_by: String,
    /// Epochs between two evaluations; the first comes before the first epoch, the last after the
    /// last epoch.
    pub evaluate_every: usize,
    /// Images per kind of prompt in an evaluation, spread evenly over the prompts of the kind; 0
    /// takes every prompt once.
    pub evaluation_samples: usize,
    /// Scale of classifier-free guidance in evaluations; 1 turns guidance off.
    pub evaluation_guidance: f64,
    /// The prompts for training and evaluation.
    pub prompts: PromptsConfig,
    /// Rewards by name: a weight, or a table with kind, weight and settings.
    pub rewards: BTreeMap<String, RewardConfig>,
    /// Gold rewards: measured on the same images but not trained on, they are the goal behind the
    /// trained rewards. Written like `rewards`; weights mean nothing here.
    pub gold: BTreeMap<String, RewardConfig>,
    /// Automatic actions when a number of an evaluation goes wrong.
    pub rules: Vec<Rule>,
    /// Settings for a model directory; absent for other base models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// Settings of the reinforcement learning.
    pub grpo: GrpoConfig,
}

/// The prompts of a run: built-in sets (`shapes:train`, …) or prompt files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptsConfig {
    /// Prompts for training.
    pub train: String,
    /// Prompts for evaluation during training, which chooses the best checkpoint; people choose
    /// settings by it, too.
    pub validation: String,
    /// Prompts for evaluation before the first and after the last epoch, which chooses nothing;
    /// empty for none.
    pub test: String,
    /// Prompts of another sort, evaluated like the test prompts; empty for none.
    pub unseen: String,
    /// Relative weights of the kinds of prompt; empty draws every prompt equally often.
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
        "model.recompute",
    ];

    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> =
            self.grpo.problems().into_iter().map(|problem| format!("grpo.{problem}")).collect();
        match &self.tuning {
            Tuning::Lora(lora) => problems
                .extend(lora.problems().into_iter().map(|problem| format!("tuning.{problem}"))),
            Tuning::Full {} if !self.adapter.is_empty() => {
                problems
                    .push("adapter is for tuning.kind = \"lora\"; merge it into the base model to train all weights".to_owned());
            }
            Tuning::Full {} => {}
        }
        problems.extend(
            self.model.iter().flat_map(ModelConfig::problems).map(|problem| format!("model.{problem}")),
        );
        if self.model.is_some() && matches!(self.tuning, Tuning::Full {}) {
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
        problems
            .extend(counts.into_iter().filter_map(|(key, value)| ranges::count(key, value, MOST)));
        problems.extend(ranges::guidance("evaluation_guidance", self.evaluation_guidance));
        problems.extend(schedule::problem(
            ("grpo.warm_up", self.grpo.warm_up),
            ("grpo.cool_down", self.grpo.cool_down),
            ("epochs", self.epochs),
        ));
        if self.rewards.is_empty() {
            problems
                .push(format!("rewards must name at least one of {}", rewards::names().join(", ")));
        }
        for (key, rewards) in [("rewards", &self.rewards), ("gold", &self.gold)] {
            problems.extend(rewards.iter().flat_map(|(name, config)| {
                let of_this = |problem| format!("{key}.{name}: {problem}");
                config.problems(name).into_iter().map(of_this).collect::<Vec<_>>()
            }));
        }
        for (index, rule) in self.rules.iter().enumerate() {
            problems.extend(
                rule.problems().into_iter().map(|problem| format!("rules[{index}].{problem}")),
            );
            if matches!(rule.action, Action::RaiseKl { .. })
                && self.grpo.objective.kl_weight() == 0.0
            {
                problems.push(format!("rules[{index}].action: raise_kl multiplies grpo.objective.kl_weight, which is 0"));
            }
        }
        let mix = self.prompts.mix.iter();
        problems.extend(mix.filter_map(|(tag, &weight)| {
            ranges::not_negative(&format!("prompts.mix.{tag}"), weight)
        }));
        problems
    }
}
