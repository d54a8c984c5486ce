//! The learning rate over a run.

/// The learning rate of a step, counted from 0, relative to its peak: linear warm-up, constant, linear cool-down.
///
/// ```text
/// min( (step + 1)/(warm_up + 1), 1, (steps − step)/(cool_down + 1) )
/// ```
///
/// Source: arXiv 2405.18392: as good as a cosine, and a run can be lengthened. A step is an epoch of reinforcement learning or
/// an update of pre-training. The first step is above 0, and so is the last; 0 from `steps` on.
pub fn rate(step: usize, steps: usize, warm_up: usize, cool_down: usize) -> f64 {
    let warm = (step + 1) as f64 / (warm_up + 1) as f64;
    let cool = steps.saturating_sub(step) as f64 / (cool_down + 1) as f64;
    warm.min(cool).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::rate;

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
