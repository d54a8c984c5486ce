//! The rewards of the emoji task: how well a picture fits its caption, as an encoder sees it.

use std::{path::PathBuf, sync::Mutex};

use anyhow::{Result, ensure};
use serde::Deserialize;
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, Unjudged},
};
use toml::Table;

use super::{Surroundings, emoji_encoder::EmojiEncoder, parsed};

/// An encoder as a reward.
pub struct EmojiReward(Mutex<EmojiEncoder>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The file of another encoder.
    model: Option<PathBuf>,
}

impl EmojiReward {
    /// Opens the built-in encoder of a role, or the file that the settings name.
    ///
    /// # Errors
    /// If there is no such file, or the run's images have another shape than the encoder judges.
    pub fn open(settings: Table, role: emoji::Encoder, run: &Surroundings<'_>) -> Result<Self> {
        let Settings { model } = parsed(settings)?;
        let encoder = match model {
            Some(path) => EmojiEncoder::open(&path, run.device)?,
            None => EmojiEncoder::built_in(role, run.device)?,
        };
        let shape = encoder.image_shape();
        ensure!(
            shape == run.image_shape,
            "it judges images of shape {shape:?}, not of {:?}",
            run.image_shape
        );
        Ok(Self(Mutex::new(encoder)))
    }
}

impl Reward for EmojiReward {
    fn check(&self, prompt: &Prompt) -> Result<(), String> {
        let encoder = self.0.lock().expect("no thread panics while it holds the encoder");
        encoder.check(&prompt.text).map_err(|error| error.to_string())
    }

    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let texts: Vec<&str> = prompts.iter().map(|prompt| prompt.text.as_str()).collect();
        let encoder = self.0.lock().expect("no thread panics while it holds the encoder");
        encoder.score(images, &texts).map_err(Unjudged::batch)
    }
}
