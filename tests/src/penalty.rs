//! Where a KL penalty leads, on trajectories of two steps with two choices each.
//!
//! The base model chooses with probabilities of ½, and the weight of the penalty is 1. A policy has
//! three logits: of the first choice, and of the second one after a first 0 and after a first 1.

use crate::{backend::numbers, closed_forms::noise};

type Logits = [f64; 3];
/// The reward of a first and a second choice.
type Rewards = [[f64; 2]; 2];

const PATHS: [[usize; 2]; 4] = [[0, 0], [0, 1], [1, 0], [1, 1]];

fn chance(logit: f64, choice: usize) -> f64 {
    let sign = if choice == 1 { 1.0 } else { -1.0 };
    1.0 / (1.0 + (-sign * logit).exp())
}

/// The KL divergence of a choice to the base model's.
fn kl(logit: f64) -> f64 {
    [0, 1].map(|choice| chance(logit, choice)).iter().map(|q| q * (2.0 * q).ln()).sum()
}

/// The loss of GRPO on all trajectories of `old`, each with its probability: ratios times rewards,
/// and the KL of each step at the place that `old` has reached.
fn loss(new: &Logits, old: &Logits, rewards: &Rewards) -> f64 {
    let of_path = |[first, second]: [usize; 2]| {
        let was = [chance(old[0], first), chance(old[1 + first], second)];
        let ratios = chance(new[0], first) / was[0] + chance(new[1 + first], second) / was[1];
        let penalty = kl(new[0]) + kl(new[1 + first]);
        was[0] * was[1] * (penalty - rewards[first][second] * ratios)
    };
    PATHS.map(of_path).iter().sum()
}

/// The KL of whole trajectories less the mean reward, both under `new`.
fn whole(new: &Logits, _old: &Logits, rewards: &Rewards) -> f64 {
    let of_path = |[first, second]: [usize; 2]| {
        let penalty = kl(new[0]) + kl(new[1 + first]);
        chance(new[0], first) * chance(new[1 + first], second) * (penalty - rewards[first][second])
    };
    PATHS.map(of_path).iter().sum()
}

type Loss = fn(&Logits, &Logits, &Rewards) -> f64;

/// The probability of a first 1 where gradient steps come to rest.
fn at_rest(loss: Loss, rewards: &Rewards) -> f64 {
    let mut at = [0.0; 3];
    for _ in 0..4000 {
        let slope = |i: usize| {
            let ends = [1e-4, -1e-4].map(|by| {
                let mut moved = at;
                moved[i] += by;
                loss(&moved, &at, rewards)
            });
            (ends[0] - ends[1]) / 2e-4
        };
        let slopes = [0, 1, 2].map(slope);
        for (logit, slope) in at.iter_mut().zip(slopes) {
            *logit -= slope;
        }
    }
    chance(at[0], 1)
}

/// The mean of `e^reward` over the base model's second choices, for both first choices.
fn tilts(rewards: &Rewards) -> [f64; 2] {
    rewards.map(|after| f64::midpoint(after[0].exp(), after[1].exp()))
}

#[test]
fn the_kl_at_stored_latents_does_not_charge_a_step_for_the_steps_after_it() {
    for seed in 0..20 {
        let drawn = numbers(noise(1, [4, 1, 1], 1000 + seed));
        let rewards = [[drawn[0], drawn[1]], [drawn[2], drawn[3]]];
        let [zero, one] = tilts(&rewards);
        let tilted = one / (zero + one);
        let got = at_rest(whole, &rewards);
        assert!((got - tilted).abs() < 1e-4, "seed {seed}: {got} is not the tilted {tilted}");
        // The second choice is tilted in both; the loss then looks at its mean reward alone.
        let mean = rewards.map(|[a, b]| (a * a.exp() + b * b.exp()) / (a.exp() + b.exp()));
        let expected = chance(mean[1] - mean[0], 1);
        let got = at_rest(loss, &rewards);
        assert!((got - expected).abs() < 1e-4, "seed {seed}: {got} is not {expected}");
    }
    let example = [[1.5, 1.5], [0.0, 3.0]];
    let got = [whole, loss].map(|of: Loss| at_rest(of, &example));
    assert!((got[0] - 0.70).abs() < 0.005 && (got[1] - 0.80).abs() < 0.005, "{got:?}");
}

#[test]
fn where_later_steps_cost_the_same_from_everywhere_the_kl_at_stored_latents_leaves_nothing_out() {
    let rewards = [[0.0, 1.2], [0.7, 1.9]];
    let got = [whole, loss].map(|of: Loss| at_rest(of, &rewards));
    assert!((got[0] - got[1]).abs() < 1e-4, "{got:?}");
}
