//! Evaluation: prompt sets, generated images, accuracies and rewards.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Result, bail};
use burn::tensor::Tensor;
use flow::{GridKind, Guidance, Sampler};
use grpo::evaluate::{EncodedPrompt, Generator, Row, Start};
use pipelines::Pipeline;
use run::png;
use serde::{Deserialize, Serialize};
use tasks::{
    image::Image,
    prompts::{Prompt, PromptSet},
    reward::WeightedReward,
    shapes::{self, Fault, Metadata, Split, Verdict},
    text, toy,
};
use training::{noise::Key, workers::Workers};

use crate::{
    backend::{Device, Plain, Training},
    intervals::{self, Tally},
    monitors,
    progress::Progress,
};

/// A prompt set, encoded for a network.
pub struct Prompts<C>(pub Vec<EncodedPrompt<C>>);

impl<C> Prompts<C> {
    /// Opens a set as [`prompt_set`] does.
    ///
    /// # Errors
    /// If the file cannot be read, a word is unknown, or images must be verified and the network
    /// makes none.
    pub fn open<P: Pipeline<Training, Condition = C>>(source: &str, pipeline: &P) -> Result<Self> {
        Ok(Self(pipeline.encode(&prompt_set(source, pipeline)?.prompts)?))
    }

    /// `per_kind` rows for every kind of prompt, spread evenly over the prompts of the kind; 0
    /// takes every prompt once.
    pub fn rows(&self, per_kind: usize) -> Vec<Row> {
        if per_kind == 0 {
            return Row::all(self.0.len(), 1);
        }
        let mut by_kind: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, encoded) in self.0.iter().enumerate() {
            by_kind.entry(&encoded.prompt.tag).or_default().push(index);
        }
        let rows = |prompts: &Vec<usize>| {
            let n = prompts.len();
            // With fewer rows than prompts, take every (n/rows)-th prompt; with more, repeat all
            // prompts and spread the remainder likewise.
            let (whole, rest) = (per_kind / n, per_kind % n);
            let again = (0..whole)
                .flat_map(|sample| prompts.iter().map(move |&prompt| Row { prompt, sample }));
            again
                .chain((0..rest).map(|i| Row { prompt: prompts[i * n / rest], sample: whole }))
                .collect::<Vec<_>>()
        };
        by_kind.values().flat_map(rows).collect()
    }

    /// The prompt of a row.
    pub fn prompt(&self, row: &Row) -> &Prompt {
        &self.0[row.prompt].prompt
    }

    /// Writes images as a captioned grid with one row per kind of prompt, or points as a scatter
    /// plot.
    pub fn write_images(&self, images: &[Image], rows: &[Row], path: &Path) -> Result<()> {
        if images.first().is_some_and(|image| image.channels == 2) {
            return Ok(run::scatter::write_scatter(images, path)?);
        }
        let mut by_tag: BTreeMap<&str, Vec<png::Captioned<'_>>> = BTreeMap::new();
        for (image, row) in images.iter().zip(rows) {
            let prompt = self.prompt(row);
            let shown = by_tag.entry(&prompt.tag).or_default();
            if shown.len() < SHOWN {
                shown.push(png::Captioned {
                    image,
                    caption: prompt.text.trim_start_matches("a photo of "),
                });
            }
        }
        let cells: Vec<png::Captioned<'_>> = by_tag.into_values().flatten().collect();
        Ok(png::write_grid(&cells, SHOWN, path)?)
    }

    /// Evaluates images: strict accuracy if all prompts have metadata, and the mean of every given
    /// reward.
    pub fn evaluate(
        &self,
        images: &[Image],
        rows: &[Row],
        reward: Option<&WeightedReward>,
    ) -> Result<Evaluation> {
        let accuracy = self.accuracy(images, rows);
        let mut rewards =
            reward.map(|reward| self.means(reward, images, rows)).transpose()?.unwrap_or_default();
        if accuracy.is_none() && rewards.is_empty() {
            rewards.insert("images".to_owned(), images.len() as f64);
        }
        Ok(Evaluation { accuracy, rewards })
    }

    /// The mean of every reward by name.
    pub fn means(
        &self,
        reward: &WeightedReward,
        images: &[Image],
        rows: &[Row],
    ) -> Result<BTreeMap<String, f64>> {
        let prompts: Vec<&Prompt> = rows.iter().map(|row| self.prompt(row)).collect();
        monitors::means(reward, images, &prompts)
    }

    fn accuracy(&self, images: &[Image], rows: &[Row]) -> Option<Accuracy> {
        let mut by_tag: BTreeMap<String, Vec<Judged>> = BTreeMap::new();
        for (image, row) in images.iter().zip(rows) {
            let prompt = self.prompt(row);
            let metadata = Metadata::of(prompt)?;
            let judged = Judged {
                prompt: row.prompt,
                trained_on: metadata.is_trained_on(),
                verdict: shapes::verify(image, &metadata),
            };
            by_tag.entry(prompt.tag.clone()).or_default().push(judged);
        }
        Some(Accuracy::of(&by_tag))
    }
}

