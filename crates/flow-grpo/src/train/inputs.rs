//! What a configuration names: prompts, rewards, and numbers of evaluations.

use std::collections::BTreeMap;

use anyhow::{Context, Error, Result, anyhow, ensure};
use grpo::groups::Mix;
use pipelines::Pipeline;
use tasks::{prompts::Prompt, reward::WeightedReward};

use crate::{
    backend::{Device, Training},
    evaluation,
    rewards::{self, Surroundings},
    train::{
        config::{PromptsConfig, TrainConfig},
        record::numbers,
    },
};

/// The rewards of a run.
pub struct Rewards {
    /// The rewards that are trained on.
    pub trained: WeightedReward,
    /// The rewards that are only measured.
    pub gold: WeightedReward,
}

impl Rewards {
    /// Opens the rewards and shows them every prompt.
    pub fn open(
        config: &TrainConfig,
        image_shape: [usize; 3],
        sets: &PromptSets,
        device: &Device,
    ) -> Result<Self> {
        let surroundings = Surroundings { image_shape, device, cache: None };
        let trained = rewards::open("rewards", &config.rewards, &surroundings)?;
        let gold = rewards::open("gold", &config.gold, &surroundings)?;
        trained.check(sets.prompts())?;
        gold.check(sets.train.iter().chain(&sets.validation))?;
        Ok(Self { trained, gold })
    }
}

/// The prompts of a run, before they are encoded.
pub struct PromptSets {
    /// Prompts for training.
    pub train: Vec<Prompt>,
    /// Prompts that choose the best checkpoint.
    pub validation: Vec<Prompt>,
    /// Held-out prompts, which choose nothing.
    pub test: Option<Vec<Prompt>>,
    /// Prompts of another sort.
    pub unseen: Option<Vec<Prompt>>,
}

impl PromptSets {
    pub fn read<P: Pipeline<Training>>(config: &PromptsConfig, pipeline: &P) -> Result<Self> {
        let read = |key: &'static str, set: &str| {
            Ok::<_, Error>(evaluation::prompt_set(set, pipeline).context(key)?.prompts)
        };
        let optional =
            |key, set: &Option<String>| set.as_deref().map(|set| read(key, set)).transpose();
        Ok(Self {
            train: read("prompts.train", &config.train)?,
            validation: read("prompts.validation", &config.validation)?,
            test: optional("prompts.test", &config.test)?,
            unseen: optional("prompts.unseen", &config.unseen)?,
        })
    }

    /// The prompts of all sets.
    pub fn prompts(&self) -> impl Iterator<Item = &Prompt> + Clone {
        let held_out = [&self.test, &self.unseen].into_iter().flatten();
        [&self.train, &self.validation].into_iter().chain(held_out).flatten()
    }

    /// All prompts, and the empty one, which guidance needs.
    pub fn all(&self) -> Vec<Prompt> {
        std::iter::once(Prompt::plain("")).chain(self.prompts().cloned()).collect()
    }
}

/// Builds the mix of the kinds of prompt.
///
/// # Errors
/// If the configured weights do not fit the prompts.
pub fn mix(prompts: &[Prompt], weights: &BTreeMap<String, f64>) -> Result<Mix> {
    if weights.is_empty() {
        return Ok(Mix::even(prompts.len()));
    }
    let kinds: Vec<&str> = prompts.iter().map(|prompt| prompt.tag.as_str()).collect();
    Mix::by_kind(&kinds, weights).map_err(|problem| anyhow!("prompts.mix: {problem}"))
}

/// # Errors
/// If the configuration names a number that an evaluation does not have.
pub fn check_numbers(
    config: &TrainConfig,
    validation: &[Prompt],
    image_shape: [usize; 3],
) -> Result<()> {
    let numbers = numbers(config, validation, image_shape);
    let watched = config.rules.iter().map(|rule| ("rules: watch", &rule.watch));
    for (key, name) in [("best_by", &config.best_by)].into_iter().chain(watched) {
        ensure!(
            numbers.contains(name),
            "{key}: an evaluation has no number `{name}`; it has: {}",
            numbers.join(", ")
        );
    }
    Ok(())
}
