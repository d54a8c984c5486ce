//! Metrics of Flow-GRPO: ratios, clipping and divergences, for all transitions and per denoising
//! step.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{ADVANTAGE, Example, HELD, KL, LOG_RATIO, Outcome, POLICY, RATIO};
use crate::{advantage::mean, metrics::Summary, objective::Clip};

/// The metrics of an epoch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClippedMetrics {
    /// Deviation of the first update from the policy of the rollout; 0 except for rounding.
    pub on_policy: OnPolicy,
    /// All transitions of all updates together.
    #[serde(flatten)]
    pub policy: PolicyMetrics,
    /// Mean KL divergence to the reference at ODE steps, if the penalty includes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kl_ode_steps: Option<f64>,
    /// The transitions of each trained denoising step.
    pub steps: Vec<DenoisingStep>,
}

/// `|log π_new − log π_old|` at the first update of an epoch, before any weight has moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct OnPolicy {
    /// Mean over the transitions.
    pub mean: f64,
    /// The largest.
    pub max: f64,
    /// The largest, in clip ranges; the on-policy check compares this value with its limit.
    pub clip_ranges: f64,
}

/// Distances of the policy from the policy of the rollout and from the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PolicyMetrics {
    /// The ratio `π_new / π_old`.
    pub ratio: Summary,
    /// Share of transitions clipped from below: bad actions that are already less likely than `1 −
    /// low`.
    pub clipped_low: f64,
    /// Share of transitions clipped from above: good actions that are already more likely than `1 +
    /// high`.
    pub clipped_high: f64,
    /// The estimate `½·mean((log π_new − log π_old)²)` of the divergence from the policy of the
    /// rollout.
    pub kl_old: f64,
    /// Mean KL divergence to the reference; 0 if the reference is not evaluated.
    pub kl_reference: f64,
}

/// The metrics of one denoising step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DenoisingStep {
    /// Index of the step in the grid.
    pub step: usize,
    /// Number of trained transitions.
    pub transitions: usize,
    /// Metrics of these transitions.
    #[serde(flatten)]
    pub policy: PolicyMetrics,
}

/// The values of one transition.
#[derive(Clone, Copy, Debug)]
struct StepOutcome {
    ratio: f64,
    log_ratio: f64,
    kl: f64,
    advantage: f64,
}

impl StepOutcome {
    /// The transitions of an outcome of the policy term.
    fn all(outcome: &Outcome) -> impl Iterator<Item = (Example, Self)> + '_ {
        let column = |column: usize, i: usize| outcome.columns[column][i];
        outcome.examples.iter().enumerate().map(move |(i, &example)| {
            let [ratio, log_ratio, kl, advantage] =
                [RATIO, LOG_RATIO, KL, ADVANTAGE].map(|number| column(number, i));
            (example, Self { ratio, log_ratio, kl, advantage })
        })
    }

    /// Whether the clip removed this transition's gradient: the ratio is out of range in the
    /// direction of the update.
    fn is_clipped(&self, clip: Clip) -> bool {
        if self.advantage > 0.0 {
            self.ratio > 1.0 + clip.high
        } else {
            self.ratio < 1.0 - clip.low
        }
    }
}

impl ClippedMetrics {
    pub(super) fn of(updates: &[&[Outcome]], clip: Clip) -> Self {
        let seen: Vec<(Example, StepOutcome)> =
            updates.iter().flat_map(|terms| StepOutcome::all(&terms[POLICY])).collect();
        let held = updates
            .iter()
            .flat_map(|terms| terms[HELD].columns.iter().flatten())
            .copied()
            .collect::<Vec<f64>>();
        let first = updates.first().map_or(&[][..], |terms| &terms[POLICY].columns[LOG_RATIO]);
        Self {
            on_policy: OnPolicy::of(first, clip),
            policy: PolicyMetrics::of(
                &seen.iter().map(|(_, seen)| *seen).collect::<Vec<_>>(),
                clip,
            ),
            kl_ode_steps: (!held.is_empty()).then(|| mean(&held)),
            steps: by_step(&seen, clip),
        }
    }

