//! Sets of prompts: opened, spread over images, and judged.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, bail};
use grpo::evaluate::{EncodedPrompt, Row};
use pipelines::Pipeline;
use run::png;
use tasks::{
    image::Image,
    prompts::{Prompt, PromptSet},
    reward::WeightedReward,
    shapes::{self, Fault, Metadata, Split, Verdict},
    text, toy,
};

use crate::{backend::Training, evaluation::monitors};

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
    /// plot. Images that can be verified have a frame and their first fault.
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
                    caption: caption(prompt),
                    mark: verdict(image, prompt).map(|verdict| png::Mark {
                        right: Some(verdict.strict()),
                        text: verdict.fault.map_or("", Fault::name),
                    }),
                });
            }
        }
        let cells: Vec<png::Captioned<'_>> = by_tag.into_values().flatten().collect();
        Ok(png::write_grid(&cells, SHOWN, path)?)
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
}

/// The text of a prompt in a grid.
pub fn caption(prompt: &Prompt) -> &str {
    prompt.text.trim_start_matches("a photo of ")
}

/// The verdict on an image; `None` if its prompt has no metadata.
pub fn verdict(image: &Image, prompt: &Prompt) -> Option<Verdict> {
    Metadata::of(prompt).map(|metadata| shapes::verify(image, &metadata))
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
        "emoji:train" => emoji::prompts(emoji::Split::Train),
        "emoji:validation" => emoji::prompts(emoji::Split::Validation),
        "emoji:test" => emoji::prompts(emoji::Split::Test),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

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
}
