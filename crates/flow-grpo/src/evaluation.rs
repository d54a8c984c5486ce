//! Evaluation: prompt sets, generated images, accuracies, rewards and monitors.

mod accuracy;
pub mod benchmark;
mod generate;
pub mod intervals;
pub mod monitors;
mod prompts;

pub use accuracy::{Accuracy, accuracies};
pub use generate::{Evaluator, Sampling};
pub use prompts::{Prompts, caption, leave_a_color_open, prompt_set, verdict};

use std::collections::BTreeMap;

use anyhow::Result;
use grpo::evaluate::Row;
use serde::{Deserialize, Serialize};
use tasks::{image::Image, reward::WeightedReward};

/// The results of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Accuracies, if every prompt could be verified.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// The mean of every reward.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rewards: BTreeMap<String, f64>,
}

impl Evaluation {
    /// Evaluates the images of rows: strict accuracy if all prompts have metadata, and the mean of
    /// every given reward.
    ///
    /// # Errors
    /// If a reward fails.
    pub fn of<C>(
        prompts: &Prompts<C>,
        images: &[Image],
        rows: &[Row],
        reward: Option<&WeightedReward>,
    ) -> Result<Self> {
        let accuracy = Accuracy::of(prompts, images, rows);
        let mut rewards = reward
            .map(|reward| prompts.means(reward, images, rows))
            .transpose()?
            .unwrap_or_default();
        if accuracy.is_none() && rewards.is_empty() {
            rewards.insert("images".to_owned(), images.len() as f64);
        }
        Ok(Self { accuracy, rewards })
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let rewards = self.rewards.iter().map(|(name, value)| format!("{name} {value:.3}"));
        self.accuracy.iter().map(Accuracy::line).chain(rewards).collect::<Vec<_>>().join("  ")
    }
}
