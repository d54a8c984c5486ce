// ANCHOR: flow_cps_step
/// 13.1: `kept = next·cos(eta·π/2)`.
pub fn flow_cps_step(x: f64, velocity: f64, t: f64, next: f64, eta: f64, noise: f64) -> f64 {
    let (image, end) = (x - t * velocity, x + (1.0 - t) * velocity);
    let (sin, cos) = (eta * std::f64::consts::FRAC_PI_2).sin_cos();
    (1.0 - next) * image + next * cos * end + next * sin * noise
}
// ANCHOR_END: flow_cps_step
