//! The laws of chapter 3, *From the ODE to the SDE*.

use super::{curve, marginal, slope};
use crate::{Curve, Fault, Noise, Verdict, number, require};

/// 3.1 against the formula, and against the score of a Gaussian.
pub fn score_from_velocity(answer: fn(f64, f64, f64) -> f64) -> Verdict {
    let mut noise = Noise::new(31);
    for _ in 0..200 {
        let (x, t, data) = (noise.normal(), noise.between(0.1, 0.95), noise.between(0.1, 2.0));
        let v = slope(t, data) * x;
        let end = x + (1.0 - t) * v;
        let of = format!("The score at x = {x:.3}, t = {t:.3} for N(0, {data:.3})");
        number(
            of,
            answer(x, v, t),
            -x / marginal(t, data),
            &[
                (
                    end / t,
                    "The sign is wrong: the score points back to where the density is higher, against the mean noise.",
                ),
                (-end, "The mean noise is not divided by t."),
                (-end / (t * t), "Given x₀, the score is −(t·x₁)/t² = −x₁/t: one t cancels."),
                (
                    -(x - t * v) / t,
                    "That is the mean image; the score has the mean noise, x + (1−t)v.",
                ),
                (-x / t, "The velocity is missing: the mean noise is x + (1−t)v."),
                (-v / t, "x is missing: the mean noise is x + (1−t)v."),
            ],
        )?;
    }
    Ok(())
}

type Step = fn(f64, f64, f64, f64, f64, f64) -> f64;

/// What a step does to `x`, to the velocity, and to its noise, which it adds up.
fn factors(step: Step, t: f64, next: f64, level: f64) -> [f64; 3] {
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
        .map(|[x, v, e]| step(x, v, t, next, level, e))
}

/// 3.2: the three factors of a step, and the variance that they lead to.
pub fn flow_sde_step(answer: Step) -> Verdict {
    let mut noise = Noise::new(32);
    for _ in 0..100 {
        let (t, level) = (noise.between(0.3, 0.95), noise.between(0.4, 1.5));
        sde_factors(answer, [t, t - noise.between(0.02, 0.2)], level)?;
    }
    for level in [0.7, 1.0] {
        let got = factors(answer, 1.0, 0.9, level);
        let finding = format!(
            "The first step of ten, at a = {level}, draws with the standard deviation {:.3} instead of {level:.3}.",
            got[2]
        );
        require(
            (got[2] - level).abs() < 1e-9,
            finding,
            "At t = 1, σ divides by zero; there it is a·√(t/(1 − next)).",
        )?;
        sde_factors(answer, [1.0, 0.9], level)?;
    }
    let x = answer(0.4, -0.3, 0.6, 0.5, 0.7, 0.2);
    let [a, b, c] = factors(answer, 0.6, 0.5, 0.7);
    number(
        "The step from x = 0.4 with v = −0.3 and ε = 0.2, as the sum of its parts,",
        x,
        0.4 * a - 0.3 * b + 0.2 * c,
        &[],
    )
}

fn sde_factors(answer: Step, [t, next]: [f64; 2], level: f64) -> Verdict {
    let dt = next - t;
    let sigma2 = level.powi(2) * t / if t == 1.0 { 1.0 - next } else { 1.0 - t };
    let with = |share: f64| {
        let pull = share * sigma2 / (2.0 * t);
        [1.0 + pull * dt, (1.0 + pull * (1.0 - t)) * dt, sigma2.sqrt() * (-dt).sqrt()]
    };
    let (got, right) = (factors(answer, t, next, level), with(1.0));
    let same = |wrong: [f64; 3]| got.iter().zip(wrong).all(|(a, b)| (a - b).abs() < 1e-9);
    if same(right) {
        return Ok(());
    }
    let [x, v, std] = right;
    let cause = [
        (
            with(0.0),
            "Your drift is missing the score: −½σ²·score pulls together what the noise pushes apart.",
        ),
        (with(-1.0), "The score has the wrong sign: it is v − ½σ²·score, because time runs down."),
        (with(0.5), "The score term has half of its size: ½σ²·score, and no other ½."),
        (with(2.0), "The score term has twice its size: it is ½σ²·score."),
        ([x, v, sigma2.sqrt() * -dt], "The noise has √|Δt|, and not |Δt|."),
        ([x, v, sigma2.sqrt() * dt], "The noise has √|Δt|, and not Δt."),
        ([x, v, sigma2 * (-dt).sqrt()], "The noise has σ, and not σ²."),
        ([x, v, 0.0], "No noise is added."),
        (
            [2.0 - x, -v, std],
            "The drift goes the wrong way: its change of time, next − t, is negative.",
        ),
    ];
    let known = cause.iter().find(|(wrong, _)| same(*wrong)).map(|(_, why)| *why);
    let names = ["x", "the velocity", "the noise"];
    let worst =
        (0..3).max_by(|a, b| (got[*a] - right[*a]).abs().total_cmp(&(got[*b] - right[*b]).abs()));
    let worst = worst.unwrap_or(0);
    let at = format!(
        "In a step from t = {t:.2} to {next:.2}, {} has the factor {:.3} instead of {:.3}.",
        names[worst], got[worst], right[worst]
    );
    Err(Fault::with(halfway(answer), known.unwrap_or(&at)))
}

