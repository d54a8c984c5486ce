//! Rewards: images and prompts in, one number per image out.

use thiserror::Error;

use crate::{image::Image, prompts::Prompt};

/// A reward function: scores images against their prompts.
pub trait Reward: Send + Sync {
    /// Name of the reward in configurations and metrics.
    fn name(&self) -> &'static str;

    /// Scores images, one number per image; image `i` belongs to prompt `i`.
    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, RewardError>;
}

/// A weighted sum of rewards that also reports each of them.
pub struct WeightedReward {
    parts: Vec<(f32, Box<dyn Reward>)>,
}

/// The scores of a batch of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The weighted sum, one per image.
    pub total: Vec<f32>,
    /// Every reward by name, unweighted, one score per image.
    pub parts: Vec<(&'static str, Vec<f32>)>,
}

impl WeightedReward {
    /// Creates a weighted sum of rewards.
    pub fn new(parts: Vec<(f32, Box<dyn Reward>)>) -> Self {
        Self { parts }
    }

    /// Scores a batch of images.
    ///
    /// # Errors
    /// If a reward fails, or gives a number that is not finite.
    pub fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Scores, RewardError> {
        let mut total = vec![0.0; images.len()];
        let mut parts = Vec::with_capacity(self.parts.len());
        for (weight, reward) in &self.parts {
            let scores = reward.score(images, prompts)?;
            assert_eq!(
                scores.len(),
                images.len(),
                "{} must give one number per image",
                reward.name()
            );
            if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
                let prompt = prompts[index].text.clone();
                return Err(RewardError::NotFinite {
                    reward: reward.name(),
                    index,
                    prompt,
                    value: scores[index],
                });
            }
            for (sum, score) in total.iter_mut().zip(&scores) {
                *sum += weight * score;
            }
            parts.push((reward.name(), scores));
        }
        Ok(Scores { total, parts })
    }
}

/// Darkness of an image: `1 − 2·mean`, in `[−1, 1]`. Dense and easy: a trainer that cannot raise it
/// is broken.
#[derive(Clone, Copy, Debug)]
pub struct Darkness;

impl Reward for Darkness {
    fn name(&self) -> &'static str {
        "darkness"
    }

    fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, RewardError> {
        let mean = |image: &Image| image.pixels.iter().sum::<f32>() / image.pixels.len() as f32;
        Ok(images.iter().map(|image| 1.0 - 2.0 * mean(image)).collect())
    }
}

/// Images could not be scored.
#[derive(Debug, Error, PartialEq)]
pub enum RewardError {
    /// A verifier got a prompt without metadata.
    #[error(
        "reward `{reward}` cannot judge \"{prompt}\": the prompt has no metadata; use a GenEval .jsonl prompt file"
    )]
    NoMetadata {
        /// The reward.
        reward: &'static str,
        /// The prompt's text.
        prompt: String,
    },
    /// The reward could not be computed.
    #[error("reward `{reward}` failed: {reason}")]
    Failed {
        /// The reward.
        reward: &'static str,
        /// Description of the problem.
        reason: String,
    },
    /// A score is NaN or infinite.
    #[error("reward `{reward}` gave {value} for image {index} (\"{prompt}\")")]
    NotFinite {
        /// The reward.
        reward: &'static str,
        /// Index of the image in the batch.
        index: usize,
        /// The prompt's text.
        prompt: String,
        /// The score.
        value: f32,
    },
}
