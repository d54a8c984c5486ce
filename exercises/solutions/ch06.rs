use crate::{Curve, Noise};

// ANCHOR: group_advantages
/// 6.1: with the population's deviation.
pub fn group_advantages(rewards: &[f64], delta: f64) -> Vec<f64> {
    let size = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / size;
    let std = (rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / size).sqrt();
    rewards.iter().map(|reward| (reward - mean) / (std + delta)).collect()
}
// ANCHOR_END: group_advantages

// ANCHOR: clipped_loss
/// 6.2: the larger of two losses is the more pessimistic one; for `A < 0` it is at most `−A·cap`.
pub fn clipped_loss(ratio: f64, advantage: f64, low: f64, high: f64, cap: f64) -> f64 {
    let ratio = if advantage < 0.0 { ratio.min(cap) } else { ratio };
    (-advantage * ratio).max(-advantage * ratio.clamp(1.0 - low, 1.0 + high))
}
// ANCHOR_END: clipped_loss

// ANCHOR: update_loss
/// 6.3: a transition counts the same in a small batch and in a large one.
pub fn update_loss(batches: &[Vec<f64>]) -> f64 {
    let count: usize = batches.iter().map(Vec::len).sum();
    batches.iter().flatten().sum::<f64>() / count as f64
}
// ANCHOR_END: update_loss

/// 6.4: the old policy is the one that sampled, in all updates of an epoch.
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
        // ANCHOR: overshooting_run
        let sampled = theta; // was set in every update, so every ratio was 1 and no clip ever acted
        for _ in 0..12 {
            let mut gradient = 0.0;
            // ANCHOR_END: overshooting_run
            farthest = 0.0_f64;
            for (x, r) in draws.iter().zip(&rewards) {
                let (advantage, rho) =
                    ((r - mean) / (std + 1e-4), (log_prob(*x, theta) - log_prob(*x, sampled)).exp());
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