/// The variance at t = 0.5, for standard normal data, from the exact variance at 0.95.
fn halfway(answer: Step) -> String {
    let time = |i: usize| 0.95 - 0.45 * i as f64 / 300.0;
    let end = (0..300).fold(marginal(0.95, 1.0), |variance, i| {
        let [x, v, std] = factors(answer, time(i), time(i + 1), 0.7);
        (x + v * slope(time(i), 1.0)).powi(2) * variance + std.powi(2)
    });
    let exact = marginal(0.5, 1.0);
    format!("For standard normal data, the variance at t = 0.5 is {end:.2} instead of {exact:.2}.")
}

/// 3.3: the variance is right at all times.
pub fn spreading_sampler(answer: fn() -> Vec<Curve>) -> Verdict {
    let curves = answer();
    let values = curve(&curves, "variance")?;
    for share in [0.25, 0.5, 0.75, 1.0] {
        let at = ((values.len() - 1) as f64 * share).round() as usize;
        let (t, got) = (1.0 - share, values[at]);
        let exact = marginal(t, 0.25);
        require(
            (got / exact - 1.0).abs() < 0.15,
            format!("The variance at t = {t} is {got:.3} instead of {exact:.3}."),
            "Which term of the drift should hold the particles together, and which way does it push?",
        )?;
    }
    Ok(())
}

/// 3.4: the table of the chapter, and the order `min(1, a²)`.
pub fn spread_error(answer: fn(usize, f64, f64) -> f64) -> Verdict {
    let root = f64::sqrt(2.0);
    for (steps, level, data, percent) in [
        (10, 0.0, 0.25, -25.8),
        (10, 0.7, 0.25, -8.0),
        (10, 1.0, 0.25, -2.6),
        (10, root, 0.25, 1.8),
        (200, 0.0, 0.25, -1.5),
        (200, 0.7, 0.25, 0.4),
        (10, 0.7, 0.0225, -18.5),
        (10, root, 0.0225, 24.0),
    ] {
        let got = 100.0 * answer(steps, level, data);
        let hint = if got.is_nan() || got.is_infinite() {
            "At t = 1, σ divides by zero: take 1 − t of the next time there."
        } else if got < -90.0 {
            "Nearly all spread is lost: is the noise's variance, σ²|Δt|, added in every step?"
        } else if level == 0.0 {
            "This is the ODE: a step multiplies x by 1 + slope·Δt, and the variance by its square. The start is 1."
        } else {
            "A step has the gain 1 + [slope + σ²/2t·(1 + (1−t)·slope)]·Δt, and V ← gain²V + σ²|Δt|."
        };
        let finding = format!(
            "{steps} steps at a = {level:.2} for V₀ = {data} miss the variance by {got:.1} % instead of {percent:.1} %."
        );
        require((got - percent).abs() < 0.06, finding, hint)?;
    }
    for level in [0.5, 0.7, 1.2_f64] {
        let [coarse, fine] = [100_000, 400_000].map(|steps| answer(steps, level, 0.25).abs());
        let (order, law) = ((coarse / fine).ln() / 4.0_f64.ln(), level.powi(2).min(1.0));
        let finding = format!(
            "At a = {level} four times as many steps give the order {order:.2} instead of min(1, a²) = {law:.2}."
        );
        require(
            (order - law).abs() < 0.03,
            finding,
            "The first steps make the order: look at t = 1.",
        )?;
    }
    Ok(())
}

/// 3.5: at √2 the covariance of noising, at 0 that of the ODE, at other levels the product of gains.
pub fn covariance_in_time(answer: fn(f64, f64, f64, f64) -> f64) -> Verdict {
    let mut noise = Noise::new(35);
    for round in 0..8 {
        let (s, t, data) =
            (noise.between(0.05, 0.4), noise.between(0.5, 0.95), noise.between(0.1, 2.0));
        let ode = (marginal(s, data) * marginal(t, data)).sqrt();
        let reversal = (1.0 - t) / (1.0 - s) * marginal(s, data);
        // The logarithm of what is left goes with a².
        let level = [f64::sqrt(2.0), 0.0, 0.7, 1.0][round % 4];
        let exact = ode * (reversal / ode).powf(level * level / 2.0);
        let got = answer(level, s, t, data);
        let near = |wrong: f64| (got / wrong - 1.0).abs() < 0.005;
        let hint = if near(ode) {
            "That is the ODE's. Noise makes a particle forget: the score term adds −σ²/(2V)·|Δt| to a gain."
        } else if near(exact / marginal(t, data)) {
            "That is the product of the gains; the covariance is V_t times it."
        } else if near(exact / ode) {
            "That is the correlation; the covariance is asked for."
        } else if near(ode * (reversal / ode).powf(level * level)) {
            "The forgetting is twice too strong: the drift has ½σ²."
        } else {
            "The gain of a short step is 1 − (slope + σ²/(2V))·|Δt|, from t down to s."
        };
        let finding = format!(
            "At a = {level:.2}, Cov(x_s, x_t) for s = {s:.2}, t = {t:.2}, V₀ = {data:.2} is {got:.4} instead of {exact:.4}."
        );
        require(near(exact), finding, hint)?;
    }
    Ok(())
}
