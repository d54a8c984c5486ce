//! `eval --samples-dir`: images that another program made, evaluated like a model's own.
//!
//! A directory has the images, taken by name, and a file of prompts: `prompts.jsonl` (a line of
//! metadata each, like GenEval's), or `prompts.txt`. With n times as many images as prompts, each
//! prompt has n images in a row.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use grpo::evaluate::{EncodedPrompt, Row};
use tasks::{cache::ScoreCache, image::Image, prompts::PromptSet, shapes};

use crate::{
    backend::Device,
    config,
    evaluation::{Evaluation, Prompts},
    machine::needs,
    rewards::{self, RewardConfig, Surroundings},
    train::{config::TrainConfig, presets::TRAIN_PRESETS},
    verbs::score,
};

/// Options for the images of another program.
#[derive(Args, Clone, Debug)]
pub(super) struct ForeignArgs {
    /// Evaluates the images in this directory, sorted by name, instead of a model. The prompts come
    /// from its prompts.jsonl or prompts.txt, or from the file of --prompts. With n times as many
    /// images as prompts, each prompt has n images in a row.
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["checkpoint", "adapter", "steps", "guidance", "seed", "samples"]
    )]
    pub samples_dir: Option<PathBuf>,
    /// Measures the GenEval score with this preset of `train`, e.g. sd35m-geneval: samples four
    /// images for each validation prompt, and lets the server of the reward `geneval` judge them by
    /// the official rule. With --samples-dir: takes the rewards of this preset.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["as_in", "samples"])]
    pub preset: Option<String>,
    /// With --preset: sets one key of the preset, e.g. `--set rewards.geneval.url=http://…`; may be
    /// repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "preset")]
    pub set: Vec<String>,
}

impl ForeignArgs {
    /// The rewards of the options, otherwise the rewards of the run; none without either.
    ///
    /// # Errors
    /// If there is no such preset, or a setting is wrong.
    pub fn rewards(
        &self,
        of_run: Option<BTreeMap<String, RewardConfig>>,
    ) -> Result<BTreeMap<String, RewardConfig>> {
        let Some(name) = &self.preset else { return Ok(of_run.unwrap_or_default()) };
        let table = config::preset(&TRAIN_PRESETS, name)?.table(&TRAIN_PRESETS);
        Ok(config::resolve::<TrainConfig>(table, None, None, &self.set)?.rewards)
    }
}

/// Images of another program, and the rewards that score them.
pub(super) struct Foreign<'a> {
    /// The directory of the images.
    pub directory: &'a Path,
    /// The prompt file, if it is not in the directory.
    pub prompts: Option<&'a str>,
    /// The rewards.
    pub rewards: BTreeMap<String, RewardConfig>,
    /// Known scores.
    pub cache: Option<Arc<ScoreCache>>,
}

/// The prompt files of a directory; the first that is there counts.
const PROMPTS: [&str; 2] = ["prompts.jsonl", "prompts.txt"];

impl Foreign<'_> {
    /// Evaluates the images; also returns whether rewards scored them.
    ///
    /// # Errors
    /// If an image or the prompts cannot be read, the images differ in size, a reward fails, or
    /// there is nothing to evaluate by.
    pub fn evaluate(self, device: &Device) -> Result<(Evaluation, bool)> {
        let file = self.prompt_file()?;
        let prompts = PromptSet::read(&file)?.prompts;
        let paths = score::images_of(&[self.directory.to_owned()])?;
        let each = score::images_per_prompt(paths.len(), prompts.len(), &file)?;
        let images = read_all(&paths)?;
        let image_shape = [images[0].channels, images[0].height, images[0].width];
        let verified = prompts.iter().any(|prompt| shapes::Metadata::of(prompt).is_some());
        ensure!(
            !verified || image_shape[1] == image_shape[2],
            "{}: the prompts ask for images that can be verified, which are square; these are of {} x {} pixels",
            self.directory.display(),
            image_shape[1],
            image_shape[2]
        );
        let with_rewards = !self.rewards.is_empty();
        let surroundings = Surroundings { image_shape, device, cache: self.cache };
        let reward = rewards::open("rewards", &self.rewards, &surroundings)?;
        reward.check(prompts.iter())?;
        let rows = Row::all(prompts.len(), each);
        let encoded = |prompt| EncodedPrompt { prompt, condition: () };
        let prompts = Prompts(prompts.into_iter().map(encoded).collect());
        let evaluation = Evaluation::of(&prompts, &images, &rows, Some(&reward))?;
        if evaluation.accuracy.is_none() && !with_rewards {
            bail!(
                "{} has prompts that cannot be verified: give --preset NAME or --as-in RUN, whose rewards score the images",
                file.display()
            );
        }
        Ok((evaluation, with_rewards))
    }

    /// The file of the prompts.
    fn prompt_file(&self) -> Result<PathBuf> {
        if let Some(given) = self.prompts {
            return Ok(PathBuf::from(given));
        }
        let found = PROMPTS.map(|name| self.directory.join(name)).into_iter();
        found.into_iter().find(|path| path.exists()).with_context(|| {
            format!(
                "{} has no {}: give --prompts FILE",
                self.directory.display(),
                PROMPTS.join(" and no ")
            )
        })
    }
}

/// Reads images of one size.
///
/// # Errors
/// If a file is no image, the images differ in size, or they do not fit in memory.
fn read_all(paths: &[PathBuf]) -> Result<Vec<Image>> {
    let mut images: Vec<Image> = Vec::with_capacity(paths.len());
    for path in paths {
        let image = score::read(path)?;
        let size = |image: &Image| [image.channels, image.height, image.width];
        match images.first() {
            None => needs::check_images(paths.len(), size(&image))?,
            Some(first) => ensure!(
                size(first) == size(&image),
                "{} is of {} x {} pixels, {} of {} x {}: all images must have one size",
                paths[0].display(),
                first.width,
                first.height,
                path.display(),
                image.width,
                image.height
            ),
        }
        images.push(image);
    }
    Ok(images)
}
