//! The law on which everything rests: the SDE has the marginals of the ODE.
//!
//! Many samples are drawn with many small steps from a field whose marginals are known, and mean
//! and covariance are compared with the known ones at several times, within statistical bounds plus
//! the bias of the step size. The same test must fail for an SDE with a wrong drift.

use burn::tensor::Tensor;
use flow::{
    Affine, Dance, FlowCps, FlowSde, GridKind, NoiseLevel, Step, Transition, VelocityField,
    velocity_at,
};

use crate::{
    backend::{Plain, numbers},
    closed_forms::{flow_sde, gaussian, mixture, noise},
};

/// Mean (2) and covariance (xx, xy, yy) of points in the plane.
#[derive(Clone, Copy, Debug)]
struct Moments {
    mean: [f64; 2],
    covariance: [f64; 3],
}

impl Moments {
    fn of(latent: &Tensor<Plain, 4>) -> Self {
        let points = numbers(latent.clone());
        let n = points.len() as f64 / 2.0;
        let average =
            |f: &dyn Fn(f64, f64) -> f64| points.chunks(2).map(|p| f(p[0], p[1])).sum::<f64>() / n;
        let mean = [average(&|x, _| x), average(&|_, y| y)];
        let covariance = [
            average(&|x, _| (x - mean[0]).powi(2)),
            average(&|x, y| (x - mean[0]) * (y - mean[1])),
            average(&|_, y| (y - mean[1]).powi(2)),
        ];
        Self { mean, covariance }
    }

    /// The largest deviation from the truth, in standard errors of `n` samples.
    fn deviation(&self, truth: &Self, n: usize) -> f64 {
        let [xx, xy, yy] = truth.covariance;
        let n = n as f64;
        let errors = [
            (xx / n).sqrt(),
            (yy / n).sqrt(),
            (2.0 * xx * xx / n).sqrt(),
            ((xx * yy + xy * xy) / n).sqrt(),
            (2.0 * yy * yy / n).sqrt(),
        ];
        let got = [
            self.mean[0],
            self.mean[1],
            self.covariance[0],
            self.covariance[1],
            self.covariance[2],
        ];
        let want = [truth.mean[0], truth.mean[1], xx, xy, yy];
        got.iter()
            .zip(want)
            .zip(errors)
            .map(|((got, want), error)| (got - want).abs() / error)
            .fold(0.0, f64::max)
    }
}

fn gaussian_truth(t: f64) -> Moments {
    let mean = numbers(gaussian().marginal_mean(t));
    let covariance = numbers(gaussian().marginal_covariance(t));
    Moments { mean: [mean[0], mean[1]], covariance: [covariance[0], covariance[1], covariance[3]] }
}

/// The moments of the mixture of `closed_forms`, from the moments of its components.
fn mixture_truth(t: f64) -> Moments {
    let field = mixture();
    let total: f64 = field.components().iter().map(|c| c.weight).sum();
    let mut mean = [0.0; 2];
    let mut second = [0.0; 3];
    for c in field.components() {
        let w = c.weight / total;
        let m = [(1.0 - t) * f64::from(c.mean[0]), (1.0 - t) * f64::from(c.mean[1])];
        let variance = ((1.0 - t) * c.std).powi(2) + t * t;
        mean = [mean[0] + w * m[0], mean[1] + w * m[1]];
        second = [
            second[0] + w * (variance + m[0] * m[0]),
            second[1] + w * m[0] * m[1],
            second[2] + w * (variance + m[1] * m[1]),
        ];
    }
    Moments {
        mean,
        covariance: [
            second[0] - mean[0] * mean[0],
            second[1] - mean[0] * mean[1],
            second[2] - mean[1] * mean[1],
        ],
    }
}

const ROWS: usize = 20_000;
const STEPS: usize = 200;
/// Times at which marginals are compared, as step indices of the linear grid: t = 0.8, 0.5, 0.2,
/// 0.05.
const AT: [usize; 4] = [40, 100, 160, 190];

/// The largest deviation over the compared times, in standard errors.
fn worst_deviation<F: VelocityField<Plain, Condition = ()>>(
    field: &F,
    truth: impl Fn(f64) -> Moments,
    rule: impl Fn(Step) -> Affine,
    stream: usize,
) -> f64 {
    let mut latent = noise(ROWS, [2, 1, 1], stream);
    let mut worst = 0.0_f64;
    for step in (GridKind::Linear {}).grid(STEPS).expect("valid").steps() {
        if AT.contains(&step.index) {
            worst = worst.max(Moments::of(&latent).deviation(&truth(step.from), ROWS));
        }
        let velocity = velocity_at(field, latent.clone(), step, &[]);
        let affine = rule(step);
        let drawn = noise(ROWS, [2, 1, 1], stream + 1 + step.index) * affine.std;
        latent = latent * affine.latent + velocity * affine.velocity + drawn;
    }
    worst
}

