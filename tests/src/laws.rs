//! The laws that the book's chapters state: each is a formula there and a test here.
//!
//! Most of them use data from one centred Gaussian in one dimension. Its velocity is linear in `x`,
//! so a sampler is a chain `x' = gain·x + push·θ + std·ε`, whose moments and gradients have closed
//! forms; `θ` is a constant that is added to the velocity.

use burn::tensor::Tensor;
use flow::{
    Affine, Dance, FlowCps, GridKind, IsotropicGaussian, KlForm, NoiseLevel, Ode, Reduction, Step,
    Transition,
};
use grpo::advantage::{AdvantageConfig, Spread, group_advantages};

use crate::{
    backend::{Plain, distance, numbers},
    closed_forms::{flow_sde, noise},
};

/// The variance of the data, where a law does not name another.
const DATA: f64 = 0.25;

/// The variance of the marginal at `t`, for data of variance `data`.
fn variance(t: f64, data: f64) -> f64 {
    (1.0 - t).powi(2) * data + t * t
}

/// One step of the chain.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// The derivative of the mean by the latent.
    gain: f64,
    /// The derivative of the mean by the velocity.
    push: f64,
    std: f64,
}

/// `steps` steps on the linear grid from `start` to 0: `transition` in the first `random`, then the
/// ODE.
fn chain(start: f64, steps: usize, random: usize, transition: Transition) -> Vec<Link> {
    let time = |i: usize| start * (1.0 - i as f64 / steps as f64);
    let steps = (0..steps).map(|index| Step { index, from: time(index), to: time(index + 1) });
    linked(steps, random, transition, DATA)
}

/// The chain of some steps for data of variance `data`: `transition` in the first `random`, then the
/// ODE.
fn linked(
    steps: impl Iterator<Item = Step>,
    random: usize,
    transition: Transition,
    data: f64,
) -> Vec<Link> {
    let link = |step: Step| {
        let rule = if step.index < random { transition } else { Ode {}.into() };
        let Affine { latent, velocity, std } = rule.affine(step);
        let slope = (step.from - (1.0 - step.from) * data) / variance(step.from, data);
        Link { gain: latent + velocity * slope, push: velocity, std }
    };
    steps.map(link).collect()
}

fn sde(steps: usize, level: f64) -> Vec<Link> {
    chain(1.0, steps, steps, flow_sde(level))
}

fn ode(steps: usize) -> Vec<Link> {
    chain(1.0, steps, 0, Ode {}.into())
}

/// The derivative of the final latent by the latent after each step.
fn propagated(chain: &[Link]) -> Vec<f64> {
    let mut after = vec![1.0; chain.len()];
    for i in (1..chain.len()).rev() {
        after[i - 1] = after[i] * chain[i].gain;
    }
    after
}

/// The relative error of the final variance, from the exact marginal at t = 1.
fn spread_error(chain: &[Link], data: f64) -> f64 {
    let end = chain.iter().fold(1.0, |v, link| link.gain.powi(2) * v + link.std.powi(2));
    end / data - 1.0
}

#[test]
fn from_pure_noise_the_order_is_the_square_of_the_noise_level_up_to_one() {
    let order = |level: f64, steps: usize| {
        let [coarse, fine] = [steps, 4 * steps].map(|n| spread_error(&sde(n, level), DATA).abs());
        (coarse / fine).ln() / 4.0_f64.ln()
    };
    // The slope between 800 and 3,200 steps is not the order: it is still rising.
    let [early, late] = [800, 200_000].map(|steps| order(0.7, steps));
    assert!((early - 0.34).abs() < 0.01 && (late - 0.49).abs() < 0.01, "{early}, {late}");
    for (level, expected) in [(0.5, 0.25), (0.6, 0.36), (0.8, 0.64), (1.2, 1.0)] {
        let order = order(level, 200_000);
        assert!((order - expected).abs() < 0.02, "a = {level}: order {order}");
    }
    // At √2 the terms of order 1 cancel.
    let exception = order(2.0_f64.sqrt(), 4_000);
    assert!((exception - 2.0).abs() < 0.01, "a = √2: order {exception}");
}

