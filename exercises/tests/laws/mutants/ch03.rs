use exercises::{Curve, laws::ch03::*, solutions};

use super::{Mutant, mutant};

/// A step with a share of the score term, and noise that is a function of σ and |Δt|.
fn step([x, v, t, next, level, e]: [f64; 6], share: f64, noise: impl Fn(f64, f64) -> f64) -> f64 {
    let sigma = level * (t / if t == 1.0 { 1.0 - next } else { 1.0 - t }).sqrt();
    let score = -(x + (1.0 - t) * v) / t;
    x + (v - share * 0.5 * sigma * sigma * score) * (next - t) + noise(sigma, t - next) * e
}

/// A step with a diffusion of one's own.
fn with_sigma([x, v, t, next, e]: [f64; 5], sigma: f64) -> f64 {
    let score = -(x + (1.0 - t) * v) / t;
    x + (v - 0.5 * sigma * sigma * score) * (next - t) + sigma * (t - next).sqrt() * e
}

fn right(sigma: f64, h: f64) -> f64 {
    sigma * h.sqrt()
}

pub fn all() -> Vec<Mutant> {
    [
        exercise_3_1(),
        exercise_3_2(),
        exercise_3_2_sigma(),
        exercise_3_2_level(),
        exercise_3_2_noise(),
        exercise_3_3(),
        exercise_3_4(),
        exercise_3_5(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn exercise_3_1() -> Vec<Mutant> {
    vec![
        mutant(
            "3.1",
            "the wrong sign",
            "sign is wrong",
            score_from_velocity(|x, v, t| (x + (1.0 - t) * v) / t),
        ),
        mutant(
            "3.1",
            "not over t",
            "not divided by t",
            score_from_velocity(|x, v, t| -(x + (1.0 - t) * v)),
        ),
        mutant("3.1", "the image", "mean image", score_from_velocity(|x, v, t| -(x - t * v) / t)),
        mutant(
            "3.1",
            "the noise on the wrong side",
            "and not x − (1−t)v",
            score_from_velocity(|x, v, t| -(x - (1.0 - t) * v) / t),
        ),
        mutant(
            "3.1",
            "the score of noise",
            "the score of noise alone",
            score_from_velocity(|x, _, t| -x / (t * t)),
        ),
    ]
}

fn exercise_3_2() -> Vec<Mutant> {
    vec![
        mutant(
            "3.2",
            "no score",
            "missing the score",
            flow_sde_step(|x, v, t, n, a, e| step([x, v, t, n, a, e], 0.0, right)),
        ),
        mutant(
            "3.2",
            "the score's sign",
            "wrong sign",
            flow_sde_step(|x, v, t, n, a, e| step([x, v, t, n, a, e], -1.0, right)),
        ),
        mutant(
            "3.2",
            "half of the score",
            "half of its size",
            flow_sde_step(|x, v, t, n, a, e| step([x, v, t, n, a, e], 0.5, right)),
        ),
        mutant(
            "3.2",
            "dt for its root",
            "√|Δt|, and not |Δt|",
            flow_sde_step(|x, v, t, n, a, e| step([x, v, t, n, a, e], 1.0, |s, h| s * h)),
        ),
        mutant(
            "3.2",
            "no noise",
            "No noise",
            flow_sde_step(|x, v, t, n, a, e| step([x, v, t, n, a, e], 1.0, |_, _| 0.0)),
        ),
        mutant(
            "3.2",
            "infinite σ at 1",
            "At t = 1",
            flow_sde_step(|x, v, t, n, a, e| {
                let sigma = a * (t / (1.0 - t)).sqrt();
                x + (v + sigma * sigma / (2.0 * t) * (x + (1.0 - t) * v)) * (n - t)
                    + sigma * (t - n).sqrt() * e
            }),
        ),
    ]
}

fn exercise_3_2_sigma() -> Vec<Mutant> {
    vec![
        mutant(
            "3.2",
            "no root in σ",
            "the root is missing",
            flow_sde_step(|x, v, t, n, a, e| {
                with_sigma([x, v, t, n, e], a * t / if t == 1.0 { 1.0 - n } else { 1.0 - t })
            }),
        ),
        mutant(
            "3.2",
            "a constant σ",
            "σ is constant",
            flow_sde_step(|x, v, t, n, a, e| with_sigma([x, v, t, n, e], a)),
        ),
        mutant(
            "3.2",
            "σ upside down",
            "upside down",
            flow_sde_step(|x, v, t, n, a, e| {
                with_sigma(
                    [x, v, t, n, e],
                    a * (if t == 1.0 { 1.0 - n } else { 1.0 - t } / t).sqrt(),
                )
            }),
        ),
        mutant(
            "3.2",
            "1 − next in all steps",
            "in no other",
            flow_sde_step(|x, v, t, n, a, e| {
                with_sigma([x, v, t, n, e], a * (t / (1.0 - n)).sqrt())
            }),
        ),
        mutant(
            "3.2",
            "|Δt| as the least 1 − t",
            "in no other",
            flow_sde_step(|x, v, t, n, a, e| {
                with_sigma([x, v, t, n, e], a * (t / (1.0 - t).max(t - n)).sqrt())
            }),
        ),
    ]
}

fn exercise_3_2_level() -> Vec<Mutant> {
    vec![
        mutant(
            "3.2",
            "a²",
            "and not a²",
            flow_sde_step(|x, v, t, n, a, e| {
                with_sigma(
                    [x, v, t, n, e],
                    a * a * (t / if t == 1.0 { 1.0 - n } else { 1.0 - t }).sqrt(),
                )
            }),
        ),
        mutant(
            "3.2",
            "a under the root",
            "before the root",
            flow_sde_step(|x, v, t, n, a, e| {
                with_sigma(
                    [x, v, t, n, e],
                    (a * t / if t == 1.0 { 1.0 - n } else { 1.0 - t }).sqrt(),
                )
            }),
        ),
        mutant(
            "3.2",
            "another least 1 − t",
            "At t = 1",
            flow_sde_step(|x, v, t, n, a, e| {
                with_sigma([x, v, t, n, e], a * (t / (1.0 - t).max(1e-3)).sqrt())
            }),
        ),
    ]
}

fn exercise_3_2_noise() -> Vec<Mutant> {
    vec![
        mutant(
            "3.2",
            "the noise subtracted",
            "here it is added",
            flow_sde_step(|x, v, t, n, a, e| step([x, v, t, n, a, e], 1.0, |s, h| -s * h.sqrt())),
        ),
        mutant(
            "3.2",
            "a root of Δt",
            "The root of a negative number",
            flow_sde_step(|x, v, t, n, a, e| step([x, v, t, n, a, e], 1.0, |s, h| s * (-h).sqrt())),
        ),
        mutant(
            "3.2",
            "an unknown mistake",
            "the factor of x is",
            flow_sde_step(|x, v, t, n, a, e| 1.001 * step([x, v, t, n, a, e], 1.0, right)),
        ),
    ]
}

fn exercise_3_3() -> Vec<Mutant> {
    vec![
        mutant(
            "3.3",
            "as it was handed out",
            "The variance at t = ",
            spreading_sampler(exercises::ch03::spreading_sampler),
        ),
        mutant("3.3", "curves thrown away", "no curve", spreading_sampler(Vec::<Curve>::new)),
    ]
}

fn exercise_3_4() -> Vec<Mutant> {
    vec![
        mutant(
            "3.4",
            "no noise added",
            "is not added",
            spread_error(|steps, level, data| variance(steps, level, data, 0.0)),
        ),
        mutant(
            "3.4",
            "the ODE at all levels",
            "the ODE's error",
            spread_error(|steps, _, data| solutions::ch03::spread_error(steps, 0.0, data)),
        ),
        mutant("3.4", "infinite σ at 1", "At t = 1", spread_error(|_, _, _| f64::NAN)),
        mutant(
            "3.4",
            "standard deviations",
            "the error of the standard deviation",
            spread_error(|steps, level, data| {
                (1.0 + solutions::ch03::spread_error(steps, level, data)).sqrt() - 1.0
            }),
        ),
        mutant(
            "3.4",
            "an absolute error",
            "absolute error",
            spread_error(|steps, level, data| {
                data * solutions::ch03::spread_error(steps, level, data)
            }),
        ),
        mutant(
            "3.4",
            "no sign",
            "has a sign",
            spread_error(|steps, level, data| {
                solutions::ch03::spread_error(steps, level, data).abs()
            }),
        ),
        mutant(
            "3.4",
            "a quotient",
            "quotient of the variances",
            spread_error(|steps, level, data| {
                1.0 + solutions::ch03::spread_error(steps, level, data)
            }),
        ),
    ]
}

fn exercise_3_5() -> Vec<Mutant> {
    vec![
        mutant(
            "3.5",
            "the ODE",
            "That is the ODE's",
            covariance_in_time(|_, s, t, data| {
                solutions::ch03::covariance_in_time(0.0, s, t, data)
            }),
        ),
        mutant(
            "3.5",
            "no V_t",
            "V_t times it",
            covariance_in_time(|a, s, t, data| {
                solutions::ch03::covariance_in_time(a, s, t, data)
                    / ((1.0 - t).powi(2) * data + t * t)
            }),
        ),
        mutant(
            "3.5",
            "no half",
            "twice too strong",
            covariance_in_time(|a, s, t, data| {
                solutions::ch03::covariance_in_time(a * f64::sqrt(2.0), s, t, data)
            }),
        ),
        mutant(
            "3.5",
            "noising at every level",
            "at a = √2 alone",
            covariance_in_time(|_, s, t, data| {
                solutions::ch03::covariance_in_time(f64::sqrt(2.0), s, t, data)
            }),
        ),
        mutant(
            "3.5",
            "V_t′ for V_t",
            "here it starts at V_t′",
            covariance_in_time(|a, s, t, data| {
                let variance = |u: f64| (1.0 - u).powi(2) * data + u * u;
                solutions::ch03::covariance_in_time(a, s, t, data) * variance(s) / variance(t)
            }),
        ),
        mutant(
            "3.5",
            "half of the score",
            "half of its strength",
            covariance_in_time(|a, s, t, data| {
                solutions::ch03::covariance_in_time(a / f64::sqrt(2.0), s, t, data)
            }),
        ),
    ]
}

/// The recursion of 3.4 with a share of the noise's variance.
fn variance(steps: usize, level: f64, data: f64, share: f64) -> f64 {
    let mut variance = 1.0;
    for i in 0..steps {
        let (t, dt) = (1.0 - i as f64 / steps as f64, -1.0 / steps as f64);
        let slope = (t - (1.0 - t) * data) / ((1.0 - t).powi(2) * data + t * t);
        let sigma2 = level * level * t / if i == 0 { -dt } else { 1.0 - t };
        let gain = 1.0 + (slope + sigma2 / (2.0 * t) * (1.0 + (1.0 - t) * slope)) * dt;
        variance = gain * gain * variance - share * sigma2 * dt;
    }
    variance / data - 1.0
}
