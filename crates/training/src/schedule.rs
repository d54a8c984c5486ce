//! The learning rate over a run.

use std::fmt;

/// The learning rate of a step, counted from 0, relative to its peak: linear warm-up, constant,
/// linear cool-down.
///
/// ```text
/// min( (step + 1)/(warm_up + 1), 1, (steps − step)/(cool_down + 1) )
/// ```
///
/// Source: arXiv 2405.18392, where this schedule is as good as a cosine and a run can be
/// lengthened. A step is an epoch of reinforcement learning or an update of pre-training. The rate
/// of the first and of the last step is above 0; from `steps` on it is 0.
pub fn rate(step: usize, steps: usize, warm_up: usize, cool_down: usize) -> f64 {
    let warm = (step + 1) as f64 / (warm_up + 1) as f64;
    let cool = steps.saturating_sub(step) as f64 / (cool_down + 1) as f64;
    warm.min(cool).min(1.0)
}

/// A number of steps with its key in the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The key.
    pub key: &'a str,
    /// The number of steps.
    pub value: usize,
}

impl fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.key, self.value)
    }
}

/// Describes the problem of a schedule whose warm-up and cool-down are longer than the run, so that
/// the rate never reaches its peak. Without a cool-down a short run equals the beginning of a
/// longer one, which is no problem.
pub fn problem(warm_up: Setting, cool_down: Setting, steps: Setting) -> Option<String> {
    let varying = warm_up.value.saturating_add(cool_down.value);
    (cool_down.value > 0 && varying > steps.value).then(|| {
        format!(
            "{cool_down} and {warm_up} take more than {steps}: the learning rate would never \
             reach its peak; lower them as well"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::{Setting, problem, rate};

    #[test]
    fn a_schedule_that_never_reaches_its_peak_is_a_problem() {
        let of = |warm_up, cool_down, steps| {
            problem(
                Setting { key: "warm_up", value: warm_up },
                Setting { key: "cool_down", value: cool_down },
                Setting { key: "epochs", value: steps },
            )
        };
        for (warm_up, cool_down, steps) in
            [(0, 0, 1), (3, 0, 1), (3, 160, 163), (3, 160, 200), (1, 1, 2), (0, 5, 5)]
        {
            assert_eq!(of(warm_up, cool_down, steps), None);
        }
        assert!((0..163).map(|step| rate(step, 163, 3, 160)).fold(0.0, f64::max) > 0.99);
        let text = of(3, 160, 162).expect("too short");
        assert!(text.contains("cool_down (160)") && text.contains("epochs (162)"), "{text}");
        assert!(of(usize::MAX, usize::MAX, 5).is_some());
    }

    #[test]
    fn it_rises_stays_and_falls() {
        let rates: Vec<f64> = (0..8).map(|step| rate(step, 7, 1, 3)).collect();
        assert_eq!(rates, [0.5, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]);
    }

    #[test]
    fn without_warm_up_and_cool_down_it_is_constant() {
        assert!((0..5).all(|step| rate(step, 5, 0, 0) == 1.0));
    }
}
