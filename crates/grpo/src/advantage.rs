//! Group-relative advantages: rewards in, one number per row out.
//!
//! Pure arithmetic. Does not know about trajectories, prompts or devices.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasks::reward::{Part, Scores};

/// How rewards become advantages.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdvantageConfig {
    /// How several rewards become one advantage.
    #[serde(default)]
    pub combine: Combine,
    /// The rewards that the standard deviation is taken over; `normalize_then_sum` always takes
    /// those of the row's own group.
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
        Self { combine: Combine::SumThenNormalize, spread: Spread::Epoch, epsilon: 1e-4, clip: 5.0 }
    }
}

/// The order of summing several rewards and normalising them, under TRL's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Combine {
    /// The advantages of the weighted sum: [`group_advantages`], as in the reference code. A reward
    /// of a large spread outweighs the others, and rows of the same sum are the same.
    #[default]
    SumThenNormalize,
    /// GDPO: every reward is normalised in its group, then the weighted sum over the epoch:
    /// [`decoupled_advantages`]. The scale of a reward does not matter, only its weight.
    NormalizeThenSum,
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

    /// The share of every reward in the advantages, by name: how much of them it explains.
    ///
    /// ```text
    /// share_k = Σ_i a_ki·A_i / Σ_ji a_ji·A_i
    /// ```
    ///
    /// with the advantage `A_i` of row `i` and the part `a_ki` of reward `k` in it before clipping,
    /// `A_i = clip(Σ_k a_ki)`. Both have mean 0 in every group, so a share is a ratio of
    /// covariances. Shares sum to 1; a reward that is constant in every group has share 0, and one
    /// that works against the others a negative share. There are none if all advantages are 0.
    ///
    /// # Panics
    /// If the rows do not divide into groups of `group_size`.
    pub fn shares(
        &self,
        scores: &Scores,
        group_size: usize,
        config: &AdvantageConfig,
    ) -> BTreeMap<String, f64> {
        let parts = contributions(scores, group_size, config);
        let covariance = |part: &Vec<f64>| {
            part.iter().zip(&self.values).map(|(a, all)| a * f64::from(*all)).sum::<f64>()
        };
        let covariances: Vec<f64> = parts.iter().map(covariance).collect();
        let all: f64 = covariances.iter().sum();
        let named = scores.parts.iter().zip(covariances);
        let shares = named.map(|(part, covariance)| (part.name.clone(), covariance / all));
        if all > 0.0 { shares.collect() } else { BTreeMap::new() }
    }
}

/// Computes group-relative advantages from prompt-major rewards.
///
/// ```text
/// A_i = clip( (r_i − mean(group)) / (std + ε), −c, c )
/// ```
///
/// Source: arXiv 2505.05470, equation 5 (group std); the reference code's `PerPromptStatTracker`
/// (population std, ε = 1e-4, c = 5). All advantages are finite, and those of a constant group are
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

/// Computes the advantages of GDPO: rewards of different scales and rarities count by their weights
/// alone.
///
/// ```text
/// z_ki = (r_ki − mean(group)) / (std(group) + ε)          for every reward k
/// s_i  = Σ_k w_k·z_ki
/// A_i  = clip( s_i / (std(s over the epoch) + ε), −c, c )
/// ```
///
/// The mean of `s` over the epoch is 0, because it is 0 in every group. Source: arXiv 2601.05242
/// (GDPO), with population standard deviations like [`group_advantages`].
///
/// # Panics
/// If the rows do not divide into groups of `group_size`.
pub fn decoupled_advantages(
    scores: &Scores,
    group_size: usize,
    config: &AdvantageConfig,
) -> Advantages {
    let parts = decoupled(scores, group_size, config.epsilon);
    clipped(&summed(&parts, scores.total.len()), group_size, config.clip)
}

/// The part of every reward in the advantages of GDPO before clipping.
fn decoupled(scores: &Scores, group_size: usize, epsilon: f64) -> Vec<Vec<f64>> {
    let weighted = |part: &Part| -> Vec<f64> {
        let rewards: Vec<f64> = part.scores.iter().copied().map(f64::from).collect();
        let scales = scales(&rewards, group_size, Spread::Group, epsilon);
        let normalized = normalized(&rewards, group_size, &scales);
        normalized.into_iter().map(|z| f64::from(part.weight) * z).collect()
    };
    let mut parts: Vec<Vec<f64>> = scores.parts.iter().map(weighted).collect();
    let scale = std(&summed(&parts, scores.total.len())) + epsilon;
    parts.iter_mut().flatten().for_each(|part| *part /= scale);
    parts
}

/// The part of every reward in the advantages before clipping.
fn contributions(scores: &Scores, group_size: usize, config: &AdvantageConfig) -> Vec<Vec<f64>> {
    if config.combine == Combine::NormalizeThenSum {
        return decoupled(scores, group_size, config.epsilon);
    }
    let total: Vec<f64> = scores.total.iter().copied().map(f64::from).collect();
    let scales = scales(&total, group_size, config.spread, config.epsilon);
    let part = |part: &Part| {
        let weight = f64::from(part.weight);
        let weighted: Vec<f64> =
            part.scores.iter().map(|score| weight * f64::from(*score)).collect();
        normalized(&weighted, group_size, &scales)
    };
    scores.parts.iter().map(part).collect()
}

