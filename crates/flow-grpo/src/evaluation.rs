//! Strict accuracy on held-out prompts, kind by kind, and the pictures it was measured on.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result};
use grpo::evaluate::{EncodedPrompt, Row};
use serde::{Deserialize, Serialize};
use tasks::{image::Image, shapes};

use crate::picture;

/// Accuracies in `[0, 1]`.
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
}

impl Accuracy {
    /// One line for people.
    pub fn line(&self) -> String {
        let tags: Vec<String> = self.tags.iter().map(|(tag, share)| format!("{tag} {share:.2}")).collect();
        format!("overall {:.3}  partial {:.3}  {}", self.overall, self.partial, tags.join("  "))
    }

    /// A table with 95 % intervals.
    pub fn table(&self) -> String {
        let mut table = String::from("kind            images  strict   95 % interval\n");
        for (tag, &share) in &self.tags {
            let (low, high) = wilson_interval(share, self.images[tag]);
            table += &format!("{tag:<15} {:>6}  {:>5.1} %  {:.1} - {:.1} %\n", self.images[tag], 100.0 * share, 100.0 * low, 100.0 * high);
        }
        let images: usize = self.images.values().sum();
        let half = 1.96 * self.overall_standard_error();
        let (low, high) = ((self.overall - half).max(0.0), (self.overall + half).min(1.0));
        table + &format!("{:<15} {images:>6}  {:>5.1} %  {:.1} - {:.1} %\n", "overall", 100.0 * self.overall, 100.0 * low, 100.0 * high)
    }

    /// The standard error of the mean over the kinds, each kind's pictures being independent.
    fn overall_standard_error(&self) -> f64 {
        let variance = |(tag, share): (&String, &f64)| share * (1.0 - share) / self.images[tag] as f64;
        self.tags.iter().map(variance).sum::<f64>().sqrt() / self.tags.len().max(1) as f64
    }
}

/// Judges pictures by the shapes verifier.
pub fn accuracy<C>(images: &[Image], prompts: &[EncodedPrompt<C>], rows: &[Row]) -> Result<Accuracy> {
    let mut by_tag: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let mut partial = 0.0;
    for (image, row) in images.iter().zip(rows) {
        let prompt = &prompts[row.prompt].prompt;
        let metadata = prompt.metadata.as_ref().with_context(|| format!("\"{}\" has no metadata to be judged by", prompt.text))?;
        let verdict = shapes::verify(image, metadata);
        let (right, all) = by_tag.entry(prompt.tag.clone()).or_default();
        *right += usize::from(verdict.strict);
        *all += 1;
        partial += f64::from(verdict.partial) / images.len() as f64;
    }
    let tags: BTreeMap<String, f64> = by_tag.iter().map(|(tag, &(right, all))| (tag.clone(), right as f64 / all as f64)).collect();
    let overall = tags.values().sum::<f64>() / tags.len().max(1) as f64;
    let images = by_tag.into_iter().map(|(tag, (_, all))| (tag, all)).collect();
    Ok(Accuracy { overall, tags, partial, images })
}

/// `per_tag` rows for every kind of prompt, spread evenly over the prompts of the kind.
pub fn balanced_rows<C>(prompts: &[EncodedPrompt<C>], per_tag: usize) -> Vec<Row> {
    let mut by_tag: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, prompt) in prompts.iter().enumerate() {
        by_tag.entry(&prompt.prompt.tag).or_default().push(index);
    }
    let rows = |indices: &Vec<usize>| {
        let n = indices.len();
        (0..per_tag).map(|i| Row { prompt: indices[i % n], sample: i / n }).collect::<Vec<_>>()
    };
    by_tag.values().flat_map(rows).collect()
}

/// Pictures shown of each kind in a sample grid.
const SHOWN: usize = 6;

/// Writes the first pictures of every kind as a captioned grid, one row a kind.
pub fn write_grid<C>(images: &[Image], prompts: &[EncodedPrompt<C>], rows: &[Row], path: &Path) -> Result<()> {
    let mut by_tag: BTreeMap<&str, Vec<picture::Captioned<'_>>> = BTreeMap::new();
    for (image, row) in images.iter().zip(rows) {
        let prompt = &prompts[row.prompt].prompt;
        let shown = by_tag.entry(&prompt.tag).or_default();
        if shown.len() < SHOWN {
            shown.push(picture::Captioned { image, caption: prompt.text.trim_start_matches("a photo of ") });
        }
    }
    let cells: Vec<picture::Captioned<'_>> = by_tag.into_values().flatten().collect();
    picture::write_grid(&cells, SHOWN, path)
}

/// The Wilson score interval at 95 % for a share of `n` trials (Wilson 1927).
fn wilson_interval(share: f64, n: usize) -> (f64, f64) {
    let (n, z) = (n as f64, 1.96);
    let denominator = 1.0 + z * z / n;
    let center = (share + z * z / (2.0 * n)) / denominator;
    let half = z / denominator * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    ((center - half).max(0.0), (center + half).min(1.0))
}

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