/// The names of the accuracies of an evaluation on prompts.
pub fn accuracies(prompts: &[Prompt]) -> Vec<String> {
    if prompts.iter().any(|prompt| Metadata::of(prompt).is_none()) {
        return Vec::new();
    }
    let tags: BTreeSet<&str> = prompts.iter().map(|prompt| prompt.tag.as_str()).collect();
    let tags = tags.into_iter().map(|tag| format!("tags.{tag}"));
    ["overall", "partial"].map(str::to_owned).into_iter().chain(tags).collect()
}

/// Whether a prompt asks for an object without naming its colour.
pub fn leave_a_color_open(prompts: &[Prompt]) -> bool {
    prompts.iter().filter_map(Metadata::of).any(|metadata| metadata.leaves_a_color_open())
}

/// Opens a built-in set of prompts (`shapes:train`, `shapes:validation`, `shapes:test`,
/// `shapes:unseen`, `text:train`, `text:validation`, `text:test`, `toy`) or a prompt file.
///
/// # Errors
/// If the file cannot be read, or images must be verified and the network makes none.
pub fn prompt_set(source: &str, pipeline: &impl Pipeline<Training>) -> Result<PromptSet> {
    let set = match source {
        "shapes:train" => shapes::prompts(Split::Train),
        "shapes:validation" => shapes::prompts(Split::Validation),
        "shapes:test" => shapes::prompts(Split::Test),
        "shapes:unseen" => shapes::prompts(Split::Unseen),
        "text:train" => text::prompts(text::Split::Train),
        "text:validation" => text::prompts(text::Split::Validation),
        "text:test" => text::prompts(text::Split::Test),
        "toy" => toy::prompts(),
        path => PromptSet::read_checked(Path::new(path), |prompt| pipeline.check_prompt(prompt))?,
    };
    let verified = set.prompts.iter().any(|prompt| Metadata::of(prompt).is_some());
    let shape = pipeline.image_shape();
    if verified && !matches!(shape, [3, height, width] if height == width) {
        bail!(
            "{source} asks for square RGB images that can be verified; the checkpoint makes {shape:?}"
        );
    }
    Ok(set)
}

/// Images per kind of prompt in a sample grid.
const SHOWN: usize = 6;

/// Sampling settings that make images reproducible.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Key of the noise.
    pub key: Key,
    /// The time grid.
    pub grid: GridKind,
    /// Number of ODE steps.
    pub steps: usize,
    /// Scale of classifier-free guidance; 1 turns it off.
    pub guidance: f64,
}

