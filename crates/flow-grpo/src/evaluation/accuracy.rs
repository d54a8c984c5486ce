//! Strict accuracies: verdicts on images, tables of them and of their faults.

use std::collections::{BTreeMap, BTreeSet};

use grpo::evaluate::Row;
use serde::{Deserialize, Serialize};
use tasks::{
    image::Image,
    prompts::Prompt,
    shapes::{self, Fault, Metadata, Verdict},
};

use crate::evaluation::{
    intervals::{self, Tally},
    prompts::Prompts,
};

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
    /// Verifies images; `None` if a prompt has no metadata.
    pub fn of<C>(prompts: &Prompts<C>, images: &[Image], rows: &[Row]) -> Option<Self> {
        let mut by_tag: BTreeMap<String, Vec<Judged>> = BTreeMap::new();
        for (image, row) in images.iter().zip(rows) {
            let prompt = prompts.prompt(row);
            let metadata = Metadata::of(prompt)?;
            let judged = Judged {
                prompt: row.prompt,
                trained_on: metadata.is_trained_on(),
                verdict: shapes::verify(image, &metadata),
            };
            by_tag.entry(prompt.tag.clone()).or_default().push(judged);
        }
        Some(Self::of_verdicts(&by_tag))
    }

    /// The accuracies from the judged images of each kind.
    fn of_verdicts(by_tag: &BTreeMap<String, Vec<Judged>>) -> Self {
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

/// The names of the accuracies of an evaluation on prompts.
pub fn accuracies(prompts: &[Prompt]) -> Vec<String> {
    if prompts.iter().any(|prompt| Metadata::of(prompt).is_none()) {
        return Vec::new();
    }
    let tags: BTreeSet<&str> = prompts.iter().map(|prompt| prompt.tag.as_str()).collect();
    let tags = tags.into_iter().map(|tag| format!("tags.{tag}"));
    ["overall", "partial"].map(str::to_owned).into_iter().chain(tags).collect()
}

/// The verdict on an image for a prompt.
#[derive(Clone, Copy, Debug)]
struct Judged {
    prompt: usize,
    trained_on: bool,
    verdict: Verdict,
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

    #[test]
    fn a_kind_that_is_trained_on_as_a_whole_does_not_count_as_held_out() {
        let judged = |prompt, trained_on, right: bool| Judged {
            prompt,
            trained_on,
            verdict: Verdict { fault: (!right).then_some(Fault::Shapes), partial: 1.0 },
        };
        let one = vec![judged(0, true, true), judged(1, true, true)];
        let other = vec![judged(2, false, true), judged(3, false, false)];
        let accuracy = Accuracy::of_verdicts(
            &[("single".to_owned(), one.clone()), ("pairs".to_owned(), other)].into(),
        );
        assert_eq!((accuracy.overall, accuracy.tags["single"]), (0.5, 1.0));
        assert!(
            accuracy.line().contains("(single 1.00)") && accuracy.table().contains("trained on"),
            "{}",
            accuracy.table()
        );
        assert_eq!(Accuracy::of_verdicts(&[("single".to_owned(), one)].into()).overall, 1.0);
    }
}
