//! Chapter 11, *When a reward is hacked*: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

// ANCHOR: best_pressure
/// **11.1** The best pressure. Gold is `y₁ − y₂²/4`, and the proxy is `y₁ + liking·y₂`; both
/// numbers are standard normal in the base model's images. Training moves the images to the base
/// model times `e^(proxy/β)`. At which pressure `1/β` is the mean gold largest?
///
/// In the book: *Why more reward can be worse*, where `liking = 1`.
pub fn best_pressure(liking: f64) -> f64 {
    todo!("11.1: the pressure with the largest mean gold")
}
// ANCHOR_END: best_pressure

// ANCHOR: next_weight
/// **11.2** A controller that holds. The KL weight of the next epoch, from the `weight` and the
/// `divergence` of this one. It should bring the divergence to `target`; `rate` says how fast.
///
/// The law wants: no change at the target; up above it and down below; never by more than a fifth of
/// `rate` in an epoch (divergences are noisy and answer late); never to zero or below. In the book:
/// *Doing something*.
pub fn next_weight(weight: f64, divergence: f64, target: f64, rate: f64) -> f64 {
    todo!("11.2: the next weight of the KL penalty")
}
// ANCHOR_END: next_weight

// ANCHOR: stops_at
/// **11.3** A rule that stops in time. The index of the first evaluation at which gold has fallen by at
/// least `by` from its highest value so far, if there is one.
///
/// In the book: `rules`, under *Doing something*.
pub fn stops_at(gold: &[f64], by: f64) -> Option<usize> {
    todo!("11.3: when the rule acts")
}
// ANCHOR_END: stops_at