/// Generates images for inference by the ODE; equal settings give equal images.
pub struct Evaluator<'a, P> {
    /// The pipeline of the network.
    pub pipeline: &'a P,
    /// The threads that do the work.
    pub workers: &'a Workers,
    /// The device of the network.
    pub device: &'a Device,
    /// Sampling settings.
    pub sampling: Sampling,
}

impl<P: Pipeline<Training>> Evaluator<'_, P> {
    /// Generates an image for every row.
    ///
    /// # Errors
    /// If the empty prompt, which guidance needs, cannot be encoded, the grid is invalid, or the
    /// work was stopped.
    pub fn generate(
        &self,
        network: P::Network,
        prompts: &Prompts<P::Condition>,
        rows: &[Row],
    ) -> Result<Vec<Image>> {
        let decoder = self.pipeline.decoder()?;
        self.sample(network, prompts, rows, None, |latents| decoder.decode(latents))
            .map(|batches| batches.into_iter().flatten().collect())
    }

    /// The latents at t = 0 of every row, `[B, C, H, W]`, from given initial latents or from noise.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn latents(
        &self,
        network: P::Network,
        prompts: &Prompts<P::Condition>,
        rows: &[Row],
        initial: Option<Tensor<Plain, 4>>,
    ) -> Result<Tensor<Plain, 4>> {
        Ok(Tensor::cat(self.sample(network, prompts, rows, initial, |latents| latents)?, 0))
    }

    /// Samples the rows in batches and returns the results of `finish`, which gets the final
    /// latents of a batch.
    fn sample<R: Send>(
        &self,
        network: P::Network,
        prompts: &Prompts<P::Condition>,
        rows: &[Row],
        initial: Option<Tensor<Plain, 4>>,
        finish: impl Fn(Tensor<Plain, 4>) -> R + Sync,
    ) -> Result<Vec<R>> {
        let generator = Generator {
            sampler: Sampler::ode(self.sampling.grid.grid(self.sampling.steps)?),
            shape: self.pipeline.latent_shape(),
            batch: self.pipeline.footprint().rows_together,
            workers: self.workers,
        };
        let start = Start { key: self.sampling.key, initial: initial.as_ref() };
        let network = self.pipeline.guide(network, self.sampling.guidance);
        let scale = self.pipeline.classifier_free(self.sampling.guidance);
        let progress = Progress::new("sampling", rows.len(), "images");
        let finish = |latents: Tensor<Plain, 4>| {
            progress.advance(latents.dims()[0]);
            finish(latents)
        };
        let batches = if scale == 1.0 {
            generator.generate(&network, &prompts.0, rows, start, self.device, finish)?
        } else {
            let unconditional = self.pipeline.conditions(&[""])?.remove(0);
            let field = Guidance { unconditional, scale }.around(network);
            generator.generate(&field, &prompts.0, rows, start, self.device, finish)?
        };
        progress.finish();
        Ok(batches)
    }
}

/// The verdict on an image for a prompt.
#[derive(Clone, Copy, Debug)]
struct Judged {
    prompt: usize,
    trained_on: bool,
    verdict: Verdict,
}

/// The results of an evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Accuracies, if every prompt could be verified.
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

/// Strict accuracies in `[0, 1]`, with 95 % intervals ([`intervals::interval`]).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// The mean over the kinds of prompt, like GenEval's overall score. Kinds in `trained_on` are
    /// left out, unless there are no others.
    pub overall: f64,
    /// The interval of `overall`.
    pub overall_interval: [f64; 2],
    /// The share of strictly correct images, per kind of prompt.
    pub tags: BTreeMap<String, f64>,
    /// The intervals of `tags`.
    pub intervals: BTreeMap<String, [f64; 2]>,
    /// Kinds whose scenes all occur in training prompts, so that nothing of them is held out.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub trained_on: BTreeSet<String>,
    /// The mean partial score over all images.
    pub partial: f64,
    /// Number of images of each kind.
    pub images: BTreeMap<String, usize>,
    /// The share of images with each fault that occurs, per kind of prompt.
    pub faults: BTreeMap<String, BTreeMap<Fault, f64>>,
}

