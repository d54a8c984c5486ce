//! Samplers on the line, in f64, with velocities in closed form.

use anyhow::Result;
use burn::tensor::Tensor;
use flow::{
    Affine, GridKind, Step, Transition,
    analytic::{Component, MixtureField},
};
use training::noise::{Key, Purpose, normal};

use crate::backend::{Device, Plain};

/// Number of particles.
const PARTICLES: usize = 20_000;

/// The mixture of Gaussians with these weights, means and standard deviations.
pub fn mixture(components: &[(f64, f32, f64)]) -> MixtureField {
    let component = |&(weight, mean, std)| Component { weight, mean: vec![mean], std };
    MixtureField::new(components.iter().map(component).collect())
}

/// The velocity of a mixture's flow,
///
/// ```text
/// v(x, t) = Σ_k P(k | x)·( E[x_1 | x, k] − E[x_0 | x, k] )
/// ```
pub fn velocity(field: &MixtureField, x: f64, t: f64) -> f64 {
    let (mut total, mut sum) = (0.0, 0.0);
    for Component { weight, mean, std } in field.components() {
        let (mean, data) = (f64::from(mean[0]), std * std);
        let variance = (1.0 - t).powi(2) * data + t * t;
        let offset = x - (1.0 - t) * mean;
        let share = weight * (-offset * offset / (2.0 * variance)).exp() / variance.sqrt();
        total += share;
        sum += share * ((t - (1.0 - t) * data) / variance * offset - mean);
    }
    if total > 0.0 { sum / total } else { x / t.max(1e-3) }
}

/// The velocity of centred Gaussian data of a variance, divided by `x`.
pub fn slope(t: f64, data: f64) -> f64 {
    (t - (1.0 - t) * data) / ((1.0 - t).powi(2) * data + t * t)
}

/// The standard normal noise of a step, a number for every particle.
pub fn noise(step: usize) -> Vec<f64> {
    let key = |row: usize| Key::new(1, Purpose::Step).row(row, 0).step(step);
    let keys: Vec<Key> = (0..PARTICLES).map(key).collect();
    let drawn: Tensor<Plain, 4> = normal(&keys, [1, 1, 1], &Device::default());
    drawn.to_data().iter::<f64>().collect()
}

/// The last points of a sampler whose velocity is `velocity(step, x)`.
pub fn samples(
    transition: Transition,
    steps: usize,
    velocity: impl Fn(Step, f64) -> f64,
) -> Result<Vec<f64>> {
    let mut points = noise(0);
    for step in (GridKind::Linear {}).grid(steps)?.steps() {
        let Affine { latent, velocity: push, std } = transition.affine(step);
        let drawn = if std > 0.0 { noise(step.index + 1) } else { vec![0.0; PARTICLES] };
        for (x, e) in points.iter_mut().zip(drawn) {
            *x = latent * *x + push * velocity(step, *x) + std * e;
        }
    }
    Ok(points)
}