#[test]
fn ten_steps_of_the_sde_miss_the_spread_by_less_than_ten_of_the_ode() {
    let percent = |steps: usize, data: f64| {
        let grid = GridKind::Linear {}.grid(steps).expect("valid");
        [0.0, 0.7, 1.0, 2.0_f64.sqrt()].map(|level| {
            let random = if level > 0.0 { steps } else { 0 };
            100.0 * spread_error(&linked(grid.steps(), random, flow_sde(level), data), data)
        })
    };
    // Rows of the book's table, and narrow data.
    let table = [
        (10, DATA, [-25.8, -8.0, -2.6, 1.8]),
        (40, DATA, [-7.1, -1.1, -0.5, 0.1]),
        (200, DATA, [-1.5, 0.4, 0.0, 0.0]),
        (10, 0.0225, [-48.4, -18.5, -2.3, 24.1]),
    ];
    for (steps, data, expected) in table {
        let got = percent(steps, data);
        let far = got.iter().zip(expected).any(|(a, b): (&f64, f64)| (a - b).abs() > 0.06);
        assert!(!far, "{steps} steps, data {data}: {got:.2?}");
    }
}

#[test]
fn the_transitions_of_the_family_take_the_steps_of_the_books_table() {
    let level = |x: f64| NoiseLevel::new(x).expect("a level");
    let rows: [(Transition, [f64; 5]); 5] = [
        (Ode {}.into(), [0.704, 0.0, 0.0, -25.8, -7.1]),
        (flow_sde(0.7), [0.641, 0.221, 0.074, -8.0, -1.1]),
        (Dance { noise_level: level(0.3) }.into(), [0.692, 0.095, 0.095, -22.0, -6.1]),
        (Dance { noise_level: level(0.7) }.into(), [0.641, 0.221, 0.221, -9.9, -2.8]),
        (FlowCps { noise_level: level(0.8) }.into(), [0.350, 0.380, 0.0, -50.5, -40.4]),
    ];
    for (transition, [mean, std, last, ten, forty]) in rows {
        let links = chain(1.0, 10, 10, transition);
        let of_steps = [links[5].gain * 0.8, links[5].std, links[9].std];
        let errors = [10, 40].map(|n| spread_error(&chain(1.0, n, n, transition), DATA) * 100.0);
        assert!(
            distance(&of_steps, &[mean, std, last]) < 2e-3
                && errors.iter().zip([ten, forty]).all(|(a, b)| (a - b).abs() < 0.06),
            "{transition:?}: {of_steps:.4?}, {errors:.2?}"
        );
    }
}

/// The log-ratios of `rows` draws after the mean of every element has moved by `shift` standard
/// deviations.
fn log_ratios(rows: usize, shape: [usize; 3], shift: f64, reduction: Reduction) -> Vec<f64> {
    let draw = noise(rows, shape, 77);
    let old = IsotropicGaussian::<Plain> { mean: draw.zeros_like(), std: 0.5 };
    let value = old.sample(draw);
    let new = IsotropicGaussian { mean: old.mean.clone() + shift * old.std, std: old.std };
    numbers(new.log_prob(value.clone(), reduction) - old.log_prob(value, reduction))
}

#[test]
fn at_the_shift_of_a_clip_the_mean_log_ratio_has_the_clip_as_root_mean_square() {
    // Rows of the book's table: shape, clip range, shift, shares of ratios below and above the clip.
    let table = [
        ([16, 64, 64], 100, 1e-4, 0.0131, [0.39, 0.00]),
        ([3, 24, 24], 2000, 1e-3, 0.0340, [0.30, 0.027]),
        ([2, 1, 1], 2000, 0.05, 0.0706, [0.16, 0.15]),
    ];
    for (shape, rows, clip, of_table, shares) in table {
        let elements = shape.iter().product::<usize>() as f64;
        let square = 2.0 * ((clip * elements).hypot(1.0) - 1.0) / elements;
        let shift = square.sqrt();
        assert!((shift / of_table - 1.0).abs() < 0.005, "{shift} is not {of_table}");
        assert!((square.powi(2) / 4.0 + square / elements - clip * clip).abs() < 1e-9 * clip);

        let drawn = log_ratios(rows, shape, shift, Reduction::Mean);
        let mean =
            |of: &dyn Fn(f64) -> f64| drawn.iter().map(|x| of(*x)).sum::<f64>() / rows as f64;
        let (center, root) = (mean(&|x| x), mean(&|x| x * x).sqrt());
        let spread = shift / elements.sqrt();
        // Five standard errors, as for the shares below.
        let error = 5.0 / (rows as f64).sqrt();
        assert!((center + square / 2.0).abs() < error * spread, "d = {elements}: mean {center:e}");
        assert!(
            (root / clip - 1.0).abs() < error * 0.75,
            "d = {elements}: {root:e} is not {clip:e}"
        );
        let outside = [
            mean(&|x| f64::from(x.exp() < 1.0 - clip)),
            mean(&|x| f64::from(x.exp() > 1.0 + clip)),
        ];
        for (got, share) in outside.iter().zip(shares) {
            let error: f64 = error * f64::sqrt(share * (1.0 - share)) + 0.01;
            assert!(
                (got - share).abs() < error,
                "d = {elements}: {outside:?} instead of {shares:?}"
            );
        }
    }
}

