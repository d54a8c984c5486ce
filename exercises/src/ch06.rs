//! Chapter 6, *GRPO*: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

use crate::{Curve, Noise};

// ANCHOR: group_advantages
/// **6.1** The advantages of a group: reward minus the group's mean, over the group's standard
/// deviation plus `delta`.
///
/// In the book: *Advantages*, with `advantage.spread = "group"`, and *A group in numbers* in chapter 4.
/// The deviation is that of the population: it divides by `G`.
pub fn group_advantages(rewards: &[f64], delta: f64) -> Vec<f64> {
    todo!("6.1: an advantage per reward")
}
// ANCHOR_END: group_advantages

// ANCHOR: clipped_loss
/// **6.2** The clipped loss, with a cap. The clip ranges are `low` below 1 and `high` above. One cell of
/// the table has no bound: for `A < 0`, a ratio of 100 gives a hundred times the loss. Let the gradient
/// stop in this cell once the ratio passes `cap`, which lies above `1 + high`. The loss has no jumps.
///
/// In the book: *Ratio and clip* has the loss without the cap. With it, it is called the dual clip
/// (arXiv 1912.09729). The law looks at all cells. Is your cap out of the way for `A > 0`?
pub fn clipped_loss(ratio: f64, advantage: f64, low: f64, high: f64, cap: f64) -> f64 {
    todo!("6.2: the loss")
}
// ANCHOR_END: clipped_loss

// ANCHOR: update_loss
/// **6.3** A mean of means. The losses of an update's transitions come in micro-batches of different
/// sizes. What is the loss of the update, the mean over its transitions?
///
/// In the book: *The replay*. The answer may not depend on how the transitions are cut into batches.
pub fn update_loss(batches: &[Vec<f64>]) -> f64 {
    todo!("6.3: the mean over all transitions")
}
// ANCHOR_END: update_loss

// ANCHOR: overshooting_run
/// **6.4** Debugging. A policy `N(θ, 0.5²)` learns a reward with twelve updates per epoch and a clip of
/// 0.2. The run returns the mean reward, and how far the ratio is from 1 in the last update of an
/// epoch, per epoch. `cargo xtask exercise 6.4 --curves` draws them beside a healthy run's. Lower the
/// learning rate, and it learns; but that is not the bug. Which curve is too good to be true?
// ANCHOR_END: overshooting_run
pub fn overshooting_run() -> Vec<Curve> {
    const GROUP: usize = 64;
    let mut noise = Noise::new(64);
    let mut theta = 0.0;
    let [mut reward, mut ratio] = [Vec::new(), Vec::new()];
    let log_prob = |x: f64, mean: f64| -(x - mean).powi(2) / 0.5;
    for _ in 0..60 {
        let draws: Vec<f64> = noise.normals(GROUP).iter().map(|e| theta + 0.5 * e).collect();
        let rewards: Vec<f64> = draws.iter().map(|x| (-(x - 1.5).powi(2)).exp()).collect();
        let mean = rewards.iter().sum::<f64>() / GROUP as f64;
        let std = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / GROUP as f64).sqrt();
        let mut farthest = 0.0;
        for _ in 0..12 {
            let (mut gradient, sampled) = (0.0, theta);
            farthest = 0.0_f64;
            for (x, r) in draws.iter().zip(&rewards) {
                let (advantage, rho) = (
                    (r - mean) / (std + 1e-4),
                    (log_prob(*x, theta) - log_prob(*x, sampled)).exp(),
                );
                farthest = farthest.max((rho - 1.0).abs());
                let stopped = if advantage > 0.0 { rho > 1.2 } else { rho < 0.8 };
                if !stopped {
                    gradient += advantage * rho * (x - theta) / 0.25 / GROUP as f64;
                }
            }
            theta += 0.1 * gradient;
        }
        reward.push(mean);
        ratio.push(farthest);
    }
    vec![
        Curve { name: "reward", values: reward },
        Curve { name: "ratio from 1 in the last update", values: ratio },
    ]
}