impl Accuracy {
    /// The accuracies from the judged images of each kind.
    fn of(by_tag: &BTreeMap<String, Vec<Judged>>) -> Self {
        let fault_share = |judged: &[Judged], fault: Fault| {
            judged.iter().filter(|judged| judged.verdict.fault == Some(fault)).count() as f64
                / judged.len() as f64
        };
        let faults = |judged: &[Judged]| {
            let shares = Fault::ALL.map(|fault| (fault, fault_share(judged, fault)));
            shares.into_iter().filter(|(_, share)| *share > 0.0).collect()
        };
        let tallies: BTreeMap<&String, Vec<Tally>> =
            by_tag.iter().map(|(tag, judged)| (tag, tallies(judged))).collect();
        let trained_on: BTreeSet<String> = by_tag
            .iter()
            .filter(|(_, judged)| judged.iter().all(|judged| judged.trained_on))
            .map(|(tag, _)| tag.clone())
            .collect();
        let nothing_is_held_out = trained_on.len() == by_tag.len();
        let counted: Vec<&[Tally]> = tallies
            .iter()
            .filter(|(tag, _)| nothing_is_held_out || !trained_on.contains(**tag))
            .map(|(_, tallies)| &tallies[..])
            .collect();
        let partials: Vec<f64> =
            by_tag.values().flatten().map(|judged| judged.verdict.partial.into()).collect();
        Self {
            overall: intervals::mean_share(&counted),
            overall_interval: intervals::interval(&counted),
            tags: tallies
                .iter()
                .map(|(tag, tallies)| ((*tag).clone(), intervals::share(tallies)))
                .collect(),
            intervals: tallies
                .iter()
                .map(|(tag, tallies)| ((*tag).clone(), intervals::interval(&[tallies])))
                .collect(),
            trained_on,
            partial: partials.iter().sum::<f64>() / partials.len().max(1) as f64,
            images: by_tag.iter().map(|(tag, judged)| (tag.clone(), judged.len())).collect(),
            faults: by_tag.iter().map(|(tag, judged)| (tag.clone(), faults(judged))).collect(),
        }
    }

    /// One line for people; kinds of which nothing is held out are in brackets.
    pub fn line(&self) -> String {
        let tag = |(tag, share): (&String, &f64)| {
            let shown = format!("{tag} {share:.2}");
            if self.trained_on.contains(tag) { format!("({shown})") } else { shown }
        };
        let tags: Vec<String> = self.tags.iter().map(tag).collect();
        let [low, high] = self.overall_interval;
        format!("overall {:.3} ({low:.3}-{high:.3})  {}", self.overall, tags.join("  "))
    }

    /// A table with 95 % intervals.
    pub fn table(&self) -> String {
        let mut table = String::from("kind            images   strict   95 % interval\n");
        for (tag, &share) in &self.tags {
            let note = if self.trained_on.contains(tag) {
                "  all of its scenes are trained on"
            } else {
                ""
            };
            table += &row(tag, self.images[tag], share, self.intervals[tag], note);
        }
        let nothing_is_held_out = self.trained_on.len() == self.tags.len();
        let counted = self
            .images
            .iter()
            .filter(|(tag, _)| nothing_is_held_out || !self.trained_on.contains(*tag));
        let note = if nothing_is_held_out || self.trained_on.is_empty() {
            ""
        } else {
            "  held-out kinds alone"
        };
        table
            + &row(
                "overall",
                counted.map(|(_, images)| images).sum(),
                self.overall,
                self.overall_interval,
                note,
            )
    }