#[test]
fn the_sum_of_the_log_ratio_has_d_times_the_nats_of_its_mean() {
    let of = |reduction| log_ratios(50, [1, 64, 64], 0.05, reduction);
    let times_d: Vec<f64> = of(Reduction::Mean).iter().map(|x| x * 4096.0).collect();
    assert!(distance(&times_d, &of(Reduction::Sum)) < 1e-2);
}

/// The mean over groups of `mean_i A_i·∇log π(x_i)` for actions `x ~ N(θ, 1)` with rewards
/// `slope·x`, prompt by prompt. The exact gradient of a prompt is its slope.
fn group_gradients(slopes: &[f64], group: usize, groups: usize, spread: Spread) -> Vec<f64> {
    // With so large an ε an advantage is the reward less its group's mean, times 1/ε.
    let epsilon = if spread == Spread::Epoch { 1e6 } else { 1e-4 };
    let config =
        AdvantageConfig { spread, epsilon, clip: f64::INFINITY, ..AdvantageConfig::default() };
    let scale = if spread == Spread::Epoch { epsilon } else { 1.0 };
    let of_prompt = |(prompt, slope): (usize, &f64)| {
        // ANCHOR: estimate
        let actions = numbers(noise(group * groups, [1, 1, 1], 900 + prompt));
        let rewards: Vec<f32> = actions.iter().map(|x| (slope * x) as f32).collect();
        let advantages = group_advantages(&rewards, group, &config).values;
        let terms = advantages.iter().zip(&actions).map(|(a, x)| f64::from(*a) * scale * x);
        terms.sum::<f64>() / actions.len() as f64
        // ANCHOR_END: estimate
    };
    slopes.iter().enumerate().map(of_prompt).collect()
}

#[test]
fn the_groups_own_mean_as_a_baseline_shortens_the_gradient_by_one_over_its_size() {
    for group in [2, 4, 16] {
        let got = group_gradients(&[1.0], group, 200_000 / group, Spread::Epoch)[0];
        let exact = 1.0 - 1.0 / group as f64;
        assert!((got - exact).abs() < 0.015, "G = {group}: {got} is not {exact}");
    }
}

/// A baseline for draw `i` of a group.
type Baseline = fn(&[f64], usize) -> f64;

/// The table of the chapter *Policy gradients from zero*: groups of four draws of `N(0, 1)` with the
/// reward `x + 10`.
#[test]
fn a_baseline_takes_the_offset_out_of_the_variance() {
    const GROUP: usize = 4;
    const GROUPS: usize = 400_000;
    let draws = numbers(noise(GROUPS, [1, 1, GROUP], 1_000));
    let moments = |baseline: Baseline| {
        let of_group = |group: &[f64]| {
            let terms = (0..GROUP).map(|i| (group[i] + 10.0 - baseline(group, i)) * group[i]);
            terms.sum::<f64>() / GROUP as f64
        };
        let estimates: Vec<f64> = draws.chunks(GROUP).map(of_group).collect();
        let mean = estimates.iter().sum::<f64>() / GROUPS as f64;
        let squares = estimates.iter().map(|x| (x - mean).powi(2));
        [mean, squares.sum::<f64>() / GROUPS as f64]
    };
    let own: Baseline = |group, _| group.iter().sum::<f64>() / GROUP as f64 + 10.0;
    let others: Baseline =
        |group, i| (group.iter().sum::<f64>() - group[i]) / (GROUP - 1) as f64 + 10.0;
    let table: [(Baseline, [f64; 2]); 4] = [
        (|_, _| 0.0, [1.0, 25.5]),
        (|_, _| 10.0, [1.0, 0.5]),
        (own, [0.75, 0.375]),
        (others, [1.0, 0.667]),
    ];
    for (baseline, [mean, variance]) in table {
        let got = moments(baseline);
        let error = 5.0 * (variance / GROUPS as f64).sqrt();
        assert!((got[0] - mean).abs() < error, "{got:?} has not the mean {mean}");
        assert!((got[1] / variance - 1.0).abs() < 0.02, "{got:?} has not the variance {variance}");
    }
}

