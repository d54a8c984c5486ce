//! The laws of chapter 4, *Policy gradients from zero*.

use super::{curve, mean, variance};
use crate::{Curve, Fault, Noise, Verdict, number, numbers, require};

type Estimate = fn(&[f64], &[f64], f64, f64) -> f64;

/// 4.1 against the formula on each batch, and against the exact gradient on average.
pub fn reinforce_gradient(answer: Estimate) -> Verdict {
    let mut noise = Noise::new(41);
    let mut estimates = Vec::new();
    for _ in 0..400 {
        let draws: Vec<f64> = noise.normals(200).iter().map(|e| 0.5 + 0.8 * e).collect();
        let rewards: Vec<f64> = draws.iter().map(|x| -(x - 3.0).powi(2)).collect();
        let average = |of: &dyn Fn(f64, f64) -> f64| {
            mean(&draws.iter().zip(&rewards).map(|(x, r)| of(*x, *r)).collect::<Vec<_>>())
        };
        let right = average(&|x, r| r * (x - 0.5) / 0.64);
        let got = answer(&draws, &rewards, 0.5, 0.8);
        number(
            "The estimate from 200 draws of N(0.5, 0.8²) with r = −(x−3)²",
            got,
            right,
            &[
                (-right, "The sign is wrong: ∂ log π/∂mean = (x − mean)/std²."),
                (0.64 * right, "∇log π is not divided by std²: it is (x − mean)/std²."),
                (0.8 * right, "∇log π is divided by std and not by std²."),
                (200.0 * right, "This is the sum over the draws; the estimate is their mean."),
                (average(&|x, r| r * x / 0.64), "∇log π has x − mean, and not x."),
                (average(&|x, _| (x - 0.5) / 0.64), "The reward is missing."),
                (
                    average(&|x, r| r * -(x - 0.5).powi(2) / 1.28),
                    "This has log π; it must be the derivative of log π with respect to the mean.",
                ),
                (
                    average(&|x, r| (r - mean(&rewards)) * (x - 0.5) / 0.64),
                    "This has a baseline; here none is asked for.",
                ),
            ],
        )?;
        estimates.push(got);
    }
    // J = −(mean − 3)² − std², so the derivative is −2(mean − 3) = 5.
    let (center, error) = (mean(&estimates), (variance(&estimates) / 400.0).sqrt());
    require(
        (center - 5.0).abs() < 5.0 * error,
        format!(
            "The estimates have the mean {center:.2} ± {error:.2}, and the exact gradient is 5."
        ),
        "",
    )
}

/// 4.2 against the definition.
pub fn leave_one_out(answer: fn(&[f64]) -> Vec<f64>) -> Verdict {
    let mut noise = Noise::new(42);
    for group in [2, 4, 16] {
        let rewards = noise.normals(group);
        let sum: f64 = rewards.iter().sum();
        let of = |b: &dyn Fn(f64) -> f64| rewards.iter().map(|r| r - b(*r)).collect::<Vec<_>>();
        let (all, others) = (group as f64, group as f64 - 1.0);
        numbers(
            format!("The advantages in a group of {group}"),
            &answer(&rewards),
            &of(&|r| (sum - r) / others),
            &[
                (
                    of(&|_| sum / all),
                    "That is the group's mean, which contains the reward itself: G/(G−1) times too small.",
                ),
                (
                    of(&|r| (sum - r) / all),
                    "The mean of G−1 other rewards divides by G−1, and not by G.",
                ),
                (of(&|_| sum / others), "The sum of the others leaves out one's own reward."),
                (of(&|r| 2.0 * r - (sum - r) / others), "That is the baseline minus the reward."),
                (
                    of(&|r| r - (sum - r) / others),
                    "That is the baseline; the advantage is the reward minus it.",
                ),
                (rewards.clone(), "There is no baseline."),
            ],
        )?;
    }
    Ok(())
}

/// 4.3 against the closed form, and this against drawn groups.
pub fn group_variances(answer: fn(usize) -> [f64; 2]) -> Verdict {
    for group in [2, 4, 16] {
        let mut noise = Noise::new(430 + group as u64);
        let groups = 160_000 / group;
        let estimates: Vec<f64> = (0..groups).map(|_| variance(&noise.normals(group))).collect();
        let (all, free) = (group as f64, group as f64 - 1.0);
        let (own, others) = (2.0 * free / all.powi(2), 2.0 / free);
        let of = format!(
            "The estimates of {groups} groups of {group} have the variances {:.3} with the group's mean and {:.3} with leave-one-out. Your variances",
            variance(&estimates),
            variance(&estimates) * (all / free).powi(2)
        );
        numbers(
            of,
            &answer(group),
            &[own, others],
            &[
                (
                    vec![2.0 / all, 2.0 / all],
                    "That is the variance with the exact baseline θ. The deviations from the group's own mean sum to zero: G − 1 of them are free.",
                ),
                (vec![others, own], "The group's mean comes first."),
                (
                    vec![own, own],
                    "Leave-one-out is G/(G−1) times as long, so its variance is not the same.",
                ),
                (
                    vec![own, 2.0 / all],
                    "The factor G/(G−1) of the estimate is squared in its variance.",
                ),
                (
                    vec![2.0 * free / all, others * all],
                    "The sum is divided by G, so its variance is divided by G².",
                ),
            ],
        )?;
    }
    Ok(())
}

