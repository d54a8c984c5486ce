//! `score`: scores images on disk with rewards, or a file of detections by GenEval's rules.

mod detections;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use image::{DynamicImage, ImageDecoder, ImageReader};
use serde::{Deserialize, Serialize};
use tasks::{
    cache::ScoreCache,
    geneval::FailedPosition,
    image::Image,
    prompts::{Prompt, PromptSet},
    reward::{Facts, WeightedReward},
};
use toml::{Table, Value};

use self::detections::Painting;
use crate::{
    backend::Device,
    config,
    rewards::{self, RewardConfig, Surroundings},
    terminal::output,
};

/// Options of `score`.
#[derive(Args, Debug)]
pub struct ScoreArgs {
    #[command(flatten)]
    pub rewards: RewardArgs,
    /// Images (PNG, JPEG or WebP), or directories of images, which are sorted by name.
    #[arg(value_name = "IMAGE", required_unless_present = "detections")]
    images: Vec<PathBuf>,
    /// The prompt of all images.
    #[arg(long, value_name = "TEXT", conflicts_with = "prompt_file")]
    prompt: Option<String>,
    /// A file of prompts in the order of the images: one per line, or GenEval metadata (.jsonl).
    /// With n times as many images as prompts, each prompt has n images in a row.
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// With `--reward geneval`: a .jsonl file with a line {"metadata": …, "detections": […]} for each
    /// image. `--set failed_position=zero_and_one` gives the reward of the public servers.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["images", "prompt", "prompt_file"])]
    detections: Option<PathBuf>,
    /// With --detections and --model: the directory of the images. The lines belong to the images
    /// sorted by name, unless a line names its `image`. CLIP names the colours that the detections
    /// lack.
    #[arg(long = "images", value_name = "DIR", requires = "detections")]
    pictures: Option<PathBuf>,
    /// A file that keeps the scores of slow rewards (judge, geneval, ocr), so that no image is scored
    /// twice. Created if it does not exist. Remove it when a server or its model changes.
    #[arg(long, value_name = "FILE", conflicts_with = "detections")]
    cache: Option<PathBuf>,
    /// Prints one JSON object per line.
    #[arg(long)]
    json: bool,
}

/// Rewards and their settings on the command line.
#[derive(Args, Clone, Debug)]
pub struct RewardArgs {
    /// The kind of a reward; may be repeated.
    #[arg(long = "reward", value_name = "NAME", required = true)]
    names: Vec<String>,
    /// The reward's model: a directory, a file, or hub:OWNER/NAME, which is downloaded.
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Sets one key of the reward, e.g. `--set url=http://127.0.0.1:18085`; may be repeated. With
    /// several rewards, write `--set NAME.KEY=VALUE`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl RewardArgs {
    /// The names of the rewards.
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Opens the rewards for images of a shape.
    ///
    /// # Errors
    /// If a setting is malformed, or a reward cannot be opened.
    pub fn open(
        &self,
        image_shape: [usize; 3],
        cache: Option<Arc<ScoreCache>>,
        device: &Device,
    ) -> Result<WeightedReward> {
        let configs = self.configs()?;
        rewards::open("--reward", &configs, &Surroundings { image_shape, device, cache })
    }

    /// The rewards with their settings.
    fn configs(&self) -> Result<BTreeMap<String, RewardConfig>> {
        let mut table: Table =
            self.names.iter().map(|name| (name.clone(), Value::Table(Table::new()))).collect();
        let mut sets = self.set.clone();
        // Quote the path: it is data, not TOML.
        sets.extend(
            self.model
                .iter()
                .map(|path| format!("model={}", Value::String(path.display().to_string()))),
        );
        for setting in &sets {
            let named = self.names.iter().any(|name| setting.starts_with(&format!("{name}.")));
            let one = match &self.names[..] {
                [name] if !named => format!("{name}.{setting}"),
                _ if named => setting.clone(),
                _ => bail!("--set {setting}: with several rewards write --set NAME.{setting}"),
            };
            config::set_within(&mut table, &one)?;
        }
        let configs: BTreeMap<String, RewardConfig> = Value::Table(table).try_into()?;
        let problems: Vec<String> =
            configs.iter().flat_map(|(name, config)| config.problems(name)).collect();
        ensure!(problems.is_empty(), "--reward: {}", problems.join("\n  - "));
        Ok(configs)
    }

    /// The setting `failed_position` of the only reward, for a file of detections.
    ///
    /// # Errors
    /// If there is another setting.
    fn failed_position(&self) -> Result<FailedPosition> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct OfDetections {
            #[serde(default)]
            failed_position: FailedPosition,
        }
        let settings = self.configs()?.into_values().map(|config| config.settings);
        let mut settings: Table = settings.flatten().collect();
        settings.remove("model"); // The model names colours and does not score.
        let OfDetections { failed_position } = Value::Table(settings)
            .try_into()
            .context("--set: a file of detections has one setting")?;
        Ok(failed_position)
    }
}

/// One line of the output.
#[derive(Serialize)]
struct Scored<'a> {
    image: String,
    prompt: &'a str,
    scores: BTreeMap<&'a str, f32>,
    #[serde(flatten)]
    facts: Facts,
}

