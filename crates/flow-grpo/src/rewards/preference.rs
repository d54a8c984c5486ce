//! Rewards of preference models that stand on CLIP.

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::{Context, Result};
use models::{
    preference::{Aesthetic, ClipScore, Hpsv2, PickScore, PreferenceError},
    rgb8::Rgb8,
};
use serde::Deserialize;
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, Unjudged},
};
use toml::Table;

use super::parsed;
use crate::backend::{Device, Plain};

/// Scores images against texts, one number per image.
type Score = Box<dyn Fn(&[Rgb8], &[&str]) -> Result<Vec<f32>, PreferenceError> + Send>;

/// Opens a model from its directory or file, and says how many bytes it takes.
type Open = fn(&Path, &Device) -> Result<(Score, u64), PreferenceError>;

/// A preference model as a reward.
pub struct Preference {
    score: Mutex<Score>,
    bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// The directory or file of the weights.
    model: Option<PathBuf>,
}

/// The cosine of CLIP.
pub fn clip_score(settings: Table, device: &Device) -> Result<Preference> {
    open(settings, device, |path, device| {
        let model = ClipScore::<Plain>::open(path, device)?;
        let bytes = model.bytes();
        Ok((Box::new(move |images, texts| model.score(images, texts)), bytes))
    })
}

/// `PickScore`.
pub fn pick_score(settings: Table, device: &Device) -> Result<Preference> {
    open(settings, device, |path, device| {
        let model = PickScore::<Plain>::open(path, device)?;
        let bytes = model.bytes();
        Ok((Box::new(move |images, texts| model.score(images, texts)), bytes))
    })
}

/// HPSv2 and HPSv2.1.
pub fn hpsv2(settings: Table, device: &Device) -> Result<Preference> {
    open(settings, device, |path, device| {
        let model = Hpsv2::<Plain>::open(path, device)?;
        let bytes = model.bytes();
        Ok((Box::new(move |images, texts| model.score(images, texts)), bytes))
    })
}

/// LAION's aesthetic predictor.
pub fn aesthetic(settings: Table, device: &Device) -> Result<Preference> {
    open(settings, device, |path, device| {
        let model = Aesthetic::<Plain>::open(path, device)?;
        let bytes = model.bytes();
        Ok((Box::new(move |images, texts| model.score(images, texts)), bytes))
    })
}

fn open(settings: Table, device: &Device, open: Open) -> Result<Preference> {
    let Settings { model } = parsed(settings)?;
    let model = model.context(
        "`model` is missing, the directory or file of the published weights: `score --model PATH`, or \
         `train --set rewards.NAME.model=PATH`",
    )?;
    let (score, bytes) = open(&model, device)?;
    Ok(Preference { score: Mutex::new(score), bytes })
}

impl Reward for Preference {
    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let bytes = |(index, image): (usize, &Image)| {
            Rgb8::quantized([image.height, image.width], &image.pixels)
                .map_err(|error| Unjudged::image(index, error))
        };
        let images: Vec<Rgb8> = images.iter().enumerate().map(bytes).collect::<Result<_, _>>()?;
        let texts: Vec<&str> = prompts.iter().map(|prompt| prompt.text.as_str()).collect();
        let score = self.score.lock().expect("no thread panics while it holds the model");
        score(&images, &texts).map_err(Unjudged::batch)
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }
}
