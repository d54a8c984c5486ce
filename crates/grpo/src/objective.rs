//! The clipped objective of GRPO.

use burn::prelude::*;
use flow::{GuidanceGradient, KlForm, Sampler};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The settings of the clipped objective.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectiveConfig {
    /// An action with a negative advantage has a gradient until its ratio falls to
    /// `1 − clip_range_low`. The reference code calls this `clip_range_lt` and uses 1e-4. Its
    /// log-probabilities are means over the `d` elements, so the clip acts once the mean of a step
    /// has moved by about `1e-4·√d` standard deviations, or by `√2e-4` if that is less.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip_range_low: f64,
    /// An action with a positive advantage has a gradient until its ratio rises to
    /// `1 + clip_range_high`. The reference code calls this `clip_range_gt`. A value above
    /// `clip_range_low` lets rare actions become more likely (arXiv 2503.14476, section 3.1).
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub clip_range_high: f64,
    /// Weights of the steps of a trajectory.
    pub step_weight: StepWeight,
    /// The weight `β` of the KL penalty; at 0 the reference is not evaluated.
    #[schemars(range(min = 0.0))]
    pub kl_weight: f64,
    /// Whether `β` is fixed or adaptive.
    pub kl_controller: KlController,
    /// The form of the KL divergence.
    pub kl_form: KlForm,
    /// Number of ODE steps per row at which the KL penalty is taken as if they drew noise. The steps
    /// are drawn again for every row, and each has the weight of a trained transition (deviation
    /// `kl-on-ode-steps`). With 0, no penalty holds the velocity at the ODE steps, which decide the
    /// details of an image.
    pub kl_ode_steps: usize,
    /// Which halves of a guided velocity, the conditional and the unconditional, have a gradient.
    pub guidance_gradient: GuidanceGradient,
}

impl Default for ObjectiveConfig {
    /// The values of the reference code since 2025-07-15.
    fn default() -> Self {
        Self {
            clip_range_low: 1e-4,
            clip_range_high: 1e-4,
            step_weight: StepWeight::Equal,
            kl_weight: 0.04,
            kl_controller: KlController::Fixed {},
            kl_form: KlForm::Reference,
            kl_ode_steps: 0,
            guidance_gradient: GuidanceGradient::Both,
        }
    }
}

impl ObjectiveConfig {
    /// Lists all settings that contradict each other, in one sentence each that begins with the key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.kl_weight == 0.0 && matches!(self.kl_controller, KlController::Adaptive { .. }) {
            problems.push(
                "kl_weight (0) must be positive with an adaptive controller, which starts from it"
                    .to_owned(),
            );
        }
        if self.kl_ode_steps > 0 && self.kl_weight == 0.0 {
            problems.push("kl_ode_steps needs an objective.kl_weight above 0".to_owned());
        }
        problems
    }

    /// The range of ratios in which a transition has a gradient.
    pub fn clip(&self) -> Clip {
        Clip { low: self.clip_range_low, high: self.clip_range_high }
    }
}

/// The distances from 1 at which a ratio is clipped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clip {
    /// Distance below 1.
    pub low: f64,
    /// Distance above 1.
    pub high: f64,
}

impl Clip {
    /// The smaller of the two distances. Messages and metrics give log-ratios in this unit.
    pub fn range(self) -> f64 {
        self.low.min(self.high)
    }
}

/// The rule for the weight `β` of the KL penalty.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum KlController {
    /// The weight is constant.
    Fixed {},
    /// The weight moves after every epoch so that the divergence approaches a target:
    ///
    /// ```text
    /// e = clip(KL/target − 1, −0.2, 0.2)        β ← β·(1 + rate·e)
    /// ```
    ///
    /// Source: arXiv 1909.08593, section 2.2, where the rate is 0.1.
    Adaptive {
        /// The target of the mean KL divergence over trained transitions.
        #[schemars(extend("exclusiveMinimum" = 0))]
        target: f64,
        /// The speed at which `β` changes.
        #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
        rate: f64,
    },
}

impl KlController {
    // ANCHOR: controller
    /// The weight of the next epoch, from the weight and the divergence of this one.
    #[must_use]
    pub fn next(self, weight: f64, divergence: f64) -> f64 {
        match self {
            Self::Fixed {} => weight,
            Self::Adaptive { target, rate } => {
                weight * (1.0 + rate * (divergence / target - 1.0).clamp(-0.2, 0.2))
            }
        }
    }
    // ANCHOR_END: controller
}

/// The weight of a step's policy loss, relative to the other trained steps; the mean over the
/// trained steps is 1.
///
/// With equal weights the late steps dominate: the gradient of `log π` is proportional to `1/s`, and
/// `s`, the std of the step's noise, falls along the trajectory. But early steps decide the content
/// of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepWeight {
    /// Equal weights, as in the paper and its code.
    Equal,
    /// `ω ∝ s` (TempFlow, arXiv 2508.04324).
    Std,
    /// `ω ∝ s²`. At ratio 1 this gives the gradient of Flow-CPS's log-probability, which leaves out
    /// the variance: `−mean((x' − μ)²)` (arXiv 2509.05952).
    Variance,
}