/// Twenty comparisons of a normal deviate stay below 4.5 with probability 0.9999; the rest is the
/// bias of 200 steps.
const BOUND: f64 = 9.0;

#[test]
fn the_sde_keeps_the_marginals_of_the_ode() {
    let dance = Dance { noise_level: NoiseLevel::new(0.3).expect("valid") };
    let transitions = [flow_sde(0.1), flow_sde(0.7), flow_sde(1.0), dance.into()];
    for (index, transition) in transitions.into_iter().enumerate() {
        let stream = 1000 * (index + 1);
        let deviation =
            worst_deviation(&gaussian(), gaussian_truth, |step| transition.affine(step), stream);
        println!("gaussian, {transition:?}: {deviation:.1} standard errors");
        assert!(deviation < BOUND, "gaussian, {transition:?}: {deviation:.1} standard errors");
        let deviation = worst_deviation(
            &mixture(),
            mixture_truth,
            |step| transition.affine(step),
            stream + 500,
        );
        println!("mixture, {transition:?}: {deviation:.1} standard errors");
        assert!(deviation < BOUND, "mixture, {transition:?}: {deviation:.1} standard errors");
    }
}

/// It keeps the coefficients of `x_0` and `x_1`, but what stands for them are means, which spread
/// less.
#[test]
fn flow_cps_does_not_keep_the_marginals() {
    let transition =
        Transition::from(FlowCps { noise_level: NoiseLevel::new(0.5).expect("valid") });
    let deviation =
        worst_deviation(&gaussian(), gaussian_truth, |step| transition.affine(step), 9000);
    assert!(deviation > 1.5 * BOUND, "{deviation:.1} standard errors");
}

/// The SDE with its score term multiplied by `share`.
fn with_share_of_score(step: Step, share: f64) -> Affine {
    let sigma = FlowSde { noise_level: NoiseLevel::new(0.7).expect("valid") }.sigma(step);
    let (t, dt) = (step.from, -step.duration());
    let score = share * sigma * sigma / (2.0 * t); // of x + (1 − t)·v
    Affine {
        latent: 1.0 + score * dt,
        velocity: (1.0 + score * (1.0 - t)) * dt,
        std: sigma * step.duration().sqrt(),
    }
}

// ANCHOR: check_wrong
#[test]
fn an_sde_without_its_score_term_is_found_out() {
    let with = |share, stream| {
        worst_deviation(
            &gaussian(),
            gaussian_truth,
            |step| with_share_of_score(step, share),
            stream,
        )
    };
    let (none, half) = (with(0.0, 5000), with(0.5, 6000));
    println!("no score: {none:.0}, half: {half:.0}");
    assert!(none > 3.0 * BOUND && half > 3.0 * BOUND, "no score: {none}, half: {half}");
    let whole = with(1.0, 5000);
    assert!(whole < BOUND, "the test's own SDE with the whole score must pass: {whole}");
}
// ANCHOR_END: check_wrong

/// The error of the final variance of Euler-Maruyama from the exact marginal at t = 0.8 down to the
/// data.
///
/// Free of sampling noise: for centred Gaussian data in one dimension the velocity is linear, a
/// step is `x' = factor·x + std·e`, and the variance of the chain obeys a recursion. It starts
/// below t = 1 because σ is singular there: from t = 1 on, every grid has a first step of std `a`,
/// and the order falls to about `a²`.
fn variance_error(steps: usize, level: f64) -> f64 {
    const START: f64 = 0.8;
    let data_variance = 0.25_f64;
    let marginal = |t: f64| (1.0 - t).powi(2) * data_variance + t * t;
    let transition = flow_sde(level);
    let time = |i: usize| START * (1.0 - i as f64 / steps as f64);
    let variance = (0..steps).fold(marginal(START), |variance, index| {
        let step = Step { index, from: time(index), to: time(index + 1) };
        let gain = (step.from - (1.0 - step.from) * data_variance) / marginal(step.from);
        let Affine { latent, velocity, std } = transition.affine(step);
        (latent + velocity * gain).powi(2) * variance + std.powi(2)
    });
    (variance - data_variance).abs()
}

#[test]
fn the_sde_converges_weakly_with_order_one() {
    for level in [0.1, 0.7, 1.0] {
        // Least squares through log error against log step size.
        let points: Vec<(f64, f64)> = [40, 80, 160, 320]
            .iter()
            .map(|&n| ((1.0 / f64::from(n)).ln(), variance_error(n as usize, level).ln()))
            .collect();
        let n = points.len() as f64;
        let (mx, my) = (
            points.iter().map(|p| p.0).sum::<f64>() / n,
            points.iter().map(|p| p.1).sum::<f64>() / n,
        );
        let order = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>()
            / points.iter().map(|p| (p.0 - mx).powi(2)).sum::<f64>();
        println!("a = {level}: order {order:.3}");
        assert!((0.9..1.1).contains(&order), "a = {level}: order {order}");
    }
}
