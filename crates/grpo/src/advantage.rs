//! Group-relative advantages: rewards in, one number per row out.
//!
//! Pure arithmetic. Does not know about trajectories, prompts or devices.

mod mixture;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasks::reward::Scores;

pub use mixture::decoupled_advantages;

/// How rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdvantageConfig {
    /// How several rewards become one advantage.
    #[serde(default)]
    pub combine: Combine,
    /// The rewards that the standard deviation is taken over; `normalize_then_sum` always takes the
    /// rewards of the row's own group.
    pub spread: Spread,
    /// Added to the standard deviation.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub epsilon: f64,
    /// The largest absolute advantage; larger ones are clipped.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip: f64,
}

impl AdvantageConfig {
    /// The values of the reference code.
    pub const REFERENCE: Self = Self {
        combine: Combine::SumThenNormalize,
        spread: Spread::Epoch,
        epsilon: 1e-4,
        clip: 5.0,
    };
}

impl Default for AdvantageConfig {
    fn default() -> Self {
        Self::REFERENCE
    }
}

/// The order of summing several rewards and normalising them, under TRL's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// Normalises the weighted sum of the rewards, as the reference code does. A reward with a large
    /// spread outweighs the others, and rows of a group with the same sum get the same advantage.
    #[default]
    SumThenNormalize,
    /// GDPO: normalises every reward in its group, adds them by weight, and normalises the sum over
    /// the epoch. The scale of a reward does not matter, only its weight.
    NormalizeThenSum,
}

/// The set of rewards that a standard deviation is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// All rewards of the epoch: the reference code's `global_std`, its default for SD3.5
    /// (deviation `global-std`).
    Epoch,
    /// The rewards of the row's own group, as in the paper.
    Group,
}

/// The advantages of an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Advantages {
    /// One advantage per row, prompt-major.
    pub values: Vec<f32>,
    /// One flag per group: whether its advantages differ. A group without spread has no gradient
    /// and is not trained.
    pub has_spread: Vec<bool>,
}

impl Advantages {
    /// Computes the advantages of scored images.
    ///
    /// # Panics
    /// If the rows do not divide into groups of `group_size`.
    pub fn of_scores(scores: &Scores, group_size: usize, config: &AdvantageConfig) -> Self {
        match config.combine {
            Combine::SumThenNormalize => group_advantages(&scores.total, group_size, config),
            Combine::NormalizeThenSum => decoupled_advantages(scores, group_size, config),
        }
    }
}

/// Computes group-relative advantages from prompt-major rewards.
///
/// ```text
/// A_j = clip( (r_j − mean(group)) / (std + δ), −clip, clip )
/// ```
///
/// Source: arXiv 2505.05470, equation 5 (group std); the reference code's `PerPromptStatTracker`
/// (population std, δ = 1e-4, clip = 5). All advantages are finite; in a constant group they are
/// exactly 0.
///
/// # Panics
/// If the rewards do not divide into groups of `group_size`.
// ANCHOR: advantages
pub fn group_advantages(
    rewards: &[f32],
    group_size: usize,
    config: &AdvantageConfig,
) -> Advantages {
    let rewards: Vec<f64> = rewards.iter().copied().map(f64::from).collect();
    let scales = scales(&rewards, group_size, config.spread, config.epsilon);
    clipped(&normalized(&rewards, group_size, &scales), group_size, config.clip)
}

/// Every reward minus the mean of its group, divided by the scale of its group.
fn normalized(rewards: &[f64], group_size: usize, scales: &[f64]) -> Vec<f64> {
    let groups = rewards.chunks_exact(group_size).zip(scales);
    let of_group = |(group, scale): (&[f64], &f64)| {
        let varies = group.iter().any(|reward| *reward != group[0]);
        let center = if varies { mean(group) } else { group[0] };
        group.iter().map(|reward| (reward - center) / scale).collect::<Vec<f64>>()
    };
    groups.flat_map(of_group).collect()
}
// ANCHOR_END: advantages

// ANCHOR: scales
/// The scale of every group: the standard deviation of the group or of the epoch, plus `epsilon`.
fn scales(rewards: &[f64], group_size: usize, spread: Spread, epsilon: f64) -> Vec<f64> {
    assert!(
        group_size > 0 && rewards.len().is_multiple_of(group_size),
        "rewards come in whole groups"
    );
    let groups = rewards.chunks_exact(group_size);
    match spread {
        Spread::Epoch => vec![std(rewards) + epsilon; groups.len()],
        Spread::Group => groups.map(|group| std(group) + epsilon).collect(),
    }
}
// ANCHOR_END: scales

/// Clips advantages, and marks the groups whose advantages differ.
fn clipped(advantages: &[f64], group_size: usize, clip: f64) -> Advantages {
    let varies = |group: &[f64]| group.iter().any(|advantage| *advantage != group[0]);
    Advantages {
        has_spread: advantages.chunks_exact(group_size).map(varies).collect(),
        values: advantages.iter().map(|advantage| advantage.clamp(-clip, clip) as f32).collect(),
    }
}

/// The mean; 0 for an empty slice.
pub fn mean(values: &[f64]) -> f64 {
    // Start at 0: the standard library's sum of nothing is −0.
    values.iter().fold(0.0, |sum, value| sum + value) / values.len().max(1) as f64
}

/// The population standard deviation; 0 for an empty slice.
pub fn std(values: &[f64]) -> f64 {
    let center = mean(values);
    (values.iter().map(|value| (value - center).powi(2)).sum::<f64>() / values.len().max(1) as f64)
        .sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: AdvantageConfig = AdvantageConfig::REFERENCE;

    #[test]
    fn a_constant_group_has_zero_advantage_not_nan() {
        for spread in [Spread::Epoch, Spread::Group] {
            let advantages =
                group_advantages(&[0.1, 0.1, 0.1], 3, &AdvantageConfig { spread, ..CONFIG });
            assert_eq!(advantages, Advantages { values: vec![0.0; 3], has_spread: vec![false] });
        }
    }

    #[test]
    fn advantages_of_a_group_sum_to_zero() {
        let rewards = [0.3, 0.9, 0.2, 0.4, 100.0, 101.0, 99.0, 104.0];
        let advantages =
            group_advantages(&rewards, 4, &AdvantageConfig { clip: f64::INFINITY, ..CONFIG });
        for group in advantages.values.chunks(4) {
            assert!(group.iter().sum::<f32>().abs() < 1e-5, "{group:?}");
        }
    }

    #[test]
    fn a_far_outlier_is_clipped() {
        let mut rewards = vec![0.0; 100];
        rewards[7] = 1.0;
        let advantages =
            group_advantages(&rewards, 100, &AdvantageConfig { spread: Spread::Group, ..CONFIG });
        assert_eq!(advantages.values[7], 5.0);
    }

    #[test]
    fn a_group_of_one_teaches_nothing() {
        assert_eq!(group_advantages(&[0.2, 0.8], 1, &CONFIG).has_spread, [false, false]);
    }
}
