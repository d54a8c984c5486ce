//! The metrics of an epoch.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use tasks::reward::{Part, Scores};
use training::optimisation::Update;
use web_time::Instant;

use crate::{
    advantage::{Advantages, mean, std},
    algorithm::Outcome,
    config::GrpoConfig,
};

/// One update of an epoch.
#[derive(Clone, Debug)]
pub(crate) struct EpochUpdate {
    /// The numbers of the optimisation.
    pub update: Update,
    /// The outcome of each term of the loss.
    pub terms: Vec<Outcome>,
}

/// The metrics of an epoch: one line of `metrics.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct EpochMetrics {
    /// Number of finished epochs, this one included.
    pub epoch: usize,
    /// Mean of the total reward.
    pub reward: f64,
    /// Standard deviation of the total reward over the epoch.
    pub reward_std: f64,
    /// Mean of each reward.
    pub rewards: BTreeMap<String, f64>,
    /// Mean of the total reward for each kind of prompt that was drawn.
    pub kinds: BTreeMap<String, f64>,
    /// Share of groups whose rewards are all equal.
    pub zero_spread: f64,
    /// The advantages of the rows, after clipping.
    pub advantage: Summary,
    /// The rewards and the advantages of the rows, counted in bins.
    pub histograms: Histograms,
    /// The share of each reward in the advantages ([`Advantages::shares`]); empty if all advantages
    /// are 0.
    pub advantage_shares: BTreeMap<String, f64>,
    /// The learning rate of AdamW in this epoch.
    pub learning_rate: f64,
    /// Number of updates taken.
    pub updates: usize,
    /// Number of updates skipped because the gradient of the scaled loss was not finite; each one
    /// halves the scale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_updates: Option<usize>,
    /// The loss scale of the last update, if layers compute in f16.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Number of trained examples of the loss's first term, over all updates.
    pub transitions: usize,
    /// Mean loss over all updates.
    pub loss: f64,
    /// Mean gradient norm before clipping, over the updates taken.
    pub gradient_norm: f64,
    /// Root mean square of the clipped gradient over the parameters that AdamW moves; mean over the
    /// updates taken.
    pub gradient_rms: f64,
    /// The weight `β` of the KL penalty in this epoch.
    pub kl_weight: f64,
    /// The metrics of the algorithm, by name.
    #[serde(flatten)]
    pub algorithm: Map<String, Value>,
    /// The part of the epoch's progress line that the algorithm writes.
    #[serde(skip)]
    pub headline: String,
    /// Wall-clock times, which differ between otherwise equal runs.
    pub time: EpochTimes,
}

/// Mean, standard deviation and extremes of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// The population standard deviation.
    pub std: f64,
    /// The smallest number.
    pub min: f64,
    /// The largest number.
    pub max: f64,
}

impl Summary {
    /// Summarises `values`; all fields are 0 for an empty slice.
    pub fn of(values: &[f64]) -> Self {
        let bound = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap_or(0.0);
        Self { mean: mean(values), std: std(values), min: bound(f64::min), max: bound(f64::max) }
    }
}

/// Histograms of the rows of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Histograms {
    /// Of the total reward.
    pub reward: Histogram,
    /// Of the advantages, after clipping.
    pub advantage: Histogram,
}

/// Numbers counted in bins of equal width.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Histogram {
    /// The smallest number, and the lower edge of the first bin.
    pub low: f64,
    /// The largest number, and the upper edge of the last bin, which includes it.
    pub high: f64,
    /// Numbers in each of twenty bins; in one if all numbers are equal, in none if there are none.
    pub counts: Vec<usize>,
}

/// Number of bins.
const BINS: usize = 20;

impl Histogram {
    /// Counts finite `values` between their extremes.
    pub fn of(values: &[f64]) -> Self {
        let Summary { min: low, max: high, .. } = Summary::of(values);
        let bins = if values.is_empty() {
            0
        } else if high > low {
            BINS
        } else {
            1
        };
        let mut counts = vec![0; bins];
        for value in values {
            let share = if high > low { (value - low) / (high - low) } else { 0.0 };
            counts[((share * bins as f64) as usize).min(bins - 1)] += 1;
        }
        Self { low, high, counts }
    }
}

/// Times, throughput and memory of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct EpochTimes {
    /// Images per second in sampling and decoding.
    pub images_per_second: f64,
    /// Examples per second in scoring and training.
    pub transitions_per_second: f64,
    /// Seconds for the whole epoch.
    pub seconds: f64,
    /// Peak memory of the process so far, in MiB, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_mib: Option<u64>,
}

