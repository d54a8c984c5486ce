use exercises::{
    Noise,
    laws::ch07::*,
    solutions::ch07 as right,
    toy::{PROMPTS, Policy, STEPS, Step},
};

use super::{Mutant, mutant};

fn times(factor: f64, gradient: [f64; 2]) -> [f64; 2] {
    gradient.map(|g| factor * g)
}

/// An epoch of which only a part of the change is kept, or its opposite.
fn part(policy: &mut Policy, noise: &mut Noise, of: impl Fn(usize, usize) -> f64) -> f64 {
    let before = policy.clone();
    let reward = right::epoch(policy, noise);
    for prompt in 0..PROMPTS {
        for i in 0..STEPS {
            for k in 0..2 {
                let old = before.shifts[prompt][i][k];
                let new = &mut policy.shifts[prompt][i][k];
                *new = old + of(prompt, i) * (*new - old);
            }
        }
    }
    reward
}

/// An epoch in which every prompt gets the change of the next one.
fn rotated(policy: &mut Policy, noise: &mut Noise) -> f64 {
    let before = policy.clone();
    let reward = right::epoch(policy, noise);
    let changed = policy.clone();
    for prompt in 0..PROMPTS {
        let other = (prompt + 1) % PROMPTS;
        for i in 0..STEPS {
            for k in 0..2 {
                policy.shifts[prompt][i][k] = before.shifts[prompt][i][k]
                    + changed.shifts[other][i][k]
                    - before.shifts[other][i][k];
            }
        }
    }
    reward
}

pub fn all() -> Vec<Mutant> {
    [exercise_7_1(), exercise_7_2(), exercise_7_3()].into_iter().flatten().collect()
}

fn exercise_7_1() -> Vec<Mutant> {
    vec![
        mutant(
            "7.1",
            "by the mean",
            "derivative by the mean",
            log_prob_gradient(|s, x, v, n| {
                times(1.0 / s.velocity, right::log_prob_gradient(s, x, v, n))
            }),
        ),
        mutant(
            "7.1",
            "the wrong sign",
            "sign is wrong",
            log_prob_gradient(|s, x, v, n| times(-1.0, right::log_prob_gradient(s, x, v, n))),
        ),
        mutant(
            "7.1",
            "std for std²",
            "and not by std",
            log_prob_gradient(|s, x, v, n| times(s.std, right::log_prob_gradient(s, x, v, n))),
        ),
        mutant(
            "7.1",
            "no score",
            "the score has it too",
            log_prob_gradient(|s: &Step, x, v, n| {
                times(-0.1 / s.velocity, right::log_prob_gradient(s, x, v, n))
            }),
        ),
    ]
}

fn exercise_7_2() -> Vec<Mutant> {
    vec![
        mutant(
            "7.2",
            "downhill",
            "runs away from the reward",
            epoch(|p, e| part(p, e, |_, _| -1.0)),
        ),
        mutant("7.2", "nothing moves", "changed nothing", epoch(|p, e| part(p, e, |_, _| 0.0))),
        mutant("7.2", "a tiny step", "hardly moves", epoch(|p, e| part(p, e, |_, _| 1e-3))),
        mutant("7.2", "prompts confused", "by its own points", epoch(rotated)),
        mutant("7.2", "no reward", "chance gives", epoch(|_, _| 0.0)),
    ]
}

fn exercise_7_3() -> Vec<Mutant> {
    vec![mutant(
        "7.3",
        "as it was handed out",
        "follow the arguments",
        replayed_run(exercises::ch07::replayed_run),
    )]
}