/// The scale of every group: its standard deviation, or that of the epoch, plus `epsilon`.
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

/// Clips advantages and tells which groups have any.
fn clipped(advantages: &[f64], group_size: usize, clip: f64) -> Advantages {
    let varies = |group: &[f64]| group.iter().any(|advantage| *advantage != group[0]);
    Advantages {
        has_spread: advantages.chunks_exact(group_size).map(varies).collect(),
        values: advantages.iter().map(|advantage| advantage.clamp(-clip, clip) as f32).collect(),
    }
}

/// The sum over the parts, row by row.
fn summed(parts: &[Vec<f64>], rows: usize) -> Vec<f64> {
    (0..rows).map(|row| parts.iter().map(|part| part[row]).sum()).collect()
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

    const CONFIG: AdvantageConfig = AdvantageConfig {
        combine: Combine::SumThenNormalize,
        spread: Spread::Epoch,
        epsilon: 1e-4,
        clip: 5.0,
    };
    /// GDPO without the numbers that keep it finite, which the closed forms leave out.
    const GDPO: AdvantageConfig = AdvantageConfig {
        combine: Combine::NormalizeThenSum,
        epsilon: 1e-12,
        clip: f64::INFINITY,
        ..CONFIG
    };

    /// The scores of rewards with these weights.
    fn scores(rewards: &[(f32, &[f32])]) -> Scores {
        let part = |(index, &(weight, scores)): (usize, &(f32, &[f32]))| Part {
            name: format!("r{index}"),
            weight,
            scores: scores.to_vec(),
        };
        let total = |row: usize| rewards.iter().map(|(weight, scores)| weight * scores[row]).sum();
        Scores {
            total: (0..rewards[0].1.len()).map(total).collect(),
            parts: rewards.iter().enumerate().map(part).collect(),
        }
    }

    fn assert_near(got: &[f32], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        let near = |(got, expected): (&f32, &f64)| (f64::from(*got) - expected).abs() < 1e-5;
        assert!(got.iter().zip(expected).all(near), "{got:?} instead of {expected:?}");
    }

    #[test]
    fn gdpo_tells_rows_apart_that_have_one_sum() {
        let scores = scores(&[(1.0, &[1.0, 0.0, 0.0, 0.0]), (1.0, &[0.0, 1.0, 1.0, 0.0])]);
        let summed = Advantages::of_scores(&scores, 4, &CONFIG).values;
        assert_eq!(summed[0], summed[1], "one of two rewards each");
        // The first reward is rarer, so it counts more: z = (√3, −1/√3, …) and ±1.
        let root = 3.0_f64.sqrt();
        let sums = [root - 1.0, 1.0 - 1.0 / root, 1.0 - 1.0 / root, -1.0 - 1.0 / root];
        let scale = std(&sums);
        let expected = sums.map(|sum| sum / scale);
        assert_near(&Advantages::of_scores(&scores, 4, &GDPO).values, &expected);
    }

    #[test]
    fn gdpo_of_two_groups_is_normalised_over_both() {
        // Both groups have z = ±1 for each reward; in the second the two rewards oppose.
        let scores = scores(&[(2.0, &[1.0, 3.0, 0.0, 0.5]), (1.0, &[10.0, 30.0, 9.0, 4.0])]);
        let scale = 5.0_f64.sqrt(); // The root mean square of (−3, 3, −1, 1).
        let expected = [-3.0, 3.0, -1.0, 1.0].map(|sum| sum / scale);
        assert_near(&Advantages::of_scores(&scores, 2, &GDPO).values, &expected);
    }

    #[test]
    fn gdpo_clips_and_leaves_constant_groups_alone() {
        let mut rewards = vec![0.0; 100];
        rewards[7] = 1.0;
        let scores = scores(&[(1.0, &[&[0.3; 100], &rewards[..]].concat()), (0.5, &[0.1; 200])]);
        let Advantages { values, has_spread } =
            Advantages::of_scores(&scores, 100, &AdvantageConfig { clip: 5.0, ..GDPO });
        assert_eq!((values[107], has_spread), (5.0, vec![false, true]));
        assert_eq!(values[..100], [0.0; 100]);
    }

    #[test]
    fn shares_are_those_of_a_calculation_by_hand() {
        let scores = scores(&[
            (1.0, &[1.0, 0.0, 0.0, 0.0]),
            (1.0, &[0.0, 1.0, 1.0, 0.0]),
            (7.0, &[0.1, 0.1, 0.1, 0.1]),
        ]);
        // Covariances with the sum (1, 1, 1, 0): 1/16 and 1/8.
        for spread in [Spread::Epoch, Spread::Group] {
            let config = AdvantageConfig { spread, ..CONFIG };
            let shares = Advantages::of_scores(&scores, 4, &config).shares(&scores, 4, &config);
            let [first, second, constant] = ["r0", "r1", "r2"].map(|name| shares[name]);
            assert!((first - 1.0 / 3.0).abs() < 1e-6 && (second - 2.0 / 3.0).abs() < 1e-6);
            assert_eq!(constant, 0.0);
        }
        let nothing = self::scores(&[(1.0, &[0.5; 4])]);
        let shares = Advantages::of_scores(&nothing, 4, &CONFIG).shares(&nothing, 4, &CONFIG);
        assert_eq!(shares, BTreeMap::new());
    }

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
