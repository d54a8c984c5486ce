//! The laws of chapter 5, *The sampler as a policy*.

use std::f64::consts::TAU;

use super::{mean, slope};
use crate::{Noise, Verdict, explain, number, numbers, require};

/// 5.1 against the formula; the density integrates to 1.
pub fn step_log_prob(answer: fn(&[f64], &[f64], f64) -> f64) -> Verdict {
    let mut noise = Noise::new(51);
    for std in [0.22, 0.7, 2.0_f64] {
        let whole: f64 = (-4000..4000)
            .map(|i| answer(&[f64::from(i) * std * 2e-3], &[0.0], std).exp() * std * 2e-3)
            .sum();
        let root = TAU.sqrt();
        let near = |wrong: f64| (whole / wrong - 1.0).abs() < 1e-3;
        require(
            near(1.0),
            format!(
                "With std = {std} the density of one element integrates to {whole:.3} instead of 1."
            ),
            explain(&[
                (
                    near(std * root),
                    "The normalisation is missing: −log(s√2π) per element. It cancels in a ratio, but not here.",
                ),
                (near(std), "The normalisation has √2π alone: it is −log(s√2π) per element."),
                (near(root), "The normalisation has s alone: it is −log(s√2π) per element."),
                (
                    near(1.0 / std.sqrt()),
                    "The square is divided by 2s, and should be by 2s², twice the variance.",
                ),
                (near(0.5_f64.sqrt()), "The square is divided by s², and should be by 2s²."),
                (
                    true,
                    "A Gaussian has −(x − μ)²/(2s²) − log(s√2π) per element, with s² the variance.",
                ),
            ]),
        )?;
        let (next, center) = (noise.normals(5), noise.normals(5));
        let squares: f64 = next.iter().zip(&center).map(|(x, m)| (x - m).powi(2)).sum();
        let (term, norm) = (-squares / (2.0 * std * std), (std * TAU.sqrt()).ln());
        number(
            format!("The log density of five elements with std = {std}"),
            answer(&next, &center, std),
            term - 5.0 * norm,
            &[
                (
                    (term - 5.0 * norm) / 5.0,
                    "That is the mean over the elements; the density has their sum.",
                ),
                (
                    term * std - 5.0 * (norm - 0.5 * std.ln()),
                    "std is a standard deviation: the squares are divided by 2s², and not by 2s, s² the variance.",
                ),
                (term - norm, "Each of the five elements has its own normalisation."),
            ],
        )?;
    }
    Ok(())
}

type Ratio = fn(&[f64], &[f64], &[f64], f64) -> f64;

/// 5.2: 1 on-policy, the mean 1 under the old policy, and the formula.
pub fn ratio(answer: Ratio) -> Verdict {
    let mut noise = Noise::new(52);
    let (next, old) = (noise.normals(3), noise.normals(3));
    number(
        "The ratio of a policy to itself",
        answer(&next, &old, &old, 0.3),
        1.0,
        &[(0.0, "That is the log-ratio; the ratio is its exponential.")],
    )?;
    let mut ratios = Vec::new();
    for _ in 0..2000 {
        let next = noise.normals(2);
        let got = answer(&next, &[0.3, -0.2], &[0.0, 0.0], 1.0);
        let log = 0.3 * next[0] - 0.2 * next[1] - 0.065;
        number(
            format!(
                "For x′ = [{:.3}, {:.3}], a mean that moved from 0 to [0.3, −0.2] and std = 1, the ratio",
                next[0], next[1]
            ),
            got,
            log.exp(),
            &[
                ((-log).exp(), "The ratio is the wrong way up: new over old."),
                (log, "That is the log-ratio; the ratio is its exponential."),
                (1.0 + log, "That is the ratio to first order; the ratio is e^log ρ."),
                (
                    (log / 2.0).exp(),
                    "That is the geometric mean over the elements; the ratio of densities has their sum.",
                ),
            ],
        )?;
        ratios.push(got);
    }
    let center = mean(&ratios);
    require(
        (center - 1.0).abs() < 0.05,
        format!("Under the old policy the ratio has the mean {center:.3} instead of 1."),
        "",
    )?;
    let next = [0.5, 0.1];
    number(
        "The ratio at std = 0.5",
        answer(&next, &[0.1, 0.0], &[0.0, 0.0], 0.5),
        (0.18_f64).exp(),
        &[
            ((0.09_f64).exp(), "Squares are divided by 2s², and s² is the variance."),
            ((0.045_f64).exp(), "The std is missing: squares are divided by 2s²."),
        ],
    )
}

