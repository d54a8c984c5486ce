//! The state that evaluations leave for later ones, and the digests of a run's inputs: parts of a
//! checkpoint.

use anyhow::{Result, ensure};
use files::sha256;
use grpo::evaluate::EncodedPrompt;
use serde::{Deserialize, Serialize};
use tasks::prompts::Prompt;

use crate::{
    evaluation::{
        self,
        monitors::{self, BASE_DISTANCE, Features, Monitors},
    },
    train::{config::TrainConfig, rules::Peaks},
};

/// Digests of a run's inputs, checked on resume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Digest of the base model.
    pub base: String,
    /// Digest of the prompts for training and evaluation, with their metadata.
    pub prompts: String,
}

impl Inputs {
    /// Computes the digests of a run's inputs.
    pub fn of<'a, C: 'a>(
        base: String,
        sets: impl IntoIterator<Item = &'a [EncodedPrompt<C>]>,
    ) -> Self {
        let prompts: String =
            sets.into_iter().flatten().map(|prompt| format!("{:?}\n", prompt.prompt)).collect();
        Self { base, prompts: sha256(prompts.as_bytes()) }
    }

    /// # Errors
    /// If the inputs differ from those at the start of the run.
    pub fn check(&self, begun: &Self) -> Result<()> {
        ensure!(self.base == begun.base, "`base` is not the file that the run was started with");
        ensure!(
            self.prompts == begun.prompts,
            "the prompts are not the ones that the run was started with"
        );
        Ok(())
    }
}

/// The state that evaluations leave for later ones; part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// The highest value of every number that a rule watches.
    pub peaks: Peaks,
    /// The features of the base model's images.
    pub base: Option<Features>,
    /// The monitors of the base model's images.
    pub base_monitors: Monitors,
    /// Whether a rule has ended the run.
    pub stopped: bool,
}

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Number of finished epochs.
    pub epoch: usize,
    /// The value of the number that `best_by` names.
    pub value: f64,
}

/// The names of the numbers in every evaluation of a run.
pub fn numbers(
    config: &TrainConfig,
    validation: &[Prompt],
    image_shape: [usize; 3],
) -> Vec<String> {
    let rewards = config.rewards.keys().map(|name| format!("rewards.{name}"));
    let gold = config.gold.keys().map(|name| format!("gold.{name}"));
    let accuracies = evaluation::accuracies(validation);
    let watched = monitors::names(image_shape, evaluation::leave_a_color_open(validation));
    let monitors = watched.iter().map(|name| format!("monitors.{name}"));
    let drift =
        watched.iter().filter(|name| **name != BASE_DISTANCE).map(|name| format!("drift.{name}"));
    accuracies.into_iter().chain(rewards).chain(gold).chain(monitors).chain(drift).collect()
}