    /// The metrics as a JSON object.
    pub(super) fn named(&self) -> Map<String, Value> {
        let Ok(Value::Object(named)) = serde_json::to_value(self) else {
            unreachable!("a struct of numbers")
        };
        named
    }
}

impl OnPolicy {
    fn of(log_ratios: &[f64], clip: Clip) -> Self {
        let deviations: Vec<f64> = log_ratios.iter().map(|log_ratio| log_ratio.abs()).collect();
        let max = deviations.iter().copied().fold(0.0, f64::max);
        Self { mean: mean(&deviations), max, clip_ranges: max / clip.range() }
    }
}

impl PolicyMetrics {
    fn of(seen: &[StepOutcome], clip: Clip) -> Self {
        let column = |f: fn(&StepOutcome) -> f64| seen.iter().map(f).collect::<Vec<f64>>();
        let clipped = |good: bool| {
            let stopped =
                |seen: &&StepOutcome| seen.is_clipped(clip) && (seen.advantage > 0.0) == good;
            mean(
                &seen.iter().map(|seen| if stopped(&seen) { 1.0 } else { 0.0 }).collect::<Vec<_>>(),
            )
        };
        Self {
            ratio: Summary::of(&column(|seen| seen.ratio)),
            clipped_low: clipped(false),
            clipped_high: clipped(true),
            kl_old: 0.5 * mean(&column(|seen| seen.log_ratio.powi(2))),
            kl_reference: mean(&column(|seen| seen.kl)),
        }
    }
}

/// The metrics of each step's transitions, in the order of the steps.
fn by_step(seen: &[(Example, StepOutcome)], clip: Clip) -> Vec<DenoisingStep> {
    let mut of_step: BTreeMap<usize, Vec<StepOutcome>> = BTreeMap::new();
    for (example, seen) in seen {
        of_step.entry(example.step).or_default().push(*seen);
    }
    let step = |(step, seen): (usize, Vec<StepOutcome>)| DenoisingStep {
        step,
        transitions: seen.len(),
        policy: PolicyMetrics::of(&seen, clip),
    };
    of_step.into_iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_apart_and_so_are_the_sides_of_the_clip() {
        let seen = |step, ratio: f64, advantage| {
            (
                Example { step, row: 0 },
                StepOutcome { ratio, log_ratio: ratio.ln(), kl: 0.5, advantage },
            )
        };
        // Up though good, down though bad: stopped. Down though good, up though bad: not.
        let good = [1.2, 1.3, 0.8, 1.0].map(|ratio| seen(0, ratio, 1.0));
        let bad = [0.8, 1.2, 1.3, 1.0, 1.0].map(|ratio| seen(3, ratio, -1.0));
        let steps = by_step(&[&good[..], &bad].concat(), Clip { low: 0.1, high: 0.1 });
        assert_eq!(
            steps.iter().map(|step| (step.step, step.transitions)).collect::<Vec<_>>(),
            [(0, 4), (3, 5)]
        );
        assert_eq!((steps[0].policy.clipped_low, steps[0].policy.clipped_high), (0.0, 0.5));
        assert_eq!((steps[1].policy.clipped_low, steps[1].policy.clipped_high), (0.2, 0.0));
        assert_eq!((steps[1].policy.ratio.min, steps[1].policy.ratio.max), (0.8, 1.3));
        let half_of_squares =
            [1.2_f64, 1.3, 0.8, 1.0].iter().map(|ratio| ratio.ln().powi(2)).sum::<f64>() / 8.0;
        assert!((steps[0].policy.kl_old - half_of_squares).abs() < 1e-12, "{steps:?}");
        // A ratio at the edge is not beyond it, and without an advantage nothing is taken away.
        let edge = [seen(0, 1.25, 1.0), seen(0, 0.75, -1.0), seen(0, 1.5, 0.0)];
        assert!(edge.iter().all(|(_, seen)| !seen.is_clipped(Clip { low: 0.25, high: 0.25 })));
        assert!(
            (steps[0].policy.ratio.std - 0.036_875_f64.sqrt()).abs() < 1e-12
                && steps[0].policy.kl_reference == 0.5
        );
    }
}
