//! The text-rendering reward: a text is read from the image and compared with the text that the
//! prompt puts in quotes.

use anyhow::Result;
use ocr::{Channels, Lines, OcrError, Options, Reader};
use rayon::prelude::*;
use serde::Deserialize;
use std::path::PathBuf;
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Facts, Reward, Unjudged},
};
use toml::Table;

use super::parsed;

/// Text rendering, judged by a reader in this process.
pub struct TextRendering(Reader);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// A directory of models; the built-in ones if absent.
    model: Option<PathBuf>,
    /// Whether the reader gets red and blue exchanged, as in the reference code.
    #[serde(default)]
    swapped: bool,
    /// Whether lines of text are looked for; without, the whole image is read as one line.
    #[serde(default = "yes")]
    detect: bool,
}

fn yes() -> bool {
    true
}

impl TextRendering {
    /// Opens the reader.
    ///
    /// # Errors
    /// If a setting is unknown, or the models cannot be opened.
    pub fn open(settings: Table) -> Result<Self> {
        let Settings { model, swapped, detect } = parsed(settings)?;
        let channels = if swapped { Channels::Rgb } else { Channels::Bgr };
        let lines = if detect { Lines::Detected } else { Lines::Whole };
        let options = Options { channels, lines, ..Options::default() };
        Ok(Self(match model {
            Some(directory) => Reader::open(&directory, options)?,
            None => Reader::built_in(options)?,
        }))
    }

    fn text(&self, image: &Image) -> Result<String, OcrError> {
        Ok(ocr::text(&self.0.read(&image.rgb8(), image.width, image.height)?))
    }
}

impl Reward for TextRendering {
    fn check(&self, prompt: &Prompt) -> Result<(), String> {
        ocr::target(&prompt.text).map(drop).map_err(|error| error.to_string())
    }

    fn is_slow(&self) -> bool {
        true
    }

    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let score = |(index, (image, prompt)): (usize, (&Image, &&Prompt))| {
            let target =
                ocr::target(&prompt.text).map_err(|error| Unjudged::image(index, error))?;
            let text = self.text(image).map_err(|error| Unjudged::image(index, error))?;
            Ok(ocr::reward(&text, target))
        };
        // One share for each thread: a thread that waits for a network takes other work of its pool,
        // so with one task for each image it would begin to read hundreds of them before the first
        // is done, each with threads and memory of its own.
        let rows: Vec<(usize, (&Image, &&Prompt))> =
            images.iter().zip(prompts).enumerate().collect();
        let share = rows.len().div_ceil(rayon::current_num_threads()).max(1);
        let shares: Vec<Vec<f32>> = rows
            .par_chunks(share)
            .map(|rows| rows.iter().copied().map(score).collect())
            .collect::<Result<_, _>>()?;
        Ok(shares.concat())
    }

    fn facts(&self, image: &Image, _prompt: &Prompt) -> Result<Facts, Unjudged> {
        let text = self.text(image).map_err(Unjudged::batch)?;
        Ok(Facts::from_iter([("text".to_owned(), text.into())]))
    }
}
