//! The demo "ratio and clip": one transition whose mean has moved, its ratio, and the clipped loss.

use burn::{backend::Autodiff, prelude::*, tensor::backend::BackendTypes};
use flow::{IsotropicGaussian, Reduction};
use grpo::objective;
use wasm_bindgen::prelude::*;

use crate::Plain;

/// Most elements of a latent: SD3.5 at 512 x 512 pixels.
const MOST: usize = 65_536;

/// A transition after its policy has moved.
///
/// The old policy drew `x'` from `N(0, s²I)`. The new one has the mean `z·s` in every element. Only
/// the place of `x'` along this shift matters for the ratio, so the other directions are left out.
#[wasm_bindgen]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// The shift `z` of the mean, in standard deviations of an element.
    pub shift: f32,
    /// The place of the draw along the shift, in standard deviations: 1 is typical.
    pub draw: f32,
    /// The advantage.
    pub advantage: f32,
    /// The clip range `κ`, the same below and above 1.
    pub range: f64,
    /// The number `d` of elements of the latent.
    pub elements: usize,
    /// Whether log-probabilities are summed over the elements; otherwise their mean is taken.
    pub sum: bool,
}

#[wasm_bindgen]
impl Clip {
    /// Creates a transition of the published code's latents at its clip range.
    #[wasm_bindgen(constructor)]
    pub fn new() -> Clip {
        Self { shift: 0.01, draw: 1.0, advantage: 1.0, range: 1e-4, elements: MOST, sum: false }
    }

    /// Four numbers: the ratio `ρ`, the loss, its derivative with respect to `log π_new`, and the log
    /// of the density ratio of the whole latent, in nats.
    pub fn point(&self) -> Vec<f32> {
        let density = self.log_ratio(Reduction::Sum);
        let log_ratio = if self.sum { density } else { self.log_ratio(Reduction::Mean) };
        let [ratio, loss, gradient] = clipped(&[log_ratio], self.advantage, self.clip());
        vec![ratio[0], loss[0], gradient[0], density]
    }

    /// The loss at some ratios, for an advantage.
    pub fn curve(&self, advantage: f32, ratios: &[f32]) -> Vec<f32> {
        let log_ratios: Vec<f32> = ratios.iter().map(|ratio| ratio.ln()).collect();
        let [_, losses, _] = clipped(&log_ratios, advantage, self.clip());
        losses
    }

    /// The log of the density ratio at which a transition with a positive advantage is clipped, in
    /// nats: `d·ln(1 + κ)`, or `ln(1 + κ)` if log-probabilities are summed.
    pub fn nats(&self) -> f64 {
        let elements = if self.sum { 1 } else { self.count() };
        elements as f64 * self.range.ln_1p()
    }

    /// The log of `π_new(x')/π_old(x')`, reduced over the elements.
    fn log_ratio(&self, reduction: Reduction) -> f32 {
        let elements = self.count();
        // With this std, `ln std + ½·ln 2π` is 0, so that no large number hides the small ratio.
        let std = (2.0 * std::f64::consts::PI).sqrt().recip();
        let all = |value: f64| -> Tensor<Plain, 4> {
            Tensor::full([1, elements, 1, 1], value, &burn_flex::FlexDevice)
        };
        let log_prob = |mean: f64, value: f64| -> f32 {
            let policy = IsotropicGaussian { mean: all(mean * std), std };
            policy.log_prob(all(value * std), reduction).into_scalar()
        };
        let value = f64::from(self.draw) / (elements as f64).sqrt();
        log_prob(self.shift.into(), value) - log_prob(0.0, value)
    }

    fn count(&self) -> usize {
        self.elements.clamp(1, MOST)
    }

    fn clip(&self) -> objective::Clip {
        objective::Clip { low: self.range, high: self.range }
    }
}

impl Default for Clip {
    fn default() -> Self {
        Self::new()
    }
}

/// Ratios, losses and derivatives of the losses with respect to `log π_new`.
fn clipped(log_ratios: &[f32], advantage: f32, clip: objective::Clip) -> [Vec<f32>; 3] {
    if log_ratios.is_empty() {
        return [const { Vec::new() }; 3];
    }
    let device = <Plain as BackendTypes>::Device::default();
    let row = |values: &[f32]| Tensor::<Autodiff<Plain>, 1>::from_floats(values, &device);
    let new = row(log_ratios).require_grad();
    let old = row(&vec![0.0; log_ratios.len()]);
    let advantage = row(&vec![advantage; log_ratios.len()]);
    let policy = objective::clipped_loss(new.clone(), old, advantage, clip);
    let gradients = policy.loss.clone().sum().backward();
    let gradient = new.grad(&gradients).unwrap_or_else(|| new.clone().inner().zeros_like());
    [policy.ratio.inner(), policy.loss.inner(), gradient].map(numbers)
}

