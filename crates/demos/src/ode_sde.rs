//! Particles on the line that go from noise to data, by the ODE or by the SDE.
//!
//! The data is the mixture of three Gaussians of the book's figures, so the exact density is known
//! at every time. The noise level, the grid and the number of steps are free, and the share of the
//! score term can be wrong on purpose. A reward can tilt the data: the SDE then has the best velocity
//! for it, and the ODE can be sampled with the same velocity.

use burn::prelude::*;
use burn_flex::FlexDevice;
use flow::{
    Affine, FlowSde, GridKind, IsotropicGaussian, NoiseLevel, Ode, Rule, Step, TimeGrid,
    analytic::{BestChange, Component, MixtureField},
    velocity_at,
};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use training::noise::{Key, Purpose, normal};
use wasm_bindgen::prelude::*;

use crate::Plain;

/// Weight, mean and standard deviation of the clusters.
const CLUSTERS: [(f64, f32, f64); 3] = [(0.5, -1.8, 0.25), (0.3, 0.4, 0.4), (0.2, 2.0, 0.15)];
/// The strongest tilt; both directions are allowed.
const LARGEST_TILT: f64 = 2.0;
/// The distances between densities are taken over `[−REACH, REACH]`.
const REACH: f32 = 6.0;
/// The number of cells of that range.
const CELLS: usize = 1200;

/// Particles on their way from noise, at t = 1, to data, at t = 0.
#[wasm_bindgen]
#[derive(Debug)]
pub struct OdeSde {
    /// The flow of the base model.
    field: MixtureField,
    /// The flow of the data to which the reward leads: the clusters times `e^{tilt·x}`.
    goal: MixtureField,
    /// The change of the velocity by which the best policy differs, if there is a reward.
    change: Option<BestChange>,
    grid: TimeGrid,
    sde: FlowSde,
    /// Whether the particles follow the ODE with the velocity of the SDE.
    by_ode: bool,
    /// The factor of the score term, 1 in the method.
    score_share: f64,
    /// Index of the first ODE step.
    random: usize,
    particles: Tensor<Plain, 4>,
    /// Number of steps that the particles have taken.
    taken: usize,
    seed: u64,
}

#[wasm_bindgen]
impl OdeSde {
    /// Draws `particles` particles of noise; ten steps of the paper's SDE on a linear grid lie
    /// ahead.
    ///
    /// # Errors
    /// If there is no particle.
    #[wasm_bindgen(constructor)]
    pub fn new(particles: usize, seed: u32) -> Result<OdeSde, String> {
        if particles == 0 {
            return Err("the demo needs a particle".to_owned());
        }
        let mut demo = Self {
            field: tilted(0.0),
            goal: tilted(0.0),
            change: None,
            grid: GridKind::Linear {}.grid(10).map_err(|error| error.to_string())?,
            sde: FlowSde::default(),
            by_ode: false,
            score_share: 1.0,
            random: 10,
            particles: Tensor::zeros([particles, 1, 1, 1], &FlexDevice),
            taken: 0,
            seed: 0,
        };
        demo.restart(seed);
        Ok(demo)
    }

    /// Chooses the sampler and puts the particles back to the noise.
    ///
    /// - `noise_level`: `a`; at 0 every step is an ODE step
    /// - `shift`: of the time grid, positive; 1 is the linear grid
    /// - `twice`: whether the grid is the published code's for Stable Diffusion 3, shifted twice
    /// - `score_share`: the factor of the score term; other values than 1 are wrong
    /// - `ode_steps`: the number of ODE steps at the end
    /// - `tilt`: the reward is `tilt·x`, and the SDE is the best policy for it with a KL weight of 1
    ///
    /// # Errors
    /// If a value is out of its range; the sampler then stays.
    #[expect(clippy::too_many_arguments, reason = "JavaScript has no named arguments")]
    pub fn choose(
        &mut self,
        noise_level: f64,
        steps: usize,
        shift: f64,
        twice: bool,
        score_share: f64,
        ode_steps: usize,
        tilt: f64,
    ) -> Result<(), String> {
        let kind =
            if twice { GridKind::Sd3DoubleShift { shift } } else { GridKind::Shifted { shift } };
        if !score_share.is_finite() {
            return Err(format!("the share of the score must be finite, not {score_share}"));
        }
        if !(-LARGEST_TILT..=LARGEST_TILT).contains(&tilt) {
            return Err(format!(
                "a tilt is between −{LARGEST_TILT} and {LARGEST_TILT}, not {tilt}"
            ));
        }
        let noise_level = NoiseLevel::try_from(noise_level)?;
        self.grid = kind.grid(steps).map_err(|error| error.to_string())?;
        self.sde = FlowSde { noise_level };
        self.score_share = score_share;
        self.random = steps.saturating_sub(ode_steps);
        self.goal = tilted(tilt);
        self.change = (tilt != 0.0).then(|| self.best_change(tilt));
        self.rewind();
        Ok(())
    }

