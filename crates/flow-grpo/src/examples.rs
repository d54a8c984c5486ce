//! What the base models learn from: rendered scenes with captions, or points of the plane.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use models::TokenIds;
use rand::{Rng, seq::IndexedRandom};
use tasks::{
    image::Image,
    shapes::{self, Metadata, Scene, Split},
    toy,
};

use crate::network::{Architecture, Card};

/// An endless source of pictures with captions.
pub enum Examples {
    /// Scenes for the training prompts, every kind equally often.
    Scenes {
        /// The prompts of each kind with what they ask for.
        by_tag: Vec<Vec<(Metadata, TokenIds)>>,
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
        let mut by_tag: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for prompt in shapes::prompts(Split::Train).prompts {
            let metadata = prompt.metadata.with_context(|| format!("prompt \"{}\" has no metadata", prompt.text))?;
            by_tag.entry(prompt.tag).or_default().push((metadata, card.condition(&prompt.text)?));
        }
        Ok(Self::Scenes { by_tag: by_tag.into_values().collect(), empty: card.condition("")?, image_size: sizes.image_size })
    }

    /// One picture with its caption: of a similar scene instead with probability `noise`, empty with probability `dropout`.
    pub fn draw(&self, noise: f64, dropout: f64, rng: &mut impl Rng) -> (Image, TokenIds) {
        match self {
            Self::Points { caption } => (toy::sample(rng), caption.clone()),
            Self::Scenes { by_tag, empty, image_size } => {
                let prompts = by_tag.choose(rng).expect("there are kinds of prompts");
                let (metadata, caption) = prompts.choose(rng).expect("every kind has prompts");
                let scene = if rng.random_bool(noise) {
                    Scene::sample(&metadata.similar(rng), *image_size, rng)
                } else {
                    Scene::sample(metadata, *image_size, rng)
                };
                let caption = if rng.random_bool(dropout) { empty } else { caption };
                (shapes::render(&scene, *image_size), caption.clone())
            }
        }
    }
}
