//! Chapters 8 to 13.

use std::f64::consts::FRAC_PI_2;

use exercises::{
    Noise,
    epochs::Ailment,
    laws::{ch08, ch09, ch10, ch11, ch12, ch13},
    picture::{disc, picture, smoothness},
    solutions,
};

use super::{Mutant, mutant};

pub fn all() -> Vec<Mutant> {
    [networks(), judges(), runs(), hacking(), optimal(), after()].into_iter().flatten().collect()
}

fn mix(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()
}

fn networks() -> Vec<Mutant> {
    vec![
        mutant(
            "8.1",
            "from the conditional",
            "one unit too much",
            ch08::guided_velocity(|w, o, g| mix(w, o, |w, o| w + g * (w - o))),
        ),
        mutant(
            "8.1",
            "exchanged",
            "exchanged",
            ch08::guided_velocity(|w, o, g| mix(w, o, |w, o| w + g * (o - w))),
        ),
        mutant(
            "8.1",
            "no difference",
            "Only the difference",
            ch08::guided_velocity(|w, o, g| mix(w, o, |w, o| o + g * w)),
        ),
        mutant(
            "8.2",
            "α for α/rank",
            "the rank is missing",
            ch08::merged(|w, d, u, a| solutions::ch08::merged(w, d, u, a * u.len() as f64)),
        ),
        mutant(
            "8.2",
            "no scale",
            "scale α/rank is missing",
            ch08::merged(|w, d, u, _| solutions::ch08::merged(w, d, u, u.len() as f64)),
        ),
        mutant(
            "8.2",
            "no weights",
            "frozen weights must be left",
            ch08::merged(|w, d, u, a| {
                solutions::ch08::merged(&vec![vec![0.0; w[0].len()]; w.len()], d, u, a)
            }),
        ),
        mutant("8.2", "no adapter", "adapter is missing", ch08::merged(|w, _, _, _| w.to_vec())),
        mutant("8.3", "the memory", "one less", ch08::lag(|decay| 1.0 / (1.0 - decay))),
        mutant("8.3", "one update", "counts too", ch08::lag(|decay| decay)),
    ]
}

fn judges() -> Vec<Mutant> {
    vec![
        mutant("9.1", "everything is clean", "at most 0.30", ch09::cleanliness(|_| 1.0)),
        mutant(
            "9.1",
            "brightness",
            "whatever its brightness",
            ch09::cleanliness(|p| p.iter().flatten().sum::<f64>() / 256.0),
        ),
        mutant("9.1", "the disc is dirt", "disc is not dirt", ch09::cleanliness(smoothness)),
        mutant("9.2", "honest", "too honest", ch09::cheating_picture(|| picture(|_, _| 0.5))),
        mutant(
            "9.2",
            "speckle",
            "The reward sees this",
            ch09::cheating_picture(|| {
                let noise = Noise::new(9).normals(256);
                picture(|row, column| 0.5 + 0.2 * noise[16 * row + column])
            }),
        ),
        mutant("9.2", "a disc", "The reward sees this", ch09::cheating_picture(|| disc(0.2))),
        mutant("9.2", "no picture", "must be one", ch09::cheating_picture(|| [[2.0; 16]; 16])),
    ]
}

fn runs() -> Vec<Mutant> {
    vec![
        mutant(
            "10.1",
            "all are healthy",
            "rounding in a healthy run",
            ch10::diagnose(|_| Ailment::Healthy),
        ),
        mutant(
            "10.1",
            "reward alone",
            "gold has fallen",
            ch10::diagnose(|run| match solutions::ch10::diagnose(run) {
                Ailment::Hacked => Ailment::Healthy,
                other => other,
            }),
        ),
        mutant(
            "10.1",
            "single epochs",
            "are health",
            ch10::diagnose(|run| {
                if run[99].gold < run[98].gold {
                    Ailment::Hacked
                } else {
                    solutions::ch10::diagnose(run)
                }
            }),
        ),
    ]
}

