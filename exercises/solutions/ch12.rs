// ANCHOR: tilted
/// 12.1: with the largest reward subtracted, no exponential overflows.
pub fn tilted(probabilities: &[f64], rewards: &[f64], beta: f64) -> Vec<f64> {
    let top = rewards.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weight = |(p, r): (&f64, &f64)| p * ((r - top) / beta).exp();
    let weights: Vec<f64> = probabilities.iter().zip(rewards).map(weight).collect();
    let all: f64 = weights.iter().sum();
    weights.iter().map(|weight| weight / all).collect()
}
// ANCHOR_END: tilted

// ANCHOR: moved
/// 12.2: from the last step back; `after` and `after_ode` are the products of the later gains.
pub fn moved(steps: usize, level: f64, data: f64) -> [f64; 2] {
    let [mut sde, mut ode, mut after, mut after_ode] = [0.0, 0.0, 1.0, 1.0];
    for i in (0..steps).rev() {
        let (t, dt) = (1.0 - i as f64 / steps as f64, -1.0 / steps as f64);
        let slope = (t - (1.0 - t) * data) / ((1.0 - t).powi(2) * data + t * t);
        let sigma2 = level.powi(2) * t / if i == 0 { -dt } else { 1.0 - t };
        let pull = sigma2 / (2.0 * t);
        let push = (1.0 + pull * (1.0 - t)) * dt;
        let shift = -sigma2 * dt * after;
        sde += shift * after;
        ode += shift / push * dt * after_ode;
        after *= 1.0 + pull * dt + push * slope;
        after_ode *= 1.0 + slope * dt;
    }
    [sde / data, ode / data]
}
// ANCHOR_END: moved
