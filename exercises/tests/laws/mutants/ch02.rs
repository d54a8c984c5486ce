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
    [exercise_2_1(), exercise_2_2(), exercise_2_3(), exercise_2_4()].into_iter().flatten().collect()
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

fn score(x: f64, means: &[f64], variance: f64) -> f64 {
    let weights: Vec<f64> =
        means.iter().map(|m| (-(x - m).powi(2) / (2.0 * variance)).exp()).collect();
    let all: f64 = weights.iter().sum();
    means.iter().zip(&weights).map(|(m, w)| w / all * (m - x) / variance).sum()
}
