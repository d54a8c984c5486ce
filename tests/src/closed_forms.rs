//! Fields, steps and densities against their closed forms.

use burn::tensor::{ElementConversion, Tensor};
use flow::{
    Affine, FlowSde, GridKind, Guidance, GuidanceGradient, IsotropicGaussian, KlForm, NoiseLevel,
    Ode, Reduction, Sampler, Step, Transition, VelocityField,
    analytic::{Component, GaussianField, MixtureField, score_from_velocity},
    matching::{TimeDistribution, flow_matching_loss},
};
use grpo::objective::{Clip, clipped_loss};
use training::noise::{Key, Purpose, normal};

use crate::backend::{Device, Plain, Training, distance, numbers};

pub fn noise(rows: usize, shape: [usize; 3], stream: usize) -> Tensor<Plain, 4> {
    let keys: Vec<Key> =
        (0..rows).map(|row| Key::new(7, Purpose::Step).row(row, 0).step(stream)).collect();
    normal(&keys, shape, &Device::default())
}

/// The Flow-GRPO SDE at a noise level.
pub fn flow_sde(level: f64) -> Transition {
    FlowSde { noise_level: NoiseLevel::new(level).expect("valid") }.into()
}

/// Data with correlated elements: eigenvalues 4 and 0.04 on axes turned by 0.6.
pub fn gaussian() -> GaussianField<Plain> {
    let device = Device::default();
    let (sin, cos) = 0.6_f32.sin_cos();
    let basis = Tensor::from_floats([[cos, -sin], [sin, cos]], &device);
    GaussianField::new(Tensor::from_floats([1.0, -0.5], &device), basis, vec![4.0, 0.04])
}

pub fn mixture() -> MixtureField {
    MixtureField::new(vec![
        Component { weight: 0.7, mean: vec![1.5, 0.0], std: 0.3 },
        Component { weight: 0.3, mean: vec![-1.0, 1.0], std: 0.6 },
    ])
}

const POINT: [usize; 3] = [2, 1, 1];

#[test]
fn the_score_follows_from_the_velocity() {
    let x = noise(64, POINT, 0) * 2.0;
    for t in [0.05, 0.3, 0.7, 0.99] {
        let time = Tensor::full([64], t, &Device::default());
        let velocity = gaussian().velocity(x.clone(), time.clone(), &[]);
        let d = distance(
            &numbers(score_from_velocity(x.clone(), velocity, t)),
            &numbers(gaussian().score(x.clone(), t)),
        );
        assert!(d < 2e-4, "gaussian at {t}: {d:e}");
        let velocity = mixture().velocity(x.clone(), time, &[]);
        let d = distance(
            &numbers(score_from_velocity(x.clone(), velocity, t)),
            &numbers(mixture().score(x.clone(), t)),
        );
        assert!(d < 2e-4, "mixture at {t}: {d:e}");
    }
}

#[test]
fn a_mixture_of_one_is_the_gaussian() {
    let device = Device::default();
    let one = MixtureField::new(vec![Component { weight: 2.0, mean: vec![0.3, -0.2], std: 0.5 }]);
    let same = GaussianField::<Plain>::new(
        Tensor::from_floats([0.3, -0.2], &device),
        Tensor::eye(2, &device),
        vec![0.25, 0.25],
    );
    let (x, time) = (noise(32, POINT, 1), Tensor::full([32], 0.4, &device));
    let d = distance(
        &numbers(one.velocity(x.clone(), time.clone(), &[])),
        &numbers(same.velocity(x, time, &[])),
    );
    assert!(d < 1e-5, "{d:e}");
}

