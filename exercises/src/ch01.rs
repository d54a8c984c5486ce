//! Chapter 1, *Flow matching*: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

// ANCHOR: gaussian_velocity
/// **1.1** The velocity of a Gaussian. The data is `N(0, variance)`: what is `v(x, t)`?
///
/// In the book: *Walking: Euler steps*. Hint: conditional mean = covariance / variance · condition.
pub fn gaussian_velocity(x: f64, t: f64, variance: f64) -> f64 {
    todo!("1.1: the velocity of a Gaussian")
}
// ANCHOR_END: gaussian_velocity

// ANCHOR: both_ends
/// **1.2** Both ends from the velocity: the mean image and the mean noise, `[x̂₀, x̂₁]`.
///
/// In the book: *Both ends from the velocity*. Solve `x = (1−t)·x̂₀ + t·x̂₁`, `v = x̂₁ − x̂₀`.
pub fn both_ends(x: f64, velocity: f64, t: f64) -> [f64; 2] {
    todo!("1.2: both ends from the velocity")
}
// ANCHOR_END: both_ends

// ANCHOR: velocity_of_images
/// **1.3** The velocity of a data set. The data is a list of numbers, all equally likely: what is
/// `v(x, t)`? The example with two images has `images = [-1, 1]`. Your answer must hold down to
/// `t = 0.003`, where an `f64` rounds most densities to zero.
///
/// In the book: *A path from noise to data*. Hint: Bayes' rule gives each image its probability, given
/// `x`; then `x̂₀` is their weighted mean, and `v = (x − x̂₀)/t`. Only the quotients of the densities
/// matter.
pub fn velocity_of_images(x: f64, t: f64, images: &[f64]) -> f64 {
    todo!("1.3: the velocity of a data set")
}
// ANCHOR_END: velocity_of_images

// ANCHOR: fit_velocity
/// **1.4** Learning the velocity. `pairs` has drawn pairs `[x₀, x₁]`. Fit the field `v(x) = slope·x` at
/// the time `t`, as flow matching does: with the smallest mean of `(slope·x_t − target)²`.
///
/// In the book: *Learning the velocity*. Hint: set the derivative with respect to `slope` to zero; no loop of gradient
/// steps is needed.
pub fn fit_velocity(pairs: &[[f64; 2]], t: f64) -> f64 {
    todo!("1.4: the best slope")
}
// ANCHOR_END: fit_velocity

// ANCHOR: heun_step
/// **1.5** Heun's step from `t` to `next`. An Euler step predicts where the point goes. Heun takes the
/// velocity there too, and steps with the mean of both.
///
/// Halving the step must quarter the error, where Euler's error is halved.
pub fn heun_step(velocity: &dyn Fn(f64, f64) -> f64, x: f64, t: f64, next: f64) -> f64 {
    todo!("1.5: Heun's step; velocity(x, t) is the field")
}
// ANCHOR_END: heun_step
