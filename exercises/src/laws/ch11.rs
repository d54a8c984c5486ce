//! The laws of chapter 11, *When a reward is hacked*.

use super::{mean, variance};
use crate::{Noise, Verdict, number, require};

/// 11.1 against the closed form.
pub fn best_pressure(answer: fn(f64) -> f64) -> Verdict {
    for liking in [0.5, 1.5, 1.0, 3.0_f64] {
        let got = answer(liking);
        let gold = |p: f64| p - ((liking * p).powi(2) + 1.0) / 4.0;
        let best = 2.0 / liking.powi(2);
        let of = format!(
            "With a liking of {liking}, gold is {:.2} at your pressure and {:.2} at its best. The pressure",
            gold(got),
            gold(best)
        );
        number(
            of,
            got,
            best,
            &[
                (2.0 / liking, "y₂ moves by liking/β, and its square has liking²."),
                (2.0, "That is for a liking of 1."),
                (
                    1.0 / liking.powi(2),
                    "The derivative of ψ − liking²ψ²/4 with respect to the pressure ψ is 1 − liking²ψ/2.",
                ),
                (
                    4.0 / liking.powi(2),
                    "There the loss has eaten the gain: gold is what it was before training.",
                ),
                (liking.powi(2) / 2.0, "That is β: the pressure is 1/β."),
            ],
        )?;
    }
    Ok(())
}

type Controller = fn(f64, f64, f64, f64) -> f64;

/// 11.2: the direction, the bound, and a divergence that answers late.
pub fn next_weight(answer: Controller) -> Verdict {
    let mut noise = Noise::new(112);
    for _ in 0..50 {
        let (weight, target) = (noise.between(0.01, 2.0), noise.between(1e-5, 1e-2));
        let rate = noise.between(0.1, 1.0);
        let factor = |times: f64| answer(weight, times * target, target, rate) / weight;
        require(
            (factor(1.0) - 1.0).abs() < 1e-9,
            format!("At the target the weight changes by the factor {:.3}.", factor(1.0)),
            "At the target nothing should change.",
        )?;
        let (above, below) = (factor(1.1), factor(0.9));
        require(
            above > 1.0 && below < 1.0,
            format!("At 1.1 targets the weight is multiplied by {above:.3}, at 0.9 by {below:.3}."),
            "The direction is wrong: too much divergence needs a larger penalty.",
        )?;
        let (far, near) = (factor(50.0), factor(0.0));
        require(
            far <= 1.0 + 0.23 * rate && near >= 1.0 - 0.23 * rate,
            format!(
                "At 50 targets the weight is multiplied by {far:.3}, without divergence by {near:.3}; at rate {rate:.2} the bounds are {:.3} and {:.3}.",
                1.0 + 0.2 * rate,
                1.0 - 0.2 * rate
            ),
            "Without a clip on the relative distance one noisy epoch throws the weight off.",
        )?;
        require(
            near > 0.0,
            format!("Without divergence the weight becomes {near:.3} times itself."),
            "A weight is positive.",
        )?;
    }
    held(answer)
}

/// A divergence that follows `0.01/weight` over twenty epochs must settle at the target.
fn held(answer: Controller) -> Verdict {
    let mut noise = Noise::new(113);
    let (mut weight, mut divergence, target) = (20.0, 1e-4, 2e-3);
    let mut late = Vec::new();
    for epoch in 0..600 {
        divergence += (0.01 / weight - divergence) / 20.0;
        let seen = divergence * (1.0 + 0.1 * noise.normal());
        weight = answer(weight, seen, target, 0.1);
        if epoch >= 450 {
            late.push(divergence / target);
        }
    }
    let (center, spread) = (mean(&late), variance(&late).sqrt());
    let finding = format!(
        "In a run whose divergence answers twenty epochs late it ends at {center:.2} ± {spread:.2} targets."
    );
    require(
        (center - 1.0).abs() < 0.15 && spread < 0.15,
        finding,
        "The change must be proportional to the relative distance near the target, and to `rate`.",
    )
}

/// 11.3 against a search over all pairs.
pub fn stops_at(answer: fn(&[f64], f64) -> Option<usize>) -> Verdict {
    let mut noise = Noise::new(114);
    let mut wrong = None;
    let (mut as_step, mut as_start) = (true, true);
    for _ in 0..200 {
        let mut value = 0.5;
        let gold: Vec<f64> = (0..30)
            .map(|_| {
                value += 0.03 * noise.normal();
                value
            })
            .collect();
        let fallen = |at: usize| gold[..at].iter().any(|before| before - gold[at] >= 0.08);
        let (right, got) = ((0..30).find(|at| fallen(*at)), answer(&gold, 0.08));
        as_step &= got == (1..30).find(|at| gold[at - 1] - gold[*at] >= 0.08);
        as_start &= got == (1..30).find(|at| gold[0] - gold[*at] >= 0.08);
        if got != right && wrong.is_none() {
            wrong =
                Some(format!("The rule acts at {got:?} and should at {right:?}, in {gold:.2?}."));
        }
    }
    let hint = match (as_step, as_start) {
        (true, _) => {
            "It compares with the evaluation before. A slow fall never falls by much at once: compare with the highest so far."
        }
        (_, true) => "It compares with the first evaluation, and not with the highest so far.",
        _ => "",
    };
    require(wrong.is_none(), wrong.unwrap_or_default(), hint)?;
    require(
        answer(&[0.1, 0.2, 0.3], 0.05).is_none(),
        "The rule acts on a gold that only rises.",
        "",
    )?;
    require(
        answer(&[0.9, 0.5, 0.9], 0.4) == Some(1),
        "A fall by exactly `by` is not noticed.",
        "At least `by`: the comparison includes it.",
    )
}