    /// Chooses whether the particles follow the ODE with the velocity of the SDE, and puts them back
    /// to the noise.
    pub fn follow_ode(&mut self, by_ode: bool) {
        self.by_ode = by_ode;
        self.rewind();
    }

    /// The mean of the data to which the reward leads.
    pub fn goal_mean(&self) -> f32 {
        let clusters = self.goal.components();
        let total: f64 = clusters.iter().map(|cluster| cluster.weight).sum();
        let sum: f64 = clusters.iter().map(|each| each.weight * f64::from(each.mean[0])).sum();
        (sum / total) as f32
    }

    /// Puts the particles back to new noise.
    pub fn restart(&mut self, seed: u32) {
        self.seed = u64::from(seed);
        self.rewind();
    }

    /// Puts all particles back to one point of noise, `x_1 = noise`, with new noise for their steps.
    pub fn restart_at(&mut self, noise: f32, seed: u32) {
        self.restart(seed);
        self.particles = self.particles.full_like(noise);
    }

    /// Takes a step with every particle; false if they have all arrived.
    pub fn advance(&mut self) -> bool {
        if self.taken == self.grid.len() {
            return false;
        }
        let policy = self.policy(self.grid.step(self.taken));
        self.particles =
            if policy.is_random() { policy.sample(self.noise(Purpose::Step)) } else { policy.mean };
        self.taken += 1;
        true
    }

    /// The places of the particles.
    pub fn places(&self) -> Vec<f32> {
        values(self.particles.clone())
    }

    /// The times of the grid, from 1 to 0.
    pub fn times(&self) -> Vec<f32> {
        self.grid.times().iter().map(|&t| t as f32).collect()
    }

    /// The exact density at time `t` of `count` places spread evenly from `from` to `to`, for the
    /// data to which the reward leads.
    pub fn density(&self, t: f64, from: f32, to: f32, count: usize) -> Vec<f32> {
        let gaps = count.saturating_sub(1).max(1) as f32;
        let places = (0..count).map(|i| from + (to - from) * i as f32 / gaps).collect();
        let places = Tensor::<Plain, 1>::from_data(
            TensorData::new(places, [count]),
            &self.particles.device(),
        );
        values(self.goal.density(places.reshape([-1, 1, 1, 1]), t))
    }

    /// The distance of the particles from the exact density at their time.
    ///
    /// ```text
    /// W₁ = ∫ |F_particles(x) − F(x)| dx
    /// ```
    ///
    /// In units of `x`: how far an average particle would have to move.
    pub fn distance(&self) -> f32 {
        self.distance_of(&self.places(), self.grid.times()[self.taken])
    }

    /// The distance of as many exact draws of the data, which chance alone makes.
    pub fn distance_by_chance(&self) -> f32 {
        let mut rng = Key::new(self.seed, Purpose::Evaluation).rng();
        let clusters = self.goal.components();
        let total: f64 = clusters.iter().map(|cluster| cluster.weight).sum();
        let draws: Vec<f32> = (0..self.particles.dims()[0])
            .map(|_| {
                let mut left = rng.random::<f64>() * total;
                let last = &clusters[clusters.len() - 1];
                let drawn = clusters
                    .iter()
                    .find(|cluster| {
                        left -= cluster.weight;
                        left < 0.0
                    })
                    .unwrap_or(last);
                let z: f32 = StandardNormal.sample(&mut rng);
                drawn.mean[0] + drawn.std as f32 * z
            })
            .collect();
        self.distance_of(&draws, 0.0)
    }
}

impl OdeSde {
    /// The Gaussian of a step that the particles take.
    fn policy(&self, step: Step) -> IsotropicGaussian<Plain> {
        let latent = self.particles.clone();
        let mut velocity = velocity_at(&self.field, latent.clone(), step, &[]);
        if let Some(change) = &self.change {
            let changes = self.places().into_iter().map(|x| change.at(step.index, x.into()) as f32);
            let shape = latent.dims();
            let data = TensorData::new(changes.collect::<Vec<f32>>(), shape);
            velocity = velocity + Tensor::from_data(data, &latent.device());
        }
        let rule = if self.by_ode { Ode {}.affine(step) } else { self.affine(step) };
        IsotropicGaussian { mean: latent * rule.latent + velocity * rule.velocity, std: rule.std }
    }

    /// The Gaussian of a step of the SDE, or of an ODE step at the end. A share of the score term
    /// other than 1 moves its mean on the line through the means of the ODE and of the SDE.
    fn affine(&self, step: Step) -> Affine {
        let ode = Ode {}.affine(step);
        if step.index >= self.random {
            return ode;
        }
        let sde = self.sde.affine(step);
        let shared = |ode: f64, sde: f64| ode + (sde - ode) * self.score_share;
        Affine {
            latent: shared(ode.latent, sde.latent),
            velocity: shared(ode.velocity, sde.velocity),
            std: sde.std,
        }
    }