/// 5.3: the table of the chapter, and drawn transitions.
pub fn at_the_clip(answer: fn(f64, usize) -> [f64; 2]) -> Verdict {
    for (clip, elements) in [(1e-4, 65_536), (1e-3, 1728), (0.05, 2)] {
        let d = elements as f64;
        let (root, nats) = (d.sqrt(), clip * d);
        let shift = (2.0 * (nats.hypot(1.0) - 1.0) / d).sqrt();
        numbers(
            format!("[shift, nats] at a clip range of {clip} and {elements} elements"),
            &answer(clip, elements),
            &[shift, nats],
            &[
                (
                    vec![clip * root, nats],
                    "That is where the spread z/√d reaches the clip range. The mean −z²/2 counts too, and for many elements it is the larger part.",
                ),
                (
                    vec![(2.0 * clip).sqrt(), nats],
                    "That is where the mean −z²/2 reaches the clip range. The spread z/√d counts too.",
                ),
                (
                    vec![shift.powi(2), nats],
                    "That is the square of the shift: the equation z⁴/4 + z²/d = clip² is quadratic in z².",
                ),
                (
                    vec![clip, nats],
                    "The mean over d elements averages: its spread is z/√d, and not z.",
                ),
                (
                    vec![shift, clip],
                    "The log density ratio is the sum over the elements, d times their mean.",
                ),
                (
                    vec![shift, nats.exp()],
                    "That is the density ratio at the clip; in nats it is its logarithm.",
                ),
                (vec![nats, shift], "The shift comes first."),
            ],
        )?;
    }
    let mut noise = Noise::new(53);
    let [shift, _] = answer(0.03, 100);
    let log_ratio = |_| mean(&noise.normals(100)) * shift - shift.powi(2) / 2.0;
    let log_ratios: Vec<f64> = (0..2000).map(log_ratio).collect();
    let root = mean(&log_ratios.iter().map(|x| x * x).collect::<Vec<_>>()).sqrt();
    require(
        (root / 0.03 - 1.0).abs() < 0.1,
        format!(
            "With your shift, the mean log-ratio of 100 elements has the root mean square {root:.4} instead of the clip range of 0.03."
        ),
        "",
    )
}

type Kl = fn(&[f64], &[f64], f64, f64, f64) -> f64;

