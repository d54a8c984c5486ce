use crate::{Curve, Noise};

// ANCHOR: reinforce_gradient
/// 4.1: `∇log π = (x − mean)/std²`.
pub fn reinforce_gradient(draws: &[f64], rewards: &[f64], mean: f64, std: f64) -> f64 {
    let terms = draws.iter().zip(rewards).map(|(x, r)| r * (x - mean) / std.powi(2));
    terms.sum::<f64>() / draws.len() as f64
}
// ANCHOR_END: reinforce_gradient

// ANCHOR: leave_one_out
/// 4.2: the others' sum is the whole sum without one's own.
pub fn leave_one_out(rewards: &[f64]) -> Vec<f64> {
    let sum: f64 = rewards.iter().sum();
    let others = (rewards.len() - 1) as f64;
    rewards.iter().map(|reward| reward - (sum - reward) / others).collect()
}
// ANCHOR_END: leave_one_out

// ANCHOR: group_variances
/// 4.3: deviations from a group's own mean sum to zero, so `G − 1` of them are free. Leave-one-out is
/// `G/(G−1)` times as long. With the exact baseline the variance is `2/G`: leave-one-out costs one draw.
pub fn group_variances(group: usize) -> [f64; 2] {
    let (all, free) = (group as f64, group as f64 - 1.0);
    [2.0 * free / all.powi(2), 2.0 / free]
}
// ANCHOR_END: group_variances

// ANCHOR: climbed_objective
/// 4.4: `φ′(ν) = 1/√(ν(1−ν))`, so `φ(ν) = 2·arcsin √ν`. It is steep at 0 and at 1.
pub fn climbed_objective(success: f64) -> f64 {
    2.0 * success.sqrt().asin()
}
// ANCHOR_END: climbed_objective

// ANCHOR: best_baseline
/// 4.5: `E[(r − b)²·(∇log π)²]` is smallest at `E[r·(∇log π)²]/E[(∇log π)²]`.
pub fn best_baseline(draws: &[f64], rewards: &[f64], mean: f64, std: f64) -> f64 {
    let square = |x: f64| ((x - mean) / std.powi(2)).powi(2);
    let weighted: f64 = draws.iter().zip(rewards).map(|(x, r)| r * square(*x)).sum();
    weighted / draws.iter().map(|x| square(*x)).sum::<f64>()
}
// ANCHOR_END: best_baseline

/// 4.6: a group is 16 rows that follow one another.
pub fn confused_groups() -> Vec<Curve> {
    const GROUP: usize = 16;
    let (targets, easy) = ([2.0, -2.0, 1.5, -1.5], [0.0, 5.0, 10.0, 20.0]);
    let mut noise = Noise::new(46);
    let mut means = [0.0; 4];
    let [mut reward, mut first] = [Vec::new(), Vec::new()];
    for _ in 0..60 {
        let draws: Vec<f64> =
            (0..4 * GROUP).map(|row| means[row / GROUP] + 0.5 * noise.normal()).collect();
        let judged = draws.iter().enumerate().map(|(row, x)| {
            let prompt = row / GROUP;
            easy[prompt] + (-(x - targets[prompt]).powi(2) / 4.0).exp()
        });
        let rewards: Vec<f64> = judged.collect();
        // ANCHOR: confused_groups
        let advantage = |row: usize| {
            // `skip(row % GROUP).step_by(GROUP)` took one row of every prompt. Advantages then sum to
            // zero over the epoch, but not within a group: easy prompts are always praised.
            let group = rewards.iter().skip(row / GROUP * GROUP).take(GROUP);
            rewards[row] - group.clone().sum::<f64>() / group.count() as f64
        };
        // ANCHOR_END: confused_groups
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
