//! Which known mistake moves a policy as a wrong epoch of 7.2 does.
//!
//! An epoch is random, and an answer may draw in any order. So the mean changes of the shifts over many
//! epochs are compared, and how much they scatter.

use crate::{
    Noise,
    toy::{GROUP, LEARNING_RATE, NOISE_LEVEL, PROMPTS, Point, Policy, STEPS, center, reward, step},
};

const EPOCHS: usize = 200;
/// The number of steps that draw noise.
const RANDOM: usize = STEPS - 1;

/// The mean change of a shift in each random step: towards the cluster that is asked for, towards that
/// of the next prompt, and its root mean square.
type Print = [[f64; 3]; RANDOM];

/// A way to make changes of a group.
#[derive(Clone, Copy)]
struct Rule {
    /// A gradient is multiplied by this power of the step's std.
    power: i32,
    /// The share of the group's mean that is subtracted.
    baseline: f64,
    /// Whether an advantage is divided by the group's std.
    spread: bool,
    factor: f64,
    /// Takes the advantage of a row that is so much later.
    row: usize,
    /// Takes the group of a prompt that is so much later.
    prompt: usize,
    /// Takes the gradient at the point after the step.
    after: bool,
}

const RIGHT: Rule =
    Rule { power: 2, baseline: 1.0, spread: true, factor: 1.0, row: 0, prompt: 0, after: false };

const KNOWN: [(Rule, &str); 15] = [
    (
        Rule { factor: -1.0, ..RIGHT },
        "It runs away from the reward: advantage times gradient is added, and not subtracted.",
    ),
    (
        Rule { factor: GROUP as f64, ..RIGHT },
        "The shifts move by the sum over the group, and should by the mean.",
    ),
    (
        Rule { factor: 1.0 / GROUP as f64, ..RIGHT },
        "The mean over the group is divided by GROUP twice.",
    ),
    (
        Rule { factor: 1.0 / PROMPTS as f64, ..RIGHT },
        "The mean is over the points of all prompts, and should be over those of a group.",
    ),
    (Rule { factor: 1.0 / LEARNING_RATE, ..RIGHT }, "LEARNING_RATE is missing."),
    (Rule { power: 0, ..RIGHT }, "The factor std² is missing: quiet steps move most."),
    (Rule { power: 1, ..RIGHT }, "The factor of a step is std², and not std."),
    (Rule { power: 4, ..RIGHT }, "The factor std² is applied twice."),
    (
        Rule { baseline: 0.0, ..RIGHT },
        "There is no baseline: subtract the mean reward of the group.",
    ),
    (Rule { spread: false, ..RIGHT }, "The advantages are not divided by the group's std."),
    (
        Rule { spread: false, baseline: 0.0, ..RIGHT },
        "The reward stands for the advantage: subtract the group's mean, and divide by its std.",
    ),
    (Rule { row: 1, ..RIGHT }, "The steps of a point get the advantage of another point."),
    (
        Rule { prompt: 1, ..RIGHT },
        "The shifts of a prompt are moved by the points of another prompt.",
    ),
    (
        Rule { prompt: PROMPTS - 1, ..RIGHT },
        "The shifts of a prompt are moved by the points of another prompt.",
    ),
    (
        Rule { after: true, ..RIGHT },
        "The gradient of a step is taken at the point to which it leads. Keep the point at which it starts.",
    ),
];

/// The mistake that moves a policy as this epoch does; or how it differs from a right one.
pub fn why(answer: impl Fn(&mut Policy, &mut Noise) -> f64) -> String {
    let start = leaning();
    let mut noise = Noise::new(721);
    let changes: Vec<_> = (0..EPOCHS)
        .map(|_| {
            let mut policy = start.clone();
            answer(&mut policy, &mut noise);
            let moved = |p: usize, i: usize| {
                [0, 1].map(|k: usize| policy.shifts[p][i][k] - start.shifts[p][i][k])
            };
            [0, 1, 2, 3].map(|p| std::array::from_fn(|i| moved(p, i)))
        })
        .collect();
    let got = print(&changes);
    let epochs: Vec<_> = (0..EPOCHS).map(|_| groups(&start, &mut noise)).collect();
    let of =
        |rule: &Rule| print(&epochs.iter().map(|groups| change(groups, rule)).collect::<Vec<_>>());
    let known = KNOWN.iter().map(|(rule, why)| (distance(got, of(rule)), *why));
    match known.min_by(|(a, _), (b, _)| a.total_cmp(b)) {
        Some((far, why)) if far < 0.08 => why.into(),
        _ => compared(got, of(&RIGHT)),
    }
}

/// A policy whose prompts lean to their clusters, so that rewards are far from zero.
fn leaning() -> Policy {
    let mut policy = Policy::base();
    for (prompt, shifts) in policy.shifts.iter_mut().enumerate() {
        shifts[..STEPS / 2].fill(center(2 * prompt).map(|c| -2.0 * c));
    }
    policy
}