#[test]
fn the_groups_own_spread_makes_every_prompt_count_the_same() {
    let slopes = [1.0, 10.0];
    let epoch = group_gradients(&slopes, 16, 2_000, Spread::Epoch);
    let group = group_gradients(&slopes, 16, 2_000, Spread::Group);
    assert!((epoch[1] / epoch[0] - 10.0).abs() < 0.3, "{epoch:?}");
    assert!((group[1] / group[0] - 1.0).abs() < 0.03, "{group:?}");
}

/// The share of the gradient of `E[x_0]` by `θ` that the score function of the random steps sees.
fn seen(chain: &[Link]) -> f64 {
    let after = propagated(chain);
    let terms = chain.iter().zip(after).map(|(link, after)| (link.std, link.push * after));
    let (seen, all) = terms.fold((0.0, 0.0), |(seen, all), (std, term)| {
        (seen + if std > 0.0 { term } else { 0.0 }, all + term)
    });
    seen / all
}

#[test]
fn ode_steps_at_the_end_hide_their_share_of_the_gradient() {
    let of = |random| chain(1.0, 10, random, flow_sde(0.7));
    for (random, share) in [(10, 1.0), (9, 0.875), (7, 0.606), (5, 0.374), (3, 0.196)] {
        assert!((seen(&of(random)) - share).abs() < 1e-3, "{random}: {}", seen(&of(random)));
    }
}

/// Percentages of the two tables of the chapter *The sampler as a policy*, which prints whole ones.
#[test]
fn grids_and_narrow_data_change_the_share_that_random_steps_see() {
    let sd3 = GridKind::Sd3DoubleShift { shift: 3.0 };
    let rows = [
        (GridKind::Linear {}, 1.0, [(9, 92), (7, 72), (5, 49), (3, 27)].as_slice()),
        (GridKind::Linear {}, 0.25, &[(9, 88), (7, 61), (5, 37), (3, 20)]),
        (GridKind::Linear {}, 0.0225, &[(9, 70), (7, 37), (5, 21), (3, 11)]),
        (sd3, 1.0, &[(9, 99), (5, 26)]),
        (sd3, 0.25, &[(9, 99), (5, 17)]),
        (sd3, 0.0225, &[(9, 97), (5, 6)]),
    ];
    for (kind, data, shares) in rows {
        let grid = kind.grid(10).expect("valid");
        for (random, percent) in shares {
            let share = 100.0 * seen(&linked(grid.steps(), *random, flow_sde(0.7), data));
            let distance = (share - f64::from(*percent)).abs();
            assert!(
                distance <= 0.5,
                "{kind:?}, data {data}, {random}: {share:.2} % is not {percent}"
            );
        }
    }
}

#[test]
fn the_policy_gradient_of_five_random_steps_is_the_part_that_they_see() {
    const ROWS: usize = 100_000;
    let links = chain(1.0, 10, 5, flow_sde(0.7));
    let mut latent = numbers(noise(ROWS, [1, 1, 1], 300));
    let mut score = vec![0.0; ROWS];
    for (index, link) in links.iter().enumerate() {
        let drawn = numbers(noise(ROWS, [1, 1, 1], 301 + index));
        for ((x, score), e) in latent.iter_mut().zip(&mut score).zip(drawn) {
            *x = link.gain * *x + link.std * e;
            if link.std > 0.0 {
                *score += link.push * e / link.std; // ∇log π = push·(x' − μ)/std²
            }
        }
    }
    let terms: Vec<f64> = latent.iter().zip(&score).map(|(x, score)| x * score).collect();
    let mean = terms.iter().sum::<f64>() / ROWS as f64;
    let error = (terms.iter().map(|x| (x - mean).powi(2)).sum::<f64>()).sqrt() / ROWS as f64;
    let whole: f64 = links.iter().zip(propagated(&links)).map(|(l, after)| l.push * after).sum();
    let exact = seen(&links) * whole;
    assert!((mean - exact).abs() < 4.0 * error, "{mean} ± {error} is not {exact}");
    assert!((mean - whole).abs() > 10.0 * error, "{mean} ± {error} is not biased");
}