    /// A table of the faults of images that are not strictly correct, in percent of all images of
    /// the kind; only the first fault of an image counts.
    pub fn fault_table(&self) -> String {
        let heading: String =
            Fault::ALL.iter().map(|fault| format!("{:>9}", fault.name())).collect();
        let mut table = format!("first fault, % {heading}\n");
        for (tag, faults) in &self.faults {
            let percent = |fault| 100.0 * faults.get(fault).copied().unwrap_or_default();
            let shares: String =
                Fault::ALL.iter().map(|fault| format!("{:>9.1}", percent(fault))).collect();
            table += &format!("{tag:<15}{shares}\n");
        }
        table
    }
}

/// The number of correct images, prompt by prompt.
fn tallies(judged: &[Judged]) -> Vec<Tally> {
    let mut by_prompt: BTreeMap<usize, Tally> = BTreeMap::new();
    for judged in judged {
        let tally = by_prompt.entry(judged.prompt).or_default();
        tally.images += 1;
        tally.right += usize::from(judged.verdict.strict());
    }
    by_prompt.into_values().collect()
}

fn row(name: &str, images: usize, share: f64, [low, high]: [f64; 2], note: &str) -> String {
    format!(
        "{name:<15} {images:>6}  {:>5.1} %  {:>5.1} - {:.1} %{note}\n",
        100.0 * share,
        100.0 * low,
        100.0 * high
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(kinds: &[(&str, usize)]) -> Prompts<()> {
        let of_kind = |&(tag, count): &(&str, usize)| {
            let prompt = move |_| Prompt { tag: tag.to_owned(), ..Prompt::plain("a prompt") };
            (0..count).map(prompt).collect::<Vec<_>>()
        };
        Prompts(
            kinds
                .iter()
                .flat_map(of_kind)
                .map(|prompt| EncodedPrompt { prompt, condition: () })
                .collect(),
        )
    }

    #[test]
    fn rows_are_spread_evenly_over_the_prompts_of_every_kind() {
        let prompts = prompts(&[("few", 3), ("many", 100)]);
        for per_kind in [1, 2, 7, 50, 64, 100, 230] {
            let rows = prompts.rows(per_kind);
            assert_eq!(rows.len(), 2 * per_kind);
            for (first, count) in [(0, 3), (3, 100)] {
                let taken = |prompt: usize| rows.iter().filter(|row| row.prompt == prompt).count();
                let counts: Vec<usize> = (first..first + count).map(taken).collect();
                let (least, most) = (counts.iter().min(), counts.iter().max());
                assert!(
                    least.zip(most).is_some_and(|(least, most)| most - least <= 1),
                    "{per_kind}: {counts:?}"
                );
                // No stretch of the file is left out.
                let gap = counts.split(|taken| *taken > 0).map(<[_]>::len).max().unwrap_or(0);
                assert!(
                    gap <= count / per_kind.min(count),
                    "{per_kind} of {count}: {gap} in a row without an image"
                );
            }
            let distinct: BTreeSet<(usize, usize)> =
                rows.iter().map(|row| (row.prompt, row.sample)).collect();
            assert_eq!(distinct.len(), rows.len());
        }
        assert_eq!(prompts.rows(0).len(), 103);
    }

    #[test]
    fn a_kind_that_is_trained_on_as_a_whole_does_not_count_as_held_out() {
        let judged = |prompt, trained_on, right: bool| Judged {
            prompt,
            trained_on,
            verdict: Verdict { fault: (!right).then_some(Fault::Shapes), partial: 1.0 },
        };
        let one = vec![judged(0, true, true), judged(1, true, true)];
        let other = vec![judged(2, false, true), judged(3, false, false)];
        let accuracy =
            Accuracy::of(&[("single".to_owned(), one.clone()), ("pairs".to_owned(), other)].into());
        assert_eq!((accuracy.overall, accuracy.tags["single"]), (0.5, 1.0));
        assert!(
            accuracy.line().contains("(single 1.00)") && accuracy.table().contains("trained on"),
            "{}",
            accuracy.table()
        );
        assert_eq!(Accuracy::of(&[("single".to_owned(), one)].into()).overall, 1.0);
    }
}