#[test]
fn the_euler_ode_approaches_the_exact_solution_with_order_one() {
    let x = noise(256, POINT, 2);
    let exact = numbers(gaussian().solve(x.clone(), 0.0));
    let error = |steps: usize| {
        let sampler = Sampler::ode(GridKind::Linear {}.grid(steps).expect("valid"));
        let end =
            sampler.sample(&gaussian(), &[], x.clone(), |_| unreachable!("the ODE draws no noise"));
        distance(&numbers(end), &exact)
    };
    let (coarse, fine) = (error(40), error(160));
    let order = (coarse / fine).ln() / 4.0_f64.ln();
    assert!((0.8..1.3).contains(&order), "halving the step should halve the error; order {order}");
}

#[test]
fn the_first_step_has_exactly_the_noise_level_as_std() {
    for a in [0.1, 0.7, 1.0] {
        for kind in [GridKind::Linear {}, GridKind::Sd3DoubleShift { shift: 3.0 }] {
            let step = kind.grid(10).expect("valid").step(0);
            let first = flow_sde(a).affine(step);
            assert!((first.std - a).abs() < 1e-12, "{} is not {a}", first.std);
        }
    }
}

#[test]
fn without_noise_the_sde_is_the_euler_ode() {
    let (x, v) = (noise(8, POINT, 4), noise(8, POINT, 5));
    let grid = GridKind::Shifted { shift: 3.0 }.grid(10).expect("valid");
    for step in grid.steps() {
        let sde = flow_sde(0.0).gaussian(x.clone(), v.clone(), step);
        let ode = Transition::from(Ode {}).gaussian(x.clone(), v.clone(), step);
        assert_eq!(sde.std, 0.0);
        let d = distance(&numbers(sde.mean), &numbers(ode.mean));
        assert!(d < 1e-6, "{d:e}");
    }
}

#[test]
fn the_coefficients_are_those_of_the_table() {
    // The double-shift grid of 10 steps at a = 0.7: mean = cx·x + cv·v, std = sd.
    let grid = GridKind::Sd3DoubleShift { shift: 3.0 }.grid(10).expect("valid");
    for (i, sd, cx, cv) in [
        (0, 0.7, 0.755, -0.039_871),
        (3, 0.445_897, 0.884_093, -0.083_818),
        (8, 0.225_360, 0.908_672, -0.335_055),
        (9, 0.006_278, 0.997_793, -0.011_116),
    ] {
        let Affine { latent, velocity, std } = flow_sde(0.7).affine(grid.step(i));
        assert!(
            (std - sd).abs() < 1e-6 && (latent - cx).abs() < 1e-6 && (velocity - cv).abs() < 1e-6,
            "step {i}"
        );
    }
}

#[test]
fn the_log_probability_is_the_closed_form() {
    let (mean, value, std) = (noise(3, [4, 2, 2], 6), noise(3, [4, 2, 2], 7), 0.37_f64);
    let gaussian = IsotropicGaussian { mean: mean.clone(), std };
    let [mean, value] = [mean, value.clone()].map(numbers);
    let by_hand: Vec<f64> = mean
        .chunks(16)
        .zip(value.chunks(16))
        .map(|(m, x)| {
            m.iter()
                .zip(x)
                .map(|(m, x)| {
                    -((x - m) / std).powi(2) / 2.0
                        - (std * (2.0 * std::f64::consts::PI).sqrt()).ln()
                })
                .sum()
        })
        .collect();
    let value = noise(3, [4, 2, 2], 7);
    let sum = numbers(gaussian.log_prob(value.clone(), Reduction::Sum));
    assert!(distance(&sum, &by_hand) < 1e-5);
    let mean = numbers(gaussian.log_prob(value, Reduction::Mean));
    assert!(distance(&mean, &by_hand.iter().map(|x| x / 16.0).collect::<Vec<_>>()) < 1e-5);
}

