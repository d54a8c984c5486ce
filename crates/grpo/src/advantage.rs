//! Group-relative advantages: rewards in, one number per row out.
//!
//! Pure arithmetic. Does not know about trajectories, prompts or devices.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdvantageConfig {
    /// The rewards that the standard deviation is taken over.
    pub spread: Spread,
    /// Added to the standard deviation.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub epsilon: f64,
    /// The largest absolute advantage; larger ones are clipped.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip: f64,
}

impl Default for AdvantageConfig {
    /// The values of the reference code.
    fn default() -> Self {
        Self { spread: Spread::Epoch, epsilon: 1e-4, clip: 5.0 }
    }
}

/// The rewards that a standard deviation is taken over.
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
    /// One flag per group: whether its rewards differ at all. A group without spread has no
    /// gradient and is not trained.
    pub has_spread: Vec<bool>,
}

/// Computes group-relative advantages from prompt-major rewards.
///
/// ```text
/// A_j = clip( (r_j − mean(group)) / (std + δ), −clip, clip )
/// ```
///
/// Source: arXiv 2505.05470, equation 5 (group std); the reference code's `PerPromptStatTracker`
/// (population std, δ = 1e-4, clip = 5). All advantages are finite, and those of a constant group are
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
    assert!(
        group_size > 0 && rewards.len().is_multiple_of(group_size),
        "rewards come in whole groups"
    );
    let rewards: Vec<f64> = rewards.iter().copied().map(f64::from).collect();
    let epoch_std = std(&rewards);
    let mut values = Vec::with_capacity(rewards.len());
    let mut has_spread = Vec::with_capacity(rewards.len() / group_size);
    for group in rewards.chunks_exact(group_size) {
        let varies = group.iter().any(|reward| *reward != group[0]);
        let scale = match config.spread {
            Spread::Epoch => epoch_std,
            Spread::Group => std(group),
        } + config.epsilon;
        let center = if varies { mean(group) } else { group[0] };
        values.extend(
            group
                .iter()
                .map(|reward| ((reward - center) / scale).clamp(-config.clip, config.clip) as f32),
        );
        has_spread.push(varies);
    }
    Advantages { values, has_spread }
}
// ANCHOR_END: advantages

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

    const CONFIG: AdvantageConfig =
        AdvantageConfig { spread: Spread::Epoch, epsilon: 1e-4, clip: 5.0 };

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
