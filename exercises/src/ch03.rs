//! Chapter 3, *From the ODE to the SDE*: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

use crate::{Curve, Noise};

// ANCHOR: score_from_velocity
/// **3.1** The score at `x`, from the velocity there.
///
/// In the book: *The score from the velocity*.
pub fn score_from_velocity(x: f64, velocity: f64, t: f64) -> f64 {
    todo!("3.1: the score from the velocity")
}
// ANCHOR_END: score_from_velocity

// ANCHOR: flow_sde_step
/// **3.2** A step of the SDE that has the marginals of the ODE, from `t` to `next < t`, at the noise
/// level `a = level`, with the standard normal draw `noise`.
///
/// In the book: *Euler-Maruyama*. In a step that starts at `t = 1`, take `1 − next` for `1 − t` in
/// `σ_t`. Hint: the change of time is negative; the noise has the root of its size.
pub fn flow_sde_step(x: f64, velocity: f64, t: f64, next: f64, level: f64, noise: f64) -> f64 {
    todo!("3.2: x after a step of the SDE")
}
// ANCHOR_END: flow_sde_step

// ANCHOR: spreading_sampler
/// **3.3** Debugging. This sampler draws 4,000 particles of the SDE for data `N(0, 0.25)`, in 100
/// steps, and returns their variance at every time. It compiles, nothing explodes, and the variance at
/// the end is wrong. `cargo xtask exercise 3.3 --curves` draws it beside the exact one. One line is
/// wrong: find it.
// ANCHOR_END: spreading_sampler
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
            let drift = velocity + 0.5 * sigma.powi(2) * score;
            *x += drift * (next - t) + sigma * (t - next).sqrt() * noise.normal();
        }
    }
    values.push(particles.iter().map(|x| x * x).sum::<f64>() / 4000.0);
    vec![Curve { name: "variance", values }]
}

// ANCHOR: spread_error
/// **3.4** How fast the SDE converges. For data `N(0, data)`, a step multiplies `x` by a number and
/// adds noise, so its variance can be followed without drawing anything. Start with the variance 1 at
/// `t = 1`, take `steps` equal steps at the noise level `a = level`, and return the relative error of
/// the variance at the end, `variance/data − 1`.
///
/// In the book: *Ten steps* and *How fast does it converge?* Level 0 is the ODE. Hint: your step of 3.2
/// may be called; with the noise 0, it gives the number that multiplies `x`.
pub fn spread_error(steps: usize, level: f64, data: f64) -> f64 {
    todo!("3.4: the relative error of the final variance")
}
// ANCHOR_END: spread_error

// ANCHOR: covariance_in_time
/// **3.5** At √2 the SDE runs the noising backwards. A particle is at `x_t` at the time `t`, and later
/// in sampling, at the time `t′ < t`, at `x_t′`. What is the covariance of the two, for data
/// `N(0, data)`, many small steps and the noise level `a = level`? The code calls `t′` `s`. The law
/// asks for `t` up to 0.95.
///
/// A step multiplies `x` by a gain and adds noise that knows nothing of `x_t`. So the covariance is
/// `V_t` times the product of the gains from `t` down to `t′`. Walk it in some thousand steps, or
/// do the integral. Then compare with noising: at √2, `x_t` is `(1−t)/(1−t′)·x_t′` and independent
/// noise, for any data.
pub fn covariance_in_time(level: f64, s: f64, t: f64, data: f64) -> f64 {
    todo!("3.5: Cov(x_t′, x_t)")
}
// ANCHOR_END: covariance_in_time
