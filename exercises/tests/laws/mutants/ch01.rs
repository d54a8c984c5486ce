use exercises::laws::ch01::*;

use super::{Mutant, mutant};

fn gaussian(t: f64, v0: f64) -> (f64, f64) {
    (t - (1.0 - t) * v0, (1.0 - t).powi(2) * v0 + t * t)
}

pub fn all() -> Vec<Mutant> {
    [
        exercise_1_1(),
        exercise_1_2(),
        exercise_1_3(),
        exercise_1_3_means(),
        exercise_1_4(),
        exercise_1_5(),
        exercise_1_5_weights(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn exercise_1_1() -> Vec<Mutant> {
    vec![
        mutant(
            "1.1",
            "the wrong sign",
            "from data to noise",
            gaussian_velocity(|x, t, v0| {
                let (c, v) = gaussian(t, v0);
                -c / v * x
            }),
        ),
        mutant(
            "1.1",
            "the standard deviation",
            "√V_t",
            gaussian_velocity(|x, t, v0| {
                let (c, v) = gaussian(t, v0);
                c / v.sqrt() * x
            }),
        ),
        mutant(
            "1.1",
            "no squares",
            "squares",
            gaussian_velocity(|x, t, v0| gaussian(t, v0).0 / ((1.0 - t) * v0 + t) * x),
        ),
        mutant("1.1", "nothing", "instead of", gaussian_velocity(|_, _, _| 0.0)),
        mutant(
            "1.1",
            "√V₀",
            "no root",
            gaussian_velocity(|x, t, v0| {
                let (c, v) = gaussian(t, v0.sqrt());
                c / v * x
            }),
        ),
        mutant(
            "1.1",
            "V₀²",
            "no square",
            gaussian_velocity(|x, t, v0| {
                let (c, v) = gaussian(t, v0 * v0);
                c / v * x
            }),
        ),
        mutant(
            "1.1",
            "the part of the image",
            "a part of the noise",
            gaussian_velocity(|x, t, v0| -(1.0 - t) * v0 / gaussian(t, v0).1 * x),
        ),
        mutant(
            "1.1",
            "the part of the noise",
            "a part of the image",
            gaussian_velocity(|x, t, v0| t / gaussian(t, v0).1 * x),
        ),
    ]
}

fn exercise_1_2() -> Vec<Mutant> {
    vec![
        mutant(
            "1.2",
            "ends exchanged",
            "first",
            both_ends(|x, v, t| [x + (1.0 - t) * v, x - t * v]),
        ),
        mutant(
            "1.2",
            "wrong signs",
            "against the velocity",
            both_ends(|x, v, t| [x + t * v, x - (1.0 - t) * v]),
        ),
        mutant(
            "1.2",
            "times exchanged",
            "exchanged",
            both_ends(|x, v, t| [x - (1.0 - t) * v, x + t * v]),
        ),
        mutant("1.2", "no time", "not multiplied by a time", both_ends(|x, v, _| [x - v, x + v])),
    ]
}

fn exercise_1_3() -> Vec<Mutant> {
    vec![
        mutant(
            "1.3",
            "equal weights",
            "equal weights",
            velocity_of_images(|x, t, images| {
                images.iter().map(|i| (x - i) / t).sum::<f64>() / images.len() as f64
            }),
        ),
        mutant(
            "1.3",
            "no half in the exponent",
            "has a 2",
            velocity_of_images(|x, t, images| weighted(x, t, images, |d| (-d * d / (t * t)).exp())),
        ),
        mutant(
            "1.3",
            "t for t²",
            "its variance t²",
            velocity_of_images(|x, t, images| {
                weighted(x, t, images, |d| (-d * d / (2.0 * t)).exp())
            }),
        ),
        mutant(
            "1.3",
            "the mean image",
            "mean image",
            velocity_of_images(|x, t, images| {
                x - t * weighted(x, t, images, |d| (-d * d / (2.0 * t * t)).exp())
            }),
        ),
        mutant(
            "1.3",
            "densities that are all rounded to zero",
            "subtract the largest exponent",
            velocity_of_images(|x, t, images| {
                weighted(x, t, images, |d| (-d * d / (2.0 * t * t)).exp())
            }),
        ),
        mutant(
            "1.3",
            "a guard against 0/0",
            "rounded all weights to zero",
            velocity_of_images(|x, t, images| {
                let weight = |i: f64| (-(x - (1.0 - t) * i).powi(2) / (2.0 * t * t)).exp();
                let all: f64 = images.iter().map(|i| weight(*i)).sum();
                let image = images.iter().map(|i| weight(*i) * i).sum::<f64>();
                (x - image / all.max(1e-300)) / t
            }),
        ),
    ]
}

fn exercise_1_3_means() -> Vec<Mutant> {
    vec![
        mutant(
            "1.3",
            "means at the images",
            "1 − t is missing",
            velocity_of_images(|x, t, images| {
                let weight = |i: f64| (-(x - i).powi(2) / (2.0 * t * t)).exp();
                let all: f64 = images.iter().map(|i| weight(*i)).sum();
                images.iter().map(|i| weight(*i) / all * (x - i) / t).sum()
            }),
        ),
        mutant(
            "1.3",
            "t and 1 − t exchanged",
            "exchanged",
            velocity_of_images(|x, t, images| {
                weighted(x, 1.0 - t, images, |d| (-d * d / (2.0 * (1.0 - t).powi(2))).exp())
            }),
        ),
        mutant(
            "1.3",
            "the nearest image",
            "nearest image counts",
            velocity_of_images(|x, t, images| {
                let far = |i: &&f64| (x - (1.0 - t) * **i).abs();
                let nearest = images.iter().min_by(|a, b| far(a).total_cmp(&far(b)));
                (x - nearest.expect("an image")) / t
            }),
        ),
    ]
}

fn exercise_1_4() -> Vec<Mutant> {
    vec![
        mutant(
            "1.4",
            "learns the image",
            "learns the mean image",
            fit_velocity(|pairs, t| fit(pairs, t, |p| p[0])),
        ),
        mutant(
            "1.4",
            "learns the wrong sign",
            "wrong sign",
            fit_velocity(|pairs, t| fit(pairs, t, |p| p[0] - p[1])),
        ),
        mutant(
            "1.4",
            "a mean of quotients",
            "explodes",
            fit_velocity(|pairs, t| {
                let quotients = pairs.iter().map(|p| (p[1] - p[0]) / ((1.0 - t) * p[0] + t * p[1]));
                quotients.sum::<f64>() / pairs.len() as f64
            }),
        ),
        mutant(
            "1.4",
            "times exchanged",
            "are exchanged",
            fit_velocity(|pairs, t| fit(pairs, 1.0 - t, |p| p[1] - p[0])),
        ),
        mutant(
            "1.4",
            "a quotient of sums",
            "the sum of the targets",
            fit_velocity(|pairs, t| {
                let sum = |of: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(of).sum::<f64>();
                sum(&|p| p[1] - p[0]) / sum(&|p| (1.0 - t) * p[0] + t * p[1])
            }),
        ),
        mutant(
            "1.4",
            "the other regression",
            "the other regression",
            fit_velocity(|pairs, t| {
                let sum = |of: &dyn Fn(&[f64; 2]) -> f64| pairs.iter().map(of).sum::<f64>();
                sum(&|p| (p[1] - p[0]).powi(2))
                    / sum(&|p| (p[1] - p[0]) * ((1.0 - t) * p[0] + t * p[1]))
            }),
        ),
    ]
}

fn exercise_1_5() -> Vec<Mutant> {
    vec![
        mutant(
            "1.5",
            "Euler",
            "Euler's step, of order 1",
            heun_step(|v, x, t, next| x + v(x, t) * (next - t)),
        ),
        mutant(
            "1.5",
            "the old time",
            "time `next`",
            heun_step(|v, x, t, next| {
                let first = v(x, t);
                x + 0.5 * (first + v(x + first * (next - t), t)) * (next - t)
            }),
        ),
        mutant(
            "1.5",
            "the old point",
            "predicted point",
            heun_step(|v, x, t, next| x + 0.5 * (v(x, t) + v(x, next)) * (next - t)),
        ),
    ]
}

fn exercise_1_5_weights() -> Vec<Mutant> {
    vec![
        mutant(
            "1.5",
            "a sum",
            "has a half",
            heun_step(|v, x, t, next| {
                let first = v(x, t);
                x + (first + v(x + first * (next - t), next)) * (next - t)
            }),
        ),
        mutant(
            "1.5",
            "the midpoint",
            "midpoint method",
            heun_step(|v, x, t, next| {
                let dt = next - t;
                x + v(x + 0.5 * v(x, t) * dt, t + 0.5 * dt) * dt
            }),
        ),
        mutant(
            "1.5",
            "the second velocity alone",
            "Only the second velocity",
            heun_step(|v, x, t, next| x + v(x + v(x, t) * (next - t), next) * (next - t)),
        ),
        mutant(
            "1.5",
            "on from the predicted point",
            "and not at the predicted point",
            heun_step(|v, x, t, next| {
                let (first, dt) = (v(x, t), next - t);
                let there = x + first * dt;
                there + 0.5 * (first + v(there, next)) * dt
            }),
        ),
        mutant(
            "1.5",
            "the wrong way",
            "the wrong way",
            heun_step(|v, x, t, next| {
                let (first, dt) = (v(x, t), t - next);
                x + 0.5 * (first + v(x + first * dt, next)) * dt
            }),
        ),
        mutant(
            "1.5",
            "the last half the wrong way",
            "The step goes the wrong way",
            heun_step(|v, x, t, next| {
                let (first, dt) = (v(x, t), next - t);
                x - 0.5 * (first + v(x + first * dt, next)) * dt
            }),
        ),
        mutant("1.5", "nothing", "instead of", heun_step(|_, x, _, _| x)),
    ]
}

fn weighted(x: f64, t: f64, images: &[f64], weight: impl Fn(f64) -> f64) -> f64 {
    let weights: Vec<f64> = images.iter().map(|i| weight(x - (1.0 - t) * i)).collect();
    let all: f64 = weights.iter().sum();
    images.iter().zip(&weights).map(|(i, w)| w / all * (x - i) / t).sum()
}

fn fit(pairs: &[[f64; 2]], t: f64, target: impl Fn(&[f64; 2]) -> f64) -> f64 {
    let point = |p: &[f64; 2]| (1.0 - t) * p[0] + t * p[1];
    pairs.iter().map(|p| point(p) * target(p)).sum::<f64>()
        / pairs.iter().map(|p| point(p).powi(2)).sum::<f64>()
}