/// Scores images and prints a line for each.
///
/// # Errors
/// If an image or the prompts cannot be read, or a reward fails.
pub fn run(args: &ScoreArgs) -> Result<()> {
    if let Some(path) = &args.detections {
        ensure!(
            args.rewards.names == ["geneval"],
            "--detections needs --reward geneval and no other reward: the others look at images"
        );
        let model = args.rewards.model.as_deref().map(Path::to_string_lossy);
        let painting = match (&model, &args.pictures) {
            (Some(model), Some(images)) => Some(Painting { model, images }),
            (None, None) => None,
            _ => bail!("--model and --images go together: CLIP names the colours in the images"),
        };
        let failed_position = args.rewards.failed_position()?;
        return detections::score(path, failed_position, painting.as_ref(), args.json);
    }
    let cache = args.cache.as_deref().map(ScoreCache::open).transpose()?.map(Arc::new);
    let paths = images_of(&args.images)?;
    let prompts = args.prompts(paths.len())?;
    let mut reward: Option<([usize; 3], WeightedReward)> = None;
    for (path, prompt) in paths.iter().zip(&prompts) {
        let image = read(path)?;
        let shape = [image.channels, image.height, image.width];
        let of_shape = match reward.take() {
            Some((of, opened)) if of == shape || !rewards::depend_on_shape(&args.rewards.names) => {
                opened
            }
            _ => args.rewards.open(shape, cache.clone(), &Device::default())?,
        };
        of_shape.check(std::iter::once(prompt))?;
        let in_file = || path.display().to_string();
        let images = std::slice::from_ref(&image);
        let scores = of_shape.score(images, &[prompt]).with_context(in_file)?;
        let line = Scored {
            image: path.display().to_string(),
            prompt: &prompt.text,
            scores: scores.parts.iter().map(|part| (&part.name[..], part.scores[0])).collect(),
            facts: of_shape.facts(&image, prompt).with_context(in_file)?,
        };
        if args.json {
            output::print_json(&line)?;
        } else {
            output::print(line.text())?;
        }
        reward = Some((shape, of_shape));
    }
    Ok(())
}

impl Scored<'_> {
    fn text(&self) -> String {
        let scores = self.scores.iter().map(|(name, score)| format!("  {name} {score:.4}"));
        let facts = self.facts.iter().map(|(name, fact)| format!("  {name} {fact}"));
        format!("{}{}\n", self.image, scores.chain(facts).collect::<String>())
    }
}

impl ScoreArgs {
    /// One prompt per image.
    fn prompts(&self, images: usize) -> Result<Vec<Prompt>> {
        let Some(file) = &self.prompt_file else {
            let prompt = Prompt::plain(self.prompt.as_deref().unwrap_or_default());
            return Ok(vec![prompt; images]);
        };
        let prompts = PromptSet::read(file)?.prompts;
        let each = images_per_prompt(images, prompts.len(), file)?;
        Ok(prompts.into_iter().flat_map(|prompt| vec![prompt; each]).collect())
    }
}

/// Number of images of each prompt of a file.
///
/// # Errors
/// If the number of images is not a multiple of the number of prompts.
pub fn images_per_prompt(images: usize, prompts: usize, file: &Path) -> Result<usize> {
    ensure!(
        images.is_multiple_of(prompts),
        "{images} images for the {prompts} prompts of {}: the number of images must be a multiple of the number of prompts",
        file.display()
    );
    Ok(images / prompts)
}

/// The extensions of image files in a directory.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// The images of files and directories; the images of a directory are sorted by name.
///
/// # Errors
/// If a directory cannot be read or holds no image.
pub fn images_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut images = Vec::new();
    for path in paths {
        if !path.is_dir() {
            images.push(path.clone());
            continue;
        }
        let cannot = || format!("cannot read {}", path.display());
        let entries = fs::read_dir(path).with_context(cannot)?;
        let mut found = Vec::new();
        for entry in entries {
            let file = entry.with_context(cannot)?.path();
            let ending = file.extension().map(|ending| ending.to_string_lossy().to_lowercase());
            if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
                found.push(file);
            }
        }
        ensure!(!found.is_empty(), "{} holds no {} file", path.display(), ENDINGS.join(", "));
        found.sort();
        images.extend(found);
    }
    Ok(images)
}

/// Reads an image as RGB, upright by its EXIF orientation; transparency is dropped, as Pillow's
/// `convert("RGB")` does.
///
/// # Errors
/// If the file is not an image.
pub fn read(path: &Path) -> Result<Image> {
    let open = || -> Result<DynamicImage> {
        let mut decoder = ImageReader::open(path)?.with_guessed_format()?.into_decoder()?;
        let orientation = decoder.orientation()?;
        let mut image = DynamicImage::from_decoder(decoder)?;
        image.apply_orientation(orientation);
        Ok(image)
    };
    let image = open().with_context(|| format!("cannot read the image {}", path.display()))?;
    let image = image.to_rgb8();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(Image::from_rgb8(image.as_raw(), width, height))
}
