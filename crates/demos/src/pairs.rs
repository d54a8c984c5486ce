//! The demo "pairs and flow": straight lines between noise and data on the line, their mean
//! velocity, and particles that follow it.

use burn::prelude::*;
use flow::{
    GridKind, Query, Reduction, Sampler,
    analytic::{Component, MixtureField},
};
use grpo::advantage::{mean, std};
use training::noise::{Key, Purpose, normal};
use wasm_bindgen::prelude::*;

use crate::Plain;

/// Number of pairs, of which a page shows some; local means take all.
const PAIRS: usize = 4000;
/// Number of particles whose paths are drawn, and the place of the outermost.
const PARTICLES: usize = 25;
const OUTERMOST: f32 = 2.4;
/// Number of particles in the histogram of the ends.
const CROWD: usize = 2000;
/// The shares of the two blobs, in fifths, and their standard deviation.
const FIRST: usize = 3;
const SECOND: usize = 2;
const STD: f64 = 0.2;
/// Smallest number of pairs that make a mean.
const ENOUGH: usize = 10;
/// Largest number of Euler steps.
const MOST_STEPS: usize = 200;

/// Two blobs of data on the line, paired with noise at random.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Pairs {
    field: MixtureField,
    /// `(x_0, x_1)`.
    pairs: Vec<(f32, f32)>,
}

#[wasm_bindgen]
impl Pairs {
    /// Creates the demo with blobs at `−gap/2` and `gap/2`, three fifths of the data in the first.
    #[wasm_bindgen(constructor)]
    pub fn new(gap: f32) -> Pairs {
        let means = [-gap / 2.0, gap / 2.0];
        let component =
            |share: usize, mean| Component { weight: share as f64, mean: vec![mean], std: STD };
        let field =
            MixtureField::new(vec![component(FIRST, means[0]), component(SECOND, means[1])]);
        let data = draws(Purpose::Pretraining, PAIRS)
            .into_iter()
            .enumerate()
            .map(|(i, z)| means[usize::from(i % (FIRST + SECOND) >= FIRST)] + STD as f32 * z);
        let pairs = data.zip(draws(Purpose::Forward, PAIRS)).collect();
        Self { field, pairs }
    }

    /// The first `count` pairs, `x_0` and `x_1` in turn.
    pub fn pairs(&self, count: usize) -> Vec<f32> {
        self.pairs.iter().take(count).flat_map(|&(data, noise)| [data, noise]).collect()
    }

    /// The velocity of the flow at time `t` and each of some places.
    pub fn velocity(&self, t: f64, places: &[f32]) -> Vec<f32> {
        let query = Query::at(t.clamp(0.0, 1.0), points(places), &vec![(); places.len()]);
        numbers(query.ask(&self.field))
    }

    /// The mean of `x_1 − x_0` over the pairs that pass within `reach` of each place at time `t`;
    /// NaN where fewer than ten do.
    pub fn local_means(&self, t: f32, places: &[f32], reach: f32) -> Vec<f32> {
        let mean_at = |&place: &f32| {
            let near: Vec<f64> = self
                .pairs
                .iter()
                .filter(|(data, noise)| ((1.0 - t) * data + t * noise - place).abs() <= reach)
                .map(|(data, noise)| f64::from(noise - data))
                .collect();
            if near.len() < ENOUGH { f32::NAN } else { mean(&near) as f32 }
        };
        places.iter().map(mean_at).collect()
    }

    /// The paths of particles that start in even distances and take Euler steps of equal length:
    /// `steps + 1` rows from noise to data, one number per particle.
    pub fn paths(&self, steps: usize) -> Vec<f32> {
        let place = |i: usize| OUTERMOST * (2.0 * i as f32 / (PARTICLES - 1) as f32 - 1.0);
        self.walk(&(0..PARTICLES).map(place).collect::<Vec<_>>(), steps).concat()
    }

    /// The number of particles in a row of [`Self::paths`].
    pub fn particles(&self) -> usize {
        PARTICLES
    }

    /// The ends of 2,000 particles that start from noise.
    pub fn ends(&self, steps: usize) -> Vec<f32> {
        self.walk(&draws(Purpose::Initial, CROWD), steps).pop().unwrap_or_default()
    }

    /// Mean and standard deviation of the data.
    pub fn data(&self) -> Vec<f32> {
        let total = (FIRST + SECOND) as f64;
        let over = |f: &dyn Fn(f64) -> f64| {
            let part = |c: &Component| c.weight / total * f(f64::from(c.mean[0]));
            self.field.components().iter().map(part).sum::<f64>()
        };
        let center = over(&|m| m);
        vec![center as f32, (over(&|m| (m - center).powi(2)) + STD * STD).sqrt() as f32]
    }

