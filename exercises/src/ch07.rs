//! Chapter 7, *The whole loop*: your answers. The task is in [`crate::toy`]: read it first.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

use crate::{
    Curve, Noise,
    toy::{GROUP, LEARNING_RATE, NOISE_LEVEL, PROMPTS, Point, Policy, STEPS, Step, reward, step},
};

// ANCHOR: log_prob_gradient
/// **7.1** The gradient of a step, by hand: the derivative of the log-probability of `next` with
/// respect to the velocity. The step is `N(latent·x + velocity·v, std²)` in both elements.
///
/// In the book: *The log-probability*, in chapter 5. The policy's shift is added to the velocity, so this
/// is its gradient too.
pub fn log_prob_gradient(step: &Step, x: Point, velocity: Point, next: Point) -> Point {
    todo!("7.1: ∂ log π(next) / ∂ velocity")
}
// ANCHOR_END: log_prob_gradient

// ANCHOR: epoch
/// **7.2** An epoch. For every prompt draw a group of `GROUP` points, each from its own noise in
/// `STEPS` steps with `step(i, NOISE_LEVEL)`; turn rewards into advantages within the group, as in 6.1
/// with a `delta` of 0.001; move `policy.shifts[prompt][i]` by `LEARNING_RATE` times the mean over the group of
/// `std² · advantage · log_prob_gradient`, in all steps that draw noise. Returns the mean reward.
///
/// In the book: *The rollout* and *Advantages and loss*, and *Weights of the steps* in chapter 6 for
/// the factor `std²`. The law trains for 80 epochs and wants a mean reward of 0.9. Take all gradients
/// of an epoch with the policy that sampled.
pub fn epoch(policy: &mut Policy, noise: &mut Noise) -> f64 {
    todo!("7.2: rollout, advantages, update")
}
// ANCHOR_END: epoch

// ANCHOR: replayed_run
/// **7.3** Debugging. A run with two updates per epoch: the second one needs the ratio, so the rollout
/// keeps log-probabilities. Returns the mean reward, and the mean of `|log ρ|` in the first update of
/// every epoch. `cargo xtask exercise 7.3 --curves` draws them beside a healthy run's. It learns
/// something, and still a line is in the wrong place.
// ANCHOR_END: replayed_run
pub fn replayed_run() -> Vec<Curve> {
    let (mut policy, mut noise) = (Policy::base(), Noise::new(73));
    let [mut mean_reward, mut deviation] = [Vec::new(), Vec::new()];
    for _ in 0..60 {
        let (sum, kept) = rollout(&policy, &mut noise);
        mean_reward.push(sum / (PROMPTS * GROUP) as f64);
        deviation.push(update(&mut policy, &kept));
        update(&mut policy, &kept);
    }
    vec![
        Curve { name: "reward", values: mean_reward },
        Curve { name: "mean |log ratio| in the first update", values: deviation },
    ]
}

/// A random step as it was taken, and the advantage of its point.
struct Transition {
    prompt: usize,
    i: usize,
    x: Point,
    next: Point,
    log_prob: f64,
    advantage: f64,
}

/// Samples a group per prompt. Returns the sum of the rewards and the random steps.
fn rollout(policy: &Policy, noise: &mut Noise) -> (f64, Vec<Transition>) {
    let (mut sum, mut kept) = (0.0, Vec::new());
    for prompt in 0..PROMPTS {
        let (mut rewards, begin) = (Vec::new(), kept.len());
        for _ in 0..GROUP {
            let mut x = [noise.normal(), noise.normal()];
            for i in 0..STEPS {
                let std = step(i, NOISE_LEVEL).std;
                let mean = policy.mean(x, prompt, i);
                let next = [mean[0] + std * noise.normal(), mean[1] + std * noise.normal()];
                let log_prob = log_prob(next, mean, std);
                x = next;
                if std > 0.0 {
                    kept.push(Transition { prompt, i, x, next, log_prob, advantage: 0.0 });
                }
            }
            rewards.push(reward(x, prompt));
        }
        let mean = rewards.iter().sum::<f64>() / GROUP as f64;
        let var = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / GROUP as f64;
        for (at, transition) in kept[begin..].iter_mut().enumerate() {
            transition.advantage = (rewards[at / (STEPS - 1)] - mean) / (var.sqrt() + 1e-3);
        }
        sum += rewards.iter().sum::<f64>();
    }
    (sum, kept)
}

/// One clipped update. Returns the mean of `|log ρ|` before it.
fn update(policy: &mut Policy, kept: &[Transition]) -> f64 {
    let (sampled, mut deviation) = (policy.clone(), 0.0);
    for at in kept {
        let step = step(at.i, NOISE_LEVEL);
        let mean = sampled.mean(at.x, at.prompt, at.i);
        let log_ratio = log_prob(at.next, mean, step.std) - at.log_prob;
        deviation += log_ratio.abs() / kept.len() as f64;
        let rho = log_ratio.clamp(-20.0, 20.0).exp();
        let stopped = if at.advantage > 0.0 { rho > 1.2 } else { rho < 0.8 };
        if !stopped {
            let size = LEARNING_RATE * at.advantage * rho / GROUP as f64 / 2.0;
            // The gradient with respect to the mean, times std².
            let distances = at.next.iter().zip(mean).map(|(next, mean)| next - mean);
            for (shift, distance) in policy.shifts[at.prompt][at.i].iter_mut().zip(distances) {
                *shift += size * step.velocity * distance;
            }
        }
    }
    deviation
}

/// The log density up to a constant, which cancels in the ratio.
fn log_prob(next: Point, mean: Point, std: f64) -> f64 {
    -((next[0] - mean[0]).powi(2) + (next[1] - mean[1]).powi(2)) / (2.0 * std.powi(2))
}