/// 5.4 against the two Gaussians of a step; the first step starts at `t = 1`.
pub fn step_kl(answer: Kl) -> Verdict {
    let mut noise = Noise::new(54);
    for round in 0..50 {
        let (v, w) = (noise.normals(4), noise.normals(4));
        let t = if round == 0 { 1.0 } else { noise.between(0.15, 0.95) };
        let sigma = noise.between(0.4, 1.4);
        let next = t - 0.1;
        let squared: f64 = v.iter().zip(&w).map(|(v, w)| (v - w).powi(2)).sum();
        let s2 = sigma * sigma * 0.1;
        let push = 1.0 + sigma * sigma * (1.0 - t) / (2.0 * t);
        let kl = (push * 0.1).powi(2) * squared / (2.0 * s2);
        let of = format!("At t = {t:.2}, σ = {sigma:.2}, the divergence");
        let exchanged = 1.0 + sigma * sigma * t / (2.0 * (1.0 - t));
        let half = 1.0 + sigma * sigma / 2.0;
        let got = answer(&v, &w, t, next, sigma);
        require(
            got.is_finite(),
            format!("{of} is {got}."),
            "At t = 1 only Flow-GRPO's a·√(t/(1−t)) divides by zero. Here σ is given: do without a.",
        )?;
        number(
            of,
            got,
            kl,
            &[
                (
                    (half * 0.1).powi(2) * squared / (2.0 * s2),
                    "The factor 1 + a²/2 belongs to Flow-GRPO's σ_t = a·√(t/(1−t)). Here it is 1 + σ²(1−t)/2t.",
                ),
                (
                    (half * 0.1).powi(2) * (1.0 - t) / (t * 0.2 * sigma * sigma) * squared,
                    "That is the chapter's formula with σ for a: Flow-GRPO's noise, which grows with t.",
                ),
                (
                    kl / push.powi(2),
                    "The mean of a step has the velocity with the factor (1 + σ²(1−t)/2t)Δt, and not Δt: the score has the velocity too.",
                ),
                (kl / push, "The factor 1 + σ²(1−t)/2t is squared, like the shift of the mean."),
                (
                    kl / 0.1,
                    "A factor |Δt| is missing: the shift has |Δt|, its square |Δt|², and the variance of the step σ²|Δt|.",
                ),
                (
                    kl * (exchanged / push).powi(2),
                    "t and 1 − t are exchanged in the factor of the velocity.",
                ),
                (2.0 * kl, "Half of it: ‖μ − μ_ref‖²/2s²."),
                (
                    kl / 4.0,
                    "That is the mean over the elements; the divergence of a step is their sum.",
                ),
                (-kl, "A divergence is never negative; |Δt| is t − next."),
                (
                    kl * s2.sqrt(),
                    "The squared distance is divided by the variance s², and not by s.",
                ),
                (kl * 0.1, "s² has one |Δt|, the squared mean two: one is left."),
            ],
        )?;
    }
    Ok(())
}

/// 5.5 against the product of gains, as in the table of the chapter.
pub fn seen_share(answer: fn(usize, f64, f64) -> f64) -> Verdict {
    for data in [0.25, 1.0, 0.0225] {
        for random in [10, 9, 7, 5, 3] {
            let got = answer(random, 0.7, data);
            let of = format!("With {random} random steps of 10 and V₀ = {data}, the share");
            require(
                got.is_finite(),
                format!("{of} is {got}."),
                "At t = 1, σ divides by zero: take 1 − t of the next time there.",
            )?;
            let right = share(random, 0.7, data, |gain| gain.whole);
            let with = |gain: fn(Gain) -> f64| share(random, 0.7, data, gain);
            let wrong = [
                (
                    random as f64 / 10.0,
                    "That is the number of random steps over ten. It comes out if every step counts alike, and also if the gains leave out the velocity, which is slope·x.",
                ),
                (1.0 - right, "That is the share that is hidden."),
                (with(|_| 1.0), "The gains of the later steps are missing."),
                (
                    with(|gain| gain.of_ode),
                    "The gains are those of ODE steps: a random step also pulls by its score.",
                ),
                (
                    with(|gain| gain.whole.powi(2)),
                    "A push is multiplied by the gains; their squares are for variances.",
                ),
                (
                    share(random, 0.0, data, |gain| gain.whole),
                    "Here all steps push like ODE steps: a random step has the factor 1 + σ²(1−t)/2t too.",
                ),
            ];
            number(of, got, right, &wrong)?;
        }
    }
    Ok(())
}

/// The gain of a step, and that of an ODE step in its place.
#[derive(Clone, Copy)]
struct Gain {
    whole: f64,
    of_ode: f64,
}

/// The share of the gradient that random steps see, with the later steps counted by a part of their
/// gains.
fn share(random: usize, level: f64, data: f64, part: impl Fn(Gain) -> f64) -> f64 {
    let [mut seen, mut all, mut after] = [0.0, 0.0, 1.0];
    for i in (0..10).rev() {
        let (t, dt) = (1.0 - i as f64 / 10.0, -0.1);
        let diffusion = level.powi(2) * t / if i == 0 { 0.1 } else { 1.0 - t };
        let pull = if i < random { diffusion / (2.0 * t) } else { 0.0 };
        let push = (1.0 + pull * (1.0 - t)) * dt;
        seen += if i < random { push * after } else { 0.0 };
        all += push * after;
        let slope = slope(t, data);
        let whole = 1.0 + pull * dt + push * slope;
        after *= part(Gain { whole, of_ode: 1.0 + dt * slope });
    }
    seen / all
}
