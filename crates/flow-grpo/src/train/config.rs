//! Configuration of a training run.

use std::collections::BTreeMap;

use grpo::GrpoConfig;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use training::{
    ranges::{MOST, MOST_GUIDANCE},
    schedule::{self, Setting},
};

use crate::{
    config::Checked,
    rewards::{self, RewardConfig},
    train::{
        model_config::ModelConfig,
        rules::{Action, Rule},
        tuning::Tuning,
    },
};

/// A training run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of every random draw.
    pub seed: u64,
    /// Number of epochs.
    #[schemars(range(min = 1, max = MOST))]
    pub epochs: usize,
    /// The base model: the name of a built-in checkpoint, the path of a checkpoint, the path of a
    /// model directory in the layout of diffusers, or hub:OWNER/NAME@REVISION.
    pub base: String,
    /// The trained parameters: all weights or an adapter.
    pub tuning: Tuning,
    /// The adapter to start from: a directory of PEFT, a file of diffusers, or
    /// hub:OWNER/NAME@REVISION. Without it training starts with a new adapter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adapter: Option<String>,
    /// Epochs between two checkpoints.
    #[schemars(range(min = 1, max = MOST))]
    pub checkpoint_every: usize,
    /// Number of newest checkpoints to keep, besides the checkpoint of the best evaluation.
    #[schemars(range(min = 1, max = MOST))]
    pub keep_checkpoints: usize,
    /// The metric that chooses the best evaluation: `overall`, `tags.KIND`, `rewards.NAME`, ….
    pub best_by: String,
    /// Epochs between two evaluations; the first comes before the first epoch, the last after the
    /// last epoch.
    #[schemars(range(min = 1, max = MOST))]
    pub evaluate_every: usize,
    /// Images per kind of prompt in an evaluation, spread evenly over the prompts of the kind; 0
    /// takes every prompt once.
    #[schemars(range(max = MOST))]
    pub evaluation_samples: usize,
    /// Scale of classifier-free guidance in evaluations; 1 turns guidance off.
    #[schemars(range(max = MOST_GUIDANCE), extend("exclusiveMinimum" = 0))]
    pub evaluation_guidance: f64,
    /// The prompts for training and evaluation.
    pub prompts: PromptsConfig,
    /// Rewards by name: a weight, or a table with kind, weight and settings.
    pub rewards: BTreeMap<String, RewardConfig>,
    /// Gold rewards: the goal behind the trained rewards, measured on the same images but not
    /// trained on. The format is that of `rewards`; weights have no effect.
    pub gold: BTreeMap<String, RewardConfig>,
    /// The share of an epoch's images that gold rewards judge, spread evenly over its groups;
    /// evaluations judge every image.
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub gold_share: f64,
    /// Automatic actions when a metric of an evaluation passes a limit.
    pub rules: Vec<Rule>,
    /// Settings for a model directory; absent for other base models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelConfig>,
    /// Settings of the reinforcement learning.
    pub grpo: GrpoConfig,
}

/// The prompts of a run: built-in sets (`shapes:train`, …) or prompt files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptsConfig {
    /// Prompts for training.
    pub train: String,
    /// Prompts for evaluations during training. They choose the best checkpoint, and people choose
    /// settings by them.
    pub validation: String,
    /// Prompts for the evaluations before the first and after the last epoch. They choose nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Prompts unlike the training prompts, evaluated at the same times as the test prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
    /// Relative weights of the kinds of prompt; if empty, every prompt is drawn equally often.
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
        let mut problems = settings::problems(self);
        // Relations between settings; their ranges are checked above.
        let mut parts: Vec<String> =
            self.grpo.problems().into_iter().map(|problem| format!("grpo.{problem}")).collect();
        if let Tuning::Lora(lora) = &self.tuning {
            parts.extend(lora.problems().into_iter().map(|problem| format!("tuning.{problem}")));
        }
        parts.retain(|problem| !problems.contains(problem));
        problems.extend(parts);
        if self.adapter.is_some() && matches!(self.tuning, Tuning::Full { .. }) {
            problems.push(
                "adapter is for tuning.kind = \"lora\"; merge it into the base model to train all weights"
                    .to_owned(),
            );
        }
        if self.model.is_some() && matches!(self.tuning, Tuning::Full { .. }) {
            problems.push(
                "tuning.kind must be \"lora\" for a model directory: its transformer is too large to be written whole".to_owned(),
            );
        }
        problems.extend(schedule::problem(
            Setting { key: "grpo.warm_up", value: self.grpo.warm_up },
            Setting { key: "grpo.cool_down", value: self.grpo.cool_down },
            Setting { key: "epochs", value: self.epochs },
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
            if matches!(rule.action, Action::RaiseKl { .. })
                && self.grpo.objective.kl_weight() == 0.0
            {
                problems.push(format!("rules[{index}].action: raise_kl multiplies grpo.objective.kl_weight, which is 0"));
            }
        }
        let mix = self.prompts.mix.iter();
        problems.extend(mix.filter_map(|(tag, &weight)| {
            let allowed = weight >= 0.0 && weight.is_finite();
            (!allowed).then(|| format!("prompts.mix.{tag} ({weight}) must be at least 0"))
        }));
        problems
    }
}
