//! Rewards: images and prompts in, one number per image out.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::{image::Image, prompts::Prompt};

/// A reward function: scores images against their prompts.
///
/// A reward may be slow and gets whole batches. It does not know its name: a run can have several
/// instances of one kind, each with a name of its own.
pub trait Reward: Send + Sync {
    /// Checks, before a run, that images for this prompt can be judged.
    ///
    /// # Errors
    /// The reason why they cannot, for people.
    fn check(&self, _prompt: &Prompt) -> Result<(), String> {
        Ok(())
    }

    /// Whether scoring takes long and leaves the device of the networks alone, like a server that
    /// answers over HTTP. Such a reward scores the images of a rollout batch while the next batch
    /// is sampled, so the score of an image must not depend on the other images of its call.
    fn is_slow(&self) -> bool {
        false
    }

    /// Scores images, one number per image; image `i` belongs to prompt `i`.
    ///
    /// # Errors
    /// The first image that cannot be judged, with the reason.
    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged>;

    /// Facts about an image besides its score, for people: the text that was read, the fault that
    /// was found.
    ///
    /// # Errors
    /// As [`Self::score`].
    fn facts(&self, _image: &Image, _prompt: &Prompt) -> Result<Facts, Unjudged> {
        Ok(Facts::new())
    }

    /// Approximate memory that the reward takes on the device, in bytes: the weights of its model
    /// and the activations of a batch; 0 without a model.
    fn bytes(&self) -> u64 {
        0
    }
}

/// Named facts about an image.
pub type Facts = serde_json::Map<String, serde_json::Value>;

/// A reward could not judge an image.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct Unjudged {
    /// Index of the image in the batch, if one image is the cause.
    pub image: Option<usize>,
    /// The reason, for people.
    pub reason: String,
}

impl Unjudged {
    /// A reason that concerns one image.
    pub fn image(index: usize, reason: impl ToString) -> Self {
        Self { image: Some(index), reason: reason.to_string() }
    }

    /// A reason that concerns the whole batch.
    pub fn batch(reason: impl ToString) -> Self {
        Self { image: None, reason: reason.to_string() }
    }
}

/// A reward with its name and weight.
pub struct Weighted {
    /// The name in configurations and metrics.
    pub name: String,
    /// The weight in the sum.
    pub weight: f32,
    /// The reward.
    pub reward: Box<dyn Reward>,
}

/// A weighted sum of rewards that also reports each of them.
pub struct WeightedReward {
    parts: Vec<Weighted>,
}

/// The scores of a batch of images.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The weighted sum, one per image.
    pub total: Vec<f32>,
    /// Every reward.
    pub parts: Vec<Part>,
}

/// The scores of a batch of images by one reward of a sum.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The reward's name.
    pub name: String,
    /// The reward's weight in the sum.
    pub weight: f32,
    /// The scores, unweighted, one per image.
    pub scores: Vec<f32>,
}

/// The scores of the slow rewards of a sum ([`Reward::is_slow`]), which come batch by batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SlowScores(BTreeMap<usize, Vec<f32>>);

impl SlowScores {
    /// Adds the scores of the images that follow.
    pub fn append(&mut self, next: Self) {
        for (part, scores) in next.0 {
            self.0.entry(part).or_default().extend(scores);
        }
    }
}

impl WeightedReward {
    /// Creates a weighted sum of rewards.
    pub fn new(parts: Vec<Weighted>) -> Self {
        Self { parts }
    }

    /// A single reward of weight 1.
    pub fn only(name: &str, reward: Box<dyn Reward>) -> Self {
        Self::new(vec![Weighted { name: name.to_owned(), weight: 1.0, reward }])
    }

