//! Chapter 4, *Policy gradients from zero*: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

use crate::{Curve, Noise};

// ANCHOR: reinforce_gradient
/// **4.1** The gradient of an expectation. The policy `N(mean, std²)` drew `draws`, which got
/// `rewards`. Estimate the derivative of the mean reward with respect to `mean`, without a baseline.
///
/// In the book: *The gradient of an expectation*. Hint: what is `∇log π` for a spread other than 1?
pub fn reinforce_gradient(draws: &[f64], rewards: &[f64], mean: f64, std: f64) -> f64 {
    todo!("4.1: the mean of r·∇log π")
}
// ANCHOR_END: reinforce_gradient

// ANCHOR: leave_one_out
/// **4.2** Leave one out. The advantage of each draw of a group: its reward minus the mean of the
/// *other* rewards.
///
/// In the book: *A baseline for free: the group's mean*.
pub fn leave_one_out(rewards: &[f64]) -> Vec<f64> {
    todo!("4.2: an advantage per reward")
}
// ANCHOR_END: leave_one_out

// ANCHOR: group_variances
/// **4.3** What leave-one-out costs. The policy is `N(θ, 1)` and the reward is `r = x`. What is the
/// variance of the estimate from a group of this size? `[the group's mean, leave-one-out]` as baselines.
///
/// In the book: *A baseline for free: the group's mean*, whose table has a group of four. Hint: with the
/// group's mean, the estimate is `Σ(x_j − x̄)(x_j − θ)/G`. This is `Σ(x_j − x̄)²/G`, because
/// `Σ(x_j − x̄) = 0`. A sum of `n` squared normal numbers has the variance `2n`; how many free ones
/// are in this sum?
pub fn group_variances(group: usize) -> [f64; 2] {
    todo!("4.3: the variances of two estimates")
}
// ANCHOR_END: group_variances

// ANCHOR: climbed_objective
/// **4.4** What dividing by the group's spread climbs. Rewards are 0 and 1, and a prompt is solved with
/// the probability `ν = success`. Divided by the group's std, the gradient of `success` becomes the
/// gradient of another function of `success`. Which one? An added constant is free.
///
/// In the book: *Dividing by a spread is another matter*. Hint: `∇φ(ν) = φ′(ν)·∇ν`.
pub fn climbed_objective(success: f64) -> f64 {
    todo!("4.4: the function whose gradient is ∇success / std")
}
// ANCHOR_END: climbed_objective

// ANCHOR: best_baseline
/// **4.5** The best baseline. Of all numbers `b`, which one gives `(r − b)·∇log π` the smallest
/// variance? The policy `N(mean, std²)` drew `draws`, which got `rewards`.
///
/// Hint: the mean of the product does not depend on `b`, so minimise the mean of its square.
pub fn best_baseline(draws: &[f64], rewards: &[f64], mean: f64, std: f64) -> f64 {
    todo!("4.5: the baseline with the smallest variance")
}
// ANCHOR_END: best_baseline

// ANCHOR: confused_groups
/// **4.6** Debugging. Four prompts, each with its own policy `N(θ, 0.5²)` and its own target; easy
/// prompts get more reward for everything. The run returns the mean reward and the mean advantage of
/// the first group, per epoch. `cargo xtask exercise 4.6 --curves` draws them beside a healthy run's.
/// One line is wrong: which number should be zero, and why is it not?
// ANCHOR_END: confused_groups
pub fn confused_groups() -> Vec<Curve> {
    const GROUP: usize = 16;
    let (targets, easy) = ([2.0, -2.0, 1.5, -1.5], [0.0, 5.0, 10.0, 20.0]);
    let mut noise = Noise::new(46);
    let mut means = [0.0; 4];
    let [mut reward, mut first] = [Vec::new(), Vec::new()];
    for _ in 0..60 {
        // Prompt-major: rows 0 to 15 are the group of the first prompt.
        let draws: Vec<f64> =
            (0..4 * GROUP).map(|row| means[row / GROUP] + 0.5 * noise.normal()).collect();
        let judged = draws.iter().enumerate().map(|(row, x)| {
            let prompt = row / GROUP;
            easy[prompt] + (-(x - targets[prompt]).powi(2) / 4.0).exp()
        });
        let rewards: Vec<f64> = judged.collect();
        let advantage = |row: usize| {
            let group = rewards.iter().skip(row % GROUP).step_by(GROUP);
            rewards[row] - group.clone().sum::<f64>() / group.count() as f64
        };
        reward.push(rewards.iter().sum::<f64>() / rewards.len() as f64);
        first.push((0..GROUP).map(advantage).sum::<f64>() / GROUP as f64);
        let sampled = means;
        for (row, x) in draws.iter().enumerate() {
            let score = (x - sampled[row / GROUP]) / 0.25;
            means[row / GROUP] += 0.3 * advantage(row) * score / GROUP as f64;
        }
    }
    vec![
        Curve { name: "reward", values: reward },
        Curve { name: "mean advantage of the first group", values: first },
    ]
}
