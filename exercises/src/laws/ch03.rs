//! The laws of chapter 3, *From the ODE to the SDE*.

use super::{curve, marginal, slope};
use crate::{Curve, Fault, Noise, Verdict, explain, number, require};

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
                (
                    -(x - (1.0 - t) * v) / t,
                    "The noise lies along the velocity: the mean noise is x + (1−t)v, and not x − (1−t)v.",
                ),
                (
                    -x / (t * t),
                    "That is the score of noise alone: given x₀, it is −(x − (1−t)x₀)/t².",
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
        let of = format!("The standard deviation of the first step of ten, at a = {level},");
        number(of, got[2], level, &[]).map_err(|fault| {
            let why = "At t = 1, σ divides by zero; there it is a·√(t/(1 − next)).";
            Fault::with(fault.finding, why)
        })?;
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
    let got = factors(answer, t, next, level);
    let [(right, _), wrong @ ..] = possible_factors([t, next], level);
    let names = ["x", "the velocity", "the noise"];
    let of = |i| format!("In a step from t = {t:.2} to {next:.2}, the factor of {}", names[i]);
    let Some(fault) = (0..3).find_map(|i: usize| number(of(i), got[i], right[i], &[]).err()) else {
        return Ok(());
    };
    let same = |other: [f64; 3]| got.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-9);
    let known = wrong.iter().find(|(wrong, _)| same(*wrong)).map(|(_, why)| *why);
    let negative = "The root of a negative number is NaN, and next − t is negative.";
    let known = known.or(got[2].is_nan().then_some(negative));
    Err(match halfway(answer) {
        Some(finding) => Fault::with(finding, known.unwrap_or(&fault.finding)),
        None => Fault { mistake: known.map(Into::into), ..fault },
    })
}

/// The factors of a step, and those that mistakes would give.
fn possible_factors([t, next]: [f64; 2], level: f64) -> [([f64; 3], &'static str); 18] {
    let (dt, a2) = (next - t, level.powi(2));
    let sigma2 = a2 * t / if t == 1.0 { 1.0 - next } else { 1.0 - t };
    let with = |share: f64, sigma2: f64| {
        let pull = share * sigma2 / (2.0 * t);
        [1.0 + pull * dt, (1.0 + pull * (1.0 - t)) * dt, sigma2.sqrt() * (-dt).sqrt()]
    };
    let score = |share: f64| with(share, sigma2);
    let sigma = |sigma2: f64| with(1.0, sigma2);
    let [x, v, std] = score(1.0);
    let early = "1 − next stands for 1 − t in the step that starts at t = 1, and in no other.";
    [
        ([x, v, std], ""),
        (
            score(0.0),
            "Your drift is missing the score: −½σ²·score pulls together what the noise pushes apart.",
        ),
        (score(-1.0), "The score has the wrong sign: it is v − ½σ²·score, because time runs down."),
        (score(0.5), "The score term has half of its size: ½σ²·score, and no other ½."),
        (score(2.0), "The score term has twice its size: it is ½σ²·score."),
        ([x, v, sigma2.sqrt() * -dt], "The noise has √|Δt|, and not |Δt|."),
        ([x, v, sigma2.sqrt() * dt], "The noise has √|Δt|, and not Δt."),
        ([x, v, sigma2 * (-dt).sqrt()], "The noise has σ, and not σ²."),
        ([x, v, 0.0], "No noise is added."),
        (
            [x, v, -std],
            "The noise is subtracted. It is as likely as its negative; but here it is added.",
        ),
        (
            [2.0 - x, -v, std],
            "The drift goes the wrong way: its change of time, next − t, is negative.",
        ),
        (sigma((sigma2 / level).powi(2)), "σ is a·√(t/(1 − t)); the root is missing."),
        (sigma(a2), "σ is constant here: it is a·√(t/(1 − t)), large early and small late."),
        (sigma(a2.powi(2) / sigma2), "σ is upside down: a·√(t/(1 − t)) is large near t = 1."),
        (sigma(a2 * sigma2), "σ has a, and not a²: a·√(t/(1 − t))."),
        (sigma(sigma2 / level), "a stands before the root: a·√(t/(1 − t))."),
        (sigma(a2 * t / (1.0 - next)), early),
        (sigma(a2 * t / (1.0 - t).max(-dt)), early),
    ]
}

/// The variance at t = 0.5, for standard normal data, from the exact variance at 0.95; nothing if it is
/// right.
fn halfway(answer: Step) -> Option<String> {
    let time = |i: usize| 0.95 - 0.45 * i as f64 / 300.0;
    let end = (0..300).fold(marginal(0.95, 1.0), |variance, i| {
        let [x, v, std] = factors(answer, time(i), time(i + 1), 0.7);
        (x + v * slope(time(i), 1.0)).powi(2) * variance + std.powi(2)
    });
    let exact = marginal(0.5, 1.0);
    let off = end.is_nan() || (end - exact).abs() >= 0.01;
    off.then(|| {
        format!(
            "For standard normal data, the variance at t = 0.5 is {end:.2} instead of {exact:.2}."
        )
    })
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
            "",
        )?;
    }
    Ok(())
}

