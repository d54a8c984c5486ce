//! Rewards: pictures and prompts in, one number per picture out.

use thiserror::Error;

use crate::{image::Image, prompts::Prompt};

/// Something that judges pictures.
pub trait Reward: Send + Sync {
    /// Its name in configurations and metrics.
    fn name(&self) -> &'static str;

    /// One number per picture; picture `i` was asked for by prompt `i`.
    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, RewardError>;
}

/// A weighted sum of rewards, with its parts kept.
pub struct WeightedReward {
    parts: Vec<(f32, Box<dyn Reward>)>,
}

/// The scores of a batch of pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The weighted sum, one per picture.
    pub total: Vec<f32>,
    /// Every reward by name, unweighted, one per picture.
    pub parts: Vec<(&'static str, Vec<f32>)>,
}

impl WeightedReward {
    /// A sum of rewards with their weights.
    pub fn new(parts: Vec<(f32, Box<dyn Reward>)>) -> Self {
        Self { parts }
    }

    /// Scores a batch of pictures.
    ///
    /// # Errors
    /// If a reward fails, or gives a number that is not finite.
    pub fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Scores, RewardError> {
        let mut total = vec![0.0; images.len()];
        let mut parts = Vec::with_capacity(self.parts.len());
        for (weight, reward) in &self.parts {
            let scores = reward.score(images, prompts)?;
            assert_eq!(scores.len(), images.len(), "{} must give one number per picture", reward.name());
            if let Some(index) = scores.iter().position(|score| !score.is_finite()) {
                let prompt = prompts[index].text.clone();
                return Err(RewardError::NotFinite { reward: reward.name(), index, prompt, value: scores[index] });
            }
            for (sum, score) in total.iter_mut().zip(&scores) {
                *sum += weight * score;
            }
            parts.push((reward.name(), scores));
        }
        Ok(Scores { total, parts })
    }
}

/// How dark a picture is: `1 − 2·mean`, in `[−1, 1]`. Dense and easy: a trainer that cannot raise it is broken.
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

/// Why pictures could not be scored.
#[derive(Debug, Error, PartialEq)]
pub enum RewardError {
    /// A verifier met a prompt that says nothing but its text.
    #[error("reward `{reward}` cannot judge \"{prompt}\": the prompt has no metadata; use a GenEval .jsonl prompt file")]
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
        /// Why.
        reason: String,
    },
    /// A score that is NaN or infinite.
    #[error("reward `{reward}` gave {value} for picture {index} (\"{prompt}\")")]
    NotFinite {
        /// The reward.
        reward: &'static str,
        /// The picture's index in the batch.
        index: usize,
        /// The prompt's text.
        prompt: String,
        /// The score.
        value: f32,
    },
}