    /// The best change of the velocity for the reward `tilt·x`.
    fn best_change(&self, tilt: f64) -> BestChange {
        let steps: Vec<(Step, Affine)> =
            self.grid.steps().map(|step| (step, self.affine(step))).collect();
        let of_base = |step: Step, places: &[f64]| {
            let places: Vec<f32> = places.iter().map(|&x| x as f32).collect();
            let rows = places.len();
            let places =
                Tensor::<Plain, 1>::from_data(TensorData::new(places, [rows]), &FlexDevice);
            let velocity = velocity_at(&self.field, places.reshape([-1, 1, 1, 1]), step, &[]);
            values(velocity).into_iter().map(f64::from).collect()
        };
        BestChange::new(&steps, of_base, tilt)
    }

    fn rewind(&mut self) {
        self.taken = 0;
        self.particles = self.noise(Purpose::Initial);
    }

    /// Standard normal noise for every particle.
    fn noise(&self, purpose: Purpose) -> Tensor<Plain, 4> {
        let particles = self.particles.dims()[0];
        let key = Key::new(self.seed, purpose).step(self.taken);
        normal(&[key], [particles, 1, 1], &self.particles.device()).reshape([particles, 1, 1, 1])
    }

    /// The distance of places from the exact density at `t`: see [`Self::distance`].
    fn distance_of(&self, places: &[f32], t: f64) -> f32 {
        let width = 2.0 * REACH / CELLS as f32;
        // The densities of the cells; a place out of reach counts in the last cell.
        let middle = REACH - width / 2.0;
        let exact = self.density(t, -middle, middle, CELLS);
        let mut drawn = vec![0.0; CELLS];
        for place in places {
            let cell = ((place + REACH) / width).clamp(0.0, (CELLS - 1) as f32);
            drawn[cell as usize] += 1.0 / (places.len() as f32 * width);
        }
        let (mut difference, mut sum) = (0.0, 0.0);
        for (exact, drawn) in exact.iter().zip(drawn) {
            difference += f64::from(drawn - exact) * f64::from(width);
            sum += difference.abs() * f64::from(width);
        }
        sum as f32
    }
}

/// The flow of the clusters times `e^{tilt·x}`: a Gaussian times an exponential is a Gaussian whose mean
/// has moved.
fn tilted(tilt: f64) -> MixtureField {
    let component = |(weight, mean, std): (f64, f32, f64)| {
        let variance = std * std;
        Component {
            weight: weight * (tilt * f64::from(mean) + tilt * tilt * variance / 2.0).exp(),
            mean: vec![mean + (tilt * variance) as f32],
            std,
        }
    };
    MixtureField::new(CLUSTERS.map(component).to_vec())
}

