//! A small task for chapter 7: points of the plane in eight clusters, and prompts that ask for one.
//!
//! The base model is exact: the velocity of eight images, equally likely. It does not listen to
//! prompts. The policy adds a shift to the velocity in every step, one for each prompt and step.

use std::f64::consts::TAU;

use crate::Noise;

/// A point of the plane.
pub type Point = [f64; 2];

/// The number of steps of a rollout.
pub const STEPS: usize = 10;
/// The number of prompts; prompt `k` asks for the cluster at `2k` eighths of the circle.
pub const PROMPTS: usize = 4;
/// The number of points that are drawn for a prompt.
pub const GROUP: usize = 32;
/// The noise level `a` of a rollout.
pub const NOISE_LEVEL: f64 = 0.7;
/// A good learning rate, if every step counts by the variance of its noise.
pub const LEARNING_RATE: f64 = 80.0;
/// The variance of a cluster in each direction.
const SPREAD: f64 = 0.02;

/// A step of the sampler: `N(latent·x + velocity·v, std²)` in both elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// The time at which it starts.
    pub t: f64,
    /// The factor of the point.
    pub latent: f64,
    /// The factor of the velocity; negative.
    pub velocity: f64,
    /// The standard deviation; 0 in the last step, which is an ODE step.
    pub std: f64,
}

/// Step `i` of a rollout at a noise level; level 0 is the ODE.
pub fn step(i: usize, level: f64) -> Step {
    let (t, dt) = (1.0 - i as f64 / STEPS as f64, -1.0 / STEPS as f64);
    let sigma2 = if i + 1 == STEPS { 0.0 } else { level.powi(2) * t / (1.0 - t).max(-dt) };
    let pull = sigma2 / (2.0 * t);
    Step {
        t,
        latent: 1.0 + pull * dt,
        velocity: (1.0 + pull * (1.0 - t)) * dt,
        std: (-sigma2 * dt).sqrt(),
    }
}

/// The centre of a cluster, on the circle of radius 2.
pub fn center(cluster: usize) -> Point {
    let angle = cluster as f64 * TAU / 8.0;
    [2.0 * angle.cos(), 2.0 * angle.sin()]
}

/// The reward of a point under a prompt: `e^(−2·distance²)` to the cluster that is asked for.
pub fn reward(point: Point, prompt: usize) -> f64 {
    let center = center(2 * prompt);
    (-2.0 * ((point[0] - center[0]).powi(2) + (point[1] - center[1]).powi(2))).exp()
}

/// The velocity of the base model.
pub fn base_velocity(x: Point, t: f64) -> Point {
    // Given the cluster, a point is Gaussian around (1−t)·centre.
    let variance = (1.0 - t).powi(2) * SPREAD + t * t;
    let weight = |c: Point| {
        let squared = (x[0] - (1.0 - t) * c[0]).powi(2) + (x[1] - (1.0 - t) * c[1]).powi(2);
        (-squared / (2.0 * variance)).exp().max(1e-300)
    };
    let (mut all, mut velocity) = (0.0, [0.0; 2]);
    for c in (0..8).map(center) {
        let weight = weight(c);
        all += weight;
        for (v, (x, c)) in velocity.iter_mut().zip(x.iter().zip(c)) {
            *v += weight * ((t - (1.0 - t) * SPREAD) / variance * (x - (1.0 - t) * c) - c);
        }
    }
    velocity.map(|v| v / all)
}

/// The policy: the base model, and a shift of its velocity for each prompt and step.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The shift of the velocity, `shifts[prompt][step]`.
    pub shifts: [[Point; STEPS]; PROMPTS],
}

impl Policy {
    /// The policy before training.
    pub fn base() -> Self {
        Self { shifts: [[[0.0; 2]; STEPS]; PROMPTS] }
    }

    /// The velocity in step `i` under a prompt.
    pub fn velocity(&self, x: Point, prompt: usize, i: usize) -> Point {
        let base = base_velocity(x, step(i, 0.0).t);
        let shift = self.shifts[prompt][i];
        [base[0] + shift[0], base[1] + shift[1]]
    }

    /// The mean of step `i` under a prompt, at the noise level of a rollout.
    pub fn mean(&self, x: Point, prompt: usize, i: usize) -> Point {
        self.mean_of(step(i, NOISE_LEVEL), x, prompt, i)
    }

    fn mean_of(&self, step: Step, x: Point, prompt: usize, i: usize) -> Point {
        let v = self.velocity(x, prompt, i);
        [step.latent * x[0] + step.velocity * v[0], step.latent * x[1] + step.velocity * v[1]]
    }

    /// The mean reward of 100 points per prompt, drawn at a noise level: at [`NOISE_LEVEL`] as in
    /// training, at 0 by the ODE.
    pub fn score(&self, noise: &mut Noise, level: f64) -> f64 {
        let mut sum = 0.0;
        for row in 0..100 * PROMPTS {
            let prompt = row / 100;
            let mut x = [noise.normal(), noise.normal()];
            for i in 0..STEPS {
                let step = step(i, level);
                let mean = self.mean_of(step, x, prompt, i);
                x = mean.map(|mean| mean + step.std * noise.normal());
            }
            sum += reward(x, prompt);
        }
        sum / (100 * PROMPTS) as f64
    }
}
