//! Evaluation: prompts, the pictures made for them, and what those are worth.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context, Result, bail};
use burn::tensor::Tensor;
use flow::{GridKind, Guidance, Sampler};
use grpo::{
    evaluate::{EncodedPrompt, Generator, Row},
    noise::Key,
    workers::Workers,
};
use serde::{Deserialize, Serialize};
use tasks::{
    image::Image,
    prompts::{Prompt, PromptSet},
    reward::WeightedReward,
    shapes::{self, Fault, Split, Verdict},
    toy,
};

use crate::{
    backend::{Device, Plain},
    monitors::{self, JpegCompressibility},
    network::{Network, Pipeline},
    picture, plot,
    progress::Progress,
    proxy::ShapesProxy,
};

/// A prompt set, encoded for a network.
pub struct Prompts<C>(pub Vec<EncodedPrompt<C>>);

impl<C> Prompts<C> {
    /// A built-in set (`shapes:train`, `shapes:test`, `shapes:unseen`, `toy`) or a prompt file.
    ///
    /// # Errors
    /// If the file cannot be read, a word is unknown, or pictures are to be verified and the network makes none.
    pub fn open<P: Pipeline<Condition = C>>(source: &str, pipeline: &P) -> Result<Self> {
        Ok(Self(pipeline.encode(&prompt_set(source, pipeline)?.prompts)?))
    }

    /// `per_tag` rows for every kind of prompt, spread evenly over the prompts of the kind.
    pub fn balanced_rows(&self, per_tag: usize) -> Vec<Row> {
        let mut by_tag: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, encoded) in self.0.iter().enumerate() {
            by_tag.entry(&encoded.prompt.tag).or_default().push(index);
        }
        let rows = |indices: &Vec<usize>| {
            let n = indices.len();
            (0..per_tag).map(|i| Row { prompt: indices[i % n], sample: i / n }).collect::<Vec<_>>()
        };
        by_tag.values().flat_map(rows).collect()
    }

    /// The prompt of a row.
    pub fn prompt(&self, row: &Row) -> &Prompt {
        &self.0[row.prompt].prompt
    }

    /// The names of the accuracies that an evaluation on these prompts has.
    pub fn accuracies(&self) -> Vec<String> {
        if self.0.iter().any(|prompt| prompt.prompt.metadata.is_none()) {
            return Vec::new();
        }
        let tags: BTreeSet<&str> = self.0.iter().map(|prompt| prompt.prompt.tag.as_str()).collect();
        let tags = tags.into_iter().map(|tag| format!("tags.{tag}"));
        ["overall", "partial"].map(str::to_owned).into_iter().chain(tags).collect()
    }

    /// Shows what was made: pictures as a captioned grid with one row a kind, points as a scatter plot.
    pub fn write_picture(&self, images: &[Image], rows: &[Row], path: &Path) -> Result<()> {
        if images.first().is_some_and(|image| image.channels == 2) {
            return plot::write_scatter(images, path);
        }
        let mut by_tag: BTreeMap<&str, Vec<picture::Captioned<'_>>> = BTreeMap::new();
        for (image, row) in images.iter().zip(rows) {
            let prompt = self.prompt(row);
            let shown = by_tag.entry(&prompt.tag).or_default();
            if shown.len() < SHOWN {
                shown.push(picture::Captioned { image, caption: prompt.text.trim_start_matches("a photo of ") });
            }
        }
        let cells: Vec<picture::Captioned<'_>> = by_tag.into_values().flatten().collect();
        picture::write_grid(&cells, SHOWN, path)
    }

    /// Judges pictures: strict accuracy where prompts have metadata, and the mean of every reward that is given.
    pub fn evaluate(&self, images: &[Image], rows: &[Row], reward: Option<&WeightedReward>) -> Result<Evaluation> {
        let accuracy = self.accuracy(images, rows);
        let mut rewards = reward.map(|reward| self.means(reward, images, rows)).transpose()?.unwrap_or_default();
        if accuracy.is_none() && rewards.is_empty() {
            rewards.insert("images".to_owned(), images.len() as f64);
        }
        Ok(Evaluation { accuracy, rewards })
    }

    /// The mean of every reward by name.
    pub fn means(&self, reward: &WeightedReward, images: &[Image], rows: &[Row]) -> Result<BTreeMap<String, f64>> {
        let prompts: Vec<&Prompt> = rows.iter().map(|row| self.prompt(row)).collect();
        monitors::means(reward, images, &prompts)
    }

    fn accuracy(&self, images: &[Image], rows: &[Row]) -> Option<Accuracy> {
        let mut by_tag: BTreeMap<String, Vec<Verdict>> = BTreeMap::new();
        for (image, row) in images.iter().zip(rows) {
            let prompt = self.prompt(row);
            let verdict = shapes::verify(image, prompt.metadata.as_ref()?);
            by_tag.entry(prompt.tag.clone()).or_default().push(verdict);
        }
        Some(Accuracy::of(&by_tag))
    }
}

