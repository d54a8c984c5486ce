//! The law of chapter 10, *Reading a run*.

use crate::{
    Fault, Noise, Verdict,
    epochs::{Ailment, Epoch},
};

const AILMENTS: [Ailment; 6] = [
    Ailment::Healthy,
    Ailment::ReplayDiffers,
    Ailment::RateTooHigh,
    Ailment::NoSpread,
    Ailment::Hacked,
    Ailment::Collapsed,
];

/// A run of 100 epochs with an ailment.
fn run(of: Ailment, seed: u64) -> Vec<Epoch> {
    let mut noise = Noise::new(seed);
    let (start, end) = (noise.between(0.2, 0.5), noise.between(0.75, 0.95));
    let half = noise.between(20.0, 40.0);
    let turn = noise.between(35.0, 60.0);
    (0..100)
        .map(|epoch| {
            let at = f64::from(epoch);
            let learnt = 1.0 - (-at / half).exp();
            let mut jitter = |by: f64| by * noise.normal();
            let reward = start + (end - start) * learnt + jitter(0.03);
            let mut line = Epoch {
                reward,
                gold: reward - 0.05 + jitter(0.03),
                zero_spread: 0.1 + 0.3 * learnt + jitter(0.03),
                on_policy: 1e-6 * (1.0 + jitter(0.2)).abs(),
                ratio_spread: 1.5 + jitter(0.3),
                diversity: 0.3 - 0.07 * learnt + jitter(0.01),
            };
            match of {
                Ailment::Healthy => {}
                Ailment::ReplayDiffers => line.on_policy = 0.02 * (1.0 + jitter(0.3)).abs(),
                Ailment::RateTooHigh => {
                    line.ratio_spread = 40.0 + jitter(10.0);
                    line.reward = start + jitter(0.1);
                    line.gold = line.reward - 0.05 + jitter(0.03);
                    line.zero_spread = 0.3 + jitter(0.05);
                }
                Ailment::NoSpread => {
                    line.reward = 0.02 + jitter(0.005).abs();
                    line.gold = 0.02 + jitter(0.005).abs();
                    line.zero_spread = 0.95 + jitter(0.01);
                    line.ratio_spread = 0.1 + jitter(0.02).abs();
                }
                Ailment::Hacked => {
                    line.gold -= ((at - turn) / 60.0).max(0.0) * (end - start).max(0.5);
                }
                Ailment::Collapsed => line.diversity *= 1.0 - 0.9 * learnt,
            }
            line
        })
        .collect()
}

fn telling(of: Ailment) -> &'static str {
    match of {
        Ailment::Healthy => {
            "Nothing is out of its range there: fewer groups with spread near the end, and a slow fall of diversity, are health."
        }
        Ailment::ReplayDiffers => {
            "Before the first update, |log ρ| is rounding in a healthy run; there it is .02."
        }
        Ailment::RateTooHigh => {
            "Its ratio spreads over tens of clip ranges, and the reward jumps and does not rise."
        }
        Ailment::NoSpread => {
            "Nearly all of its groups have no spread and hardly any reward: the task is hopeless."
        }
        Ailment::Hacked => "Its reward rises to the end; gold has fallen from its best.",
        Ailment::Collapsed => {
            "Its diversity falls to a fraction of what it was, while reward and gold look well."
        }
    }
}

/// 10.1: 20 runs of each kind.
pub fn diagnose(answer: fn(&[Epoch]) -> Ailment) -> Verdict {
    for ailment in AILMENTS {
        for seed in 0..20 {
            let got = answer(&run(ailment, 1000 + seed));
            if got != ailment {
                let finding =
                    format!("A run that is {ailment:?} (seed {seed}) was called {got:?}.");
                return Err(Fault::with(finding, telling(ailment)));
            }
        }
    }
    Ok(())
}