/// A point: its reward, and its gradients in the random steps, at the start of each and at its end.
struct Row {
    reward: f64,
    gradients: [[Point; 2]; RANDOM],
}

fn groups(policy: &Policy, noise: &mut Noise) -> Vec<Vec<Row>> {
    let row = |prompt: usize, noise: &mut Noise| {
        let mut x = [noise.normal(), noise.normal()];
        let mut gradients = [[[0.0; 2]; 2]; RANDOM];
        for (i, gradients) in gradients.iter_mut().enumerate() {
            let step = step(i, NOISE_LEVEL);
            let mean = policy.mean(x, prompt, i);
            let next = mean.map(|mean| mean + step.std * noise.normal());
            let factor = step.velocity / step.std.powi(2);
            *gradients = [mean, policy.mean(next, prompt, i)]
                .map(|mean| [0, 1].map(|k: usize| factor * (next[k] - mean[k])));
            x = next;
        }
        x = policy.mean(x, prompt, RANDOM);
        Row { reward: reward(x, prompt), gradients }
    };
    let mut group = |prompt| (0..GROUP).map(|_| row(prompt, noise)).collect();
    (0..PROMPTS).map(&mut group).collect()
}

type Change = [[Point; RANDOM]; PROMPTS];

/// The change of the shifts by a rule.
fn change(groups: &[Vec<Row>], rule: &Rule) -> Change {
    let mut change = [[[0.0; 2]; RANDOM]; PROMPTS];
    for (prompt, shifts) in change.iter_mut().enumerate() {
        let rows = &groups[(prompt + rule.prompt) % PROMPTS];
        let rewards: Vec<f64> = rows.iter().map(|row| row.reward).collect();
        let center = super::mean(&rewards);
        let spread = if rule.spread { crate::laws::variance(&rewards).sqrt() + 1e-3 } else { 1.0 };
        for (at, row) in rows.iter().enumerate() {
            let reward = rewards[(at + rule.row) % GROUP];
            let advantage = (reward - rule.baseline * center) / spread;
            for (i, shift) in shifts.iter_mut().enumerate() {
                let size = rule.factor * LEARNING_RATE * step(i, NOISE_LEVEL).std.powi(rule.power);
                for (k, shift) in shift.iter_mut().enumerate() {
                    let gradient = row.gradients[i][usize::from(rule.after)][k];
                    *shift += size * advantage * gradient / GROUP as f64;
                }
            }
        }
    }
    change
}

fn print(changes: &[Change]) -> Print {
    let mut print = [[0.0; 3]; RANDOM];
    let count = (changes.len() * PROMPTS) as f64;
    for (prompt, shifts) in changes.iter().flat_map(|change| change.iter().enumerate()) {
        // A velocity points from data to noise.
        let towards = |cluster: usize, shift: &Point| {
            let center = center(cluster);
            -(shift[0] * center[0] + shift[1] * center[1]) / 2.0
        };
        for (sums, shift) in print.iter_mut().zip(shifts) {
            sums[0] += towards(2 * prompt, shift) / count;
            sums[1] += towards(2 * prompt + 2, shift) / count;
            sums[2] += f64::midpoint(shift[0].powi(2), shift[1].powi(2)) / count;
        }
    }
    print.map(|[own, side, square]| [own, side, square.sqrt()])
}

/// How far a print is from that of a rule, in units of the rule's scatter.
fn distance(got: Print, of: Print) -> f64 {
    let far = |(got, of): (&[f64; 3], &[f64; 3])| {
        (got[0] - of[0]).abs() / of[2]
            + (got[1] - of[1]).abs() / of[2]
            + (got[2] / of[2]).ln().abs()
    };
    got.iter().zip(&of).map(far).sum::<f64>() / (3 * RANDOM) as f64
}

/// How an epoch differs from a right one, if nobody knows why.
fn compared(got: Print, right: Print) -> String {
    let factor = got[0][2] / right[0][2];
    if distance(got, right.map(|step| step.map(|x| factor * x))) < 0.08 {
        return format!("Every shift moves {factor:.3} times as far as it should, the right way.");
    }
    let off = |i: usize| {
        (got[i][2] / right[i][2]).ln().abs() + (got[i][0] - right[i][0]).abs() / right[i][2]
    };
    let i = (0..RANDOM).max_by(|a, b| off(*a).total_cmp(&off(*b))).unwrap_or(0);
    format!(
        "An epoch from a policy that leans to its prompts moves the shifts of step {i} by {:.3} (root mean square) instead of {:.3}, of this {:.3} towards the rewarded cluster instead of {:.3}.",
        got[i][2], right[i][2], got[i][0], right[i][0]
    )
}
