//! GenEval's score: the share of right images by kind of prompt, and the mean over the kinds.

use std::collections::BTreeMap;

use serde::Serialize;
use tasks::{geneval, shapes::Tag};

use crate::evaluation::intervals::{self, Tally};

/// The result of the benchmark; shares in `[0, 1]`, with 95 % intervals ([`intervals::interval`]).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Benchmark {
    /// GenEval's overall score: the mean over the kinds of prompt.
    pub overall: f64,
    /// The interval of `overall`.
    pub overall_interval: [f64; 2],
    /// Whether these are all 553 prompts of the benchmark with four images each.
    pub complete: bool,
    /// The share of images that are right by the official rule, per kind of prompt.
    pub tags: BTreeMap<Tag, f64>,
    /// The intervals of `tags`.
    pub intervals: BTreeMap<Tag, [f64; 2]>,
    /// Number of images of each kind.
    pub images: BTreeMap<Tag, usize>,
}

impl Benchmark {
    /// The score of prompts, given the kind of each and its numbers of right and of all images.
    pub fn of(prompts: &[(Tag, Tally)]) -> Self {
        let mut by_tag: BTreeMap<Tag, Vec<Tally>> = BTreeMap::new();
        for (tag, tally) in prompts {
            by_tag.entry(*tag).or_default().push(*tally);
        }
        let counted: Vec<&[Tally]> = by_tag.values().map(Vec::as_slice).collect();
        let images = |tallies: &Vec<Tally>| tallies.iter().map(|tally| tally.images).collect();
        let counts = by_tag.iter().map(|(&tag, tallies)| (tag, images(tallies))).collect();
        Self {
            overall: intervals::mean_share(&counted),
            overall_interval: intervals::interval(&counted),
            complete: geneval::is_complete(&counts),
            tags: by_tag.iter().map(|(&tag, of)| (tag, intervals::share(of))).collect(),
            intervals: by_tag.iter().map(|(&tag, of)| (tag, intervals::interval(&[of]))).collect(),
            images: counts.iter().map(|(&tag, of)| (tag, of.iter().sum())).collect(),
        }
    }

    /// A table for people.
    pub fn table(&self) -> String {
        let row = |name: &str, images: usize, share: f64, [low, high]: [f64; 2]| {
            format!("{name:<15} {images:>6}  {share:>8.4}   {low:.4} - {high:.4}\n")
        };
        let mut table = String::from("kind            images  official   95 % interval\n");
        for (tag, share) in &self.tags {
            table += &row(tag.name(), self.images[tag], *share, self.intervals[tag]);
        }
        table += &row("overall", self.images.values().sum(), self.overall, self.overall_interval);
        if !self.complete {
            table += "not all of the benchmark: it has 553 prompts with four images each\n";
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_overall_score_is_the_mean_over_kinds_and_not_over_images() {
        let tally = |right| Tally { right, images: 4 };
        let benchmark = Benchmark::of(&[
            (Tag::Counting, tally(4)),
            (Tag::Colors, tally(0)),
            (Tag::Colors, tally(1)),
            (Tag::Colors, tally(2)),
        ]);
        assert_eq!((benchmark.overall, benchmark.tags[&Tag::Colors]), (0.625, 0.25));
        assert_eq!(benchmark.images[&Tag::Colors], 12);
        assert!(!benchmark.complete && benchmark.table().contains("not all of the benchmark"));
        let all = Tag::ALL
            .iter()
            .flat_map(|tag| vec![(*tag, tally(4)); geneval::published_prompts(*tag)]);
        let all: Vec<(Tag, Tally)> = all.collect();
        assert_eq!(all.len(), 553);
        assert!(Benchmark::of(&all).complete);
        assert!(!Benchmark::of(&all[1..]).complete);
    }
}