impl EpochMetrics {
    /// `kinds` has the kind of every row's prompt. The caller adds the learning rate, the KL weight
    /// and the algorithm's metrics.
    pub(crate) fn new(
        epoch: usize,
        config: &GrpoConfig,
        scores: &Scores,
        kinds: &[&str],
        advantages: &Advantages,
        updates: &[EpochUpdate],
    ) -> Self {
        let total: Vec<f64> = scores.total.iter().copied().map(f64::from).collect();
        let part =
            |scores: &[f32]| mean(&scores.iter().copied().map(f64::from).collect::<Vec<_>>());
        let of_rows: Vec<f64> = advantages.values.iter().copied().map(f64::from).collect();
        let all = || updates.iter().map(|EpochUpdate { update, .. }| update);
        let taken: Vec<&Update> = all().filter(|update| update.taken).collect();
        let of_taken = |number: fn(&Update) -> f64| {
            mean(&taken.iter().map(|update| number(update)).collect::<Vec<_>>())
        };
        let loss_scale = all().next_back().and_then(|update| update.loss_scale);
        Self {
            epoch,
            reward: mean(&total),
            reward_std: std(&total),
            rewards: scores
                .parts
                .iter()
                .map(|Part { name, scores, .. }| (name.clone(), part(scores)))
                .collect(),
            kinds: by_kind(&total, kinds),
            zero_spread: mean(
                &advantages
                    .has_spread
                    .iter()
                    .map(|varies| if *varies { 0.0 } else { 1.0 })
                    .collect::<Vec<_>>(),
            ),
            advantage: Summary::of(&of_rows),
            histograms: Histograms {
                reward: Histogram::of(&total),
                advantage: Histogram::of(&of_rows),
            },
            advantage_shares: advantages.shares(scores, config.group_size, &config.advantage),
            updates: taken.len(),
            skipped_updates: loss_scale.map(|_| updates.len() - taken.len()),
            loss_scale,
            transitions: updates
                .iter()
                .filter_map(|update| update.terms.first())
                .map(|term| term.examples.len())
                .sum(),
            loss: mean(&all().map(|update| update.loss).collect::<Vec<_>>()),
            gradient_norm: of_taken(|update| update.gradient_norm),
            gradient_rms: of_taken(|update| update.gradient_rms),
            ..Self::default()
        }
    }

    /// Looks up a metric of the algorithm by its dotted name, for example `ratio.min`.
    pub fn number(&self, name: &str) -> Option<f64> {
        let mut parts = name.split('.');
        let first = self.algorithm.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))?.as_f64()
    }

    pub(crate) fn timed(mut self, started: Instant, sampled: Instant, images: usize) -> Self {
        self.time = EpochTimes {
            images_per_second: images as f64 / (sampled - started).as_secs_f64(),
            transitions_per_second: self.transitions as f64 / sampled.elapsed().as_secs_f64(),
            seconds: started.elapsed().as_secs_f64(),
            peak_memory_mib: None,
        };
        self
    }
}

/// The mean reward of each kind of prompt.
fn by_kind(rewards: &[f64], kinds: &[&str]) -> BTreeMap<String, f64> {
    let mut of_kind: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (reward, kind) in rewards.iter().zip(kinds) {
        of_kind.entry(kind).or_default().push(*reward);
    }
    of_kind.into_iter().map(|(kind, rewards)| (kind.to_owned(), mean(&rewards))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_every_number_once_and_the_largest_in_the_last_bin() {
        let numbers: Vec<f64> = (0..=40).map(f64::from).collect();
        let histogram = Histogram::of(&numbers);
        assert_eq!((histogram.low, histogram.high), (0.0, 40.0));
        assert_eq!(histogram.counts, [[2; 19].as_slice(), &[3]].concat());
        let uneven = Histogram::of(&[0.0, 0.0, 0.0, 1.0]).counts;
        assert_eq!((uneven[0], uneven[19]), (3, 1), "small numbers come first");
        assert_eq!(Histogram::of(&[0.5; 3]).counts, [3], "equal numbers have one bin");
        assert_eq!(Histogram::of(&[]), Histogram::default());
    }
    #[test]
    fn every_kind_has_the_mean_of_its_own_rewards() {
        let kinds = by_kind(&[1.0, 0.0, 0.5, 0.5], &["two", "two", "two", "one"]);
        assert_eq!(kinds, [("one".to_owned(), 0.5), ("two".to_owned(), 0.5)].into());
    }
}
