//! What the base models learn from: rendered scenes with captions, or points of the plane.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use models::TokenIds;
use rand::{Rng, seq::IndexedRandom};
use serde::{Deserialize, Serialize};
use tasks::{
    image::Image,
    prompts::Prompt,
    shapes::{self, Metadata, Scene, Split},
    toy,
};

use crate::network::{Architecture, Card};

/// What the captions of pre-training are like; each is the share of pictures, in `[0, 1]`, for which it holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptionConfig {
    /// Described in detail: shapes, colours and places ([`shapes::detailed`]).
    pub detailed: f64,
    /// Described as a similar but different scene.
    pub wrong: f64,
    /// Not described at all, for classifier-free guidance.
    pub dropped: f64,
}

impl CaptionConfig {
    /// All that is wrong with these shares, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let shares = [("detailed", self.detailed), ("wrong", self.wrong), ("dropped", self.dropped)];
        let outside = shares.into_iter().filter(|(_, share)| !(0.0..=1.0).contains(share));
        outside.map(|(name, share)| format!("{name} ({share}) must lie between 0 and 1")).collect()
    }
}

/// An endless source of pictures with captions.
pub enum Examples {
    /// Scenes for the training prompts, every kind equally often, and for detailed captions.
    Scenes {
        /// The prompts of each kind with what they ask for.
        by_tag: Vec<Vec<(Metadata, TokenIds)>>,
        /// The detailed captions.
        detailed: Vec<(Metadata, TokenIds)>,
        /// The empty caption.
        empty: TokenIds,
        /// Height and width in pixels.
        image_size: usize,
    },
    /// Points of the toy task.
    Points {
        /// The one caption.
        caption: TokenIds,
    },
}

impl Examples {
    /// What a network with this card learns from.
    pub fn new(card: &Card) -> Result<Self> {
        let Architecture::Dit(sizes) = &card.architecture else {
            return Ok(Self::Points { caption: card.condition("a point")? });
        };
        let encode = |prompt: Prompt| -> Result<_> {
            let metadata = prompt.metadata.with_context(|| format!("prompt \"{}\" has no metadata", prompt.text))?;
            Ok((metadata, card.condition(&prompt.text)?))
        };
        let mut by_tag: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for prompt in shapes::prompts(Split::Train).prompts {
            by_tag.entry(prompt.tag.clone()).or_default().push(encode(prompt)?);
        }
        let detailed = shapes::detailed().prompts.into_iter().map(encode).collect::<Result<_>>()?;
        let (by_tag, empty) = (by_tag.into_values().collect(), card.condition("")?);
        Ok(Self::Scenes { by_tag, detailed, empty, image_size: sizes.image_size })
    }

    /// One picture with its caption.
    pub fn draw(&self, captions: &CaptionConfig, rng: &mut impl Rng) -> (Image, TokenIds) {
        match self {
            Self::Points { caption } => (toy::sample(rng), caption.clone()),
            Self::Scenes { by_tag, detailed, empty, image_size } => {
                let of_a_kind = by_tag.choose(rng).expect("there are kinds of prompts");
                let prompts = if rng.random_bool(captions.detailed) { detailed } else { of_a_kind };
                let (metadata, caption) = prompts.choose(rng).expect("every kind has prompts");
                let scene = if rng.random_bool(captions.wrong) {
                    Scene::sample(&metadata.similar(rng), *image_size, rng)
                } else {
                    Scene::sample(metadata, *image_size, rng)
                };
                let caption = if rng.random_bool(captions.dropped) { empty } else { caption };
                (shapes::render(&scene, *image_size), caption.clone())
            }
        }
    }
}