/// A built-in set of prompts (`shapes:train`, `shapes:test`, `shapes:unseen`, `toy`) or that of a file.
///
/// # Errors
/// If the file cannot be read, or pictures are to be verified and the network makes none.
pub fn prompt_set(source: &str, pipeline: &impl Pipeline) -> Result<PromptSet> {
    let set = match source {
        "shapes:train" => shapes::prompts(Split::Train),
        "shapes:test" => shapes::prompts(Split::Test),
        "shapes:unseen" => shapes::prompts(Split::Unseen),
        "toy" => toy::prompts(),
        path => pipeline.read_prompts(Path::new(path))?,
    };
    let verified = set.prompts.iter().any(|prompt| prompt.metadata.is_some());
    let shape = pipeline.picture_shape();
    if verified && !matches!(shape, [3, height, width] if height == width) {
        bail!("{source} asks for square RGB pictures that can be verified; the checkpoint makes {shape:?}");
    }
    Ok(set)
}

/// Pictures shown of each kind in a sample grid.
const SHOWN: usize = 6;

/// Makes pictures for inference: the ODE, the same noise every time.
pub struct Evaluator<'a, P> {
    /// What goes around the network.
    pub pipeline: &'a P,
    /// Who does the work.
    pub workers: &'a Workers,
    /// Where.
    pub device: &'a Device,
    /// Identity of the noise.
    pub key: Key,
    /// The time grid.
    pub grid: GridKind,
    /// ODE steps.
    pub steps: usize,
    /// Scale of classifier-free guidance; 1 is none.
    pub guidance: f64,
}

impl<P: Pipeline> Evaluator<'_, P> {
    /// A picture for every row.
    ///
    /// # Errors
    /// If the empty prompt cannot be read, which guidance needs, or the grid is none.
    pub fn generate<N>(&self, network: &N, prompts: &Prompts<P::Condition>, rows: &[Row]) -> Result<Vec<Image>>
    where
        N: Network<Plain, P::Condition>,
    {
        let decoder = self.pipeline.decoder()?;
        self.sample(network, prompts, rows, None, |latents| decoder.decode(latents))
            .map(|batches| batches.into_iter().flatten().collect())
    }

    /// The latents at t = 0 of every row, `[B, C, H, W]`, from given ones or from noise.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn latents<N>(
        &self,
        network: &N,
        prompts: &Prompts<P::Condition>,
        rows: &[Row],
        initial: Option<Tensor<Plain, 4>>,
    ) -> Result<Tensor<Plain, 4>>
    where
        N: Network<Plain, P::Condition>,
    {
        Ok(Tensor::cat(self.sample(network, prompts, rows, initial, |latents| latents)?, 0))
    }

    /// What `finish` makes of the final latents of every batch of rows.
    fn sample<N, R: Send>(
        &self,
        network: &N,
        prompts: &Prompts<P::Condition>,
        rows: &[Row],
        initial: Option<Tensor<Plain, 4>>,
        finish: impl Fn(Tensor<Plain, 4>) -> R + Sync,
    ) -> Result<Vec<R>>
    where
        N: Network<Plain, P::Condition>,
    {
        let generator = Generator {
            sampler: Sampler::ode(self.grid.grid(self.steps)?),
            shape: self.pipeline.latent_shape(),
            batch: self.pipeline.batch(),
            workers: self.workers,
        };
        let initial = initial.as_ref();
        let progress = Progress::new("sampling", rows.len(), "images");
        let finish = |latents: Tensor<Plain, 4>| {
            progress.advance(latents.dims()[0]);
            finish(latents)
        };
        let batches = if self.guidance == 1.0 {
            generator.generate(network, &prompts.0, rows, (self.key, initial), self.device, finish)
        } else {
            let unconditional = self.pipeline.conditions(&[""])?.remove(0);
            let field = Guidance { unconditional, scale: self.guidance }.around(network.clone());
            generator.generate(&field, &prompts.0, rows, (self.key, initial), self.device, finish)
        };
        progress.finish();
        Ok(batches)
    }
}

