//! The laws of chapter 7, *The whole loop*.

mod wrong_epochs;

use super::{curve, mean};
use crate::{
    Curve, Fault, Noise, Verdict, numbers, require,
    toy::{NOISE_LEVEL, Point, Policy, STEPS, Step, step},
};

/// 7.1 against finite differences of the log density.
pub fn log_prob_gradient(answer: fn(&Step, Point, Point, Point) -> Point) -> Verdict {
    let mut noise = Noise::new(71);
    for i in 0..STEPS - 1 {
        let step = step(i, NOISE_LEVEL);
        let [x, v, next] = [(); 3].map(|()| [noise.normal(), noise.normal()]);
        let distance = [0, 1].map(|k: usize| next[k] - step.latent * x[k] - step.velocity * v[k]);
        let times = |factor: f64| distance.iter().map(|d| factor * d).collect::<Vec<_>>();
        let s2 = step.std.powi(2);
        let dt = -1.0 / STEPS as f64;
        let of = format!(
            "In step {i} (t = {:.1}, std = {:.3}) the gradients with respect to the two elements",
            step.t, step.std
        );
        numbers(
            of,
            &answer(&step, x, v, next),
            &times(step.velocity / s2),
            &[
                (
                    times(1.0 / s2),
                    "That is the derivative with respect to the mean; the mean has the velocity with the factor step.velocity.",
                ),
                (
                    times(-step.velocity / s2),
                    "The sign is wrong: (next − mean)/std² times step.velocity, which is negative.",
                ),
                (times(step.velocity / step.std), "Divide by the variance std², and not by std."),
                (
                    times(step.velocity),
                    "The division by std² is missing: quiet steps have large gradients.",
                ),
                (
                    times(2.0 * step.velocity / s2),
                    "The ½ of −(next − mean)²/2s² cancels the 2 of the square.",
                ),
                (
                    times(dt / s2),
                    "The velocity has the factor step.velocity = (1 + a²/2)Δt, because the score has it too.",
                ),
            ],
        )?;
    }
    Ok(())
}

type Epoch = fn(&mut Policy, &mut Noise) -> f64;

/// 7.2: 80 epochs reach a mean reward of 0.9, for two seeds.
pub fn epoch(answer: Epoch) -> Verdict {
    for seed in [1, 2] {
        let (mut policy, mut noise) = (Policy::base(), Noise::new(720 + seed));
        let before = policy.score(&mut Noise::new(7), NOISE_LEVEL);
        let first = answer(&mut policy, &mut noise);
        require(
            (0.02..0.3).contains(&first),
            format!("The first epoch reports a mean reward of {first:.3}; chance gives about 0.1."),
            "Return the mean reward of all points. If it is low, follow a point: does it go from noise to a cluster?",
        )?;
        require(
            policy != Policy::base(),
            "An epoch changed nothing.",
            "`policy.shifts` moves in every step that draws noise; at NOISE_LEVEL these are all but the last.",
        )?;
        require(
            policy.shifts.iter().all(|shifts| shifts[STEPS - 1] == [0.0; 2]),
            "The shift of the last step has changed.",
            "The last step draws no noise, so it has no density and no gradient.",
        )?;
        for _ in 1..80 {
            answer(&mut policy, &mut noise);
        }
        let after = policy.score(&mut Noise::new(7), NOISE_LEVEL);
        let finding = format!(
            "After 80 epochs the mean reward is {after:.3}; it was {before:.3} and should be 0.9."
        );
        let why = if after > 0.9 { String::new() } else { wrong_epochs::why(answer) };
        require(after > 0.9, finding, &why)?;
    }
    Ok(())
}

/// 7.3: the replay is the rollout, and the run learns.
pub fn replayed_run(answer: fn() -> Vec<Curve>) -> Verdict {
    let curves = answer();
    let deviation = curve(&curves, "mean |log ratio| in the first update")?;
    let rewards = curve(&curves, "reward")?;
    let end = mean(&rewards[rewards.len().saturating_sub(5)..]);
    let largest = deviation.iter().fold(0.0_f64, |largest, x| largest.max(*x));
    if largest > 1e-9 {
        let finding = format!(
            "Before the first update of an epoch nothing has moved, and the mean |log ρ| is up to {largest:.3} instead of 0; the mean reward ends at {end:.3}."
        );
        return Err(Fault::with(
            finding,
            "The replay does not compute what the rollout did: follow the arguments of a transition from one to the other.",
        ));
    }
    require(
        end > 0.8,
        format!(
            "The replay is the rollout; the mean reward ends at {end:.3}, and a healthy run's above 0.8."
        ),
        "",
    )
}
