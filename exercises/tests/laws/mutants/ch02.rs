use exercises::{Noise, laws::ch02::*};

use super::{Mutant, mutant};

/// Walks with a drift and a noise of one's own.
fn walk(
    start: &[f64],
    steps: usize,
    noise: &mut Noise,
    change: impl Fn(f64, f64) -> f64,
) -> Vec<f64> {
    let mut points = start.to_vec();
    for _ in 0..steps {
        for x in &mut points {
            *x += change(*x, noise.normal());
        }
    }
    points
}

pub fn all() -> Vec<Mutant> {
    [
        exercise_2_1(),
        exercise_2_2(),
        exercise_2_3(),
        exercise_2_4(),
        exercise_2_4_draws(),
        exercise_2_4_noise(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn exercise_2_1() -> Vec<Mutant> {
    vec![
        mutant(
            "2.1",
            "h for √h",
            "σ√h",
            euler_maruyama_step(|x, f, s, h, e| x + f * h + s * h * e),
        ),
        mutant(
            "2.1",
            "σ²",
            "without a square",
            euler_maruyama_step(|x, f, s, h, e| x + f * h + s * s * h.sqrt() * e),
        ),
        mutant(
            "2.1",
            "a drift without h",
            "drift·h",
            euler_maruyama_step(|x, f, s, h, e| x + f + s * h.sqrt() * e),
        ),
        mutant(
            "2.1",
            "a drift the other way",
            "wrong sign",
            euler_maruyama_step(|x, f, s, h, e| x - f * h + s * h.sqrt() * e),
        ),
        mutant(
            "2.1",
            "the root of σh",
            "of h alone",
            euler_maruyama_step(|x, f, s, h, e| x + f * h + (s * h).sqrt() * e),
        ),
    ]
}

fn exercise_2_2() -> Vec<Mutant> {
    vec![
        mutant(
            "2.2",
            "the limit",
            "limit of small steps",
            resting_variance(|_, k, s| s * s / (2.0 * k)),
        ),
        mutant(
            "2.2",
            "the chapter's spring",
            "pull = σ = 1",
            resting_variance(|h, _, _| 1.0 / (2.0 - h)),
        ),
        mutant(
            "2.2",
            "the standard deviation",
            "standard deviation",
            resting_variance(|h, k, s| (s * s / (k * (2.0 - k * h))).sqrt()),
        ),
        mutant(
            "2.2",
            "σ for σ²",
            "and not σh",
            resting_variance(|h, k, s| s / (k * (2.0 - k * h))),
        ),
        mutant(
            "2.2",
            "no σ",
            "here σ² is missing",
            resting_variance(|h, k, _| 1.0 / (k * (2.0 - k * h))),
        ),
        mutant(
            "2.2",
            "h² in the noise",
            "and not σ²h²",
            resting_variance(|h, k, s| s * s * h / (k * (2.0 - k * h))),
        ),
        mutant(
            "2.2",
            "no pull",
            "That is for pull = 1",
            resting_variance(|h, _, s| s * s / (2.0 - h)),
        ),
        mutant(
            "2.2",
            "a pull lost",
            "by the first pull too",
            resting_variance(|h, k, s| s * s / (2.0 - k * h)),
        ),
    ]
}

fn exercise_2_3() -> Vec<Mutant> {
    vec![
        mutant("2.3", "the wrong sign", "sign is wrong", mixture_score(|x, m, v| -score(x, m, v))),
        mutant(
            "2.3",
            "equal weights",
            "equal weights",
            mixture_score(|x, m, v| m.iter().map(|m| (m - x) / v).sum::<f64>() / m.len() as f64),
        ),
        mutant(
            "2.3",
            "no variance",
            "division is missing",
            mixture_score(|x, m, v| v * score(x, m, v)),
        ),
        mutant(
            "2.3",
            "weights not normalised",
            "divide by their sum",
            mixture_score(|x, m, v| {
                m.iter().map(|m| (-(x - m).powi(2) / (2.0 * v)).exp() * (m - x) / v).sum()
            }),
        ),
        mutant(
            "2.3",
            "the derivative of the density",
            "divide by their sum",
            mixture_score(|x, m, v| {
                let norm = (std::f64::consts::TAU * v).sqrt() * m.len() as f64;
                m.iter().map(|m| (-(x - m).powi(2) / (2.0 * v)).exp() / norm * (m - x) / v).sum()
            }),
        ),
        mutant(
            "2.3",
            "no 2 in the exponent",
            "has a 2",
            mixture_score(|x, m, v| 0.5 * score(x, m, 0.5 * v)),
        ),
        mutant("2.3", "√variance", "no root", mixture_score(|x, m, v| score(x, m, v.sqrt()))),
        mutant(
            "2.3",
            "a std for the variance",
            "no square",
            mixture_score(|x, m, v| score(x, m, v * v)),
        ),
    ]
}

fn exercise_2_4() -> Vec<Mutant> {
    vec![
        mutant(
            "2.4",
            "no half",
            "twice too strong",
            langevin(|s, a, h, n, x, e| walk(x, n, e, |x, e| a * a * s(x) * h + a * h.sqrt() * e)),
        ),
        mutant(
            "2.4",
            "no noise",
            "its own noise",
            langevin(|s, a, h, n, x, e| walk(x, n, e, |x, _| a * a * 0.5 * s(x) * h)),
        ),
        mutant(
            "2.4",
            "against the score",
            "fly apart",
            langevin(|s, a, h, n, x, e| {
                walk(x, n, e, |x, e| -a * a * 0.5 * s(x) * h + a * h.sqrt() * e)
            }),
        ),
        mutant(
            "2.4",
            "h for √h",
            "and not h",
            langevin(|s, a, h, n, x, e| walk(x, n, e, |x, e| a * a * 0.5 * s(x) * h + a * h * e)),
        ),
        mutant(
            "2.4",
            "σ for σ²",
            "grow with σ²",
            langevin(|s, a, h, n, x, e| {
                walk(x, n, e, |x, e| a * 0.5 * s(x) * h + a * h.sqrt() * e)
            }),
        ),
    ]
}

fn exercise_2_4_draws() -> Vec<Mutant> {
    vec![
        mutant(
            "2.4",
            "no drift",
            "No drift is added",
            langevin(|_, a, h, n, x, e| walk(x, n, e, |_, e| a * h.sqrt() * e)),
        ),
        mutant(
            "2.4",
            "one draw for a walk",
            "repeats one draw",
            langevin(|s, a, h, n, x, e| {
                x.iter()
                    .map(|x| {
                        let draw = e.normal();
                        (0..n).fold(*x, |x, _| x + a * a * 0.5 * s(x) * h + a * h.sqrt() * draw)
                    })
                    .collect()
            }),
        ),
        mutant(
            "2.4",
            "one draw for all walkers",
            "its own noise",
            langevin(|s, a, h, n, x, e| {
                let mut points = x.to_vec();
                for _ in 0..n {
                    let draw = e.normal();
                    for x in &mut points {
                        *x += a * a * 0.5 * s(*x) * h + a * h.sqrt() * draw;
                    }
                }
                points
            }),
        ),
        mutant(
            "2.4",
            "the drift of the crowd's mean",
            "the same for all walkers",
            langevin(|s, a, h, n, x, e| {
                let mut points = x.to_vec();
                for _ in 0..n {
                    let drift = a * a * 0.5 * s(points.iter().sum::<f64>() / points.len() as f64);
                    for x in &mut points {
                        *x += drift * h + a * h.sqrt() * e.normal();
                    }
                }
                points
            }),
        ),
    ]
}

fn exercise_2_4_noise() -> Vec<Mutant> {
    vec![
        mutant(
            "2.4",
            "half of the drift",
            "half of its strength",
            langevin(|s, a, h, n, x, e| {
                walk(x, n, e, |x, e| a * a * 0.25 * s(x) * h + a * h.sqrt() * e)
            }),
        ),
        mutant(
            "2.4",
            "a drift without h",
            "for a time h",
            langevin(|s, a, h, n, x, e| {
                walk(x, n, e, |x, e| a * a * 0.5 * s(x) + a * h.sqrt() * e)
            }),
        ),
        mutant(
            "2.4",
            "noise without σ",
            "σ is missing",
            langevin(|s, a, h, n, x, e| {
                walk(x, n, e, |x, e| a * a * 0.5 * s(x) * h + h.sqrt() * e)
            }),
        ),
    ]
}

fn score(x: f64, means: &[f64], variance: f64) -> f64 {
    let weights: Vec<f64> =
        means.iter().map(|m| (-(x - m).powi(2) / (2.0 * variance)).exp()).collect();
    let all: f64 = weights.iter().sum();
    means.iter().zip(&weights).map(|(m, w)| w / all * (m - x) / variance).sum()
}
