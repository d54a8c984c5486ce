//! The laws of chapter 1, *Flow matching*.

use super::{marginal, slope};
use crate::{Noise, Verdict, number, numbers, require};

/// 1.1 against the closed form.
pub fn gaussian_velocity(answer: fn(f64, f64, f64) -> f64) -> Verdict {
    let mut noise = Noise::new(11);
    for _ in 0..200 {
        let (x, t) = (noise.normal(), noise.between(0.05, 0.95));
        let data = noise.between(0.1, 2.0);
        let (covariance, variance) = (t - (1.0 - t) * data, marginal(t, data));
        let of = format!("The velocity at x = {x:.3}, t = {t:.3} for V₀ = {data:.3}");
        number(
            of,
            answer(x, t, data),
            covariance / variance * x,
            &[
                (
                    -covariance / variance * x,
                    "The sign is wrong: v = E[x₁ − x₀ | x] points from data to noise.",
                ),
                (
                    (t + (1.0 - t) * data) / variance * x,
                    "Cov(x₁ − x₀, x_t) subtracts the part of x₀: t − (1−t)V₀.",
                ),
                (
                    -(1.0 - t) * data / variance * x,
                    "The covariance has a part of the noise too: t − (1−t)V₀.",
                ),
                (t / variance * x, "The covariance has a part of the image too: t − (1−t)V₀."),
                (slope(t, data.sqrt()) * x, "`variance` is V₀ itself: no root is taken of it."),
                (
                    slope(t, data.powi(2)) * x,
                    "`variance` is V₀ itself, and not its root: no square.",
                ),
                (covariance * x, "The covariance is not divided by the variance V_t."),
                (
                    covariance / variance.sqrt() * x,
                    "The covariance is divided by √V_t; it must be V_t.",
                ),
                (covariance / ((1.0 - t) * data + t) * x, "V_t has squares: (1−t)²V₀ + t²."),
                (
                    covariance / variance,
                    "The conditional mean is proportional to x, and x is missing.",
                ),
            ],
        )?;
    }
    Ok(())
}

/// 1.2 against the two equations.
pub fn both_ends(answer: fn(f64, f64, f64) -> [f64; 2]) -> Verdict {
    let mut noise = Noise::new(12);
    for _ in 0..200 {
        let (image, end, t) = (noise.normal(), noise.normal(), noise.between(0.05, 0.95));
        let (x, v) = ((1.0 - t) * image + t * end, end - image);
        let of = format!("[x̂₀, x̂₁] at x = {x:.3}, v = {v:.3}, t = {t:.3}");
        numbers(
            of,
            &answer(x, v, t),
            &[image, end],
            &[
                (vec![end, image], "The image comes first and the noise second."),
                (
                    vec![x - v, x + v],
                    "The velocity is not multiplied by a time: the image is t away, the noise 1 − t.",
                ),
                (
                    vec![x + t * v, x - (1.0 - t) * v],
                    "The signs are wrong: the image lies against the velocity.",
                ),
                (
                    vec![x - (1.0 - t) * v, x + t * v],
                    "t and 1 − t are exchanged: the image is t away, the noise 1 − t.",
                ),
            ],
        )?;
    }
    Ok(())
}

/// 1.3 against the mean of the pairs that pass near `x`, computed by Bayes' rule.
pub fn velocity_of_images(answer: fn(f64, f64, &[f64]) -> f64) -> Verdict {
    velocity_of_two_images(answer)?;
    let mut noise = Noise::new(13);
    for round in 0..200 {
        let images = noise.normals(5);
        let (from, to) = if round < 100 { (0.2, 0.95) } else { (0.003, 0.02) };
        let (x, t) = (noise.normal(), noise.between(from, to));
        // The mean velocity, with images weighted by a Gaussian around `scale` times the image.
        let weighted = |scale: f64| -> f64 {
            let exponent = |image: &f64| -(x - scale * image).powi(2) / (2.0 * t * t);
            let largest = images.iter().map(exponent).fold(f64::NEG_INFINITY, f64::max);
            let weight = |image: &f64| (exponent(image) - largest).exp();
            let sum: f64 = images.iter().map(weight).sum();
            images.iter().map(|image| weight(image) / sum * (x - image) / t).sum()
        };
        let got = answer(x, t, &images);
        let of = format!("The velocity of five images at x = {x:.3}, t = {t:.3}");
        require(
            got.is_finite(),
            format!("{of} is {got}."),
            "This close to the images, exp rounds the density of every image to zero, and 0/0 is no number. Divide all densities by the largest: subtract the largest exponent before exp.",
        )?;
        number(
            of,
            got,
            weighted(1.0 - t),
            &[
                (
                    images.iter().map(|image| (x - image) / t / 5.0).sum(),
                    "All images have equal weights here.",
                ),
                (weighted(1.0), "Given x₀, the mean of x is (1−t)·x₀, and not x₀."),
                (
                    x / t,
                    "The mean image is zero here: exp has rounded all weights to zero. Subtract the largest exponent before exp.",
                ),
            ],
        )?;
    }
    Ok(())
}