/// How far the mean of SDE and ODE moves, in units of the data's variance, when the velocity of
/// the SDE is tilted to its optimum for the reward `x_0` with a KL penalty of weight 1. In each
/// step `push·Δv = std²·∇log h`, and for a linear chain `∇log h` is what a shift of the latent does
/// to the end. The ODE takes `times` as many steps.
fn tilted(steps: usize, times: usize, level: f64) -> [f64; 2] {
    let (sde, ode) = (sde(steps, level), ode(steps * times));
    let (after, after_ode) = (propagated(&sde), propagated(&ode));
    let tilt = |i: usize| sde[i].std.powi(2) * after[i];
    let of_sde: f64 = (0..steps).map(|i| tilt(i) * after[i]).sum();
    let velocity = |i: usize| tilt(i) / sde[i].push;
    let of_ode: f64 =
        (0..steps * times).map(|i| ode[i].push * velocity(i / times) * after_ode[i]).sum();
    [of_sde / DATA, of_ode / DATA]
}

#[test]
fn the_ode_of_a_tilted_sde_moves_2_over_1_plus_half_a_squared_times_as_far() {
    for level in [0.9, 1.0, 2.0_f64.sqrt(), 2.0] {
        let [moved, ode] = tilted(40_000, 1, level);
        // What is left of x_1 at the end, which any number of steps leaves some of.
        let memory: f64 = sde(40_000, level).iter().map(|link| link.gain).product::<f64>();
        let law = 2.0 / (1.0 + level * level / 2.0) / (1.0 + memory / DATA.sqrt());
        let ratio = ode / moved;
        assert!((ratio / law - 1.0).abs() < 5e-3, "a = {level}: {ratio} is not {law}");
    }
    let [moved, ode] = tilted(40_000, 1, 2.0_f64.sqrt());
    assert!((moved - 1.0).abs() < 1e-3 && (ode - 1.0).abs() < 1e-3, "both are the tilted data");
    // Ten steps are far from the limits of 1.61, 1.33 and 1.
    for (level, of_10, of_40) in
        [(0.7, 1.22, 1.29), (1.0, 1.17, 1.23), (2.0_f64.sqrt(), 0.86, 0.90)]
    {
        for (times, expected) in [(1, of_10), (4, of_40)] {
            let [moved, ode] = tilted(10, times, level);
            assert!((ode / moved - expected).abs() < 0.006, "{level}, {times}: {}", ode / moved);
        }
    }
}

/// Mean and variance at t = 0 of SDE and ODE when the velocity of the SDE is tilted to its optimum
/// for the reward `−(x_0 − place)²/2` with a KL penalty of weight `beta`.
///
/// `log h = −curvature·x²/2 + slope·x` stays quadratic from step to step, so the recursion is exact.
fn tilted_to_a_place(steps: usize, level: f64, beta: f64, place: f64) -> [(f64, f64); 2] {
    let (sde, ode) = (sde(steps, level), ode(steps));
    // ANCHOR: value
    let (mut curvature, mut slope) = (1.0 / beta, place / beta);
    let mut shifts = vec![(0.0, 0.0); steps]; // of the mean of x': factor·x + constant
    for (shift, Link { gain, std, .. }) in shifts.iter_mut().zip(&sde).rev() {
        let rest = 1.0 + curvature * std * std;
        *shift = (gain / rest - gain, slope * std * std / rest);
        (curvature, slope) = (gain * gain * curvature / rest, gain * slope / rest);
    }
    // ANCHOR_END: value
    let end = |chain: &[Link]| {
        let steps = chain.iter().zip(&sde).zip(&shifts);
        steps.fold((0.0, 1.0), |(mean, variance), ((link, of_sde), (factor, constant))| {
            let share = link.push / of_sde.push; // the velocity changes by shift/push of the SDE
            let gain = link.gain + share * factor;
            (gain * mean + share * constant, gain * gain * variance + link.std.powi(2))
        })
    };
    [end(&sde), end(&ode)]
}