/// 4.4: the derivative is `1/√(ν(1−ν))`.
pub fn climbed_objective(answer: fn(f64) -> f64) -> Verdict {
    for q in [0.05, 0.2, 0.5, 0.7, 0.95_f64] {
        let h = 1e-5;
        let got = (answer(q + h) - answer(q - h)) / (2.0 * h);
        let right = 1.0 / (q * (1.0 - q)).sqrt();
        let near = |wrong: f64| (got / wrong - 1.0).abs() < 1e-4;
        let hint = if near(1.0) {
            "That climbs the success rate itself, as without a std."
        } else if near(1.0 / (q * (1.0 - q))) {
            "The log-odds divide by ν(1−ν), the variance. The std is its root."
        } else if near(0.5 * right) {
            "Only a factor is wrong: √ν has the derivative 1/(2√ν)."
        } else if near(1.0 / q) {
            "ln ν would divide by ν: that is the objective of the log-likelihood."
        } else if near((q * (1.0 - q)).sqrt()) {
            "The gradient is divided by the std, and here it is multiplied."
        } else {
            "Integrate 1/√(ν(1−ν)); the substitution ν = sin²(angle) helps."
        };
        require(
            near(right),
            format!("At success {q} its slope is {got:.3} instead of 1/std = {right:.3}."),
            hint,
        )?;
    }
    Ok(())
}

/// 4.5: no other number has a smaller variance.
pub fn best_baseline(answer: Estimate) -> Verdict {
    let mut noise = Noise::new(45);
    for (center, std) in [(0.0, 1.0), (1.0, 0.5), (-2.0, 2.0)] {
        let draws: Vec<f64> = noise.normals(500).iter().map(|e| center + std * e).collect();
        let rewards: Vec<f64> = draws.iter().map(|x| x.powi(2) + x).collect();
        let square = |x: f64| ((x - center) / (std * std)).powi(2);
        let weight: Vec<f64> = draws.iter().map(|x| square(*x)).collect();
        let all: f64 = weight.iter().sum();
        let best = rewards.iter().zip(&weight).map(|(r, w)| r * w).sum::<f64>() / all;
        let got = answer(&draws, &rewards, center, std);
        let sum = best * all;
        let spread = |b: f64| {
            rewards.iter().zip(&weight).map(|(r, w)| (r - b).powi(2) * w).sum::<f64>() / 500.0
        };
        let cost = spread(got) / spread(best);
        let absolute = draws.iter().zip(&rewards).map(|(x, r)| r * (x - center).abs()).sum::<f64>()
            / draws.iter().map(|x| (x - center).abs()).sum::<f64>();
        let linear = draws.iter().zip(&rewards).map(|(x, r)| r * (x - center)).sum::<f64>()
            / draws.iter().map(|x| x - center).sum::<f64>();
        let of = format!(
            "With your baseline the mean square is {cost:.3} times the smallest. For N({center}, {std}²) and r = x² + x the baseline"
        );
        number(
            of,
            got,
            best,
            &[
                (
                    mean(&rewards),
                    "That is the mean reward: good, but a draw counts as much as its squared score function.",
                ),
                (
                    absolute,
                    "The weights are the squares of the score function, and not their size.",
                ),
                (linear, "The weights are the squares of the score function."),
                (sum, "Divide by the sum of the weights: a baseline is a mean."),
                (
                    sum / rewards.len() as f64,
                    "Divide by the sum of the weights, and not by the number of draws.",
                ),
                (0.0, "That is no baseline."),
            ],
        )?;
    }
    Ok(())
}

/// 4.6: advantages sum to zero in a group, and the run learns.
pub fn confused_groups(answer: fn() -> Vec<Curve>) -> Verdict {
    let curves = answer();
    let first = curve(&curves, "mean advantage of the first group")?;
    let reward = curve(&curves, "reward")?;
    let largest = first.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let end = mean(&reward[reward.len().saturating_sub(5)..]);
    if largest > 1e-9 {
        let finding = format!(
            "The mean advantage of the first group reaches {largest:.3}, and should be 0; the mean reward ends at {end:.2}."
        );
        return Err(Fault::new(finding));
    }
    require(
        end > 9.6,
        format!(
            "The advantages are centred; the mean reward ends at {end:.2}, and a healthy run's above 9.6."
        ),
        "Is a reward still part of its advantage?",
    )
}