    /// Approximate memory that all rewards take on the device, in bytes. Their batches pass one
    /// after the other, but a backend keeps what it has allocated.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.reward.bytes()).sum()
    }

    /// Checks, before a run, that every reward can judge images for these prompts.
    ///
    /// # Errors
    /// The first prompt that a reward cannot judge.
    pub fn check<'a>(
        &self,
        prompts: impl Iterator<Item = &'a Prompt> + Clone,
    ) -> Result<(), RewardError> {
        for Weighted { name, reward, .. } in &self.parts {
            for prompt in prompts.clone() {
                reward.check(prompt).map_err(|reason| RewardError::Prompt {
                    reward: name.clone(),
                    prompt: prompt.text.clone(),
                    reason,
                })?;
            }
        }
        Ok(())
    }

    /// The facts that the rewards know about an image.
    ///
    /// # Errors
    /// If a reward fails.
    pub fn facts(&self, image: &Image, prompt: &Prompt) -> Result<Facts, RewardError> {
        let mut facts = Facts::new();
        for part in &self.parts {
            let failed = |unjudged| part.failed(unjudged, &[prompt]);
            facts.extend(part.reward.facts(image, prompt).map_err(failed)?);
        }
        Ok(facts)
    }

    /// Scores a batch of images.
    ///
    /// # Errors
    /// If a reward fails, gives another number of scores than there are images, or gives a score
    /// that is not finite.
    pub fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Scores, RewardError> {
        self.complete(images, prompts, SlowScores::default())
    }

    /// Scores a batch of images by the slow rewards alone.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn score_slow(
        &self,
        images: &[Image],
        prompts: &[&Prompt],
    ) -> Result<SlowScores, RewardError> {
        let slow = self.parts.iter().enumerate().filter(|(_, part)| part.reward.is_slow());
        let scored = |(index, part): (usize, &Weighted)| Ok((index, part.score(images, prompts)?));
        Ok(SlowScores(slow.map(scored).collect::<Result<_, _>>()?))
    }

    /// Scores a batch of images by the rewards that `slow` lacks.
    ///
    /// # Errors
    /// As [`Self::score`].
    ///
    /// # Panics
    /// If `slow` has the scores of another number of images.
    pub fn complete(
        &self,
        images: &[Image],
        prompts: &[&Prompt],
        SlowScores(mut slow): SlowScores,
    ) -> Result<Scores, RewardError> {
        let mut total = vec![0.0; images.len()];
        let mut parts = Vec::with_capacity(self.parts.len());
        for (index, part) in self.parts.iter().enumerate() {
            let scores = match slow.remove(&index) {
                Some(scores) => scores,
                None => part.score(images, prompts)?,
            };
            assert_eq!(scores.len(), images.len(), "one score per image");
            for (sum, score) in total.iter_mut().zip(&scores) {
                *sum += part.weight * score;
            }
            parts.push(Part { name: part.name.clone(), weight: part.weight, scores });
        }
        Ok(Scores { total, parts })
    }
}

impl Weighted {
    fn failed(&self, Unjudged { image, reason }: Unjudged, prompts: &[&Prompt]) -> RewardError {
        let image = image.map(|index| (index, prompts[index].text.clone()));
        RewardError::Failed { reward: self.name.clone(), image, reason }
    }

    /// One finite score per image.
    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, RewardError> {
        let failed = |unjudged| self.failed(unjudged, prompts);
        let scores = self.reward.score(images, prompts).map_err(failed)?;
        if scores.len() != images.len() {
            let (scores, images) = (scores.len(), images.len());
            return Err(failed(Unjudged::batch(format!("{scores} scores for {images} images"))));
        }
        match scores.iter().position(|score| !score.is_finite()) {
            None => Ok(scores),
            Some(index) => Err(RewardError::NotFinite {
                reward: self.name.clone(),
                index,
                prompt: prompts[index].text.clone(),
                value: scores[index],
            }),
        }
    }
}

/// Darkness of an image: `1 − 2·mean`, in `[−1, 1]`. Dense and easy: a trainer that cannot raise it
/// is broken.
#[derive(Clone, Copy, Debug)]
pub struct Darkness;

impl Reward for Darkness {
    fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let mean = |image: &Image| image.pixels.iter().sum::<f32>() / image.pixels.len() as f32;
        Ok(images.iter().map(|image| 1.0 - 2.0 * mean(image)).collect())
    }
}

/// Images could not be scored.
#[derive(Debug, Error, PartialEq)]
pub enum RewardError {
    /// A reward cannot judge images for a prompt.
    #[error("reward `{reward}` cannot judge \"{prompt}\": {reason}")]
    Prompt {
        /// The reward.
        reward: String,
        /// The prompt's text.
        prompt: String,
        /// Description of the problem.
        reason: String,
    },
    /// The reward could not be computed.
    #[error("reward `{reward}` failed{}: {reason}", of_image(image.as_ref()))]
    Failed {
        /// The reward.
        reward: String,
        /// Index of the image in the batch and its prompt's text, if one image is the cause.
        image: Option<(usize, String)>,
        /// Description of the problem.
        reason: String,
    },
    /// A score is NaN or infinite.
    #[error("reward `{reward}` gave {value} for image {index} (\"{prompt}\")")]
    NotFinite {
        /// The reward.
        reward: String,
        /// Index of the image in the batch.
        index: usize,
        /// The prompt's text.
        prompt: String,
        /// The score.
        value: f32,
    },
}

impl RewardError {
    /// The error with the image's index among all images, if its batch begins at `first`.
    #[must_use]
    pub fn in_batch_from(mut self, first: usize) -> Self {
        match &mut self {
            Self::Failed { image: Some((index, _)), .. } | Self::NotFinite { index, .. } => {
                *index += first;
            }
            Self::Failed { image: None, .. } | Self::Prompt { .. } => {}
        }
        self
    }
}

fn of_image(image: Option<&(usize, String)>) -> String {
    image.map_or_else(String::new, |(index, prompt)| format!(" for image {index} (\"{prompt}\")"))
}
