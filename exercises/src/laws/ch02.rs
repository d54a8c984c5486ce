//! The laws of chapter 2, *Noise*.

use super::{mean, variance};
use crate::{Noise, Verdict, explain, number, require};

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
                (x + f * h + (sigma * h).sqrt() * e, "The root is of h alone: σ√h, and not √(σh)."),
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
            (rest / sigma.powi(2), "The noise of a step has the variance σ²h; here σ² is missing."),
            (rest / sigma, "The noise of a step has the variance σ²h, and not σh."),
            (rest * h, "The noise of a step has the variance σ²h, and not σ²h²."),
            (1.0 / (2.0 - h), "That is for pull = σ = 1."),
            (sigma.powi(2) / (2.0 - h), "That is for pull = 1: a step multiplies x by 1 − pull·h."),
            (rest * k, "1 − (1 − pull·h)² is pull·h·(2 − pull·h): divide by the first pull too."),
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

/// 2.3 against Bayes' rule.
pub fn mixture_score(answer: fn(f64, &[f64], f64) -> f64) -> Verdict {
    let mut noise = Noise::new(23);
    for _ in 0..100 {
        let (x, var, means) = (noise.normal(), noise.between(0.3, 2.0), noise.normals(3));
        let of = format!("The score, the derivative of the log density, at x = {x:.3}");
        let score = mixture(x, &means, |d| (-d * d / (2.0 * var)).exp()) / var;
        number(of, answer(x, &means, var), score, &wrong_scores(x, &means, var))?;
    }
    Ok(())
}

/// The weighted mean of the distances from `x` to the means; a weight is a function of the distance.
fn mixture(x: f64, means: &[f64], weight: impl Fn(f64) -> f64) -> f64 {
    let sum = |of: &dyn Fn(f64) -> f64| means.iter().map(|m| of(m - x)).sum::<f64>();
    sum(&|d| weight(d) * d) / sum(&weight)
}

/// Scores that mistakes would give.
fn wrong_scores(x: f64, means: &[f64], var: f64) -> [(f64, &'static str); 11] {
    let bell = |d: f64, var: f64| (-d * d / (2.0 * var)).exp();
    let distance = mixture(x, means, |d| bell(d, var));
    let score = distance / var;
    let all: f64 = means.iter().map(|m| bell(m - x, var)).sum();
    let (count, norm) = (means.len() as f64, (std::f64::consts::TAU * var).sqrt());
    let whole = "The weights do not sum to 1: divide by their sum.";
    let root = "`variance` is the variance itself: no root is taken of it, and no square.";
    [
        (-score, "The sign is wrong: the score points to where the density is higher."),
        (
            mixture(x, means, |_| 1.0) / var,
            "All parts have equal weights here; weight each by the probability that x came from it.",
        ),
        (distance, "The score of a Gaussian is −(x − mean)/variance; the division is missing."),
        (score * all, whole),
        (score * all / count, whole),
        (score * all / norm, whole),
        (score * all / norm / count, whole),
        (
            mixture(x, means, |d| bell(d, 0.5 * var)) / var,
            "The exponent of a Gaussian has a 2: −(x − mean)²/(2·variance).",
        ),
        (mixture(x, means, |d| bell(d, var.powi(2))) / var, root),
        (mixture(x, means, |d| bell(d, var.powi(2))) / var.powi(2), root),
        (mixture(x, means, |d| bell(d, var.sqrt())) / var.sqrt(), root),
    ]
}

type Langevin = fn(&dyn Fn(f64) -> f64, f64, f64, usize, &[f64], &mut Noise) -> Vec<f64>;

/// 2.4: a Gaussian is reached from a point, for two strengths of the noise.
pub fn langevin(answer: Langevin) -> Verdict {
    for (seed, sigma, h) in [(1, 1.0, 0.02), (2, 2.0, 0.005)] {
        let score = |x: f64| -(x - 1.0) / 0.25;
        let start = vec![3.0; WALKERS];
        let end = answer(&score, sigma, h, STEPS, &start, &mut Noise::new(240 + seed));
        require(
            end.len() == WALKERS,
            format!("{WALKERS} walkers began and {} arrived.", end.len()),
            "Return one point per walker.",
        )?;
        let got = [mean(&end), variance(&end)];
        let finding = format!(
            "The walkers should have the mean 1.000 and the variance 0.250; with σ = {sigma} they have {:.3} and {:.3}.",
            got[0], got[1]
        );
        let hint = explain(&wrong_walks(sigma, h).map(|(walk, why)| (reaches(got, walk), why)));
        require(reaches(got, [1.0, 0.25]), finding, hint)?;
    }
    Ok(())
}

const WALKERS: usize = 4000;
/// Odd, so that a walker who jumps to the other side in every step ends there.
const STEPS: usize = 251;

/// Whether the mean and the variance are these, up to chance.
fn reaches([mean, variance]: [f64; 2], [m, v]: [f64; 2]) -> bool {
    // Walkers on one point share their noise, so the point may be anywhere.
    let centered = v == 0.0 || (mean - m).abs() < 0.08 * v.sqrt().max(1.0);
    v.is_finite() && centered && (variance - v).abs() <= 0.15 * v + 1e-12
}

/// The mean and the variance to which mistakes lead.
fn wrong_walks(sigma: f64, h: f64) -> [([f64; 2], &'static str); 12] {
    // Each step multiplies the distance of the crowd's mean from 1, and that of a walker from the crowd's mean.
    let walk = |crowd: f64, walker: f64, noise: f64| {
        let step = |[m, v]: [f64; 2], _| [1.0 + crowd * (m - 1.0), walker.powi(2) * v + noise];
        (0..STEPS).fold([3.0, 0.0], step)
    };
    let (pull, noise) = (2.0 * sigma.powi(2) * h, sigma.powi(2) * h);
    let drift = |pull: f64| walk(1.0 - pull, 1.0 - pull, noise);
    let spread = |noise: f64| walk(1.0 - pull, 1.0 - pull, noise);
    let [kept, _] = drift(pull);
    let repeated = noise * ((1.0 - (1.0 - pull).powf(STEPS as f64)) / pull).powi(2);
    let power = "The drift that cancels the noise is ½σ²·score: it must grow with σ².";
    [
        // What the first case cannot see, because σ is 1 there.
        (drift(pull / sigma), power),
        (drift(pull / sigma.powi(2)), power),
        (spread(noise / sigma.powi(2)), "The noise has σ√h; here σ is missing."),
        (drift(0.0), "No drift is added, so nothing holds the walkers together."),
        (
            drift(-pull),
            "They fly apart: the drift goes towards higher density, with the score and not against it.",
        ),
        (
            drift(2.0 * pull),
            "Half of the variance: the drift is twice too strong. It is ½σ²·score.",
        ),
        (
            drift(0.5 * pull),
            "Twice the variance: the drift has half of its strength. It is ½σ²·score.",
        ),
        (drift(pull / h), "The drift acts for a time h: drift·h."),
        (spread(0.0), "They stand on one point: every walker needs its own noise in every step."),
        (spread(noise * h), "The noise vanishes with the step: it has √h, and not h."),
        ([kept, repeated], "A walker repeats one draw in all steps: draw anew in every step."),
        (
            walk(1.0 - pull, 1.0, noise),
            "The drift is the same for all walkers: take the score where each one is.",
        ),
    ]
}
