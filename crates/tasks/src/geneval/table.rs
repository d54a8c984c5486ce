//! The table of a benchmark: accuracy by kind of prompt, and the official overall number.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use serde::Serialize;

use super::{Metadata, Scores};
use crate::shapes::Tag;

/// Images of a prompt in the benchmark.
pub const IMAGES_PER_PROMPT: usize = 4;

/// Number of prompts of a kind in the benchmark: 553 in all.
pub fn published_prompts(tag: Tag) -> usize {
    match tag {
        Tag::SingleObject | Tag::Counting => 80,
        Tag::TwoObject => 99,
        Tag::Colors => 94,
        Tag::Position | Tag::ColorAttr => 100,
    }
}

/// Whether these are all prompts of the benchmark with four images each, given the number of images
/// of every prompt.
pub fn is_complete(images: &BTreeMap<Tag, Vec<usize>>) -> bool {
    Tag::ALL.iter().all(|tag| {
        images.get(tag).is_some_and(|images| {
            images.len() == published_prompts(*tag)
                && images.iter().all(|count| *count == IMAGES_PER_PROMPT)
        })
    })
}

/// The scores of a benchmark's images, added up by kind of prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    tags: BTreeMap<Tag, Sums>,
}

/// Sums over the images of one kind of prompt.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sums {
    /// Every prompt, as its metadata, with its number of images and of right ones.
    prompts: HashMap<String, (usize, usize)>,
    images: usize,
    official: usize,
    strict: usize,
    reward: f64,
    reward_reference: f64,
}

/// A table as numbers for people and programs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// GenEval's overall score: the mean of `official` over the kinds of prompt that have images,
    /// not over images.
    pub overall: f64,
    /// Whether these are all 553 prompts of the benchmark with four images each.
    pub complete: bool,
    /// The kinds of prompt that have images.
    pub tags: BTreeMap<Tag, TagSummary>,
}

/// Scores of one kind of prompt; shares and means are over images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct TagSummary {
    /// Number of different prompts.
    pub prompts: usize,
    /// Number of images.
    pub images: usize,
    /// Share of images that are right by the official rule.
    pub official: f64,
    /// Share of prompts with at least one image that is right by the official rule.
    pub prompts_right: f64,
    /// Share of images that are right by the reward's rule.
    pub strict: f64,
    /// Mean partial score.
    pub reward: f64,
    /// Mean partial score of the public reward servers.
    pub reward_reference: f64,
}

impl Table {
    /// Adds the scores of an image. Images belong to one prompt if their metadata are equal.
    pub fn add(&mut self, metadata: &Metadata, scores: Scores) {
        let sums = self.tags.entry(metadata.tag).or_default();
        let prompt = serde_json::to_string(metadata).expect("metadata is plain data");
        let (images, right) = sums.prompts.entry(prompt).or_default();
        *images += 1;
        *right += usize::from(scores.official);
        sums.images += 1;
        sums.official += usize::from(scores.official);
        sums.strict += usize::from(scores.strict);
        sums.reward += scores.reward;
        sums.reward_reference += scores.reward_reference;
    }

    /// Whether the table has no image.
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// The shares and means; `None` if the table has no image.
    pub fn summary(&self) -> Option<Summary> {
        if self.is_empty() {
            return None;
        }
        let tags: BTreeMap<Tag, TagSummary> =
            self.tags.iter().map(|(&tag, sums)| (tag, sums.summary())).collect();
        let overall = tags.values().map(|tag| tag.official).sum::<f64>() / tags.len() as f64;
        let images = |sums: &Sums| sums.prompts.values().map(|(images, _)| *images).collect();
        let images = self.tags.iter().map(|(&tag, sums)| (tag, images(sums))).collect();
        Some(Summary { overall, complete: is_complete(&images), tags })
    }
}

impl Sums {
    /// Shares and means. A kind is in the table only with an image, so nothing is divided by 0.
    fn summary(&self) -> TagSummary {
        let images = self.images as f64;
        let right = self.prompts.values().filter(|(_, right)| *right > 0).count();
        TagSummary {
            prompts: self.prompts.len(),
            images: self.images,
            official: self.official as f64 / images,
            prompts_right: right as f64 / self.prompts.len() as f64,
            strict: self.strict as f64 / images,
            reward: self.reward / images,
            reward_reference: self.reward_reference / images,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<14}{:>8}{:>8}{:>10}{:>8}{:>8}{:>11}",
            "kind", "prompts", "images", "official", "strict", "reward", "reference"
        )?;
        for (tag, row) in &self.tags {
            writeln!(
                f,
                "{:<14}{:>8}{:>8}{:>10.4}{:>8.4}{:>8.4}{:>11.4}",
                tag.name(),
                row.prompts,
                row.images,
                row.official,
                row.strict,
                row.reward,
                row.reward_reference
            )?;
        }
        let kinds = self.tags.len();
        let part = if self.complete { "" } else { "; not all of the benchmark" };
        write!(f, "overall {:.5}, the mean of `official` over {kinds} kinds{part}", self.overall)
    }
}