#[test]
fn the_best_policy_of_the_sde_samples_the_base_times_the_exponential_of_the_reward() {
    for seed in 0..12 {
        let draw = |index: usize| numbers(noise(1, [1, 1, 1], 50 * seed + index))[0];
        let (beta, place) = ((0.7 * draw(0)).exp(), 2.0 * draw(1));
        let precision = 1.0 / DATA + 1.0 / beta;
        let exact = (place / beta / precision, 1.0 / precision);
        for level in [0.9, 1.0, 2.0_f64.sqrt()] {
            let [of_sde, of_ode] = tilted_to_a_place(20_000, level, beta, place);
            let off = |(mean, variance): (f64, f64)| {
                (mean - exact.0).abs() / (1.0 + place.abs()) + (variance / exact.1 - 1.0).abs()
            };
            assert!(off(of_sde) < 1e-3, "{seed}, a = {level}: {of_sde:?} is not {exact:?}");
            let agrees = off(of_ode) < 1e-3;
            assert_eq!(agrees, level > 1.4, "{seed}, a = {level}: {of_ode:?} beside {exact:?}");
        }
    }
}

#[test]
fn below_the_root_of_two_the_ode_goes_too_far_and_is_too_narrow() {
    for (level, mean, std) in [(0.7, 2.061, 0.287), (1.0, 1.862, 0.315), (2.0, 1.075, 0.397)] {
        let [(of_sde, _), (got, variance)] = tilted_to_a_place(20_000, level, 0.25, 3.0);
        assert!((of_sde - 1.5).abs() < 2e-3, "a = {level}: {of_sde} is not 1.5");
        let off = (got - mean).abs() + (variance.sqrt() - std).abs();
        assert!(off < 2e-3, "a = {level}: {got} ± {}", variance.sqrt());
    }
}

#[test]
fn the_kl_of_a_step_is_its_closed_form_in_the_time() {
    let (v, w) = (noise(6, [3, 4, 4], 8), noise(6, [3, 4, 4], 9));
    let squared = numbers((v.clone() - w.clone()).powi_scalar(2));
    let squared: Vec<f64> = squared.chunks(48).map(|row| row.iter().sum()).collect();
    for (a, from, to) in [(0.7, 0.9, 0.8), (0.7, 0.3, 0.2), (1.4, 0.5, 0.25), (0.7, 1.0, 0.9)] {
        let step = Step { index: 0, from, to };
        let factor = if from == 1.0 {
            step.duration().powi(2) / (2.0 * a * a)
        } else {
            (1.0 + a * a / 2.0_f64).powi(2) * step.duration() * (1.0 - from) / (2.0 * a * a * from)
        };
        let exact: Vec<f64> = squared.iter().map(|square| square * factor).collect();
        let got = numbers(flow_sde(a).kl(KlForm::Paper, step, v.clone(), w.clone()));
        let d = distance(&got, &exact);
        assert!(d < 1e-4, "a = {a}, from {from} to {to}: {d:e}");
    }
}

/// The KL divergence is the mean log-ratio under the first policy.
#[test]
fn the_expected_log_ratio_of_a_transition_is_its_kl() {
    let step = Step { index: 3, from: 0.7, to: 0.6 };
    let transition = flow_sde(0.7);
    let rows = 20_000;
    let (x, v) = (noise(rows, [2, 1, 1], 20), noise(rows, [2, 1, 1], 21));
    let w: Tensor<Plain, 4> = v.clone() + 0.4;
    let [p, q] = [&v, &w].map(|velocity| transition.gaussian(x.clone(), velocity.clone(), step));
    let drawn = p.sample(noise(rows, [2, 1, 1], 22));
    let log_ratio =
        numbers(p.log_prob(drawn.clone(), Reduction::Sum) - q.log_prob(drawn, Reduction::Sum));
    let mean = log_ratio.iter().sum::<f64>() / rows as f64;
    let kl = numbers(transition.kl(KlForm::Paper, step, v, w))[0];
    let error = (2.0 * kl / rows as f64).sqrt(); // the log ratio is N(KL, 2·KL)
    assert!((mean - kl).abs() < 4.0 * error, "{mean} ± {error} is not {kl}");
}