fn hacking() -> Vec<Mutant> {
    vec![
        mutant("11.1", "not squared", "liking²", ch11::best_pressure(|liking| 2.0 / liking)),
        mutant("11.1", "the chapter's", "liking of 1", ch11::best_pressure(|_| 2.0)),
        mutant(
            "11.1",
            "where it is eaten up",
            "eaten the gain",
            ch11::best_pressure(|liking| 4.0 / (liking * liking)),
        ),
        mutant(
            "11.2",
            "the wrong direction",
            "direction is wrong",
            ch11::next_weight(|w, d, t, r| w * (1.0 - r * (d / t - 1.0).clamp(-0.2, 0.2))),
        ),
        mutant(
            "11.2",
            "no clip",
            "Without a clip",
            ch11::next_weight(|w, d, t, r| w * (1.0 + r * (d / t - 1.0))),
        ),
        mutant(
            "11.2",
            "the difference",
            "proportional",
            ch11::next_weight(|w, d, t, r| w * (1.0 + r * (d - t).clamp(-0.2, 0.2))),
        ),
        mutant(
            "11.2",
            "never still",
            "nothing should change",
            ch11::next_weight(|w, _, _, r| w * (1.0 + 0.2 * r)),
        ),
        mutant(
            "11.3",
            "the one before",
            "evaluation before",
            ch11::stops_at(|gold, by| (1..gold.len()).find(|i| gold[i - 1] - gold[*i] >= by)),
        ),
        mutant(
            "11.3",
            "the first",
            "first evaluation",
            ch11::stops_at(|gold, by| (1..gold.len()).find(|i| gold[0] - gold[*i] >= by)),
        ),
        mutant(
            "11.3",
            "more than",
            "includes it",
            ch11::stops_at(|gold, by| {
                let best = |i: usize| gold[..=i].iter().copied().fold(f64::NEG_INFINITY, f64::max);
                (0..gold.len()).find(|i| best(*i) - gold[*i] > by)
            }),
        ),
    ]
}

fn optimal() -> Vec<Mutant> {
    vec![
        mutant(
            "12.1",
            "β·r",
            "and not β·r",
            ch12::tilted(|p, r, beta| solutions::ch12::tilted(p, r, 1.0 / beta)),
        ),
        mutant(
            "12.1",
            "the wrong sign",
            "sign is wrong",
            ch12::tilted(|p, r, beta| solutions::ch12::tilted(p, r, -beta)),
        ),
        mutant(
            "12.1",
            "not normalised",
            "Divide by their sum",
            ch12::tilted(|p, r, beta| mix(p, r, |p, r| p * (r / beta).exp())),
        ),
        mutant(
            "12.1",
            "overflows",
            "overflows",
            ch12::tilted(|p, r, beta| {
                let weights = mix(p, r, |p, r| p * (r / beta).exp());
                let all: f64 = weights.iter().sum();
                weights.iter().map(|w| w / all).collect()
            }),
        ),
        mutant(
            "12.2",
            "the factor forgotten",
            "the ODE's step moves by",
            ch12::moved(|n, a, v| {
                let [sde, ode] = solutions::ch12::moved(n, a, v);
                [sde, ode * (1.0 + a * a / 2.0)]
            }),
        ),
        mutant(
            "12.2",
            "the SDE twice",
            "its own gains",
            ch12::moved(|n, a, v| [solutions::ch12::moved(n, a, v)[0]; 2]),
        ),
        mutant(
            "12.2",
            "exchanged",
            "SDE comes first",
            ch12::moved(|n, a, v| {
                let [sde, ode] = solutions::ch12::moved(n, a, v);
                [ode, sde]
            }),
        ),
        mutant(
            "12.2",
            "not over the data",
            "Divide by the variance",
            ch12::moved(|n, a, v| solutions::ch12::moved(n, a, v).map(|m| v * m)),
        ),
    ]
}

fn after() -> Vec<Mutant> {
    vec![
        mutant(
            "13.1",
            "noise on top",
            "must shrink",
            ch13::flow_cps_step(|x, v, t, n, eta, e| {
                x + v * (n - t) + n * (eta * FRAC_PI_2).sin() * e
            }),
        ),
        mutant(
            "13.1",
            "deviations added",
            "Variances add up",
            ch13::flow_cps_step(|x, v, t, n, eta, e| {
                let sin = (eta * FRAC_PI_2).sin();
                (1.0 - n) * (x - t * v) + n * (1.0 - sin) * (x + (1.0 - t) * v) + n * sin * e
            }),
        ),
        mutant(
            "13.1",
            "eta alone",
            "and not eta",
            ch13::flow_cps_step(|x, v, t, n, eta, e| {
                (1.0 - n) * (x - t * v)
                    + n * (1.0 - eta * eta).sqrt() * (x + (1.0 - t) * v)
                    + n * eta * e
            }),
        ),
        mutant(
            "13.1",
            "ends exchanged",
            "has the weight 1 − next",
            ch13::flow_cps_step(|x, v, t, n, eta, e| {
                let (sin, cos) = (eta * FRAC_PI_2).sin_cos();
                n * (x - t * v) + (1.0 - n) * cos * (x + (1.0 - t) * v) + n * sin * e
            }),
        ),
    ]
}
