//! The best policy of a sampler on the line, for a linear reward with a KL penalty.

use crate::{time_grid::Step, transition::Affine};

/// Number of places at which a [`BestChange`] is known.
const PLACES: usize = 641;
/// The places are spread over `[−REACH, REACH]`.
const REACH: f64 = 8.0;

/// The change of the velocity that maximises `E[tilt·x_0] − KL`, by step and place.
///
/// ```text
/// h_N(x) = e^{tilt·x}        h_i(x) = E[ h_{i+1}(x') ]        x' = μ_i(x) + s_i·ε
/// ```
///
/// The KL divergence is that of whole trajectories from the base model's. The best policy multiplies
/// the density of `x'` by `h_{i+1}(x')`, and the change moves the mean of the step as this does. A
/// step without noise cannot be moved.
///
/// Source: the book, *KL, tilting, and what is optimal*.
#[derive(Clone, Debug)]
pub struct BestChange(Vec<Vec<f64>>);

impl BestChange {
    /// Solves the recursion from the last step to the first.
    ///
    /// - `steps`: every step with its Gaussian
    /// - `velocity`: the base model's velocity at each of many places, at the start of a step
    pub fn new(
        steps: &[(Step, Affine)],
        velocity: impl Fn(Step, &[f64]) -> Vec<f64>,
        tilt: f64,
    ) -> Self {
        let places: Vec<f64> = (0..PLACES).map(place).collect();
        let mut log_h: Vec<f64> = places.iter().map(|x| x * tilt).collect();
        let mut changes = Vec::new();
        for &(step, Affine { latent, velocity: push, std }) in steps.iter().rev() {
            let means =
                places.iter().zip(velocity(step, &places)).map(|(x, v)| latent * x + push * v);
            let (change, next) = means
                .map(|mean| {
                    let [shift, log] = tilted_step(&log_h, mean, std);
                    (shift / push, log)
                })
                .unzip();
            changes.push(change);
            log_h = next;
        }
        changes.reverse();
        Self(changes)
    }

    /// The change of the velocity in the step of this index, at `x`.
    ///
    /// # Panics
    /// If there is no such step.
    pub fn at(&self, step: usize, x: f64) -> f64 {
        between(&self.0[step], x)
    }
}

/// By how much a factor `h` moves the mean of `N(mean, std²)`, and `log E[h]`.
fn tilted_step(log_h: &[f64], mean: f64, std: f64) -> [f64; 2] {
    if std <= 0.0 {
        return [0.0, between(log_h, mean)];
    }
    let (mut weights, mut shift, mut total) = (0.0, 0.0, 0.0);
    for e in (-20..=20).map(|i| f64::from(i) / 4.0) {
        let weight = (-e * e / 2.0_f64).exp();
        let tilted = weight * between(log_h, mean + std * e).exp();
        weights += weight;
        total += tilted;
        shift += tilted * std * e;
    }
    [shift / total, (total / weights).ln()]
}

fn place(index: usize) -> f64 {
    REACH * (2.0 * index as f64 / (PLACES - 1) as f64 - 1.0)
}

/// Linear interpolation between the places.
fn between(values: &[f64], x: f64) -> f64 {
    let position = (x / REACH).midpoint(1.0).clamp(0.0, 1.0) * (PLACES - 1) as f64;
    let index = (position as usize).min(PLACES - 2);
    let share = position - index as f64;
    values[index] * (1.0 - share) + values[index + 1] * share
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlowSde, GridKind, NoiseLevel, Rule};

    /// For one Gaussian, `log h` stays linear: a shift after a step moves the end by a constant `P`,
    /// so the step is shifted by `tilt·s²·P`.
    #[test]
    fn for_one_gaussian_every_step_is_shifted_by_its_variance_times_what_is_left_of_it() {
        let rule = FlowSde { noise_level: NoiseLevel::new(0.7).expect("a noise level") };
        let grid = GridKind::Linear {}.grid(10).expect("a grid");
        let steps: Vec<(Step, Affine)> = grid.steps().map(|s| (s, rule.affine(s))).collect();
        let slope = |t: f64| (t - (1.0 - t) * 0.25) / ((1.0 - t).powi(2) * 0.25 + t * t);
        let velocity = |step: Step, places: &[f64]| -> Vec<f64> {
            places.iter().map(|x| slope(step.from) * x).collect()
        };
        let change = BestChange::new(&steps, velocity, 0.6);
        let mut left = 1.0;
        for (step, Affine { latent, velocity: push, std }) in steps.into_iter().rev() {
            for x in [-1.0, 0.0, 1.5] {
                let expected = 0.6 * std * std * left / push;
                let got = change.at(step.index, x);
                assert!(
                    (got - expected).abs() < 1e-4 * expected.abs(),
                    "{step:?}: {got}, {expected}"
                );
            }
            left *= latent + push * slope(step.from);
        }
    }

    #[test]
    fn a_step_without_noise_is_not_changed() {
        let grid = GridKind::Linear {}.grid(4).expect("a grid");
        let steps: Vec<(Step, Affine)> =
            grid.steps().map(|step| (step, crate::Ode {}.affine(step))).collect();
        let change = BestChange::new(&steps, |_, places| places.to_vec(), 1.0);
        assert_eq!(change.at(2, 0.3), 0.0);
    }
}
