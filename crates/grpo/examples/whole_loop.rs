//! Flow-GRPO in one file, on points of the plane, with Burn alone.
//!
//! A small network learns the flow from noise to eight clusters and learns nothing about its
//! prompt. A reward then asks for another cluster under each of four prompts.
//!
//! `cargo run --package grpo --example whole_loop`; the book's chapter *The whole loop* explains it.

use std::f64::consts::{PI, TAU};

use burn::{
    module::AutodiffModule,
    nn::{Linear, LinearConfig},
    optim::{AdamConfig, GradientsParams, Optimizer},
    prelude::*,
    tensor::{Distribution, activation::silu},
};

type Plain = burn_ndarray::NdArray<f32>;
type Learning = burn::backend::Autodiff<Plain>;
type Points<B> = Tensor<B, 2>; // [rows, 2], or [rows, 1] for one number per row

const PROMPTS: usize = 4;
const GROUP: usize = 64;
const ROWS: usize = PROMPTS * GROUP; // prompt-major: a group is 64 rows in a row
const STEPS: usize = 10;
const NOISE_LEVEL: f64 = 0.7;
const CLIP_RANGE: f64 = 0.2;
const KL_WEIGHT: f64 = 0.01;

// ANCHOR: field
/// The velocity field: a network of three layers that sees point, time and prompt.
#[derive(Module, Debug)]
struct Field<B: Backend> {
    layers: Vec<Linear<B>>,
}

impl<B: Backend> Field<B> {
    fn new(device: &B::Device) -> Self {
        let widths = [(2 + 1 + PROMPTS, 64), (64, 64), (64, 2)];
        Self { layers: widths.map(|(i, o)| LinearConfig::new(i, o).init(device)).to_vec() }
    }

    fn velocity(&self, x: Points<B>, t: Points<B>, prompt: Points<B>) -> Points<B> {
        let [first, second, last] = &self.layers[..] else { unreachable!("three layers") };
        let hidden = silu(first.forward(Tensor::cat(vec![x, t, prompt], 1)));
        last.forward(silu(second.forward(hidden)))
    }
}
// ANCHOR_END: field

fn normal<B: Backend>(rows: usize) -> Points<B> {
    Tensor::random([rows, 2], Distribution::Normal(0.0, 1.0), &B::Device::default())
}

fn uniform<B: Backend>(rows: usize, end: f64) -> Points<B> {
    Tensor::random([rows, 1], Distribution::Uniform(0.0, end), &B::Device::default())
}

/// The same number in every row.
fn everywhere<B: Backend>(number: f64) -> Points<B> {
    Tensor::full([ROWS, 1], number, &B::Device::default())
}

/// The point at an angle on the circle of radius 2, where the clusters lie.
fn on_circle<B: Backend>(angle: Points<B>) -> Points<B> {
    Tensor::cat(vec![angle.clone().cos(), angle.sin()], 1) * 2.0
}

/// Row `i` is the one-hot code of the prompt of row `i`.
fn prompts<B: Backend>() -> Points<B> {
    let codes = Tensor::eye(PROMPTS, &B::Device::default());
    codes.reshape([PROMPTS, 1, PROMPTS]).repeat_dim(1, GROUP).reshape([ROWS, PROMPTS])
}

// ANCHOR: pretrain
/// Flow matching: regression of `x_1 − x_0`. Cluster and prompt are independent here.
fn pretrain(steps: usize) -> Field<Learning> {
    let mut field = Field::new(&burn_ndarray::NdArrayDevice::Cpu);
    let mut adam = AdamConfig::new().init();
    for step in 0..steps {
        let (x1, t) = (normal(ROWS), uniform(ROWS, 1.0));
        let x0 = on_circle(uniform(ROWS, 8.0).floor() * (TAU / 8.0)) + normal(ROWS) * 0.2;
        let target: Points<Learning> = x1 - x0.clone();
        let velocity = field.velocity(x0 + target.clone() * t.clone(), t, prompts());
        let loss = (velocity - target).powi_scalar(2).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &field);
        field = adam.step(1e-2 * (1.0 - step as f64 / steps as f64), field, gradients);
    }
    field
}
// ANCHOR_END: pretrain

// ANCHOR: policy
/// The Gaussian of step `i`, `N(latent·x + velocity·v, std²)`, and the time at which it starts.
struct Step {
    t: f64,
    latent: f64,
    velocity: f64,
    std: f64,
}

/// The Euler-Maruyama step of the SDE. The last step draws no noise, because it would stay in the
/// point: without noise, a step is the Euler step of the ODE.
fn step(i: usize, steps: usize, noise_level: f64) -> Step {
    let (t, dt) = (1.0 - i as f64 / steps as f64, -1.0 / steps as f64);
    let sigma2 = if i + 1 == steps { 0.0 } else { noise_level.powi(2) * t / (1.0 - t).max(-dt) };
    Step {
        t,
        latent: 1.0 + sigma2 / (2.0 * t) * dt,
        velocity: (1.0 + sigma2 * (1.0 - t) / (2.0 * t)) * dt,
        std: (sigma2 * -dt).sqrt(),
    }
}

