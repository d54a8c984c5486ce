//! What an epoch is measured by.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;
use tasks::reward::Scores;

use crate::{
    advantage::{Advantages, mean, std},
    update::Seen,
};

/// What one update did.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub loss: f64,
    pub gradient_norm: f64,
    pub seen: Vec<Seen>,
}

/// The numbers of an epoch: one line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochMetrics {
    /// Epochs done, this one included.
    pub epoch: usize,
    /// Mean of the total reward.
    pub reward: f64,
    /// Its standard deviation over the epoch.
    pub reward_std: f64,
    /// Mean of each reward.
    pub rewards: BTreeMap<&'static str, f64>,
    /// Mean of the total reward of each kind of prompt that was drawn.
    pub kinds: BTreeMap<String, f64>,
    /// Share of groups whose rewards are all equal.
    pub zero_spread: f64,
    /// Mean absolute advantage of the rows.
    pub advantage: f64,
    /// Updates taken.
    pub updates: usize,
    /// Transitions trained.
    pub transitions: usize,
    /// Mean loss.
    pub loss: f64,
    /// Mean gradient norm before clipping.
    pub gradient_norm: f64,
    /// Largest `|log π_new − log π_old|` at the first update, which must be 0 but for rounding.
    pub on_policy_deviation: f64,
    /// Smallest, mean and largest ratio of all updates.
    pub ratio: [f64; 3],
    /// Share of transitions whose ratio was outside the clip range on the side where that stops the gradient.
    pub clipped: f64,
    /// `½·mean((log π_new − log π_old)²)` over all updates.
    pub kl_old: f64,
    /// Mean KL divergence to the reference; 0 where it is not evaluated.
    pub kl_reference: f64,
    /// Wall-clock times, which differ between runs that are otherwise equal.
    pub time: EpochTimes,
}

/// How long an epoch took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct EpochTimes {
    /// Images per second in the rollout.
    pub images_per_second: f64,
    /// Transitions per second in scoring and training.
    pub transitions_per_second: f64,
    /// Seconds for the whole epoch.
    pub seconds: f64,
}

impl EpochMetrics {
    /// `kinds` has the kind of every row's prompt.
    pub(crate) fn new(
        epoch: usize,
        scores: &Scores,
        kinds: &[&str],
        advantages: &Advantages,
        updates: &[Update],
        clip_range: f64,
    ) -> Self {
        let total: Vec<f64> = scores.total.iter().copied().map(f64::from).collect();
        let seen: Vec<&Seen> = updates.iter().flat_map(|update| &update.seen).collect();
        let column = |f: fn(&Seen) -> f64| seen.iter().map(|seen| f(seen)).collect::<Vec<f64>>();
        let ratios = column(|seen| seen.ratio);
        let bound = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick).unwrap_or(1.0);
        let part = |scores: &[f32]| mean(&scores.iter().copied().map(f64::from).collect::<Vec<_>>());
        let first = updates.first().map_or(&[][..], |update| &update.seen);
        Self {
            epoch,
            reward: mean(&total),
            reward_std: std(&total),
            rewards: scores.parts.iter().map(|(name, scores)| (*name, part(scores))).collect(),
            kinds: by_kind(&total, kinds),
            zero_spread: mean(&advantages.has_spread.iter().map(|varies| if *varies { 0.0 } else { 1.0 }).collect::<Vec<_>>()),
            advantage: mean(&advantages.values.iter().map(|value| f64::from(value.abs())).collect::<Vec<_>>()),
            updates: updates.len(),
            transitions: seen.len(),
            loss: mean(&updates.iter().map(|update| update.loss).collect::<Vec<_>>()),
            gradient_norm: mean(&updates.iter().map(|update| update.gradient_norm).collect::<Vec<_>>()),
            on_policy_deviation: first.iter().map(Seen::deviation).fold(0.0, f64::max),
            ratio: [bound(f64::min), if ratios.is_empty() { 1.0 } else { mean(&ratios) }, bound(f64::max)],
            clipped: mean(&seen.iter().map(|seen| if seen.is_clipped(clip_range) { 1.0 } else { 0.0 }).collect::<Vec<_>>()),
            kl_old: 0.5 * mean(&column(|seen| seen.log_ratio.powi(2))),
            kl_reference: mean(&column(|seen| seen.kl)),
            time: EpochTimes::default(),
        }
    }

    pub(crate) fn timed(mut self, started: Instant, sampled: Instant, images: usize) -> Self {
        self.time = EpochTimes {
            images_per_second: images as f64 / (sampled - started).as_secs_f64(),
            transitions_per_second: self.transitions as f64 / sampled.elapsed().as_secs_f64(),
            seconds: started.elapsed().as_secs_f64(),
        };
        self
    }
}

/// The mean reward of each kind.
fn by_kind(rewards: &[f64], kinds: &[&str]) -> BTreeMap<String, f64> {
    let mut of_kind: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (reward, kind) in rewards.iter().zip(kinds) {
        of_kind.entry(kind).or_default().push(*reward);
    }
    of_kind.into_iter().map(|(kind, rewards)| (kind.to_owned(), mean(&rewards))).collect()
}

#[cfg(test)]
mod tests {
    use super::by_kind;

    #[test]
    fn every_kind_has_the_mean_of_its_own_rewards() {
        let kinds = by_kind(&[1.0, 0.0, 0.5, 0.5], &["two", "two", "two", "one"]);
        assert_eq!(kinds, [("one".to_owned(), 0.5), ("two".to_owned(), 0.5)].into());
    }
}
