//! Chapter 5, *The sampler as a policy*: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

// ANCHOR: step_log_prob
/// **5.1** The log-probability of a step: the log density at `next` of a Gaussian with this `mean` and
/// the standard deviation `std` in every element. The sum over the elements.
///
/// In the book: *The log-probability*.
pub fn step_log_prob(next: &[f64], mean: &[f64], std: f64) -> f64 {
    todo!("5.1: the log density of next")
}
// ANCHOR_END: step_log_prob

// ANCHOR: ratio
/// **5.2** The ratio of the new to the old policy at `next`: the ratio of the densities, and not its
/// geometric mean over the elements. Both have the standard deviation `std`.
///
/// In the book: *Using a sample twice*, in chapter 4. If both means are equal, it is 1.
pub fn ratio(next: &[f64], mean: &[f64], old_mean: &[f64], std: f64) -> f64 {
    todo!("5.2: π(next) / π_old(next)")
}
// ANCHOR_END: ratio

// ANCHOR: at_the_clip
/// **5.3** What a clip range means, with log-probabilities as means over the elements. (A clip, in the
/// next chapter, removes a transition's gradient when its ratio leaves `1 ± clip` in the direction of
/// its advantage.) By how many standard deviations has the mean of every element moved when the root
/// mean square of the mean log-ratio is the clip range `clip`? And how many nats has a log density ratio
/// at the clip range? Returns `[shift, nats]`.
///
/// In the book: *A mean where a sum should be*. Hint: a mean square is a square of the mean plus a
/// variance; solve for the square of the shift.
pub fn at_the_clip(clip: f64, elements: usize) -> [f64; 2] {
    todo!("5.3: [shift in standard deviations, log density ratio in nats]")
}
// ANCHOR_END: at_the_clip

// ANCHOR: step_kl
/// **5.4** The KL divergence of a step of the SDE from `t` to `next`, between the policy with this
/// `velocity` and the one with the `reference` velocity. The diffusion `sigma` may have any value.
///
/// In the book: *The KL divergence in closed form* takes Flow-GRPO's `σ_t = a·√(t/(1−t))`, and
/// *Euler-Maruyama* in chapter 3 has the step for every `σ_t`. Your answer must hold at `t = 1` too.
pub fn step_kl(velocity: &[f64], reference: &[f64], t: f64, next: f64, sigma: f64) -> f64 {
    todo!("5.4: the KL divergence of a step")
}
// ANCHOR_END: step_kl

// ANCHOR: seen_share
/// **5.5** The share of the gradient that random steps see. Ten equal steps, of which the first
/// `random` draw noise at the level `a = level` and the others are ODE steps; data `N(0, data)`,
/// reward `x₀`, and the same change of the velocity in all steps. A step contributes its push (the
/// factor of the velocity) times the gains of the later steps; the score function sees the
/// contributions of the random steps alone. The gain of a step is the derivative of its mean with
/// respect to `x`, where the velocity is a multiple of `x` too. An ODE step has no noise, so its mean
/// has no score term: `σ_t` is 0 in its push and in its gain.
///
/// In the book: the table of *Steps without noise*. The velocity of Gaussian data is in chapter 1. In
/// the step from `t = 1`, take `1 − next` for `1 − t` in `σ_t`.
pub fn seen_share(random: usize, level: f64, data: f64) -> f64 {
    todo!("5.5: what the random steps contribute / what all steps contribute")
}
// ANCHOR_END: seen_share