/// The log density of `next` under the Gaussian of a step, `[rows, 1]`.
fn log_prob<B: Backend>(at: &Step, x: Points<B>, v: Points<B>, next: Points<B>) -> Points<B> {
    let squared = (next - x * at.latent - v * at.velocity).powi_scalar(2).sum_dim(1);
    squared * (-0.5 / at.std.powi(2)) - (2.0 * PI * at.std.powi(2)).ln()
}
// ANCHOR_END: policy

// ANCHOR: rollout
/// A random step as it was taken: latent before, latent after, log-probability.
type Transition = (Points<Plain>, Points<Plain>, Points<Plain>);

/// Samples a point per row and keeps its random steps.
fn sample(field: &Field<Plain>, steps: usize, level: f64) -> (Points<Plain>, Vec<Transition>) {
    let (mut x, mut kept) = (normal(ROWS), Vec::new());
    for at in (0..steps).map(|i| step(i, steps, level)) {
        let v = field.velocity(x.clone(), everywhere(at.t), prompts());
        let next = x.clone() * at.latent + v.clone() * at.velocity + normal(ROWS) * at.std;
        if at.std > 0.0 {
            kept.push((x.clone(), next.clone(), log_prob(&at, x, v, next.clone())));
        }
        x = next;
    }
    (x, kept)
}

/// `exp(−2·distance²)`, by the distance to the cluster that the row's prompt asks for, `[rows, 1]`.
fn reward(points: Points<Plain>) -> Points<Plain> {
    let prompt = Tensor::<Plain, 1, Int>::arange(0..ROWS as i64, &points.device()) / GROUP as i64;
    let asked = on_circle(prompt.float().reshape([ROWS, 1]) * (TAU / PROMPTS as f64));
    ((points - asked).powi_scalar(2).sum_dim(1) * -2.0).exp()
}
// ANCHOR_END: rollout

// ANCHOR: update
/// The reward less the mean of its group, over the spread of all rewards, `[rows, 1]`.
fn advantages(rewards: Points<Plain>) -> Points<Plain> {
    let groups = rewards.reshape([PROMPTS, GROUP]);
    let mean = groups.clone().mean_dim(1);
    let spread: f32 = groups.clone().reshape([ROWS]).var_bias(0).sqrt().into_scalar();
    ((groups - mean) / (spread + 1e-4)).reshape([ROWS, 1])
}

/// The loss of one update: clipped surrogate and KL penalty, summed over the random steps.
fn loss(
    field: &Field<Learning>,
    base: &Field<Plain>,
    kept: &[Transition],
    advantage: &Points<Learning>,
) -> Tensor<Learning, 1> {
    let of_step = |(i, (x, next, old)): (usize, &Transition)| {
        let at = step(i, STEPS, NOISE_LEVEL);
        let reference = base.velocity(x.clone(), everywhere(at.t), prompts());
        let [x, next, old, reference] =
            [x, next, old, &reference].map(|it| Points::from_inner(it.clone()));
        let v = field.velocity(x.clone(), everywhere(at.t), prompts());
        let ratio = (log_prob(&at, x, v.clone(), next) - old).exp();
        let clipped = ratio.clone().clamp(1.0 - CLIP_RANGE, 1.0 + CLIP_RANGE);
        let surrogate = (ratio * advantage.clone()).min_pair(clipped * advantage.clone());
        let kl = (v - reference).powi_scalar(2).sum_dim(1)
            * (at.velocity.powi(2) / (2.0 * at.std.powi(2)));
        (kl * KL_WEIGHT - surrogate).mean()
    };
    kept.iter().enumerate().map(of_step).reduce(|sum, one| sum + one).expect("a random step")
}
// ANCHOR_END: update

// ANCHOR: train
/// Trains for some epochs and returns the mean reward of 40-step ODE samples before and after.
fn train(epochs: usize) -> [f32; 2] {
    Plain::seed(&burn_ndarray::NdArrayDevice::Cpu, 1);
    let mut field = pretrain(1500);
    let base = field.valid();
    let mean = |points| reward(points).mean().into_scalar();
    let mut adam = AdamConfig::new().init();
    for epoch in 1..=epochs {
        let (points, kept) = sample(&field.valid(), STEPS, NOISE_LEVEL);
        let advantage = Points::from_inner(advantages(reward(points.clone())));
        for _ in 0..2 {
            let loss = loss(&field, &base, &kept, &advantage);
            let gradients = GradientsParams::from_grads(loss.backward(), &field);
            field = adam.step(3e-3, field, gradients);
        }
        println!("epoch {epoch:>3}  reward {:.3}", mean(points));
    }
    [base, field.valid()].map(|field| mean(sample(&field, 40, 0.0).0))
}
// ANCHOR_END: train

fn main() {
    let [before, after] = train(50);
    println!("40 ODE steps: {before:.3} before, {after:.3} after");
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_prompt_finds_its_cluster() {
        let [before, after] = super::train(50);
        assert!(before < 0.2 && after > 0.9, "{before} before, {after} after");
    }
}