impl StepWeight {
    /// Computes the weight of every step of the sampler's grid; 0 for steps outside `trained`.
    pub fn weights(self, sampler: &Sampler, trained: &[usize]) -> Vec<f64> {
        let raw = |index: usize| {
            let (step, transition) = sampler.step(index);
            match self {
                Self::Equal => 1.0,
                Self::Std => transition.affine(step).std,
                Self::Variance => transition.affine(step).std.powi(2),
            }
        };
        let mean = trained.iter().map(|&index| raw(index)).sum::<f64>() / trained.len() as f64;
        (0..sampler.grid().len())
            .map(|index| if trained.contains(&index) { raw(index) / mean } else { 0.0 })
            .collect()
    }
}

/// The policy loss of every row, with its ratio.
#[derive(Clone, Debug)]
pub struct PolicyLoss<B: Backend> {
    /// The loss to minimise, `[B]`.
    pub loss: Tensor<B, 1>,
    /// The ratio `π_new / π_old`, `[B]`.
    pub ratio: Tensor<B, 1>,
}

/// The clipped surrogate loss of PPO, row by row.
///
/// ```text
/// ρ = exp(log π_new − log π_old)        L = max( −A·ρ, −A·clip(ρ, 1 − low, 1 + high) )
/// ```
///
/// Source: arXiv 2505.05470, equation 6; arXiv 1707.06347, equation 7.
///
/// # Shapes
/// - all: `[B]`, f32
// ANCHOR: clipped
pub fn clipped_loss<B: Backend>(
    new_log_prob: Tensor<B, 1>,
    old_log_prob: Tensor<B, 1>,
    advantage: Tensor<B, 1>,
    clip: Clip,
) -> PolicyLoss<B> {
    // f32 from here on: just above 1, bf16 numbers are 0.0078 apart and could never show a clip
    // range of 1e-4.
    let ratio = (new_log_prob - old_log_prob).exp();
    let clipped = ratio.clone().clamp(1.0 - clip.low, 1.0 + clip.high);
    let loss = (advantage.clone().neg() * ratio.clone()).max_pair(advantage.neg() * clipped);
    PolicyLoss { loss, ratio }
}
// ANCHOR_END: clipped

#[cfg(test)]
mod tests {
    use flow::{FlowSde, GridKind, NoiseLevel};

    use super::*;

    #[test]
    fn an_adaptive_weight_holds_what_answers_to_it() {
        // A divergence that falls with the weight, as 0.05/β.
        let controller = KlController::Adaptive { target: 0.02, rate: 0.5 };
        for start in [0.01, 40.0] {
            let weight = (0..200).fold(start, |weight, _| controller.next(weight, 0.05 / weight));
            assert!((0.05 / weight - 0.02).abs() < 1e-3, "from {start}: {weight}");
        }
        assert_eq!(KlController::Fixed {}.next(0.4, 9.0), 0.4);
    }

    /// The book's advice: in the shapes task the divergence answers some twenty epochs later.
    #[test]
    fn a_weight_that_is_answered_late_swings_with_a_high_rate() {
        let late = 20;
        let extremes = |rate: f64| {
            let controller = KlController::Adaptive { target: 0.5, rate };
            let mut weights = vec![1.0; late];
            let mut divergences = Vec::new();
            for epoch in 0..400 {
                let divergence = 1.0 / weights[epoch];
                divergences.push(divergence / 0.5);
                weights.push(controller.next(weights[epoch + late - 1], divergence));
            }
            let settled = &divergences[60..];
            [f64::min, f64::max].map(|f| settled.iter().copied().reduce(f).expect("epochs"))
        };
        let ([low, high], [lowest, highest]) = (extremes(0.1), extremes(0.5));
        assert!(low > 0.7 && high < 1.4, "gentle: {low} to {high} times the target");
        assert!(lowest < 0.2 && highest > 5.0, "hasty: {lowest} to {highest} times the target");
    }

    #[test]
    fn weights_have_mean_1_over_the_trained_steps_and_follow_the_noise() {
        let grid = GridKind::Linear {}.grid(10).expect("a valid grid");
        let sampler =
            Sampler::new(grid, FlowSde { noise_level: NoiseLevel::new(0.7).expect("valid") });
        let std = |index| {
            let (step, transition) = sampler.step(index);
            transition.affine(step).std
        };
        let trained = [0, 2, 5];
        for (kind, power) in
            [(StepWeight::Equal, 0), (StepWeight::Std, 1), (StepWeight::Variance, 2)]
        {
            let weights = kind.weights(&sampler, &trained);
            assert!((weights.iter().sum::<f64>() - 3.0).abs() < 1e-12);
            assert_eq!(weights.iter().filter(|weight| **weight > 0.0).count(), 3);
            assert!((weights[0] / weights[5] - (std(0) / std(5)).powi(power)).abs() < 1e-12);
        }
    }
}