#[test]
fn every_kl_form_is_its_closed_form() {
    let transition = flow_sde(0.7);
    for step in [
        Step { index: 3, from: 0.7, to: 0.6 },
        Step { index: 0, from: 1.0, to: 0.9 },
        Step { index: 8, from: 0.278, to: 0.009 },
    ] {
        let x = noise(5, [3, 4, 4], 8);
        let [v, w] = [9, 10].map(|stream| noise(5, [3, 4, 4], stream));
        let got = |form| numbers(transition.kl(form, step, v.clone(), w.clone()));
        // Two Gaussians with the same std: ‖μ − μ_ref‖²/(2·std²).
        let [p, q] =
            [&v, &w].map(|velocity| transition.gaussian(x.clone(), velocity.clone(), step));
        let rows = |a: Tensor<Plain, 4>, b: Tensor<Plain, 4>| -> Vec<f64> {
            let (a, b) = (numbers(a), numbers(b));
            a.chunks(48)
                .zip(b.chunks(48))
                .map(|(a, b)| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum())
                .collect()
        };
        let times = |values: &[f64], factor: f64| {
            values.iter().map(|value| value * factor).collect::<Vec<f64>>()
        };
        let exact = times(&rows(p.mean, q.mean), 1.0 / (2.0 * p.std.powi(2)));
        assert!(distance(&got(KlForm::Paper), &exact) < 1e-4);
        assert!(distance(&got(KlForm::PaperMean), &times(&exact, 1.0 / 48.0)) < 1e-4);
        assert!(distance(&got(KlForm::Reference), &times(&exact, step.duration() / 48.0)) < 1e-4);
        let velocities = rows(v.clone(), w.clone());
        assert!(distance(&got(KlForm::Velocity), &times(&velocities, 1.0 / 48.0)) < 1e-5);
        // The paper's own expression in terms of velocities, which is singular at t = 1.
        if step.from < 1.0 {
            let (t, sigma) = (
                step.from,
                FlowSde { noise_level: NoiseLevel::new(0.7).expect("valid") }.sigma(step),
            );
            let factor =
                step.duration() / 2.0 * (sigma * (1.0 - t) / (2.0 * t) + 1.0 / sigma).powi(2);
            assert!(distance(&got(KlForm::Paper), &times(&velocities, factor)) < 1e-5);
        }
    }
}

#[test]
fn each_side_of_the_clip_has_its_own_range() {
    let device = Device::default();
    let clip = Clip { low: 0.1, high: 0.3 };
    // Advantage, ratio, and whether the clip removes the gradient.
    let cases = [
        (2.0, 1.29, false),
        (2.0, 1.31, true),
        (2.0, 0.5, false),
        (-2.0, 0.91, false),
        (-2.0, 0.89, true),
        (-2.0, 1.5, false),
    ];
    for (advantage, ratio, taken) in cases {
        let new =
            Tensor::<Training, 1>::from_floats([f64::ln(ratio) as f32], &device).require_grad();
        let loss = clipped_loss(
            new.clone(),
            Tensor::zeros([1], &device),
            Tensor::from_floats([advantage], &device),
            clip,
        )
        .loss;
        let want = if taken { f64::clamp(ratio, 0.9, 1.3) } else { ratio };
        let (got, gradients) = (numbers(loss.clone().inner())[0], loss.backward());
        assert!(
            (got + advantage * want).abs() < 1e-5,
            "advantage {advantage}, ratio {ratio}: {got}"
        );
        let gradient = numbers(new.grad(&gradients).expect("a leaf"))[0];
        let want = if taken { 0.0 } else { -advantage * ratio };
        assert!(
            (gradient - want).abs() < 1e-5,
            "advantage {advantage}, ratio {ratio}: {gradient} is not {want}"
        );
    }
}

