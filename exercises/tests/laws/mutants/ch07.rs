use exercises::{
    Noise,
    laws::ch07::*,
    solutions::ch07 as right,
    toy::{GROUP, LEARNING_RATE, NOISE_LEVEL, PROMPTS, Policy, STEPS, Step, reward, step},
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

/// How an epoch goes wrong.
struct Wrong {
    /// The factor of a gradient, from the std of its step.
    weight: fn(f64) -> f64,
    /// An advantage, from the rewards of the group and the row.
    advantage: fn(&[f64], usize) -> f64,
    /// Whether the point moves on before its gradient is taken.
    after: bool,
    level: f64,
}

const RIGHT: Wrong = Wrong {
    weight: |std| std * std,
    advantage: |rewards, row| (rewards[row] - moments(rewards)[0]) / (moments(rewards)[1] + 1e-3),
    after: false,
    level: NOISE_LEVEL,
};

/// The mean and the standard deviation.
fn moments(rewards: &[f64]) -> [f64; 2] {
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    let squares = rewards.iter().map(|r| (r - mean).powi(2)).sum::<f64>();
    [mean, (squares / rewards.len() as f64).sqrt()]
}

fn wrong_epoch(policy: &mut Policy, noise: &mut Noise, wrong: &Wrong) -> f64 {
    let (sampled, mut sum) = (policy.clone(), 0.0);
    for prompt in 0..PROMPTS {
        let (mut rewards, mut gradients) = (Vec::new(), Vec::new());
        for _ in 0..GROUP {
            let mut x = [noise.normal(), noise.normal()];
            let mut of_row = [[0.0; 2]; STEPS];
            for (i, gradient) in of_row.iter_mut().enumerate() {
                let step = step(i, wrong.level);
                let at = |x: [f64; 2]| {
                    let v = sampled.velocity(x, prompt, i);
                    [0, 1].map(|k: usize| step.latent * x[k] + step.velocity * v[k])
                };
                let next = at(x).map(|mean| mean + step.std * noise.normal());
                if step.std > 0.0 {
                    let mean = at(if wrong.after { next } else { x });
                    let size = (wrong.weight)(step.std) * step.velocity / step.std.powi(2);
                    *gradient = [0, 1].map(|k: usize| size * (next[k] - mean[k]));
                }
                x = next;
            }
            rewards.push(reward(x, prompt));
            gradients.push(of_row);
        }
        for (row, of_row) in gradients.iter().enumerate() {
            let size = LEARNING_RATE * (wrong.advantage)(&rewards, row) / GROUP as f64;
            for (shift, gradient) in policy.shifts[prompt].iter_mut().zip(of_row) {
                for k in 0..2 {
                    shift[k] += size * gradient[k];
                }
            }
        }
        sum += moments(&rewards)[0];
    }
    sum / PROMPTS as f64
}

pub fn all() -> Vec<Mutant> {
    [
        exercise_7_1(),
        exercise_7_2(),
        exercise_7_2_factors(),
        exercise_7_2_advantages(),
        exercise_7_3(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn exercise_7_1() -> Vec<Mutant> {
    vec![
        mutant(
            "7.1",
            "by the mean",
            "derivative with respect to the mean",
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
        mutant("7.2", "downhill", "and not subtracted", epoch(|p, e| part(p, e, |_, _| -1.0))),
        mutant("7.2", "nothing moves", "changed nothing", epoch(|p, e| part(p, e, |_, _| 0.0))),
        mutant("7.2", "a tiny step", "0.001 times", epoch(|p, e| part(p, e, |_, _| 1e-3))),
        mutant("7.2", "prompts confused", "of another prompt", epoch(rotated)),
        mutant(
            "7.2",
            "an unknown mistake",
            "(root mean square) instead of",
            epoch(|p, e| part(p, e, |_, i| if i < 4 { 0.0 } else { 1.0 })),
        ),
        mutant("7.2", "no reward", "chance gives", epoch(|_, _| 0.0)),
    ]
}

fn exercise_7_2_factors() -> Vec<Mutant> {
    vec![
        mutant(
            "7.2",
            "a sum over the group",
            "the sum over the group",
            epoch(|p, e| part(p, e, |_, _| GROUP as f64)),
        ),
        mutant(
            "7.2",
            "divided by G twice",
            "divided by GROUP twice",
            epoch(|p, e| part(p, e, |_, _| 1.0 / GROUP as f64)),
        ),
        mutant(
            "7.2",
            "a mean over all points",
            "the points of all prompts",
            epoch(|p, e| part(p, e, |_, _| 1.0 / PROMPTS as f64)),
        ),
        mutant(
            "7.2",
            "no learning rate",
            "LEARNING_RATE is missing",
            epoch(|p, e| part(p, e, |_, _| 1.0 / LEARNING_RATE)),
        ),
        mutant(
            "7.2",
            "no std²",
            "std² is missing",
            epoch(|p, e| wrong_epoch(p, e, &Wrong { weight: |_| 1.0, ..RIGHT })),
        ),
        mutant(
            "7.2",
            "std for std²",
            "and not std",
            epoch(|p, e| wrong_epoch(p, e, &Wrong { weight: |std| std, ..RIGHT })),
        ),
        mutant(
            "7.2",
            "std² twice",
            "applied twice",
            epoch(|p, e| wrong_epoch(p, e, &Wrong { weight: |std| std.powi(4), ..RIGHT })),
        ),
    ]
}

fn exercise_7_2_advantages() -> Vec<Mutant> {
    vec![
        mutant(
            "7.2",
            "no baseline",
            "There is no baseline",
            epoch(|p, e| {
                wrong_epoch(
                    p,
                    e,
                    &Wrong { advantage: |r, row| r[row] / (moments(r)[1] + 1e-3), ..RIGHT },
                )
            }),
        ),
        mutant(
            "7.2",
            "no std in the advantage",
            "not divided by the group's std",
            epoch(|p, e| {
                wrong_epoch(p, e, &Wrong { advantage: |r, row| r[row] - moments(r)[0], ..RIGHT })
            }),
        ),
        mutant(
            "7.2",
            "the reward",
            "stands for the advantage",
            epoch(|p, e| wrong_epoch(p, e, &Wrong { advantage: |r, row| r[row], ..RIGHT })),
        ),
        mutant(
            "7.2",
            "another row's advantage",
            "of another point",
            epoch(|p, e| {
                wrong_epoch(
                    p,
                    e,
                    &Wrong { advantage: |r, row| (RIGHT.advantage)(r, (row + 1) % GROUP), ..RIGHT },
                )
            }),
        ),
        mutant(
            "7.2",
            "the point moves on too early",
            "at the point to which it leads",
            epoch(|p, e| wrong_epoch(p, e, &Wrong { after: true, ..RIGHT })),
        ),
        mutant(
            "7.2",
            "no noise",
            "all but the last",
            epoch(|p, e| wrong_epoch(p, e, &Wrong { level: 0.0, ..RIGHT })),
        ),
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
