//! Several rewards: the advantages of GDPO, and the share of every reward in the advantages.

use std::collections::BTreeMap;

use tasks::reward::{Part, Scores};

use super::{AdvantageConfig, Advantages, Combine, Spread, clipped, normalized, scales, std};

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
/// (GDPO), with population standard deviations like [`group_advantages`](super::group_advantages).
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

impl Advantages {
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

/// The sum over the parts, row by row.
fn summed(parts: &[Vec<f64>], rows: usize) -> Vec<f64> {
    (0..rows).map(|row| parts.iter().map(|part| part[row]).sum()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: AdvantageConfig = AdvantageConfig::REFERENCE;
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
}