/// 1.3 for the images −1 and 1, where the known mistakes have closed forms.
fn velocity_of_two_images(answer: fn(f64, f64, &[f64]) -> f64) -> Verdict {
    let (x, t) = (0.1_f64, 0.3_f64);
    // The mean velocity of the images ±1, whose log odds are twice this.
    let at_half_log_odds = |half: f64| (x - half.tanh()) / t;
    let half = (1.0 - t) * x / (t * t);
    number(
        "The velocity of the two images −1 and 1 at x = 0.1, t = 0.3",
        answer(x, t, &[-1.0, 1.0]),
        at_half_log_odds(half),
        &[
            (x / t, "All images have equal weights here; near +1 the image +1 is likelier."),
            ((x - 1.0) / t, "Only the nearest image counts here; the other has a weight, too."),
            (
                at_half_log_odds(half * t),
                "The exponent of a Gaussian is −(x − mean)²/(2t²): the spread of x given x₀ is t, its variance t².",
            ),
            (
                at_half_log_odds(2.0 * half),
                "The exponent of a Gaussian has a 2: −(x − mean)²/(2t²).",
            ),
            (
                at_half_log_odds(half / (1.0 - t)),
                "Given x₀, the mean of x is (1 − t)x₀: the factor 1 − t is missing.",
            ),
            (
                (x - (t * x / (1.0 - t).powi(2)).tanh()) / (1.0 - t),
                "t and 1 − t are exchanged: t = 0 is the image.",
            ),
            (-at_half_log_odds(half), "The sign is wrong: x₁ − x₀ = (x − x₀)/t."),
            (half.tanh(), "This is the mean image x̂₀, and the velocity is (x − x̂₀)/t."),
        ],
    )
}

/// 1.4 against the least squares, and these against the true slope.
pub fn fit_velocity(answer: fn(&[[f64; 2]], f64) -> f64) -> Verdict {
    // Not t = 0.5 first: there t and 1 − t are the same.
    for (seed, data, t) in [(2, 1.0, 0.3), (1, 0.25, 0.5), (3, 2.0, 0.8)] {
        let mut noise = Noise::new(140 + seed);
        let pairs: Vec<[f64; 2]> =
            (0..20_000).map(|_| [noise.normal() * f64::sqrt(data), noise.normal()]).collect();
        let truth = slope(t, data);
        let of =
            format!("The slope fitted at t = {t} for V₀ = {data} (the true one is {truth:.3})");
        let right = least_squares(&pairs, t, |a, b| b - a);
        number(of, answer(&pairs, t), right, &wrong_fits(&pairs, t))?;
    }
    Ok(())
}

fn least_squares(pairs: &[[f64; 2]], t: f64, target: impl Fn(f64, f64) -> f64) -> f64 {
    let point = |a: f64, b: f64| (1.0 - t) * a + t * b;
    let products = pairs.iter().map(|[a, b]| point(*a, *b) * target(*a, *b));
    products.sum::<f64>() / pairs.iter().map(|[a, b]| point(*a, *b).powi(2)).sum::<f64>()
}

