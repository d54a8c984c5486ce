use exercises::{laws::ch04::*, solutions::ch04 as right};

use super::{Mutant, mutant};

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The mean of r times a score function.
fn estimate(draws: &[f64], rewards: &[f64], score: impl Fn(f64) -> f64) -> f64 {
    draws.iter().zip(rewards).map(|(x, r)| r * score(*x)).sum::<f64>() / draws.len() as f64
}

fn minus(rewards: &[f64], baseline: impl Fn(f64) -> f64) -> Vec<f64> {
    rewards.iter().map(|r| r - baseline(*r)).collect()
}

pub fn all() -> Vec<Mutant> {
    [exercise_4_1(), exercise_4_2(), exercise_4_3(), exercise_4_4(), exercise_4_5(), exercise_4_6()]
        .into_iter()
        .flatten()
        .collect()
}

fn exercise_4_1() -> Vec<Mutant> {
    vec![
        mutant(
            "4.1",
            "the wrong sign",
            "sign is wrong",
            reinforce_gradient(|x, r, m, s| estimate(x, r, |x| (m - x) / (s * s))),
        ),
        mutant(
            "4.1",
            "no std",
            "not divided by std²",
            reinforce_gradient(|x, r, m, _| estimate(x, r, |x| x - m)),
        ),
        mutant(
            "4.1",
            "a sum",
            "sum over the draws",
            reinforce_gradient(|x, r, m, s| x.len() as f64 * estimate(x, r, |x| (x - m) / (s * s))),
        ),
        mutant(
            "4.1",
            "not centred",
            "x − mean, and not x",
            reinforce_gradient(|x, r, _, s| estimate(x, r, |x| x / (s * s))),
        ),
        mutant(
            "4.1",
            "no reward",
            "reward is missing",
            reinforce_gradient(|x, _, m, s| {
                estimate(x, &vec![1.0; x.len()], |x| (x - m) / (s * s))
            }),
        ),
        mutant(
            "4.1",
            "log π for its derivative",
            "This has log π",
            reinforce_gradient(|x, r, m, s| {
                x.iter().zip(r).map(|(x, r)| -r * (x - m).powi(2) / (2.0 * s * s)).sum::<f64>()
                    / x.len() as f64
            }),
        ),
    ]
}

fn exercise_4_2() -> Vec<Mutant> {
    vec![
        mutant(
            "4.2",
            "the group's mean",
            "contains the reward itself",
            leave_one_out(|r| minus(r, |_| mean(r))),
        ),
        mutant(
            "4.2",
            "divides by G",
            "and not by G",
            leave_one_out(|r| minus(r, |own| mean(r) - own / r.len() as f64)),
        ),
        mutant("4.2", "no baseline", "no baseline", leave_one_out(<[f64]>::to_vec)),
        mutant(
            "4.2",
            "the baseline",
            "That is the baseline;",
            leave_one_out(|r| {
                let sum: f64 = r.iter().sum();
                r.iter().map(|x| (sum - x) / (r.len() as f64 - 1.0)).collect()
            }),
        ),
    ]
}

fn exercise_4_3() -> Vec<Mutant> {
    vec![
        mutant("4.3", "all deviations free", "are free", group_variances(|g| [2.0 / g as f64; 2])),
        mutant(
            "4.3",
            "the wrong order",
            "comes first",
            group_variances(|g| {
                let [own, others] = right::group_variances(g);
                [others, own]
            }),
        ),
        mutant(
            "4.3",
            "the length of leave-one-out forgotten",
            "is not the same",
            group_variances(|g| [right::group_variances(g)[0]; 2]),
        ),
        mutant(
            "4.3",
            "the length not squared",
            "is squared",
            group_variances(|g| [right::group_variances(g)[0], 2.0 / g as f64]),
        ),
        mutant(
            "4.3",
            "G for G²",
            "divided by G²",
            group_variances(|g| right::group_variances(g).map(|v| v * g as f64)),
        ),
    ]
}

fn exercise_4_4() -> Vec<Mutant> {
    vec![
        mutant("4.4", "the success rate", "success rate itself", climbed_objective(|q| q)),
        mutant("4.4", "log-odds", "log-odds", climbed_objective(|q| (q / (1.0 - q)).ln())),
        mutant("4.4", "half", "Only a factor", climbed_objective(|q| q.sqrt().asin())),
    ]
}

fn exercise_4_5() -> Vec<Mutant> {
    vec![
        mutant("4.5", "the mean reward", "mean reward", best_baseline(|_, r, _, _| mean(r))),
        mutant("4.5", "nothing", "no baseline", best_baseline(|_, _, _, _| 0.0)),
        mutant(
            "4.5",
            "a sum that is not divided",
            "Divide by the sum of the weights: a baseline",
            best_baseline(|x, r, m, s| {
                x.len() as f64 * estimate(x, r, |x| ((x - m) / (s * s)).powi(2))
            }),
        ),
        mutant(
            "4.5",
            "a sum that is divided by the number",
            "not by the number of draws",
            best_baseline(|x, r, m, s| estimate(x, r, |x| ((x - m) / (s * s)).powi(2))),
        ),
        mutant(
            "4.5",
            "sizes for squares",
            "and not their size",
            best_baseline(|x, r, m, _| {
                estimate(x, r, |x| (x - m).abs())
                    / estimate(x, &vec![1.0; x.len()], |x| (x - m).abs())
            }),
        ),
    ]
}

fn exercise_4_6() -> Vec<Mutant> {
    vec![mutant(
        "4.6",
        "as it was handed out",
        "mean advantage of the first group reaches",
        confused_groups(exercises::ch04::confused_groups),
    )]
}