/// 3.4: the recursion, and the order `min(1, a²)`.
pub fn spread_error(answer: fn(usize, f64, f64) -> f64) -> Verdict {
    for data in [0.25, 0.0225] {
        for (steps, level) in [(10, 0.0), (10, 0.7), (10, 1.0), (10, f64::sqrt(2.0)), (200, 0.7)] {
            let (got, right) = (answer(steps, level, data), followed(steps, level, data, 1.0));
            let of = format!("The error of {steps} steps at a = {level:.2} for V₀ = {data}");
            require(
                got.is_finite(),
                format!("{of} is {got}."),
                "At t = 1, σ divides by zero: take 1 − t of the next time there.",
            )?;
            let wrong = [
                (right.abs(), "The error has a sign: it is negative where spread is lost."),
                (right * data, "That is the absolute error; divide by V₀."),
                (
                    (1.0 + right).sqrt() - 1.0,
                    "That is the error of the standard deviation, and not of the variance.",
                ),
                (1.0 + right, "That is the quotient of the variances; the error is less by 1."),
                (
                    followed(steps, level, data, 0.0),
                    "The variance of the noise, σ²|Δt|, is not added: V ← gain²V + σ²|Δt|.",
                ),
                (
                    followed(steps, 0.0, data, 1.0),
                    "That is the ODE's error; with noise, V ← gain²V + σ²|Δt|.",
                ),
            ];
            number(of, got, right, &wrong)?;
        }
    }
    for level in [0.5, 0.7, 1.2_f64] {
        let [coarse, fine] = [100_000, 400_000].map(|steps| answer(steps, level, 0.25).abs());
        let (order, law) = ((coarse / fine).ln() / 4.0_f64.ln(), level.powi(2).min(1.0));
        let finding = format!(
            "At a = {level} four times as many steps give the order {order:.2} instead of min(1, a²) = {law:.2}."
        );
        require((order - law).abs() < 0.03, finding, "")?;
    }
    Ok(())
}

/// The relative error of the final variance, if a share of the noise's variance is added.
fn followed(steps: usize, level: f64, data: f64, share: f64) -> f64 {
    let step = |variance: f64, i: usize| {
        let (t, dt) = (1.0 - i as f64 / steps as f64, -1.0 / steps as f64);
        let sigma2 = level.powi(2) * t / if i == 0 { -dt } else { 1.0 - t };
        let slope = slope(t, data);
        let gain = 1.0 + (slope + sigma2 / (2.0 * t) * (1.0 + (1.0 - t) * slope)) * dt;
        gain.powi(2) * variance - share * sigma2 * dt
    };
    (0..steps).fold(1.0, step) / data - 1.0
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
        let faded = |share: f64| ode * (reversal / ode).powf(share * level * level / 2.0);
        let hint = explain(&[
            (
                near(ode),
                "That is the ODE's. Noise makes a particle forget: the score term adds −σ²/(2V)·|Δt| to a gain.",
            ),
            (
                near(exact / marginal(t, data)),
                "That is the product of the gains; the covariance is V_t times it.",
            ),
            (
                near(exact * marginal(s, data) / marginal(t, data)),
                "The walk starts at t, and the covariance at V_t: here it starts at V_t′.",
            ),
            (near(exact / ode), "That is the correlation; the covariance is asked for."),
            (near(reversal), "That is the covariance of noising. The SDE has it at a = √2 alone."),
            (near(faded(2.0)), "The forgetting is twice too strong: the drift has ½σ²."),
            (
                near(faded(0.5)),
                "The forgetting has half of its strength: the score has the factor ½σ², and no other ½.",
            ),
            (true, "The gain of a short step is 1 − (slope + σ²/(2V))·|Δt|, from t down to t′."),
        ]);
        let finding = format!(
            "At a = {level:.2}, Cov(x_t′, x_t) for t′ = {s:.2}, t = {t:.2}, V₀ = {data:.2} is {got:.4} instead of {exact:.4}."
        );
        require(near(exact), finding, hint)?;
    }
    Ok(())
}