#[test]
fn the_gradient_of_guidance_goes_through_one_half_or_both() {
    let device = Device::default();
    for scale in [4.5, 0.5] {
        let guidance = Guidance { unconditional: (), scale };
        let through = |gradient| {
            let velocity =
                Tensor::<Training, 4>::from_inner(noise(4, [1, 1, 1], 14)).require_grad();
            let weights =
                Tensor::<Training, 1>::from_floats([1.0, 10.0], &device).reshape([2, 1, 1, 1]);
            let guided = guidance.combined::<Training>(velocity.clone(), gradient);
            let value = numbers(guided.clone().inner());
            let gradients = (guided * weights).sum().backward();
            (value, numbers(velocity.grad(&gradients).expect("a leaf")))
        };
        let (value, both) = through(GuidanceGradient::Both);
        assert!(distance(&both, &[1.0 - scale, 10.0 * (1.0 - scale), scale, 10.0 * scale]) < 1e-6);
        let (same, conditional) = through(GuidanceGradient::Conditional);
        assert!(distance(&conditional, &[0.0, 0.0, scale, 10.0 * scale]) < 1e-6);
        assert_eq!(value, same);
    }
}

#[test]
fn guidance_of_one_is_the_conditional_field_and_of_zero_the_unconditional() {
    struct ByCondition;
    impl VelocityField<Plain> for ByCondition {
        type Condition = f32;
        fn velocity(
            &self,
            latent: Tensor<Plain, 4>,
            _time: Tensor<Plain, 1>,
            conditions: &[f32],
        ) -> Tensor<Plain, 4> {
            let per_row = Tensor::<Plain, 1>::from_floats(conditions, &latent.device())
                .reshape([-1, 1, 1, 1]);
            latent + per_row
        }
    }
    let (x, time) = (noise(2, POINT, 11), Tensor::full([2], 0.5, &Device::default()));
    let plain =
        |conditions: &[f32]| numbers(ByCondition.velocity(x.clone(), time.clone(), conditions));
    for (scale, want) in
        [(0.0, plain(&[0.0, 0.0])), (1.0, plain(&[3.0, 5.0])), (2.0, plain(&[6.0, 10.0]))]
    {
        let guided = Guidance { unconditional: 0.0, scale }.around(ByCondition);
        let got = numbers(guided.velocity(x.clone(), time.clone(), &[3.0, 5.0]));
        assert!(distance(&got, &want) < 1e-6, "scale {scale}");
    }
}

#[test]
fn the_true_field_has_the_smallest_matching_loss() {
    // For one Gaussian in one dimension the least mean squared error is known: E[Var(x_1 − x_0 |
    // x_t)].
    let device = Device::default();
    let data_variance = 0.25_f64;
    let field = GaussianField::<Plain>::new(
        Tensor::from_floats([0.0], &device),
        Tensor::eye(1, &device),
        vec![data_variance],
    );
    let rows = 200_000;
    let shape = [1, 1, 1];
    let key = Key::new(3, Purpose::Initial);
    let [x0, x1] = [1, 2].map(|step| {
        let keys: Vec<Key> = (0..rows).map(|row| key.row(row, 0).step(step)).collect();
        normal::<Plain>(&keys, shape, &device)
    });
    for t in [0.2_f64, 0.6] {
        let variance = (1.0 - t).powi(2) * data_variance + t * t;
        let covariance = t - (1.0 - t) * data_variance;
        let least = 1.0 + data_variance - covariance.powi(2) / variance;
        let time = Tensor::full([rows], t, &device);
        let loss = flow_matching_loss(
            &field,
            x0.clone() * data_variance.sqrt(),
            x1.clone(),
            time,
            &vec![(); rows],
        );
        let got = numbers(loss.mean())[0];
        // The loss is a scaled chi-square: its standard error over the rows is least·√(2/rows).
        assert!(
            (got - least).abs() < 5.0 * least * (2.0 / rows as f64).sqrt(),
            "{got} is not {least} at {t}"
        );
    }
}

