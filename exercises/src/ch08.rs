//! Chapter 8, networks and adapters: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

// ANCHOR: guided_velocity
/// **8.1** Guidance. The velocity at the guidance scale `scale`, from the velocities with and without
/// the prompt. At scale 1 it is the velocity with the prompt, at 0 the one without.
pub fn guided_velocity(with: &[f64], without: &[f64], scale: f64) -> Vec<f64> {
    todo!("8.1: the guided velocity")
}
// ANCHOR_END: guided_velocity

// ANCHOR: merged
/// **8.2** Merging an adapter. Find the matrix that gives `X·W + (alpha/rank)·(X·D)·U` in one
/// product, whatever `X` is. A matrix is a list of rows: `weights` has inputs × outputs numbers,
/// `down` inputs × rank, `up` rank × outputs.
///
/// In the book: *Adapters*.
pub fn merged(
    weights: &[Vec<f64>],
    down: &[Vec<f64>],
    up: &[Vec<f64>],
    alpha: f64,
) -> Vec<Vec<f64>> {
    todo!("8.2: W + alpha/rank · D·U")
}
// ANCHOR_END: merged

// ANCHOR: lag
/// **8.3** The lag of an average. The moving average `average ← decay·average + (1 − decay)·weight`
/// follows a weight that grows by 1 per update. By how much is it behind, after many updates?
///
/// Hint: when the lag is constant, the average grows by 1 per update too.
pub fn lag(decay: f64) -> f64 {
    todo!("8.3: weight − average, after many updates")
}
// ANCHOR_END: lag
