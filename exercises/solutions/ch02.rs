use crate::Noise;

// ANCHOR: euler_maruyama_step
/// 2.1: noise has `√h`.
pub fn euler_maruyama_step(x: f64, drift: f64, sigma: f64, h: f64, noise: f64) -> f64 {
    x + drift * h + sigma * h.sqrt() * noise
}
// ANCHOR_END: euler_maruyama_step

// ANCHOR: resting_variance
/// 2.2: solve `V = (1 − pull·h)²·V + sigma²·h`.
pub fn resting_variance(h: f64, pull: f64, sigma: f64) -> f64 {
    sigma.powi(2) / (pull * (2.0 - pull * h))
}
// ANCHOR_END: resting_variance

// ANCHOR: mixture_score
/// 2.3: the mean of the scores `−(x − mean)/variance`, weighted by where `x` came from.
pub fn mixture_score(x: f64, means: &[f64], variance: f64) -> f64 {
    let weight = |mean: f64| (-(x - mean).powi(2) / (2.0 * variance)).exp();
    let all: f64 = means.iter().map(|mean| weight(*mean)).sum();
    means.iter().map(|mean| weight(*mean) / all * (mean - x) / variance).sum()
}
// ANCHOR_END: mixture_score

// ANCHOR: langevin
/// 2.4: the drift `½·sigma²·score` cancels the noise.
pub fn langevin(
    score: &dyn Fn(f64) -> f64,
    sigma: f64,
    h: f64,
    steps: usize,
    start: &[f64],
    noise: &mut Noise,
) -> Vec<f64> {
    let mut points = start.to_vec();
    for _ in 0..steps {
        for x in &mut points {
            *x += 0.5 * sigma.powi(2) * score(*x) * h + sigma * h.sqrt() * noise.normal();
        }
    }
    points
}
// ANCHOR_END: langevin