fn values<const D: usize>(tensor: Tensor<Plain, D>) -> Vec<f32> {
    tensor.into_data().iter::<f32>().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEDS: [u32; 3] = [1, 2, 3];

    /// The distance of 2,000 particles from the exact density, over that of as many exact draws.
    fn distance(noise_level: f64, steps: usize, shift: f64, share: f64, ode: usize) -> f32 {
        distance_on((shift, false), noise_level, steps, share, ode)
    }

    /// The same on a grid of this shift, applied once or twice.
    fn distance_on(
        (shift, twice): (f64, bool),
        noise_level: f64,
        steps: usize,
        share: f64,
        ode: usize,
    ) -> f32 {
        let of_seed = |seed| {
            let mut demo = OdeSde::new(2000, seed).expect("particles");
            demo.choose(noise_level, steps, shift, twice, share, ode, 0.0).expect("a sampler");
            demo.restart(seed);
            while demo.advance() {}
            demo.distance() / demo.distance_by_chance()
        };
        SEEDS.map(of_seed).iter().sum::<f32>() / SEEDS.len() as f32
    }

    #[test]
    fn two_hundred_steps_reach_the_density_unless_the_share_of_the_score_is_wrong() {
        for noise_level in [0.0, 0.7, 1.4] {
            let right = distance(noise_level, 200, 1.0, 1.0, 0);
            assert!(right < 2.5, "a = {noise_level}: {right} times the distance by chance");
        }
        for share in [0.0, 0.5, 1.5] {
            let wrong = distance(0.7, 200, 1.0, share, 0);
            assert!(wrong > 3.0, "{share} of the score: {wrong} times the distance by chance");
        }
    }

    #[test]
    fn few_steps_are_farther_from_the_density_than_many_on_every_grid() {
        for grid in [(1.0, false), (3.0, false), (3.0, true)] {
            let [few, many] = [5, 100].map(|steps| distance_on(grid, 0.7, steps, 1.0, 1));
            assert!(few > 1.5 * many, "grid {grid:?}: {few} with 5 steps, {many} with 100");
        }
    }

    /// The mean of 4,000 particles of the SDE, and of the ODE with its velocity.
    fn means(noise_level: f64, tilt: f64) -> [f32; 2] {
        let mut demo = OdeSde::new(4000, 1).expect("particles");
        demo.choose(noise_level, 100, 1.0, false, 1.0, 0, tilt).expect("a sampler");
        [false, true].map(|by_ode| {
            demo.follow_ode(by_ode);
            while demo.advance() {}
            let places = demo.places();
            places.iter().sum::<f32>() / places.len() as f32
        })
    }

    #[test]
    fn under_a_tilt_the_means_of_ode_and_sde_part_except_at_the_root_of_two() {
        // The mean moves from −.38 to .81. The standard error of 4,000 particles is below .03.
        let goal = |tilt| {
            let mut demo = OdeSde::new(1, 1).expect("a particle");
            demo.choose(0.7, 3, 1.0, false, 1.0, 0, tilt).expect("a sampler");
            demo.goal_mean()
        };
        assert!((goal(0.0) + 0.38).abs() < 1e-6 && (goal(0.5) - 0.81).abs() < 0.01);
        let [sde, ode] = means(2.0_f64.sqrt(), 0.5);
        assert!((sde - goal(0.5)).abs() < 0.1, "a = √2: {sde}");
        assert!((ode - sde).abs() < 0.1, "a = √2: {ode} and {sde}");
        let [sde, ode] = means(0.7, 0.5);
        assert!((sde - goal(0.5)).abs() < 0.12, "a = 0.7: {sde}");
        assert!(ode - sde > 0.25, "a = 0.7: the ODE goes too far, {ode} and {sde}");
        let [sde, ode] = means(2.0, 0.5);
        assert!(ode - sde < -0.1, "a = 2: the ODE falls short, {ode} and {sde}");
        let [sde, ode] = means(0.7, 0.0);
        assert!((ode - sde).abs() < 0.1 && (sde - goal(0.0)).abs() < 0.1, "{ode} and {sde}");
    }

    #[test]
    fn without_noise_no_reward_moves_a_particle() {
        let ends = [0.0, 1.0].map(|tilt| {
            let mut demo = OdeSde::new(50, 1).expect("particles");
            demo.choose(0.0, 10, 1.0, false, 1.0, 0, tilt).expect("a sampler");
            while demo.advance() {}
            demo.places()
        });
        assert_eq!(ends[0], ends[1]);
    }

    #[test]
    fn particles_from_one_place_part_only_by_noise() {
        for (noise_level, part) in [(0.0, false), (0.7, true)] {
            let mut demo = OdeSde::new(20, 1).expect("particles");
            demo.choose(noise_level, 10, 1.0, false, 1.0, 0, 0.0).expect("a sampler");
            demo.restart_at(0.7, 1);
            assert!(demo.places().iter().all(|&x| x == 0.7));
            while demo.advance() {}
            let places = demo.places();
            assert_eq!(places.iter().any(|&x| x != places[0]), part, "{places:?}");
        }
    }

    #[test]
    fn the_exact_density_has_the_mass_one() {
        let demo = OdeSde::new(1, 1).expect("a particle");
        for t in [0.0, 0.3, 0.8, 1.0] {
            let mass = demo.density(t, -8.0, 8.0, 3201).iter().sum::<f32>() * 16.0 / 3200.0;
            assert!((mass - 1.0).abs() < 1e-3, "t = {t}: {mass}");
        }
    }

    #[test]
    fn a_wrong_choice_is_refused_and_the_sampler_stays() {
        let mut demo = OdeSde::new(2, 1).expect("particles");
        assert!(OdeSde::new(0, 1).is_err());
        for (noise_level, steps, shift, share, tilt) in [
            (-1.0, 10, 1.0, 1.0, 0.0),
            (0.7, 0, 1.0, 1.0, 0.0),
            (0.7, 10, 0.0, 1.0, 0.0),
            (0.7, 10, 1.0, f64::NAN, 0.0),
            (0.7, 10, 1.0, 1.0, 2.1),
            (0.7, 10, 1.0, 1.0, f64::NAN),
        ] {
            assert!(demo.choose(noise_level, steps, shift, false, share, 0, tilt).is_err());
            assert_eq!(demo.times().len(), 11);
        }
        // More ODE steps than steps: no step is random.
        demo.choose(0.7, 3, 1.0, false, 1.0, 20, 0.0).expect("a sampler");
        while demo.advance() {}
        assert!(!demo.advance());
    }
}
