//! The laws of chapter 12, KL, tilting, and what is optimal.

use crate::{Noise, Verdict, numbers, require};

type Tilted = fn(&[f64], &[f64], f64) -> Vec<f64>;

/// 12.1: a Gaussian moves by `λV/β`; random lists; rewards that overflow.
pub fn tilted(answer: Tilted) -> Verdict {
    let places: Vec<f64> = (-400..=400).map(|i| f64::from(i) * 0.02).collect();
    let raw: Vec<f64> = places.iter().map(|x| (-x * x).exp()).collect(); // variance ½
    let all: f64 = raw.iter().sum();
    let gaussian: Vec<f64> = raw.iter().map(|p| p / all).collect();
    let mut noise = Noise::new(121);
    for beta in [0.5, 2.0] {
        let got = answer(&gaussian, &places, beta);
        let sum: f64 = got.iter().sum();
        require(
            (sum - 1.0).abs() < 1e-9,
            format!("The probabilities sum to {sum:.4} instead of 1."),
            "Divide by their sum.",
        )?;
        let center: f64 = got.iter().zip(&places).map(|(p, x)| p * x).sum();
        let right = 0.5 / beta;
        let hint = if (center - 0.5 * beta).abs() < 1e-3 {
            "The exponent is r/β, and not β·r: a large penalty stays near."
        } else if (center + right).abs() < 1e-3 {
            "The sign is wrong: the density rises where the reward is high."
        } else if center.abs() < 1e-3 {
            "The reward changes nothing."
        } else {
            "The density is multiplied by e^(r/β)."
        };
        require(
            (center - right).abs() < 1e-6,
            format!(
                "A Gaussian of variance ½ with r = x and β = {beta} moves to {center:.3} instead of ½/β = {right:.3}."
            ),
            hint,
        )?;
    }
    for _ in 0..20 {
        let p: Vec<f64> = (0..6).map(|_| noise.between(0.1, 1.0) / 6.0).collect();
        let r = noise.normals(6);
        let weights: Vec<f64> = p.iter().zip(&r).map(|(p, r)| p * (r / 0.7).exp()).collect();
        let all: f64 = weights.iter().sum();
        let plain: Vec<f64> = r.iter().map(|r| (r / 0.7).exp()).collect();
        let sum: f64 = plain.iter().sum();
        numbers(
            "The probabilities of six places",
            &answer(&p, &r, 0.7),
            &weights.iter().map(|w| w / all).collect::<Vec<_>>(),
            &[(
                plain.iter().map(|w| w / sum).collect(),
                "The base model is missing: that is a softmax of the rewards alone.",
            )],
        )?;
    }
    let extreme = answer(&[0.5, 0.5], &[10_000.0, 9_999.0], 1.0);
    let finding = format!(
        "For the rewards 10000 and 9999 with β = 1 the probabilities are {extreme:.3?} instead of [0.731, 0.269]."
    );
    require(
        extreme.len() == 2 && (extreme[0] - 0.731_058).abs() < 1e-4,
        finding,
        "e^10000 overflows. Subtract the largest reward first: the normalisation takes it out again.",
    )
}

/// 12.2: the table of the chapter, and the limit of many steps.
pub fn moved(answer: fn(usize, f64, f64) -> [f64; 2]) -> Verdict {
    let root = f64::sqrt(2.0);
    for (level, right) in [(0.7, 1.22), (1.0, 1.17), (root, 0.86)] {
        let [sde, ode] = answer(10, level, 0.25);
        let (ratio, factor) = (ode / sde, 1.0 + level * level / 2.0);
        let near = |wrong: f64| (ratio / wrong - 1.0).abs() < 0.01;
        let hint = if near(right * factor) {
            "A shift s²P of the SDE's step is a change of the velocity by s²P/((1+a²/2)Δt): the ODE's step moves by s²P/(1+a²/2)."
        } else if near(1.0) {
            "The ODE has its own gains, without the score: a shift is forgotten more slowly there."
        } else if near(1.0 / right) {
            "The SDE comes first."
        } else {
            "Walk from the last step back: add s²P·P to the SDE and s²P·Δt/push·Λ to the ODE, then multiply P and Λ by the step's gains."
        };
        require(
            near(right),
            format!(
                "In ten steps at a = {level:.2} the ODE moves {ratio:.2} times as far as the SDE instead of {right:.2} times."
            ),
            hint,
        )?;
    }
    let [sde, ode] = answer(40_000, root, 0.25);
    require(
        (sde - 1.0).abs() < 0.01 && (ode - 1.0).abs() < 0.01,
        format!("At √2 the ends move by {sde:.3} and {ode:.3} instead of 1 times V₀."),
        "Divide by the variance of the data.",
    )?;
    for level in [1.0, root, 2.0] {
        let [sde, ode] = answer(40_000, level, 0.25);
        let law = 2.0 / (1.0 + level * level / 2.0);
        let memory = (1.0 - sde).max(0.0).sqrt(); // M₁
        let limit = law / (1.0 + memory);
        require(
            (ode / sde / limit - 1.0).abs() < 0.02,
            format!(
                "In 40,000 steps at a = {level:.2}, the ODE moves {:.3} times as far as the SDE instead of {limit:.3} times: 2/((1+a²/2)(1+M₁)).",
                ode / sde
            ),
            "Look at the first step: σ has another form there.",
        )?;
    }
    Ok(())
}
