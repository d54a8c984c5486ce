use exercises::{laws::ch06::*, solutions::ch06 as right};

use super::{Mutant, mutant};

/// (r − b)/s with b and s of the group.
fn advantages(rewards: &[f64], of: impl Fn(f64, f64, f64) -> (f64, f64)) -> Vec<f64> {
    let size = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / size;
    let variance = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / size;
    let (baseline, std) = of(mean, variance, size);
    rewards.iter().map(|r| (r - baseline) / std).collect()
}

pub fn all() -> Vec<Mutant> {
    [exercise_6_1(), exercise_6_2(), exercise_6_2_ranges(), exercise_6_3(), exercise_6_4()]
        .into_iter()
        .flatten()
        .collect()
}

fn exercise_6_1() -> Vec<Mutant> {
    vec![
        mutant(
            "6.1",
            "the sample's deviation",
            "divides by G − 1",
            group_advantages(|r, d| advantages(r, |m, v, n| (m, (v * n / (n - 1.0)).sqrt() + d))),
        ),
        mutant(
            "6.1",
            "the variance",
            "divides by the variance",
            group_advantages(|r, d| advantages(r, |m, v, _| (m, v + d))),
        ),
        mutant(
            "6.1",
            "no baseline",
            "no baseline",
            group_advantages(|r, d| advantages(r, |_, v, _| (0.0, v.sqrt() + d))),
        ),
        mutant(
            "6.1",
            "no δ",
            "δ is missing",
            group_advantages(|r, _| advantages(r, |m, v, _| (m, v.sqrt()))),
        ),
        mutant(
            "6.1",
            "no division",
            "division by the standard deviation is missing",
            group_advantages(|r, _| advantages(r, |m, _, _| (m, 1.0))),
        ),
        mutant(
            "6.1",
            "the larger of std and δ",
            "δ does nothing in this group",
            group_advantages(|r, d| advantages(r, |m, v, _| (m, v.sqrt().max(d)))),
        ),
        mutant(
            "6.1",
            "δ² under the root",
            "not under its root",
            group_advantages(|r, d| advantages(r, |m, v, _| (m, (v + d * d).sqrt()))),
        ),
        mutant(
            "6.1",
            "δ under the root",
            "not under its root",
            group_advantages(|r, d| advantages(r, |m, v, _| (m, (v + d).sqrt()))),
        ),
        mutant(
            "6.1",
            "δ for the std",
            "by δ alone",
            group_advantages(|r, d| advantages(r, |m, _, _| (m, d))),
        ),
    ]
}

fn exercise_6_2() -> Vec<Mutant> {
    vec![
        mutant(
            "6.2",
            "min for max",
            "wrong direction",
            clipped_loss(|p, a, l, h, _| (-a * p).min(-a * p.clamp(1.0 - l, 1.0 + h))),
        ),
        mutant("6.2", "no clip", "the clip is missing here", clipped_loss(|p, a, _, _, _| -a * p)),
        mutant(
            "6.2",
            "always clipped",
            "so that it can come back",
            clipped_loss(|p, a, l, h, _| -a * p.clamp(1.0 - l, 1.0 + h)),
        ),
        mutant(
            "6.2",
            "clips above only",
            "the clip is missing here",
            clipped_loss(|p, a, _, h, _| (-a * p).max(-a * p.min(1.0 + h))),
        ),
        mutant(
            "6.2",
            "the wrong sign",
            "sign is wrong",
            clipped_loss(|p, a, l, h, c| -right::clipped_loss(p, a, l, h, c)),
        ),
        mutant(
            "6.2",
            "the chapter's loss",
            "The cap is missing",
            clipped_loss(|p, a, l, h, _| (-a * p).max(-a * p.clamp(1.0 - l, 1.0 + h))),
        ),
        mutant(
            "6.2",
            "a cap on every loss",
            "for A < 0 alone",
            clipped_loss(|p, a, l, h, c| right::clipped_loss(p, a, l, h, c).min(-a * c)),
        ),
        mutant(
            "6.2",
            "nothing beyond the cap",
            "no jumps",
            clipped_loss(
                |p, a, l, h, c| {
                    if a < 0.0 && p > c { 0.0 } else { right::clipped_loss(p, a, l, h, c) }
                },
            ),
        ),
    ]
}

fn exercise_6_2_ranges() -> Vec<Mutant> {
    vec![
        mutant(
            "6.2",
            "ranges exchanged",
            "Above 1 the range is κ_high",
            clipped_loss(|p, a, l, h, c| right::clipped_loss(p, a, h, l, c)),
        ),
        mutant(
            "6.2",
            "the upper range below 1, too",
            "has the range of the other side",
            clipped_loss(|p, a, _, h, c| right::clipped_loss(p, a, h, h, c)),
        ),
        mutant(
            "6.2",
            "clipped around zero",
            "distances from 1",
            clipped_loss(|p, a, l, h, _| (-a * p).max(-a * p.clamp(l, h))),
        ),
        mutant(
            "6.2",
            "|A|",
            "the sign of A is lost",
            clipped_loss(|p, a, l, h, _| -a.abs() * p.min(p.clamp(1.0 - l, 1.0 + h))),
        ),
    ]
}

fn exercise_6_3() -> Vec<Mutant> {
    vec![
        mutant(
            "6.3",
            "a mean of means",
            "mean of means",
            update_loss(|batches| {
                let mean = |batch: &Vec<f64>| batch.iter().sum::<f64>() / batch.len() as f64;
                batches.iter().map(mean).sum::<f64>() / batches.len() as f64
            }),
        ),
        mutant(
            "6.3",
            "a sum",
            "That is the sum",
            update_loss(|batches| batches.iter().flatten().sum()),
        ),
        mutant(
            "6.3",
            "a batch without transitions",
            "no mean, 0/0",
            update_loss(|batches| {
                let count = batches.iter().map(Vec::len).sum::<usize>() as f64;
                batches
                    .iter()
                    .map(|b| b.iter().sum::<f64>() / b.len() as f64 * b.len() as f64 / count)
                    .sum()
            }),
        ),
    ]
}

fn exercise_6_4() -> Vec<Mutant> {
    vec![mutant(
        "6.4",
        "as it was handed out",
        "all ratios are exactly 1",
        overshooting_run(exercises::ch06::overshooting_run),
    )]
}
