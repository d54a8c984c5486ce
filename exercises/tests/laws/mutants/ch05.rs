use exercises::{laws::ch05::*, solutions::ch05 as right};

use super::{Mutant, mutant};

/// The factor of `v·Δt` in the mean of a step.
fn push(t: f64, sigma: f64) -> f64 {
    1.0 + sigma * sigma * (1.0 - t) / (2.0 * t)
}

/// What taking `1 + σ²/2` for that factor does to a divergence.
fn half(t: f64, sigma: f64) -> f64 {
    ((1.0 + sigma * sigma / 2.0) / push(t, sigma)).powi(2)
}

pub fn all() -> Vec<Mutant> {
    [
        exercise_5_1(),
        exercise_5_1_normalisation(),
        exercise_5_2(),
        exercise_5_3(),
        exercise_5_4(),
        exercise_5_4_times(),
        exercise_5_5(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn exercise_5_1() -> Vec<Mutant> {
    vec![
        mutant(
            "5.1",
            "no normalisation",
            "normalisation is missing",
            step_log_prob(|x, m, s| {
                -x.iter().zip(m).map(|(x, m)| (x - m).powi(2)).sum::<f64>() / (2.0 * s * s)
            }),
        ),
        mutant(
            "5.1",
            "a mean",
            "mean over the elements",
            step_log_prob(|x, m, s| right::step_log_prob(x, m, s) / x.len() as f64),
        ),
        mutant(
            "5.1",
            "s for s²",
            "s² the variance",
            step_log_prob(|x, m, s| right::step_log_prob(x, m, s.sqrt())),
        ),
        mutant(
            "5.1",
            "2s in the exponent",
            "divided by 2s,",
            step_log_prob(|x, m, s| {
                x.iter()
                    .zip(m)
                    .map(|(x, m)| {
                        -(x - m).powi(2) / (2.0 * s) - (s * std::f64::consts::TAU.sqrt()).ln()
                    })
                    .sum()
            }),
        ),
        mutant(
            "5.1",
            "s² in the exponent",
            "divided by s²,",
            step_log_prob(|x, m, s| {
                x.iter()
                    .zip(m)
                    .map(|(x, m)| {
                        -(x - m).powi(2) / (s * s) - (s * std::f64::consts::TAU.sqrt()).ln()
                    })
                    .sum()
            }),
        ),
    ]
}

fn exercise_5_1_normalisation() -> Vec<Mutant> {
    vec![
        mutant(
            "5.1",
            "no s in the normalisation",
            "has √2π alone",
            step_log_prob(|x, m, s| right::step_log_prob(x, m, s) + x.len() as f64 * s.ln()),
        ),
        mutant(
            "5.1",
            "no √2π",
            "has s alone",
            step_log_prob(|x, m, s| {
                right::step_log_prob(x, m, s) + x.len() as f64 * 0.5 * std::f64::consts::TAU.ln()
            }),
        ),
    ]
}

fn exercise_5_2() -> Vec<Mutant> {
    vec![
        mutant(
            "5.2",
            "the wrong way up",
            "wrong way up",
            ratio(|x, m, o, s| right::ratio(x, o, m, s)),
        ),
        mutant(
            "5.2",
            "no exponential",
            "log-ratio",
            ratio(|x, m, o, s| right::ratio(x, m, o, s).ln()),
        ),
        mutant(
            "5.2",
            "a geometric mean",
            "geometric mean",
            ratio(|x, m, o, s| right::ratio(x, m, o, s).powf(1.0 / x.len() as f64)),
        ),
        mutant(
            "5.2",
            "s for s²",
            "s² is the variance",
            ratio(|x, m, o, s| right::ratio(x, m, o, s.sqrt())),
        ),
        mutant(
            "5.2",
            "first order",
            "to first order",
            ratio(|x, m, o, s| 1.0 + right::ratio(x, m, o, s).ln()),
        ),
    ]
}

fn exercise_5_3() -> Vec<Mutant> {
    vec![
        mutant(
            "5.3",
            "the mean of the log-ratio is ignored",
            "counts too, and for many elements",
            at_the_clip(|c, d| [c * (d as f64).sqrt(), c * d as f64]),
        ),
        mutant(
            "5.3",
            "the spread is ignored",
            "The spread z/√d counts too",
            at_the_clip(|c, d| [(2.0 * c).sqrt(), c * d as f64]),
        ),
        mutant("5.3", "no √d", "averages", at_the_clip(|c, d| [c, c * d as f64])),
        mutant(
            "5.3",
            "nats of the mean",
            "d times their mean",
            at_the_clip(|c, d| [right::at_the_clip(c, d)[0], c]),
        ),
        mutant(
            "5.3",
            "e to the nats",
            "the density ratio at the clip",
            at_the_clip(|c, d| {
                let [z, nats] = right::at_the_clip(c, d);
                [z, nats.exp()]
            }),
        ),
    ]
}

fn exercise_5_4() -> Vec<Mutant> {
    vec![
        mutant(
            "5.4",
            "the factor of another σ_t",
            "belongs to Flow-GRPO",
            step_kl(|v, w, t, n, s| right::step_kl(v, w, t, n, s) * half(t, s)),
        ),
        mutant(
            "5.4",
            "the chapter's formula with its a from σ",
            "do without a",
            step_kl(|v, w, t, n, s| {
                let a2 = s * s * (1.0 - t) / t;
                let squared: f64 = v.iter().zip(w).map(|(v, w)| (v - w).powi(2)).sum();
                (1.0 + a2 / 2.0).powi(2) * (1.0 - t) / (2.0 * a2 * t) * (t - n) * squared
            }),
        ),
        mutant(
            "5.4",
            "the chapter's formula",
            "Flow-GRPO's noise",
            step_kl(|v, w, t, n, s| right::step_kl(v, w, t, n, s) * half(t, s) * (1.0 - t) / t),
        ),
        mutant(
            "5.4",
            "the score forgotten",
            "the score has the velocity too",
            step_kl(|v, w, t, n, s| right::step_kl(v, w, t, n, s) / push(t, s).powi(2)),
        ),
        mutant(
            "5.4",
            "not squared",
            "is squared",
            step_kl(|v, w, t, n, s| right::step_kl(v, w, t, n, s) / push(t, s)),
        ),
        mutant(
            "5.4",
            "no half",
            "Half of it",
            step_kl(|v, w, t, n, s| right::step_kl(v, w, t, n, s) * 2.0),
        ),
        mutant(
            "5.4",
            "a mean",
            "mean over the elements",
            step_kl(|v, w, t, n, s| right::step_kl(v, w, t, n, s) / v.len() as f64),
        ),
    ]
}

fn exercise_5_4_times() -> Vec<Mutant> {
    vec![
        mutant(
            "5.4",
            "|Δt| forgotten",
            "A factor |Δt| is missing",
            step_kl(|v, w, t, n, s| right::step_kl(v, w, t, n, s) / (t - n)),
        ),
        mutant(
            "5.4",
            "t and 1 − t exchanged",
            "are exchanged",
            step_kl(|v, w, t, n, s| {
                let kl = right::step_kl(v, w, t, n, s) / push(t, s).powi(2);
                if t < 1.0 { kl * push(1.0 - t, s).powi(2) } else { kl }
            }),
        ),
        mutant(
            "5.4",
            "Δt for |Δt|",
            "never negative",
            step_kl(|v, w, t, n, s| -right::step_kl(v, w, t, n, s)),
        ),
    ]
}

/// The recursion of 5.5 with gains of one's own: functions of the velocity's slope, the pull by the
/// score, and the push.
fn share(random: usize, level: f64, data: f64, gain: impl Fn(f64, f64, f64) -> f64) -> f64 {
    let [mut seen, mut all, mut after] = [0.0, 0.0, 1.0];
    for i in (0..10).rev() {
        let t = 1.0 - i as f64 / 10.0;
        let slope = (t - (1.0 - t) * data) / ((1.0 - t).powi(2) * data + t * t);
        let sigma2 = level * level * t / (1.0 - t).max(0.1);
        let pull = if i < random { sigma2 / (2.0 * t) } else { 0.0 };
        let push = -0.1 * (1.0 + pull * (1.0 - t));
        all += push * after;
        seen += if i < random { push * after } else { 0.0 };
        after *= gain(slope, pull, push);
    }
    seen / all
}

fn exercise_5_5() -> Vec<Mutant> {
    vec![
        mutant(
            "5.5",
            "steps counted",
            "the number of random steps over ten",
            seen_share(|random, _, _| random as f64 / 10.0),
        ),
        mutant(
            "5.5",
            "the hidden share",
            "hidden",
            seen_share(
                |random, a, v| {
                    if random == 10 { 1.0 } else { 1.0 - right::seen_share(random, a, v) }
                },
            ),
        ),
        mutant(
            "5.5",
            "no noise level",
            "push like ODE steps",
            seen_share(|random, _, v| right::seen_share(random, 0.0, v)),
        ),
        mutant(
            "5.5",
            "gains without the velocity",
            "leave out the velocity",
            seen_share(|n, a, v| share(n, a, v, |_, pull, _| 1.0 - 0.1 * pull)),
        ),
        mutant(
            "5.5",
            "no gains",
            "later steps are missing",
            seen_share(|n, a, v| share(n, a, v, |_, _, _| 1.0)),
        ),
        mutant(
            "5.5",
            "gains of the ODE",
            "of ODE steps",
            seen_share(|n, a, v| share(n, a, v, |slope, _, _| 1.0 - 0.1 * slope)),
        ),
        mutant(
            "5.5",
            "squared gains",
            "for variances",
            seen_share(|n, a, v| {
                share(n, a, v, |slope, pull, push| (1.0 - 0.1 * pull + push * slope).powi(2))
            }),
        ),
        mutant("5.5", "infinite σ at 1", "σ divides by zero", seen_share(|_, _, _| f64::NAN)),
    ]
}