fn numbers<B: Backend>(values: Tensor<B, 1>) -> Vec<f32> {
    values.into_data().iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The formula of the book, in f64.
    fn loss(advantage: f64, ratio: f64, range: f64) -> f64 {
        (-advantage * ratio).max(-advantage * ratio.clamp(1.0 - range, 1.0 + range))
    }

    #[test]
    fn the_curves_are_the_clipped_loss_of_the_book() {
        for range in [1e-4, 1e-3, 0.2] {
            let demo = Clip { range, ..Clip::new() };
            for advantage in [-3.0_f32, -0.4, 0.0, 1.0, 2.5] {
                let ratios: Vec<f32> =
                    (-30..=30).map(|i| 1.0 + (range * f64::from(i) / 10.0) as f32).collect();
                for (ratio, found) in ratios.iter().zip(demo.curve(advantage, &ratios)) {
                    let expected = loss(advantage.into(), (*ratio).into(), range);
                    assert!((expected - f64::from(found)).abs() < 1e-6, "{expected} {found}");
                }
            }
        }
    }

    #[test]
    fn the_gradient_is_zero_exactly_where_the_policy_has_moved_far_enough() {
        for (range, elements, sum) in
            [(1e-4, MOST, false), (1e-3, 1728, false), (0.2, 1, false), (0.2, 1728, true)]
        {
            for (advantage, draw) in
                [-2.0, -0.1, 0.1, 2.0].iter().flat_map(|&a| [-2.5, -1.0, 1.0, 2.5].map(|z| (a, z)))
            {
                for shift in (0..60).map(|i| 1e-4 * 1.17_f32.powi(i)) {
                    let demo = Clip { shift, draw, advantage, range, elements, sum };
                    let [ratio, _, gradient, _] = demo.point()[..] else { panic!("four numbers") };
                    let beyond = (f64::from(ratio) - 1.0) / range;
                    // Within rounding of the corner either is right; the gradient of a tiny ratio
                    // rounds to 0.
                    if (beyond.abs() - 1.0).abs() > 2e-3 && ratio > 1e-30 {
                        let off = if advantage > 0.0 { beyond > 1.0 } else { beyond < -1.0 };
                        assert_eq!(gradient == 0.0, off, "{demo:?}: ratio {ratio}");
                        assert!(off || (gradient + advantage * ratio).abs() < 1e-5, "{demo:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_nats_at_the_clip_give_the_ratio_at_the_clip() {
        for (range, elements, sum) in [(0.2, 1, false), (0.5, 100, false), (0.5, 100, true)] {
            let demo = Clip { range, elements, sum, ..Clip::new() };
            let reduced = if sum { demo.nats() } else { demo.nats() / elements as f64 };
            assert!((reduced.exp() - 1.0 - range).abs() < 1e-12, "{demo:?}");
        }
    }

    #[test]
    fn the_ratio_is_the_closed_form_of_two_gaussians() {
        for elements in [1, 2, 1728, MOST] {
            for (shift, draw) in [(1e-3_f32, 1.0_f32), (0.02, 1.5), (0.1, -0.5)] {
                let (z, d) = (f64::from(shift), elements as f64);
                let exact = z * f64::from(draw) * d.sqrt() - d * z * z / 2.0;
                let point = Clip { shift, draw, elements, ..Clip::new() }.point();
                assert!((f64::from(point[3]) - exact).abs() < 1e-4 * (1.0 + exact.abs()));
                assert!((f64::from(point[0]).ln() - exact / d).abs() < 3e-7, "{elements} {shift}");
            }
        }
    }

    #[test]
    fn the_published_clip_range_is_a_density_ratio_of_seven_hundred() {
        assert!((Clip::new().nats() - 6.553).abs() < 1e-3);
        assert!((Clip::new().nats().exp() - 701.6).abs() < 1.0);
    }

    #[test]
    fn in_many_dimensions_the_middle_draw_leaves_the_range_below_at_the_root_of_twice_the_clip() {
        let edge = 2e-4_f32.sqrt();
        for (factor, off) in [(0.9, false), (1.1, true)] {
            let demo = Clip { shift: factor * edge, draw: 0.0, advantage: -1.0, ..Clip::new() };
            assert_eq!(demo.point()[2] == 0.0, off, "{factor}");
            // With a positive advantage, the gradient stays on and brings it back.
            assert!(Clip { advantage: 1.0, ..demo }.point()[2] < 0.0);
        }
    }
}