/// Slopes that mistakes would give.
fn wrong_fits(pairs: &[[f64; 2]], t: f64) -> [(f64, &'static str); 9] {
    let mean = |of: &dyn Fn(f64, f64) -> f64| {
        let terms = pairs.iter().map(|[a, b]| of((1.0 - t) * a + t * b, b - a));
        terms.sum::<f64>() / pairs.len() as f64
    };
    let (squares, product) = (mean(&|x, _| x * x), mean(&|x, u| x * u));
    [
        (-product / squares, "The target has the wrong sign: it is x₁ − x₀."),
        (
            least_squares(pairs, t, |a, _| a),
            "The target here is x₀; that learns the mean image, and not the velocity.",
        ),
        (
            least_squares(pairs, t, |_, b| b),
            "The target here is x₁; that learns the mean noise, and not the velocity.",
        ),
        (
            least_squares(pairs, 1.0 - t, |a, b| b - a),
            "t and 1 − t are exchanged: x_t = (1−t)x₀ + t·x₁.",
        ),
        (
            mean(&|x, u| u / x),
            "The mean of target/x_t is not the best slope: near x_t = 0 it explodes.",
        ),
        (
            mean(&|_, u| u) / mean(&|x, _| x),
            "That is the sum of the targets over the sum of the points: each sum is near 0 by symmetry.",
        ),
        (
            mean(&|_, u| u * u) / product,
            "That is the other regression, of x_t on the target: divide by the mean of x_t².",
        ),
        (squares / product, "The quotient is upside down."),
        (product, "The covariance is not divided by the mean of x_t²."),
    ]
}

type Field<'a> = &'a dyn Fn(f64, f64) -> f64;
type Solver = fn(Field, f64, f64, f64) -> f64;

/// 1.5: Heun's step, which is exact for a constant field and of order 2 for others.
pub fn heun_step(answer: Solver) -> Verdict {
    // From x = 1 at t = 1, the exact solution of dx = −t·x² dt ends at 2.
    let field = |x: f64, t: f64| -t * x * x;
    let error = |steps: usize| {
        let time = |i: usize| 1.0 - i as f64 / steps as f64;
        let end = (0..steps).fold(1.0, |x, i| answer(&field, x, time(i), time(i + 1)));
        (end - 2.0).abs()
    };
    let factor = error(80) / error(160);
    let mut noise = Noise::new(15);
    for _ in 0..20 {
        let (x, t) = (noise.normal(), noise.between(0.3, 1.0));
        let next = t - noise.between(0.05, 0.25);
        let of = format!(
            "Halving your step divides the error by {factor:.2}, where Heun's divides it by 4. In the field −t·x², the step from x = {x:.3}, t = {t:.3} to {next:.3}"
        );
        let [right, wrong @ ..] = steps(&field, x, t, next);
        number(of, answer(&field, x, t, next), right.0, &wrong)?;
    }
    Ok(())
}

/// Heun's step, and steps that mistakes would make.
fn steps(velocity: Field, x: f64, t: f64, next: f64) -> [(f64, &'static str); 10] {
    let dt = next - t;
    let first = velocity(x, t);
    let second = velocity(x + first * dt, next);
    let away = velocity(x - first * dt, next);
    [
        (x + 0.5 * (first + second) * dt, ""),
        (x + first * dt, "That is Euler's step, of order 1: the second velocity is missing."),
        (
            x + velocity(x + 0.5 * first * dt, t + 0.5 * dt) * dt,
            "That is the midpoint method, another one of order 2. Heun takes the mean of the velocities at both ends.",
        ),
        (x + second * dt, "Only the second velocity is used; take the mean of both."),
        (
            x + 0.5 * (first + velocity(x + first * dt, t)) * dt,
            "The second velocity belongs to the time `next`, where the predicted point is.",
        ),
        (
            x + 0.5 * (first + velocity(x, next)) * dt,
            "The second velocity belongs to the predicted point, and not to the old one.",
        ),
        (x + (first + second) * dt, "The two velocities are added; their mean has a half."),
        (
            x + first * dt + 0.5 * (first + second) * dt,
            "The step with the mean of both starts at x, and not at the predicted point.",
        ),
        (
            x - 0.5 * (first + away) * dt,
            "The step goes the wrong way: the change of time is next − t, negative.",
        ),
        (
            x - 0.5 * (first + second) * dt,
            "The step goes the wrong way: the change of time is next − t, negative.",
        ),
    ]
}
