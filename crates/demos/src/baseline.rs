//! The demo "policy gradient": estimates of one gradient from groups of draws, with several
//! baselines.
//!
//! The policy is `N(θ, I)` in the plane with `θ = 0`, and the reward is the first coordinate of the
//! draw plus an offset and noise. The exact gradient of its mean is `(1, 0)`.

use burn::{backend::Autodiff, prelude::*, tensor::backend::BackendTypes};
use flow::{IsotropicGaussian, Reduction};
use grpo::advantage::{AdvantageConfig, Spread, group_advantages, mean, std};
use training::noise::{Key, Purpose, normal};
use wasm_bindgen::prelude::*;

use crate::Plain;

/// Number of groups, each with one estimate; a page shows the first 200.
const GROUPS: usize = 1000;
/// Largest group.
const MOST: usize = 64;
/// Numbers of a draw: two coordinates and the noise of the reward.
const DRAWN: usize = 3;

/// The draws of a thousand groups.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Baseline {
    draws: Vec<f32>,
}

/// What is subtracted from a reward.
#[wasm_bindgen]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BaselineKind {
    /// Nothing.
    Nothing,
    /// The mean of the group.
    GroupMean,
    /// The mean of the other rewards of the group.
    LeaveOneOut,
    /// The mean of the group, divided by the group's standard deviation: the paper's advantage.
    GroupSpread,
}

#[wasm_bindgen]
impl Baseline {
    /// Draws the groups.
    #[wasm_bindgen(constructor)]
    pub fn new(seed: u32) -> Baseline {
        let key = Key::new(seed.into(), Purpose::Initial);
        let draws = normal::<Plain>(&[key], [GROUPS * MOST * DRAWN, 1, 1], &device());
        Self { draws: draws.into_data().iter().collect() }
    }

    /// One estimate of the gradient per group, two numbers each.
    ///
    /// A group has 2 to 64 draws; `noise` is the standard deviation of the reward's noise.
    pub fn estimates(
        &self,
        kind: BaselineKind,
        group_size: usize,
        offset: f32,
        noise: f32,
    ) -> Vec<f32> {
        let size = group_size.clamp(2, MOST);
        let groups = self.draws.chunks_exact(MOST * DRAWN).map(|group| &group[..size * DRAWN]);
        let draws: Vec<&[f32]> = groups.flat_map(|group| group.chunks_exact(DRAWN)).collect();
        let actions: Vec<f32> = draws.iter().flat_map(|draw| [draw[0], draw[1]]).collect();
        let rewards: Vec<f32> =
            draws.iter().map(|draw| draw[0] + offset + noise * draw[2]).collect();
        gradients(actions, advantages(kind, &rewards, size), size)
    }

    /// Five numbers about some estimates: their means and their variances, coordinate by coordinate;
    /// then the share of estimates that point backwards.
    pub fn summary(&self, estimates: &[f32]) -> Vec<f32> {
        let along = |coordinate: usize| -> Vec<f64> {
            estimates.chunks_exact(2).map(|estimate| estimate[coordinate].into()).collect()
        };
        let [first, second] = [along(0), along(1)];
        let backwards = first.iter().filter(|value| **value < 0.0).count();
        [
            mean(&first),
            mean(&second),
            std(&first).powi(2),
            std(&second).powi(2),
            backwards as f64 / first.len().max(1) as f64,
        ]
        .map(|value| value as f32)
        .to_vec()
    }
}

/// The factor of every draw's score function.
fn advantages(kind: BaselineKind, rewards: &[f32], size: usize) -> Vec<f32> {
    let centred = |factor: f64| {
        let of_group = |group: &[f32]| {
            let group: Vec<f64> = group.iter().copied().map(f64::from).collect();
            let center = mean(&group);
            group.into_iter().map(|reward| (factor * (reward - center)) as f32).collect::<Vec<_>>()
        };
        rewards.chunks_exact(size).flat_map(of_group).collect()
    };
    match kind {
        BaselineKind::Nothing => rewards.to_vec(),
        BaselineKind::GroupMean => centred(1.0),
        // r_j − mean of the others = G/(G − 1)·(r_j − mean)
        BaselineKind::LeaveOneOut => centred(size as f64 / (size as f64 - 1.0)),
        BaselineKind::GroupSpread => {
            let config = AdvantageConfig { spread: Spread::Group, ..AdvantageConfig::REFERENCE };
            group_advantages(rewards, size, &config).values
        }
    }
}

