//! What an epoch is measured by.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;
use tasks::reward::Scores;

use crate::{
    advantage::{Advantages, mean, std},
    objective::{Clip, ObjectiveConfig},
    update::Seen,
};

/// What one update did.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    pub loss: f64,
    pub gradient_norm: f64,
    pub gradient_rms: f64,
    /// Whether the weights moved.
    pub taken: bool,
    pub loss_scale: Option<f64>,
    pub seen: Vec<Seen>,
    /// KL divergences at ODE steps.
    pub held_kl: Vec<f64>,
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
    /// The advantages of the rows, after clipping.
    pub advantage: Summary,
    /// The learning rate of AdamW in this epoch.
    pub learning_rate: f64,
    /// Updates taken.
    pub updates: usize,
    /// Updates skipped because their gradient was not finite under the scale of the loss, which is halved then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped_updates: Option<usize>,
    /// The scale of the loss, where layers compute in f16; the last update's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<f64>,
    /// Transitions trained.
    pub transitions: usize,
    /// Mean loss.
    pub loss: f64,
    /// Mean gradient norm before clipping.
    pub gradient_norm: f64,
    /// Root mean square of the clipped gradient's numbers, of the parameters that AdamW moves; mean over updates.
    pub gradient_rms: f64,
    /// How far the first update was from the policy of the rollout, which is 0 but for rounding.
    pub on_policy: OnPolicy,
    /// The weight `β` of the KL divergence to the reference.
    pub kl_weight: f64,
    /// All transitions of all updates together.
    #[serde(flatten)]
    pub policy: PolicyMetrics,
    /// Mean KL divergence to the reference at ODE steps, where it is taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_ode_steps: Option<f64>,
    /// The transitions of each denoising step that was trained.
    pub steps: Vec<DenoisingStep>,
    /// Wall-clock times, which differ between runs that are otherwise equal.
    pub time: EpochTimes,
}

/// `|log π_new − log π_old|` at the first update of an epoch, before anything has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct OnPolicy {
    /// Its mean over the transitions.
    pub mean: f64,
    /// The largest.
    pub max: f64,
    /// The largest in clip ranges, which is what decides whether it matters.
    pub clip_ranges: f64,
}

impl OnPolicy {
    /// Clip ranges above which rounding takes part in what the clip decides.
    pub const WARN_ABOVE: f64 = 0.1;

    fn of(first: &[Seen], clip: Clip) -> Self {
        let deviations: Vec<f64> = first.iter().map(Seen::deviation).collect();
        let max = deviations.iter().copied().fold(0.0, f64::max);
        Self { mean: mean(&deviations), max, clip_ranges: max / clip.range() }
    }
}

/// Mean, standard deviation and extremes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The mean.
    pub mean: f64,
    /// The population standard deviation.
    pub std: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Summary {
    /// The summary of some numbers; all 0 of none.
    pub fn of(values: &[f64]) -> Self {
        let bound = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick).unwrap_or(0.0);
        Self { mean: mean(values), std: std(values), min: bound(f64::min), max: bound(f64::max) }
    }
}

/// How far the policy was from that of the rollout, and from the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PolicyMetrics {
    /// `π_new / π_old`
    pub ratio: Summary,
    /// Share of transitions that the clip stopped below: a bad action that is already less likely than `1 − low`.
    pub clipped_low: f64,
    /// Share of transitions that the clip stopped above: a good action that is already more likely than `1 + high`.
    pub clipped_high: f64,
    /// `½·mean((log π_new − log π_old)²)`
    pub kl_old: f64,
    /// Mean KL divergence to the reference; 0 where it is not evaluated.
    pub kl_reference: f64,
}

impl PolicyMetrics {
    fn of(seen: &[&Seen], clip: Clip) -> Self {
        let column = |f: fn(&Seen) -> f64| seen.iter().map(|seen| f(seen)).collect::<Vec<f64>>();
        let clipped = |good: bool| {
            let stopped = |seen: &&Seen| seen.is_clipped(clip) && (seen.advantage > 0.0) == good;
            mean(&seen.iter().map(|seen| if stopped(seen) { 1.0 } else { 0.0 }).collect::<Vec<_>>())
        };
        Self {
            ratio: Summary::of(&column(|seen| seen.ratio)),
            clipped_low: clipped(false),
            clipped_high: clipped(true),
            kl_old: 0.5 * mean(&column(|seen| seen.log_ratio.powi(2))),
            kl_reference: mean(&column(|seen| seen.kl)),
        }
    }

    /// Share of transitions whose gradient the clip took, on either side.
    pub fn clipped(&self) -> f64 {
        self.clipped_low + self.clipped_high
    }
}

/// What the transitions of one denoising step showed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DenoisingStep {
    /// Its index in the grid.
    pub step: usize,
    /// How many were trained.
    pub transitions: usize,
    /// What they showed.
    #[serde(flatten)]
    pub policy: PolicyMetrics,
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
    /// The most memory that the program has held so far, in MiB, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_memory_mib: Option<u64>,
}

