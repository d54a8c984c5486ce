//! Chapter 13, after Flow-GRPO: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

// ANCHOR: flow_cps_step
/// **13.1** Another transition. A step of Flow-CPS from `t` to `next` at the noise level `eta`, with the
/// standard normal draw `noise`. It estimates both ends from the velocity, and mixes them as the flow
/// does at `next`; a part of the noise end is replaced by new noise, so that the noise of `x′` still
/// has the variance `next²`:
///
/// ```text
/// x' = (1 − next)·x̂₀ + kept·x̂₁ + std·noise        std = next·sin(eta·π/2),  kept² + std² = next²
/// ```
///
/// The paper is arXiv 2509.05952. At `eta = 0` the step is the ODE's.
pub fn flow_cps_step(x: f64, velocity: f64, t: f64, next: f64, eta: f64, noise: f64) -> f64 {
    todo!("13.1: x after a step of Flow-CPS")
}
// ANCHOR_END: flow_cps_step
