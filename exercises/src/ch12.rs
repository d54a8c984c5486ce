//! Chapter 12, KL, tilting, and what is optimal: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

// ANCHOR: tilted
/// **12.1** Tilting a density. A list of probabilities, and a reward for each place. Where does a KL
/// penalty of the weight `beta` lead? Returns the probabilities there; they sum to 1.
///
/// In the book: *The KL penalty*, in chapter 6. Rewards may be as large as 10,000 times `beta`, and the
/// answer must stay finite: what may be subtracted from all rewards?
pub fn tilted(probabilities: &[f64], rewards: &[f64], beta: f64) -> Vec<f64> {
    todo!("12.1: probabilities times e^(r/β), normalised")
}
// ANCHOR_END: tilted

// ANCHOR: moved
/// **12.2** How far ODE and SDE part. Data `N(0, data)`, reward `x₀`, a KL penalty of the weight 1, and
/// `steps` equal steps at the noise level `a = level`. Returns how far the mean of the end moves, in
/// units of `data`: `[under the SDE, under the ODE with the same steps]`.
///
/// In the book: *After training, ODE and SDE part*, in chapter 5. Step `i` of the SDE is shifted by
/// `s_i²·P_i`, where `P_i` is the product of the later gains. The same change of the velocity shifts
/// step `i` of the ODE by that, over the factor of the velocity in the SDE's step, times `Δt`.
pub fn moved(steps: usize, level: f64, data: f64) -> [f64; 2] {
    todo!("12.2: [SDE, ODE]")
}
// ANCHOR_END: moved