/// What a set of pictures is worth.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Where every prompt could be verified.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<Accuracy>,
    /// The mean of every reward.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rewards: BTreeMap<String, f64>,
}

impl Evaluation {
    /// One line for people.
    pub fn line(&self) -> String {
        let rewards = self.rewards.iter().map(|(name, value)| format!("{name} {value:.3}"));
        self.accuracy.iter().map(Accuracy::line).chain(rewards).collect::<Vec<_>>().join("  ")
    }
}

/// Strict accuracies in `[0, 1]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// The mean over the kinds of prompt, as GenEval's overall score.
    pub overall: f64,
    /// The share of pictures of a kind that are strictly right.
    pub tags: BTreeMap<String, f64>,
    /// The mean partial score over all pictures.
    pub partial: f64,
    /// The number of pictures of each kind.
    pub images: BTreeMap<String, usize>,
    /// The share of pictures of a kind with each fault; only what occurs.
    pub faults: BTreeMap<String, BTreeMap<Fault, f64>>,
}

impl Accuracy {
    /// The accuracy of the pictures of each kind.
    fn of(by_tag: &BTreeMap<String, Vec<Verdict>>) -> Self {
        let share = |verdicts: &[Verdict], fault: Option<Fault>| {
            verdicts.iter().filter(|verdict| verdict.fault == fault).count() as f64 / verdicts.len() as f64
        };
        let faults = |verdicts: &[Verdict]| {
            let shares = Fault::ALL.map(|fault| (fault, share(verdicts, Some(fault))));
            shares.into_iter().filter(|(_, share)| *share > 0.0).collect()
        };
        let tags: BTreeMap<String, f64> = by_tag.iter().map(|(tag, verdicts)| (tag.clone(), share(verdicts, None))).collect();
        let partials: Vec<f64> = by_tag.values().flatten().map(|verdict| verdict.partial.into()).collect();
        Self {
            overall: tags.values().sum::<f64>() / tags.len().max(1) as f64,
            tags,
            partial: partials.iter().sum::<f64>() / partials.len().max(1) as f64,
            images: by_tag.iter().map(|(tag, verdicts)| (tag.clone(), verdicts.len())).collect(),
            faults: by_tag.iter().map(|(tag, verdicts)| (tag.clone(), faults(verdicts))).collect(),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let tags: Vec<String> = self.tags.iter().map(|(tag, share)| format!("{tag} {share:.2}")).collect();
        format!("overall {:.3}  {}", self.overall, tags.join("  "))
    }

    /// A table with 95 % intervals.
    pub fn table(&self) -> String {
        let mut table = String::from("kind            images   strict   95 % interval\n");
        for (tag, &share) in &self.tags {
            let (low, high) = wilson_interval(share, self.images[tag]);
            table += &row(tag, self.images[tag], share, low, high);
        }
        let half = 1.96 * self.overall_standard_error();
        let (low, high) = ((self.overall - half).max(0.0), (self.overall + half).min(1.0));
        table + &row("overall", self.images.values().sum(), self.overall, low, high)
    }

    /// What is wrong with the pictures that are not strictly right, in percent of all of the kind; the first fault of each counts.
    pub fn fault_table(&self) -> String {
        let heading: String = Fault::ALL.iter().map(|fault| format!("{:>9}", fault.name())).collect();
        let mut table = format!("first fault, % {heading}\n");
        for (tag, faults) in &self.faults {
            let percent = |fault| 100.0 * faults.get(fault).copied().unwrap_or_default();
            let shares: String = Fault::ALL.iter().map(|fault| format!("{:>9.1}", percent(fault))).collect();
            table += &format!("{tag:<15}{shares}\n");
        }
        table
    }

    /// The standard error of the mean over the kinds, each kind's pictures being independent.
    fn overall_standard_error(&self) -> f64 {
        let variance = |(tag, share): (&String, &f64)| share * (1.0 - share) / self.images[tag] as f64;
        self.tags.iter().map(variance).sum::<f64>().sqrt() / self.tags.len().max(1) as f64
    }
}

fn row(name: &str, images: usize, share: f64, low: f64, high: f64) -> String {
    format!("{name:<15} {images:>6}  {:>5.1} %  {:>5.1} - {:.1} %\n", 100.0 * share, 100.0 * low, 100.0 * high)
}

/// The Wilson score interval at 95 % for a share of `n` trials (Wilson 1927).
pub fn wilson_interval(share: f64, n: usize) -> (f64, f64) {
    let (n, z) = (n as f64, 1.96);
    let denominator = 1.0 + z * z / n;
    let center = (share + z * z / (2.0 * n)) / denominator;
    let half = z / denominator * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    ((center - half).max(0.0), (center + half).min(1.0))
}

/// The reward of a configuration: names and weights.
pub fn rewards(weights: &BTreeMap<String, f32>, picture_shape: [usize; 3], device: &Device) -> Result<WeightedReward> {
    use tasks::reward::{Darkness, Reward};
    let mut parts: Vec<(f32, Box<dyn Reward>)> = Vec::new();
    for (name, &weight) in weights {
        let reward: Box<dyn Reward> = match name.as_str() {
            "shapes_partial" => Box::new(shapes::ShapesPartial),
            "shapes_strict" => Box::new(shapes::ShapesStrict),
            "shapes_proxy" => Box::new(ShapesProxy::built_in(picture_shape, device).context("rewards.shapes_proxy")?),
            "darkness" => Box::new(Darkness),
            "jpeg_compressibility" => Box::new(JpegCompressibility),
            "toy_mode" => Box::new(toy::FirstMode),
            _ => bail!("rewards.{name}: there is no such reward; there are: {}", REWARDS.join(", ")),
        };
        parts.push((weight, reward));
    }
    Ok(WeightedReward::new(parts))
}

/// The rewards of the paper that this version cannot compute yet.
pub const TO_COME: [&str; 3] = ["geneval", "ocr", "pickscore"];

/// The names of all rewards.
pub const REWARDS: [&str; 6] =
    ["shapes_partial", "shapes_strict", "shapes_proxy", "darkness", "jpeg_compressibility", "toy_mode"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_wilsons() {
        // Newcombe 1998, table I: 81 of 263 gives .2553 to .3662; 0 of 20 gives 0 to .1611.
        let (low, high) = wilson_interval(81.0 / 263.0, 263);
        assert!((low - 0.2553).abs() < 1e-3 && (high - 0.3662).abs() < 1e-3, "{low} {high}");
        let (low, high) = wilson_interval(0.0, 20);
        assert!(low == 0.0 && (high - 0.1611).abs() < 1e-3, "{low} {high}");
    }
}
