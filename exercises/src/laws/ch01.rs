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
    let mut noise = Noise::new(13);
    number(
        "The velocity of the two images −1 and 1 at x = 0.3, t = 0.5",
        answer(0.3, 0.5, &[-1.0, 1.0]),
        2.0 * (0.3 - (0.6_f64).tanh()),
        &[
            (0.6, "All images have equal weights here; near +1 the image +1 is likelier."),
            (
                2.0 * (0.3 - (0.3_f64).tanh()),
                "The exponent of a Gaussian is −(x − mean)²/(2t²): the spread of x given x₀ is t, its variance t².",
            ),
            (
                2.0 * (0.3 - (1.2_f64).tanh()),
                "The exponent of a Gaussian has a 2: −(x − mean)²/(2t²).",
            ),
            (2.0 * ((0.6_f64).tanh() - 0.3), "The sign is wrong: x₁ − x₀ = (x − x₀)/t."),
            ((0.6_f64).tanh(), "This is the mean image x̂₀, and the velocity is (x − x̂₀)/t."),
        ],
    )?;
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

/// 1.4 against the least squares, and these against the true slope.
pub fn fit_velocity(answer: fn(&[[f64; 2]], f64) -> f64) -> Verdict {
    for (seed, data, t) in [(1, 0.25, 0.5), (2, 1.0, 0.3), (3, 2.0, 0.8)] {
        let mut noise = Noise::new(140 + seed);
        let pairs: Vec<[f64; 2]> =
            (0..20_000).map(|_| [noise.normal() * f64::sqrt(data), noise.normal()]).collect();
        let sum = |of: &dyn Fn(f64, f64, f64) -> f64| {
            let terms = pairs.iter().map(|[a, b]| of((1.0 - t) * a + t * b, *a, *b));
            terms.sum::<f64>()
        };
        let squares = sum(&|x, _, _| x * x);
        let product = sum(&|x, a, b| x * (b - a));
        let truth = slope(t, data);
        let of =
            format!("The slope fitted at t = {t} for V₀ = {data} (the true one is {truth:.3})");
        number(
            of,
            answer(&pairs, t),
            product / squares,
            &[
                (-product / squares, "The target has the wrong sign: it is x₁ − x₀."),
                (
                    sum(&|x, a, _| x * a) / squares,
                    "The target here is x₀; that learns the mean image, and not the velocity.",
                ),
                (
                    sum(&|x, _, b| x * b) / squares,
                    "The target here is x₁; that learns the mean noise, and not the velocity.",
                ),
                (
                    sum(&|x, a, b| (b - a) / x) / 20_000.0,
                    "The mean of target/x_t is not the best slope: near x_t = 0 it explodes.",
                ),
                (squares / product, "The quotient is upside down."),
                (product / 20_000.0, "The covariance is not divided by the mean of x_t²."),
            ],
        )?;
    }
    Ok(())
}

type Solver = fn(&dyn Fn(f64, f64) -> f64, f64, f64, f64) -> f64;

/// 1.5: exact for a constant field, of order 2 for a Gaussian.
pub fn heun_step(answer: Solver) -> Verdict {
    number(
        "The step from x = 1, t = 0.6 to 0.4 in a field that is 3 everywhere",
        answer(&|_, _| 3.0, 1.0, 0.6, 0.4),
        0.4,
        &[
            (1.6, "It goes the wrong way: the change of time is next − t, negative."),
            (-0.2, "The two velocities are added; their mean has a half."),
            (0.7, "The step uses half of the velocity. Both have the weight ½."),
        ],
    )?;
    let field = |x: f64, t: f64| slope(t, 0.25) * x;
    let error = |steps: usize| {
        let time = |i: usize| 1.0 - i as f64 / steps as f64;
        let end = (0..steps).fold(1.0, |x, i| answer(&field, x, time(i), time(i + 1)));
        (end - 0.5).abs()
    };
    let (coarse, fine) = (error(80), error(160));
    let order = (coarse / fine).log2();
    require(
        (order - 2.0).abs() < 0.1,
        format!(
            "Halving the step divides the error by {:.2} instead of 4: the order is {order:.2} instead of 2.",
            coarse / fine
        ),
        "Order 1 is Euler's. The second velocity belongs to the predicted point and to the time `next`.",
    )
}
