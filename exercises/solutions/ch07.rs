use crate::{
    Curve, Noise,
    toy::{GROUP, LEARNING_RATE, NOISE_LEVEL, PROMPTS, Point, Policy, STEPS, Step, reward, step},
};

// ANCHOR: log_prob_gradient
/// 7.1: the derivative with respect to the mean is `(next − mean)/std²`, and the mean has the velocity's factor.
pub fn log_prob_gradient(step: &Step, x: Point, velocity: Point, next: Point) -> Point {
    let gradient = |k: usize| {
        let mean = step.latent * x[k] + step.velocity * velocity[k];
        step.velocity * (next[k] - mean) / step.std.powi(2)
    };
    [gradient(0), gradient(1)]
}
// ANCHOR_END: log_prob_gradient

// ANCHOR: epoch
/// 7.2: the gradients are collected in a copy, and `policy` changes at the end.
pub fn epoch(policy: &mut Policy, noise: &mut Noise) -> f64 {
    let (mut updated, mut sum) = (policy.clone(), 0.0);
    for prompt in 0..PROMPTS {
        let mut rows = Vec::new(); // the reward and the gradients of each point
        for _ in 0..GROUP {
            let mut x = [noise.normal(), noise.normal()];
            let mut gradients = [[0.0; 2]; STEPS];
            for (i, gradient) in gradients.iter_mut().enumerate() {
                let step = step(i, NOISE_LEVEL);
                let mean = policy.mean(x, prompt, i);
                let next = mean.map(|mean| mean + step.std * noise.normal());
                if step.std > 0.0 {
                    let velocity = policy.velocity(x, prompt, i);
                    *gradient = log_prob_gradient(&step, x, velocity, next)
                        .map(|gradient| step.std.powi(2) * gradient);
                }
                x = next;
            }
            rows.push((reward(x, prompt), gradients));
        }
        let mean = rows.iter().map(|(reward, _)| reward).sum::<f64>() / GROUP as f64;
        let squares = rows.iter().map(|(reward, _)| (reward - mean).powi(2)).sum::<f64>();
        let std = (squares / GROUP as f64).sqrt();
        for (reward, gradients) in rows {
            let advantage = (reward - mean) / (std + 1e-3);
            for (shift, gradient) in updated.shifts[prompt].iter_mut().zip(gradients) {
                for k in 0..2 {
                    shift[k] += LEARNING_RATE * advantage * gradient[k] / GROUP as f64;
                }
            }
        }
        sum += mean;
    }
    *policy = updated;
    sum / PROMPTS as f64
}
// ANCHOR_END: epoch

/// 7.3: the transition is kept before the point moves on.
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
                // ANCHOR: replayed_run
                if std > 0.0 {
                    kept.push(Transition { prompt, i, x, next, log_prob, advantage: 0.0 });
                }
                x = next; // stood before: each step was replayed from where it ended
                // ANCHOR_END: replayed_run
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
