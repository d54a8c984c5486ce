//! Chapter 2, *Noise*: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

use crate::Noise;

// ANCHOR: euler_maruyama_step
/// **2.1** A step of `dx = drift·dt + sigma·dw`, of duration `h`, with the standard normal draw
/// `noise`.
///
/// In the book: *A random walk*.
pub fn euler_maruyama_step(x: f64, drift: f64, sigma: f64, h: f64, noise: f64) -> f64 {
    todo!("2.1: x after a step of duration h")
}
// ANCHOR_END: euler_maruyama_step

// ANCHOR: resting_variance
/// **2.2** Where a spring comes to rest. `dx = −pull·x·dt + sigma·dw` is walked in steps of duration
/// `h`. Which variance stays the same in such a step?
///
/// In the book: *A spring against the noise*, where `pull = sigma = 1`. The answer depends on `h`.
pub fn resting_variance(h: f64, pull: f64, sigma: f64) -> f64 {
    todo!("2.2: the variance that a step of duration h keeps")
}
// ANCHOR_END: resting_variance

// ANCHOR: mixture_score
/// **2.3** The score of a mixture: Gaussians with these means, all with the same variance and equally
/// likely. What is the derivative of the log density at `x`?
///
/// In the book: *The score of a mixture is a mean of scores*. Hint: which part did `x` come from?
pub fn mixture_score(x: f64, means: &[f64], variance: f64) -> f64 {
    todo!("2.3: the score of a mixture")
}
// ANCHOR_END: mixture_score

// ANCHOR: langevin
/// **2.4** Sampling by the score alone. Find the drift that keeps the density with this `score` under
/// noise of strength `sigma`, and walk every point of `start` for `steps` steps of duration `h`.
/// Returns the points at the end. From anywhere, they come to have the density.
///
/// In the book: *The score*. `noise.normal()` draws a standard normal number.
pub fn langevin(
    score: &dyn Fn(f64) -> f64,
    sigma: f64,
    h: f64,
    steps: usize,
    start: &[f64],
    noise: &mut Noise,
) -> Vec<f64> {
    todo!("2.4: walkers that come to have the density")
}
// ANCHOR_END: langevin
