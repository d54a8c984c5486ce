//! The laws of chapter 2, *Noise*.

use super::{mean, variance};
use crate::{Fault, Noise, Verdict, number, require};

/// 2.1 against the formula, and against the growth of a random walk's variance.
pub fn euler_maruyama_step(answer: fn(f64, f64, f64, f64, f64) -> f64) -> Verdict {
    for h in [1.0, 0.1, 0.01_f64] {
        // After a time of 1 without drift, by the answer's own noise.
        let grown = (answer(0.0, 0.0, 1.0, h, 1.0)).powi(2) / h;
        require(
            (grown - 1.0).abs() < 1e-6,
            format!(
                "A walk with σ = 1 and steps of {h} has the variance {grown:.3} after a time of 1, instead of 1.000 whatever the step."
            ),
            "Variances add up, so a step's variance is σ²h, and its noise has σ√h.",
        )?;
    }
    let mut noise = Noise::new(21);
    for _ in 0..100 {
        let (x, f, e) = (noise.normal(), noise.normal(), noise.normal());
        let (sigma, h) = (noise.between(0.3, 3.0), noise.between(0.01, 0.5));
        let random = sigma * h.sqrt() * e;
        let of = format!(
            "The step from {x:.3} with drift {f:.3}, σ = {sigma:.3}, h = {h:.3}, ε = {e:.3}"
        );
        number(
            of,
            answer(x, f, sigma, h, e),
            x + f * h + random,
            &[
                (x + f + random, "The drift acts for a time h: drift·h."),
                (x - f * h + random, "The drift has the wrong sign."),
                (x + f * h.sqrt() + random, "Only the noise has √h; the drift has h."),
                (f * h + random, "This is the change of x; add it to x."),
                (
                    x + f * h + sigma.powi(2) * h.sqrt() * e,
                    "σ is a standard deviation per root of time, and not a variance: σ√h, without a square.",
                ),
            ],
        )?;
    }
    Ok(())
}

/// 2.2: a step keeps the variance.
pub fn resting_variance(answer: fn(f64, f64, f64) -> f64) -> Verdict {
    let mut noise = Noise::new(22);
    for _ in 0..100 {
        let (h, k, sigma) =
            (noise.between(0.05, 0.5), noise.between(0.5, 2.0), noise.between(0.5, 2.0));
        let rest = sigma.powi(2) / (k * (2.0 - k * h));
        let got = answer(h, k, sigma);
        let after = (1.0 - k * h).powi(2) * got + sigma.powi(2) * h;
        let usual = [
            (
                sigma.powi(2) / (2.0 * k),
                "That is the limit of small steps, σ²/2k. A finite step leaves more: its noise is added in full.",
            ),
            (1.0 / (k * (2.0 - k * h)), "The noise has the variance σ²h per step."),
            (1.0 / (2.0 - h), "That is for pull = σ = 1."),
            (rest.sqrt(), "That is the standard deviation."),
            (
                sigma.powi(2) / k,
                "A step multiplies the variance by (1 − pull·h)², and not by 1 − pull·h.",
            ),
        ];
        let of = format!(
            "With h = {h:.3}, pull = {k:.3}, σ = {sigma:.3} a step makes {after:.3} of your variance. The resting variance"
        );
        number(of, got, rest, &usual)?;
    }
    Ok(())
}

/// 2.3 against the numerical derivative of the log density.
pub fn mixture_score(answer: fn(f64, &[f64], f64) -> f64) -> Verdict {
    let mut noise = Noise::new(23);
    for _ in 0..100 {
        let (x, var, means) = (noise.normal(), noise.between(0.3, 2.0), noise.normals(3));
        let log_density =
            |x: f64| means.iter().map(|m| (-(x - m).powi(2) / (2.0 * var)).exp()).sum::<f64>().ln();
        let h = 1e-5;
        let score = (log_density(x + h) - log_density(x - h)) / (2.0 * h);
        let got = answer(x, &means, var);
        if (got - score).abs() < 1e-6 * score.abs().max(1.0) {
            continue;
        }
        let plain = mean(&means.iter().map(|m| (m - x) / var).collect::<Vec<_>>());
        let near = |wrong: f64| (got - wrong).abs() < 1e-6 * wrong.abs().max(1.0);
        let finding = format!(
            "The score at x = {x:.3} is {got:.3}, and the numerical derivative of the log density {score:.3}."
        );
        return Err(if near(-score) {
            Fault::with(
                finding,
                "The sign is wrong: the score points to where the density is higher.",
            )
        } else if near(plain) {
            Fault::with(
                finding,
                "All parts have equal weights here; weight each by the probability that x came from it.",
            )
        } else if near(score * var) {
            Fault::with(
                finding,
                "The score of a Gaussian is −(x − mean)/variance; the division is missing.",
            )
        } else {
            Fault::new(finding)
        });
    }
    Ok(())
}

type Langevin = fn(&dyn Fn(f64) -> f64, f64, f64, usize, &[f64], &mut Noise) -> Vec<f64>;

/// 2.4: a Gaussian is reached from a point, for two strengths of the noise.
pub fn langevin(answer: Langevin) -> Verdict {
    for (seed, sigma, h) in [(1, 1.0, 0.02), (2, 2.0, 0.005)] {
        let score = |x: f64| -(x - 1.0) / 0.25;
        let end = answer(&score, sigma, h, 250, &vec![3.0; 4000], &mut Noise::new(240 + seed));
        require(
            end.len() == 4000,
            format!("4000 walkers began and {} arrived.", end.len()),
            "Return one point per walker.",
        )?;
        let (center, spread) = (mean(&end), variance(&end));
        let finding = format!(
            "The walkers should have the mean 1.000 and the variance 0.250; with σ = {sigma} they have {center:.3} and {spread:.3}."
        );
        let near = |value: f64| (spread / value - 1.0).abs() < 0.15;
        let hint = if !spread.is_finite() || spread > 10.0 {
            "They fly apart: the drift goes towards higher density, with the score and not against it."
        } else if spread < 1e-6 {
            "They stand on one point: every walker needs its own noise in every step."
        } else if near(0.125) {
            "Half of the variance: the drift is twice too strong. It is ½σ²·score."
        } else if near(0.25 * h) {
            "The noise vanishes with the step: it has √h, and not h."
        } else {
            "The drift that cancels the noise is ½σ²·score: it must grow with σ²."
        };
        require(near(0.25) && (center - 1.0).abs() < 0.1, finding, hint)?;
    }
    Ok(())
}