/// The gradient of the mean of `A·log π(x)` over each group, with respect to the group's `θ`.
fn gradients(actions: Vec<f32>, advantages: Vec<f32>, size: usize) -> Vec<f32> {
    let device = device();
    let rows = advantages.len();
    let center = Tensor::<Autodiff<Plain>, 3>::zeros([rows / size, 1, 2], &device).require_grad();
    let mean = center.clone().repeat_dim(1, size).reshape([rows, 2, 1, 1]);
    let actions = Tensor::from_data(TensorData::new(actions, [rows, 2, 1, 1]), &device);
    let policy = IsotropicGaussian { mean, std: 1.0 };
    let advantages = Tensor::<_, 1>::from_floats(advantages.as_slice(), &device);
    let value = (policy.log_prob(actions, Reduction::Sum) * advantages).sum() / size as f64;
    let gradients = value.backward();
    let gradient = center.grad(&gradients).unwrap_or_else(|| center.inner().zeros_like());
    gradient.into_data().iter().collect()
}

fn device() -> <Plain as BackendTypes>::Device {
    burn_flex::FlexDevice
}

#[cfg(test)]
mod tests {
    use BaselineKind::{GroupMean, GroupSpread, LeaveOneOut, Nothing};

    use super::*;

    /// Mean and variance along the exact gradient, over some seeds.
    fn measured(kind: BaselineKind, size: usize, offset: f32, noise: f32) -> [f64; 3] {
        let along = |seed| {
            let found = Baseline::new(seed).estimates(kind, size, offset, noise);
            found.chunks_exact(2).map(|pair| f64::from(pair[0])).collect::<Vec<_>>()
        };
        let all: Vec<f64> = (0..12).flat_map(along).collect();
        let variance = std(&all).powi(2);
        [mean(&all), variance, (variance / all.len() as f64).sqrt()]
    }

    #[test]
    fn the_mean_is_the_exact_gradient_for_the_unbiased_baselines() {
        for (kind, share) in
            [(Nothing, |_| 1.0), (LeaveOneOut, |_| 1.0), (GroupMean, |g| 1.0 - 1.0 / g)]
                as [(BaselineKind, fn(f64) -> f64); 3]
        {
            for (size, offset, noise) in
                [(2, 0.0, 0.0), (4, 10.0, 0.0), (16, 3.0, 2.0), (64, 100.0, 1.0)]
            {
                let [center, _, error] = measured(kind, size, offset, noise);
                let exact = share(size as f64);
                assert!(
                    (center - exact).abs() < 4.0 * error,
                    "{kind:?}, G = {size}, offset {offset}: {center} ± {error} is not {exact}"
                );
            }
        }
    }

    #[test]
    fn four_draws_with_ten_added_have_the_variances_of_the_book() {
        for (kind, variance) in [(Nothing, 25.5), (GroupMean, 0.375), (LeaveOneOut, 0.667)] {
            let [_, found, _] = measured(kind, 4, 10.0, 0.0);
            assert!((found / variance - 1.0).abs() < 0.08, "{kind:?}: {found}");
        }
    }

    #[test]
    fn an_offset_changes_nothing_behind_a_baseline() {
        let demo = Baseline::new(3);
        for kind in [GroupMean, LeaveOneOut, GroupSpread] {
            let [without, with] = [0.0, 100.0].map(|offset| demo.estimates(kind, 8, offset, 0.5));
            let apart = without.iter().zip(&with).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(apart < 1e-4, "{kind:?}: {apart}");
        }
    }

    #[test]
    fn strange_numbers_do_not_panic() {
        let demo = Baseline::new(1);
        assert_eq!(demo.estimates(GroupSpread, 0, f32::NAN, 0.0).len(), 2 * GROUPS);
        assert_eq!(demo.summary(&[]).len(), 5);
    }
}
