// ANCHOR: gaussian_velocity
/// 1.1: `Cov(x₁ − x₀, x_t) / V_t · x`.
pub fn gaussian_velocity(x: f64, t: f64, variance: f64) -> f64 {
    let covariance = t - (1.0 - t) * variance;
    let marginal = (1.0 - t).powi(2) * variance + t * t;
    covariance / marginal * x
}
// ANCHOR_END: gaussian_velocity

// ANCHOR: both_ends
/// 1.2: add `t` or `1 − t` times the velocity.
pub fn both_ends(x: f64, velocity: f64, t: f64) -> [f64; 2] {
    [x - t * velocity, x + (1.0 - t) * velocity]
}
// ANCHOR_END: both_ends

// ANCHOR: velocity_of_images
/// 1.3: the mean image is a weighted mean, with the densities of `x` given each image as weights. All are
/// divided by the largest one, so that this has the weight 1, and not all are rounded to zero.
pub fn velocity_of_images(x: f64, t: f64, images: &[f64]) -> f64 {
    let exponent = |image: f64| -(x - (1.0 - t) * image).powi(2) / (2.0 * t * t);
    let largest = images.iter().fold(f64::NEG_INFINITY, |most, image| most.max(exponent(*image)));
    let weight = |image: f64| (exponent(image) - largest).exp();
    let all: f64 = images.iter().map(|image| weight(*image)).sum();
    let mean_image = images.iter().map(|image| weight(*image) * image).sum::<f64>() / all;
    (x - mean_image) / t
}
// ANCHOR_END: velocity_of_images

// ANCHOR: fit_velocity
/// 1.4: the derivative `Σ 2·x_t·(slope·x_t − target)` is zero at `Σ x_t·target / Σ x_t²`.
pub fn fit_velocity(pairs: &[[f64; 2]], t: f64) -> f64 {
    let point = |pair: &[f64; 2]| (1.0 - t) * pair[0] + t * pair[1];
    let product: f64 = pairs.iter().map(|pair| point(pair) * (pair[1] - pair[0])).sum();
    product / pairs.iter().map(|pair| point(pair).powi(2)).sum::<f64>()
}
// ANCHOR_END: fit_velocity

// ANCHOR: heun_step
/// 1.5: the second velocity is that of the predicted point, at the time of the predicted point.
pub fn heun_step(velocity: &dyn Fn(f64, f64) -> f64, x: f64, t: f64, next: f64) -> f64 {
    let first = velocity(x, t);
    let second = velocity(x + first * (next - t), next);
    x + 0.5 * (first + second) * (next - t)
}
// ANCHOR_END: heun_step
