use crate::{Curve, Noise};

// ANCHOR: score_from_velocity
/// 3.1: minus the mean noise, over `t`.
pub fn score_from_velocity(x: f64, velocity: f64, t: f64) -> f64 {
    -(x + (1.0 - t) * velocity) / t
}
// ANCHOR_END: score_from_velocity

// ANCHOR: flow_sde_step
/// 3.2: `v − ½σ²·score` is the drift.
pub fn flow_sde_step(x: f64, velocity: f64, t: f64, next: f64, level: f64, noise: f64) -> f64 {
    let denominator = if t == 1.0 { 1.0 - next } else { 1.0 - t };
    let sigma = level * (t / denominator).sqrt();
    let score = -(x + (1.0 - t) * velocity) / t;
    let drift = velocity - 0.5 * sigma.powi(2) * score;
    x + drift * (next - t) + sigma * (t - next).sqrt() * noise
}
// ANCHOR_END: flow_sde_step

/// 3.3: the score is subtracted.
pub fn spreading_sampler() -> Vec<Curve> {
    const STEPS: usize = 100;
    let (level, data) = (0.7, 0.25);
    let mut noise = Noise::new(33);
    let mut particles = noise.normals(4000);
    let mut values = Vec::new();
    for i in 0..STEPS {
        values.push(particles.iter().map(|x| x * x).sum::<f64>() / 4000.0);
        let (t, next) = (1.0 - i as f64 / STEPS as f64, 1.0 - (i + 1) as f64 / STEPS as f64);
        let denominator = if i == 0 { 1.0 - next } else { 1.0 - t };
        let sigma = level * (t / denominator).sqrt();
        for x in &mut particles {
            let velocity = (t - (1.0 - t) * data) / ((1.0 - t).powi(2) * data + t * t) * *x;
            let mean_noise = *x + (1.0 - t) * velocity;
            let score = -mean_noise / t;
            // ANCHOR: spreading_sampler
            // The score was added. Time runs down, so subtracting it pulls particles together.
            let drift = velocity - 0.5 * sigma.powi(2) * score;
            // ANCHOR_END: spreading_sampler
            *x += drift * (next - t) + sigma * (t - next).sqrt() * noise.normal();
        }
    }
    values.push(particles.iter().map(|x| x * x).sum::<f64>() / 4000.0);
    vec![Curve { name: "variance", values }]
}

// ANCHOR: spread_error
/// 3.4: `V ← gain²·V + std²`, with the step of 3.2 and `v = slope·x`.
pub fn spread_error(steps: usize, level: f64, data: f64) -> f64 {
    let mut variance = 1.0;
    for i in 0..steps {
        let (t, dt) = (1.0 - i as f64 / steps as f64, -1.0 / steps as f64);
        let slope = (t - (1.0 - t) * data) / ((1.0 - t).powi(2) * data + t * t);
        let sigma2 = level.powi(2) * t / if i == 0 { -dt } else { 1.0 - t };
        let gain = 1.0 + (slope + sigma2 / (2.0 * t) * (1.0 + (1.0 - t) * slope)) * dt;
        variance = gain.powi(2) * variance - sigma2 * dt;
    }
    variance / data - 1.0
}
// ANCHOR_END: spread_error

// ANCHOR: covariance_in_time
/// 3.5: the score of the marginal is `−x/V`, so a short step has the gain
/// `1 + (slope + σ²/2V)·dt`.
pub fn covariance_in_time(level: f64, s: f64, t: f64, data: f64) -> f64 {
    const STEPS: usize = 20_000;
    let variance = |u: f64| (1.0 - u).powi(2) * data + u * u;
    let h = (t - s) / STEPS as f64;
    let gain = |i: usize| {
        let u = t - (i as f64 + 0.5) * h; // the middle of the step
        let slope = (u - (1.0 - u) * data) / variance(u);
        let sigma2 = level.powi(2) * u / (1.0 - u);
        1.0 - (slope + sigma2 / (2.0 * variance(u))) * h
    };
    variance(t) * (0..STEPS).map(gain).product::<f64>()
}
// ANCHOR_END: covariance_in_time
