//! The laws of chapter 6, *GRPO*.

use super::{curve, mean, variance};
use crate::{Curve, Fault, Noise, Verdict, number, numbers, require};

fn over(rewards: &[f64], baseline: f64, spread: f64) -> Vec<f64> {
    rewards.iter().map(|r| (r - baseline) / spread).collect()
}

/// Advantages that mistakes would give.
fn wrong_advantages(rewards: &[f64], delta: f64) -> [(Vec<f64>, &'static str); 9] {
    let (center, variance, size) = (mean(rewards), variance(rewards), rewards.len() as f64);
    let std = variance.sqrt();
    let over = |baseline, spread| over(rewards, baseline, spread);
    let inside = "δ is added to the std, and not under its root.";
    [
        (
            over(center, (variance * size / (size - 1.0)).sqrt() + delta),
            "The standard deviation divides by G − 1 here; the population's divides by G.",
        ),
        (over(center, variance + delta), "That divides by the variance; take its root."),
        (over(0.0, std + delta), "There is no baseline: subtract the group's mean."),
        (over(center, 1.0), "The division by the standard deviation is missing."),
        (over(center, delta), "That divides by δ alone."),
        (
            over(center, std),
            "δ does nothing in this group; it is added to every group's std, large or small.",
        ),
        (over(center, (variance + delta).sqrt()), inside),
        (over(center, variance.sqrt().hypot(delta)), inside),
        (over(center, -std - delta), "That is the mean minus the reward."),
    ]
}

/// 6.1 against the formula; a constant group has no advantages.
pub fn group_advantages(answer: fn(&[f64], f64) -> Vec<f64>) -> Verdict {
    // So large that one sees where it stands.
    let delta = 0.1;
    let constant = answer(&[0.5; 6], delta);
    require(
        constant.iter().all(|a| a.is_finite()),
        format!("A group of equal rewards has the advantages {constant:?} instead of zeros."),
        "δ is missing: it keeps the denominator from zero.",
    )?;
    let mut noise = Noise::new(61);
    let mut groups = vec![vec![0.0, 1.0, 1.0, 0.5], vec![1.0, 0.0, 0.0, 0.0]];
    groups.extend((0..20).map(|_| noise.normals(8)));
    for rewards in groups {
        let of = format!("With δ = {delta}, the advantages of the rewards {rewards:.3?}");
        let right = over(&rewards, mean(&rewards), variance(&rewards).sqrt() + delta);
        numbers(of, &answer(&rewards, delta), &right, &wrong_advantages(&rewards, delta))?;
    }
    require(
        constant.iter().all(|a| *a == 0.0),
        format!("A group of equal rewards has the advantages {constant:?} instead of zeros."),
        "δ keeps the denominator from zero.",
    )
}

type Loss = fn(f64, f64, f64, f64, f64) -> f64;

/// 6.2: the value, and the gradient in the cells.
pub fn clipped_loss(answer: Loss) -> Verdict {
    let (low, high, cap) = (0.1, 0.3, 3.0);
    let cells = [
        (0.8, "below 1 − κ_low"),
        (1.05, "between"),
        (1.4, "above 1 + κ_high"),
        (4.0, "above the cap"),
    ];
    for (advantage, sign) in [(2.0, "A > 0"), (-2.0, "A < 0")] {
        for (at, (rho, place)) in cells.iter().enumerate() {
            let h = 1e-6;
            let slope = (answer(rho + h, advantage, low, high, cap)
                - answer(rho - h, advantage, low, high, cap))
                / (2.0 * h);
            let stopped = if advantage > 0.0 { at >= 2 } else { at == 0 || at == 3 };
            let right = if stopped { 0.0 } else { -advantage };
            let value = answer(*rho, advantage, low, high, cap);
            let hint = if advantage > 0.0 && (value + advantage * cap).abs() < 1e-9 {
                "The cap is for A < 0 alone. For A > 0, −A·cap is the smallest loss of all, and not the largest."
            } else {
                let seen = Cell {
                    upside_down: (slope - advantage).abs() < 1e-4,
                    clipped: value == -advantage * rho.clamp(1.0 - low, 1.0 + high),
                    around_zero: value == -advantage * rho.clamp(low, high),
                };
                cell_hint(advantage, at, stopped, &seen)
            };
            require(
                (slope - right).abs() < 1e-4,
                format!(
                    "For {sign} and ρ {place}, the gradient with respect to ρ is {slope:.2} instead of {right:.2}."
                ),
                hint,
            )?;
            let most = if advantage < 0.0 { cap } else { 1.0 + high };
            let right = -advantage * if stopped { rho.clamp(1.0 - low, most) } else { *rho };
            let of = format!("The loss for {sign} at ρ = {rho}");
            number(of, value, right, &wrong_constants(advantage, low, high))?;
        }
    }
    let slope = (answer(0.85, -1.0, 0.2, 0.01, 3.0) - answer(0.84, -1.0, 0.2, 0.01, 3.0)) / 0.01;
    require(
        (slope - 1.0).abs() < 1e-6,
        format!(
            "With κ_low = 0.2 and κ_high = 0.01, at ρ = 0.845 and A = −1, the gradient is {slope:.2} instead of 1.00."
        ),
        "Below 1 the range is κ_low.",
    )
}

/// Wrong losses where the gradient stops.
fn wrong_constants(advantage: f64, low: f64, high: f64) -> [(f64, &'static str); 3] {
    [
        (0.0, "Where the gradient stops, the loss is constant, and not zero: no jumps."),
        (-advantage * (1.0 + low), "Above 1 the range is κ_high; this is the loss at 1 + κ_low."),
        (-advantage * (1.0 - high), "Below 1 the range is κ_low; this is the loss at 1 − κ_high."),
    ]
}

/// What an answer with a wrong gradient is in a cell.
struct Cell {
    /// The gradient has the other sign.
    upside_down: bool,
    /// The value is the clipped loss.
    clipped: bool,
    /// The value is clipped between the ranges themselves.
    around_zero: bool,
}

/// What is wrong in a cell whose gradient is; nothing if no cause is known.
fn cell_hint(advantage: f64, at: usize, stopped: bool, seen: &Cell) -> &'static str {
    if seen.upside_down && advantage < 0.0 {
        "For A > 0 the loss is right, so its sign is: here the sign of A is lost. For A < 0 the loss −A·ρ rises with ρ."
    } else if seen.upside_down {
        "The sign is wrong: this is what should be raised; the loss is its negative."
    } else if stopped && advantage < 0.0 && at == 3 {
        "The cap is missing: however far ρ grows, the loss of a transition with A < 0 ends at −A·cap."
    } else if stopped {
        "The transition has moved far enough in the direction of its advantage, so its gradient stops: the clip is missing here, or has the range of the other side."
    } else if seen.around_zero {
        "ρ is clipped between κ_low and κ_high. The ranges are distances from 1: clip it between 1 − κ_low and 1 + κ_high."
    } else if at == 1 {
        "Between the clip ranges the loss is −A·ρ."
    } else if seen.clipped {
        "It has moved in the wrong direction, and its gradient must stay, so that it can come back: take the maximum of both losses."
    } else {
        ""
    }
}

/// 6.3: the mean over all transitions, however they are cut.
pub fn update_loss(answer: fn(&[Vec<f64>]) -> f64) -> Verdict {
    let mut noise = Noise::new(63);
    let losses = noise.normals(24);
    let cut = |sizes: &[usize]| {
        let mut rest = &losses[..];
        let batch = |size: &usize| {
            let (batch, after) = rest.split_at(*size);
            rest = after;
            batch.to_vec()
        };
        sizes.iter().map(batch).collect::<Vec<_>>()
    };
    for sizes in [&[24][..], &[8, 8, 8], &[16, 7, 1], &[10, 0, 14]] {
        let batches = cut(sizes);
        let got = answer(&batches);
        require(
            got.is_finite() || !sizes.contains(&0),
            format!("The loss of 24 transitions in batches of {sizes:?} is {got}."),
            "A batch without transitions has no mean, 0/0, and must not count.",
        )?;
        let means: Vec<f64> = batches.iter().map(|batch| mean(batch)).collect();
        number(
            format!("The loss of 24 transitions in batches of {sizes:?}"),
            got,
            mean(&losses),
            &[
                (24.0 * mean(&losses), "That is the sum; the loss is a mean."),
                (
                    mean(&means),
                    "That is a mean of means: a transition in a small batch counts more. Weigh every batch by its share of the transitions.",
                ),
                (
                    means.iter().sum(),
                    "That is the sum of the batches' means: it grows with the number of batches.",
                ),
            ],
        )?;
    }
    Ok(())
}

/// 6.4: the ratio leaves 1, and the run learns.
pub fn overshooting_run(answer: fn() -> Vec<Curve>) -> Verdict {
    let curves = answer();
    let ratio = curve(&curves, "ratio from 1 in the last update")?;
    let reward = curve(&curves, "reward")?;
    let end = mean(&reward[reward.len().saturating_sub(10)..]);
    if ratio.iter().all(|far| *far < 1e-9) {
        let finding = format!(
            "The mean reward ends at {end:.3}, and in the twelfth update of every epoch all ratios are exactly 1."
        );
        return Err(Fault::with(finding, "After eleven updates the policy has moved."));
    }
    require(end > 0.7, format!("The mean reward ends at {end:.3} instead of about 0.8."), "")
}