    /// The points of some particles at every time of the grid.
    fn walk(&self, initial: &[f32], steps: usize) -> Vec<Vec<f32>> {
        let Ok(grid) = (GridKind::Linear {}).grid(steps.clamp(1, MOST_STEPS)) else {
            return vec![initial.to_vec()];
        };
        let trajectory = Sampler::ode(grid).keeping_ode_steps().trajectory(
            &self.field,
            &vec![(); initial.len()],
            points(initial),
            |_| points(initial).zeros_like(),
            Reduction::Mean,
        );
        trajectory.latents.into_iter().flatten().map(numbers).collect()
    }
}

/// Mean and standard deviation of some numbers.
#[wasm_bindgen]
pub fn mean_and_std(values: &[f32]) -> Vec<f32> {
    let values: Vec<f64> = values.iter().copied().map(f64::from).collect();
    vec![mean(&values) as f32, std(&values) as f32]
}

/// Standard normal draws of a stream.
fn draws(purpose: Purpose, count: usize) -> Vec<f32> {
    numbers(normal(&[Key::new(1, purpose)], [count, 1, 1], &Device::default()))
}

/// Points of the line as latents, `[B, 1, 1, 1]`.
fn points(values: &[f32]) -> Tensor<Plain, 4> {
    let data = TensorData::new(values.to_vec(), [values.len(), 1, 1, 1]);
    Tensor::from_data(data, &Device::default())
}

fn numbers(latents: Tensor<Plain, 4>) -> Vec<f32> {
    latents.into_data().iter().collect()
}

type Device = <Plain as burn::tensor::backend::BackendTypes>::Device;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_euler_step_lands_on_the_mean_of_the_data() {
        for gap in [0.0, 1.0, 2.4, 4.0] {
            let demo = Pairs::new(gap);
            let center = demo.data()[0];
            assert!((center + 0.1 * gap).abs() < 1e-6, "{center}");
            let last = demo.paths(1).split_off(PARTICLES);
            let ends = last.into_iter().chain(demo.ends(1));
            assert!(ends.into_iter().all(|end| (end - center).abs() < 1e-5), "gap {gap}");
        }
    }

    #[test]
    fn particles_keep_their_order_with_any_number_of_steps() {
        for (gap, steps) in [(0.5, 2), (2.4, 3), (2.4, 10), (4.0, 5), (4.0, 50)] {
            let paths = Pairs::new(gap).paths(steps);
            assert_eq!(paths.len(), (steps + 1) * PARTICLES);
            for row in paths.chunks(PARTICLES) {
                assert!(row.windows(2).all(|pair| pair[1] > pair[0] - 1e-5), "{gap}: {row:?}");
            }
        }
    }

    #[test]
    fn the_mean_of_the_pairs_that_pass_a_place_is_the_velocity_there() {
        let demo = Pairs::new(2.4);
        let places: Vec<f32> = (-8..=8).map(|i| i as f32 * 0.25).collect();
        for t in [0.9_f32, 0.7, 0.5, 0.3] {
            let exact = demo.velocity(t.into(), &places);
            let measured = demo.local_means(t, &places, 0.1);
            let known: Vec<f32> = exact
                .iter()
                .zip(&measured)
                .filter(|(_, measured)| measured.is_finite())
                .map(|(exact, measured)| (exact - measured).abs())
                .collect();
            // A mean over ten to four hundred pairs, whose velocities have a spread up to 1.2.
            let typical = known.iter().sum::<f32>() / known.len() as f32;
            assert!(known.len() >= 6 && typical < 0.15, "t = {t}: {typical} {known:?}");
        }
    }

    #[test]
    fn many_steps_arrive_at_the_data() {
        let demo = Pairs::new(2.4);
        let (data, ends) = (demo.data(), mean_and_std(&demo.ends(100)));
        assert!((data[0] - ends[0]).abs() < 0.08 && (data[1] - ends[1]).abs() < 0.05, "{ends:?}");
    }

    #[test]
    fn strange_numbers_do_not_panic() {
        let demo = Pairs::new(f32::NAN);
        assert_eq!(demo.paths(0).len(), 2 * PARTICLES);
        assert_eq!(demo.velocity(f64::NAN, &[0.0]).len(), 1);
        assert_eq!(demo.pairs(usize::MAX).len(), 2 * PAIRS);
        assert!(demo.velocity(0.5, &[]).is_empty() && mean_and_std(&[]) == [0.0, 0.0]);
    }
}