#[test]
fn times_follow_their_distribution() {
    use rand::Rng;
    use rand_distr::{Distribution, StandardNormal};
    let mut rng = Key::new(1, Purpose::Pretraining).rng();
    let mut draw = |times: TimeDistribution| -> Vec<f64> {
        (0..20_000).map(|_| times.time(rng.random(), StandardNormal.sample(&mut rng))).collect()
    };
    let share_below = |times: &[f64], bound: f64| {
        times.iter().filter(|t| **t < bound).count() as f64 / times.len() as f64
    };
    let uniform = draw(TimeDistribution::Uniform {});
    assert!((share_below(&uniform, 0.3) - 0.3).abs() < 0.02);
    // P(t < ½) = P(logit < 0) = Φ(−mean/std) = Φ(−0.5) = 0.3085
    let normal = draw(TimeDistribution::LogitNormal { mean: 0.5, std: 1.0 });
    assert!((share_below(&normal, 0.5) - 0.3085).abs() < 0.02);
}

#[test]
fn ode_steps_at_the_end_draw_no_noise() {
    let sampler = Sampler::new(GridKind::Linear {}.grid(5).expect("valid"), flow_sde(0.7));
    assert!(sampler.steps().all(|(step, transition)| transition.is_random(step)));
    let sampler = sampler.with_ode_after(3);
    let trajectory = sampler.trajectory(
        &gaussian(),
        &[],
        noise(4, POINT, 12),
        |step| noise(4, POINT, 13 + step.index),
        Reduction::Mean,
    );
    assert_eq!([sampler.step(3).1, sampler.step(4).1], [Ode {}.into(); 2]);
    let random: Vec<bool> = trajectory.log_probs.iter().map(Option::is_some).collect();
    assert_eq!(random, [true, true, true, false, false]);
    let kept: Vec<bool> = trajectory.latents.iter().map(Option::is_some).collect();
    assert_eq!(
        kept,
        [true, true, true, true, false, true],
        "what the random steps lie between, and the end"
    );
}

#[test]
fn the_score_of_a_mixture_is_the_gradient_of_its_log_density() {
    // Weights, means and spreads all differ, and the point lies between them.
    let components = [(0.7, [1.0, 0.2], 0.3), (2.0, [-0.4, 0.5], 0.9), (0.4, [0.1, -0.8], 0.5)];
    let component =
        |(weight, mean, std): (f64, [f32; 2], f64)| Component { weight, mean: mean.to_vec(), std };
    let field = MixtureField::new(components.map(component).to_vec());
    for t in [0.1, 0.4, 0.8] {
        let log_density = |x: [f64; 2]| {
            let of = |(weight, mean, std): (f64, [f32; 2], f64)| {
                let variance = ((1.0 - t) * std).powi(2) + t * t;
                let squared: f64 =
                    x.iter().zip(mean).map(|(x, m)| (x - (1.0 - t) * f64::from(m)).powi(2)).sum();
                weight / variance * (-squared / (2.0 * variance)).exp()
            };
            components.map(of).iter().sum::<f64>().ln()
        };
        for point in [[0.2, 0.1], [0.6, -0.3], [-0.5, 0.6]] {
            let h = 1e-4;
            let slope = |axis: usize| {
                let at = |offset: f64| {
                    log_density(std::array::from_fn(|i| {
                        point[i] + if i == axis { offset } else { 0.0 }
                    }))
                };
                (at(h) - at(-h)) / (2.0 * h)
            };
            let latent = Tensor::<Plain, 1>::from_floats(
                point.map(|x| x as f32).as_slice(),
                &Device::default(),
            );
            let latent = latent.reshape([1, 2, 1, 1]);
            let density: f64 = field.density(latent.clone(), t).into_scalar().elem();
            // The weights sum to 3.1.
            let expected = log_density(point).exp() / (3.1 * std::f64::consts::TAU);
            assert!((density / expected - 1.0).abs() < 1e-5, "{density} is not {expected}");
            let got = numbers(field.score(latent, t));
            let d = distance(&got, &[slope(0), slope(1)]);
            assert!(d < 1e-3, "at {point:?}, t = {t}: {got:?} {d:e}");
        }
    }
}
