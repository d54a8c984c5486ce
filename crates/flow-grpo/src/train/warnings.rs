//! Warnings that a run logs once before it continues: numbers that make an epoch worth less than it
//! looks.

use grpo::EpochMetrics;

/// Rounding, in clip ranges, above which it influences the clip.
const WARN_ABOVE: f64 = 0.1;

/// The warnings that were given before.
#[derive(Debug, Default)]
pub struct Warnings {
    off_policy: bool,
    epsilon: bool,
}

impl Warnings {
    /// The new warnings of an epoch; `epsilon` is that of AdamW.
    pub fn of(&mut self, metrics: &EpochMetrics, epsilon: f64) -> Vec<String> {
        let rounding = self.of_rounding(metrics);
        let moved = (metrics.updates > 0).then_some(metrics.gradient_rms);
        rounding.into_iter().chain(self.of_epsilon(metrics.epoch, moved, epsilon)).collect()
    }

    /// Warns of rounding, for algorithms that compare the first update with the rollout.
    fn of_rounding(&mut self, metrics: &EpochMetrics) -> Option<String> {
        let of_first = |number: &str| metrics.number(&format!("on_policy.{number}"));
        let (epoch, max, clip_ranges) = (metrics.epoch, of_first("max")?, of_first("clip_ranges")?);
        if clip_ranges <= WARN_ABOVE || std::mem::replace(&mut self.off_policy, true) {
            return None;
        }
        Some(format!(
            "warning: epoch {epoch}: before the first update log-probabilities are up to {max:.1e} off the rollout's, {clip_ranges:.2} clip ranges: rounding \
             takes part in what the clip decides; with grpo.replay_batches = \"rollout\" the replay computes what the rollout computed"
        ))
    }

    /// Warns of gradients below ten times AdamW's epsilon. A root mean square of exactly 0 means no
    /// gradient, or that AdamW moves nothing.
    fn of_epsilon(
        &mut self,
        epoch: usize,
        gradient_rms: Option<f64>,
        epsilon: f64,
    ) -> Option<String> {
        let rms = gradient_rms.filter(|rms| *rms > 0.0 && *rms < 10.0 * epsilon)?;
        if std::mem::replace(&mut self.epsilon, true) {
            return None;
        }
        Some(format!(
            "warning: epoch {epoch}: the root mean square of the gradient is {rms:.1e}, grpo.optimizer.epsilon {epsilon:.1e}: AdamW divides by the \
             sum of both, so steps are shorter than the learning rate says; lower epsilon to a tenth of the gradient or less"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_said_once_above_a_tenth_of_a_clip_range() {
        let mut warnings = Warnings::default();
        let of = |epoch: usize, clip_ranges: f64| {
            let on_policy =
                serde_json::json!({ "max": clip_ranges * 1e-4, "clip_ranges": clip_ranges });
            let algorithm = serde_json::Map::from_iter([("on_policy".to_owned(), on_policy)]);
            EpochMetrics { epoch, algorithm, ..EpochMetrics::default() }
        };
        assert_eq!(warnings.of_rounding(&EpochMetrics::default()), None, "an algorithm without it");
        assert_eq!(warnings.of_rounding(&of(1, 0.0)), None);
        assert_eq!(warnings.of_rounding(&of(2, 0.1)), None);
        let said = warnings.of_rounding(&of(3, 0.25)).expect("a warning");
        assert!(
            said.contains("epoch 3")
                && said.contains("2.5e-5")
                && said.contains("0.25 clip ranges"),
            "{said}"
        );
        assert_eq!(warnings.of_rounding(&of(4, 5.0)), None);
    }

    #[test]
    fn a_gradient_near_epsilon_is_said_once() {
        let mut warnings = Warnings::default();
        for quiet in [None, Some(0.0), Some(1e-7), Some(1.0)] {
            assert_eq!(warnings.of_epsilon(1, quiet, 1e-8), None);
        }
        let said = warnings.of_epsilon(2, Some(9.9e-8), 1e-8).expect("a warning");
        assert!(
            said.contains("epoch 2")
                && said.contains("9.9e-8")
                && said.contains("grpo.optimizer.epsilon 1.0e-8"),
            "{said}"
        );
        assert_eq!(warnings.of_epsilon(3, Some(1e-9), 1e-8), None);
    }
}