impl EpochMetrics {
    /// `kinds` has the kind of every row's prompt; `objective` is what was minimised.
    pub(crate) fn new(
        epoch: usize,
        scores: &Scores,
        kinds: &[&str],
        advantages: &Advantages,
        updates: &[Update],
        objective: &ObjectiveConfig,
        learning_rate: f64,
    ) -> Self {
        let total: Vec<f64> = scores.total.iter().copied().map(f64::from).collect();
        let held_kl: Vec<f64> = updates.iter().flat_map(|update| &update.held_kl).copied().collect();
        let seen: Vec<&Seen> = updates.iter().flat_map(|update| &update.seen).collect();
        let part = |scores: &[f32]| mean(&scores.iter().copied().map(f64::from).collect::<Vec<_>>());
        let first = updates.first().map_or(&[][..], |update| &update.seen);
        let taken: Vec<&Update> = updates.iter().filter(|update| update.taken).collect();
        let of_taken = |number: fn(&Update) -> f64| mean(&taken.iter().map(|update| number(update)).collect::<Vec<_>>());
        let loss_scale = updates.last().and_then(|update| update.loss_scale);
        Self {
            epoch,
            reward: mean(&total),
            reward_std: std(&total),
            rewards: scores.parts.iter().map(|(name, scores)| (*name, part(scores))).collect(),
            kinds: by_kind(&total, kinds),
            zero_spread: mean(&advantages.has_spread.iter().map(|varies| if *varies { 0.0 } else { 1.0 }).collect::<Vec<_>>()),
            advantage: Summary::of(&advantages.values.iter().copied().map(f64::from).collect::<Vec<_>>()),
            learning_rate,
            updates: taken.len(),
            skipped_updates: loss_scale.map(|_| updates.len() - taken.len()),
            loss_scale,
            transitions: seen.len(),
            loss: mean(&updates.iter().map(|update| update.loss).collect::<Vec<_>>()),
            gradient_norm: of_taken(|update| update.gradient_norm),
            gradient_rms: of_taken(|update| update.gradient_rms),
            on_policy: OnPolicy::of(first, objective.clip()),
            kl_weight: objective.kl_weight,
            kl_ode_steps: (!held_kl.is_empty()).then(|| mean(&held_kl)),
            policy: PolicyMetrics::of(&seen, objective.clip()),
            steps: by_step(&seen, objective.clip()),
            time: EpochTimes::default(),
        }
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

/// What the transitions of each step showed, in the order of the steps.
fn by_step(seen: &[&Seen], clip: Clip) -> Vec<DenoisingStep> {
    let mut of_step: BTreeMap<usize, Vec<&Seen>> = BTreeMap::new();
    for seen in seen {
        of_step.entry(seen.transition.step).or_default().push(seen);
    }
    let step = |(step, seen): (usize, Vec<&Seen>)| DenoisingStep {
        step,
        transitions: seen.len(),
        policy: PolicyMetrics::of(&seen, clip),
    };
    of_step.into_iter().map(step).collect()
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
    use super::*;
    use crate::update::Transition;

    #[test]
    fn steps_are_told_apart_and_so_are_the_sides_of_the_clip() {
        let seen = |step, ratio: f64, advantage| Seen {
            transition: Transition { step, row: 0 },
            ratio,
            log_ratio: ratio.ln(),
            kl: 0.5,
            advantage,
        };
        // Up though good, down though bad: stopped. Down though good, up though bad: not.
        let good = [1.2, 1.3, 0.8, 1.0].map(|ratio| seen(0, ratio, 1.0));
        let bad = [0.8, 1.2, 1.3, 1.0, 1.0].map(|ratio| seen(3, ratio, -1.0));
        let seen = [&good[..], &bad].concat();
        let steps = by_step(&seen.iter().collect::<Vec<_>>(), Clip { low: 0.1, high: 0.1 });
        assert_eq!(steps.iter().map(|step| (step.step, step.transitions)).collect::<Vec<_>>(), [(0, 4), (3, 5)]);
        assert_eq!((steps[0].policy.clipped_low, steps[0].policy.clipped_high), (0.0, 0.5));
        assert_eq!((steps[1].policy.clipped_low, steps[1].policy.clipped_high), (0.2, 0.0));
        assert_eq!((steps[1].policy.ratio.min, steps[1].policy.ratio.max), (0.8, 1.3));
        assert!((steps[0].policy.ratio.std - 0.036_875_f64.sqrt()).abs() < 1e-12 && steps[0].policy.kl_reference == 0.5);
    }

    #[test]
    fn every_kind_has_the_mean_of_its_own_rewards() {
        let kinds = by_kind(&[1.0, 0.0, 0.5, 0.5], &["two", "two", "two", "one"]);
        assert_eq!(kinds, [("one".to_owned(), 0.5), ("two".to_owned(), 0.5)].into());
    }
}
