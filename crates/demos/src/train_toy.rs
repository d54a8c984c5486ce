//! The toy task, trained live by the project's trainer.
//!
//! The base model is the one of the preset `toy-2d`, points in eight clusters, and so are the
//! settings that have no slider. The reader chooses which place is rewarded.

use std::path::Path;

use burn::{backend::Autodiff, prelude::*};
use burn_flex::FlexDevice;
use flow::{FlowSde, GridKind, NoiseLevel, Sampler};
use grpo::{
    EncodedPrompt, GrpoConfig, Objective, Policy, RolloutConfig, Task, Trainer,
    advantage::AdvantageConfig, images::Decoder, objective::ObjectiveConfig,
};
use models::{MlpConfig, MlpField, TokenIds, WeightsFile};
use tasks::toy::{self, Near};
use training::{
    ema::EmaConfig,
    noise::{Key, Purpose, normal},
    optimizer::AdamWConfig,
    workers::Workers,
};
use wasm_bindgen::prelude::*;

use crate::Plain;

/// The base model: eight clusters in the plane.
const BASE: &[u8] = include_bytes!("../../../assets/checkpoints/toy-2d-base.safetensors");
/// The sizes of the base model.
const SIZES: MlpConfig = MlpConfig { elements: 2, width: 64, depth: 3 };
/// Steps of a trajectory.
const STEPS: usize = 10;
/// The number of points that are shown.
const POINTS: usize = 200;
/// Rows and transitions that pass through the network together: all of them.
const TOGETHER: usize = 8192;
/// More epochs than a reader waits for; the learning rate does not fall.
const EPOCHS: usize = 1_000_000;

/// A training run of the toy task.
#[wasm_bindgen]
pub struct TrainToy {
    trainer: Trainer<Autodiff<Plain>, MlpField<Autodiff<Plain>>>,
    base: MlpField<Plain>,
    /// The noise of the points that are shown, `[POINTS, 2, 1, 1]`.
    noise: Tensor<Plain, 4>,
    seed: u64,
}

/// The numbers of an epoch.
#[wasm_bindgen]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// Number of finished epochs, this one included.
    pub epoch: u32,
    /// Mean reward of the samples.
    pub reward: f32,
    /// Smallest ratio of new to old probability; NaN if nothing was trained.
    pub ratio_min: f32,
    /// Largest ratio.
    pub ratio_max: f32,
    /// Share of transitions whose gradient the clip removed.
    pub clipped: f32,
    /// Mean KL divergence of a step from the base model; 0 if the penalty is off.
    pub kl: f32,
    /// Norm of the gradient before it is clipped.
    pub gradient: f32,
    /// Share of the groups whose rewards are all equal: 0 or 1, for there is one group.
    pub zero_spread: f32,
}

#[wasm_bindgen]
impl TrainToy {
    /// Starts a run from the base model.
    ///
    /// - `noise_level`: `a` of the SDE
    /// - `group_size`: samples per epoch, at least 2
    /// - `learning_rate`: of AdamW
    /// - `updates`: optimiser updates per epoch
    /// - `kl_weight`: `β`
    /// - `random_steps`: steps with noise at the start of the ten, 1 to 9; the others are ODE steps
    /// - `x`, `y`: the rewarded place
    ///
    /// # Errors
    /// If a setting is out of its range.
    #[wasm_bindgen(constructor)]
    #[expect(clippy::too_many_arguments, reason = "JavaScript has no named arguments")]
    pub fn new(
        noise_level: f64,
        group_size: usize,
        learning_rate: f64,
        updates: usize,
        kl_weight: f64,
        random_steps: usize,
        x: f32,
        y: f32,
        seed: u32,
    ) -> Result<TrainToy, String> {
        let file = WeightsFile::from_bytes(BASE.to_vec(), Path::new("toy-2d-base.safetensors"))
            .map_err(|error| error.to_string())?;
        let base = file
            .load_into(SIZES.init::<Plain>(0, &FlexDevice))
            .map_err(|error| error.to_string())?;
        let seed = u64::from(seed);
        let config =
            config(noise_level, group_size, learning_rate, updates, kl_weight, random_steps)?;
        let keys: Vec<Key> =
            (0..POINTS).map(|row| Key::new(seed, Purpose::Evaluation).row(0, row)).collect();
        let noise = normal(&keys, [SIZES.elements, 1, 1], &FlexDevice);
        let trainer = trainer(config, seed, [x, y], &base);
        Ok(Self { trainer, base, noise, seed })
    }

    /// Goes on with other settings; the arguments are those of [`Self::new`]. Weights, moments and
    /// the number of epochs stay.
    ///
    /// # Errors
    /// If a setting is out of its range; the settings then stay.
    #[expect(clippy::too_many_arguments, reason = "JavaScript has no named arguments")]
    pub fn change(
        &mut self,
        noise_level: f64,
        group_size: usize,
        learning_rate: f64,
        updates: usize,
        kl_weight: f64,
        random_steps: usize,
        x: f32,
        y: f32,
    ) -> Result<(), String> {
        let config =
            config(noise_level, group_size, learning_rate, updates, kl_weight, random_steps)?;
        let state = self.trainer.state();
        self.trainer = trainer(config, self.seed, [x, y], &self.base);
        self.trainer.restore(state);
        self.trainer.set_kl_weight(kl_weight);
        Ok(())
    }

    /// Trains an epoch.
    ///
    /// # Errors
    /// If the loss or the gradient is not finite; the weights then stay.
    pub fn epoch(&mut self) -> Result<Epoch, String> {
        let metrics = self.trainer.iterate().map_err(|error| error.to_string())?.metrics;
        let number = |name: &str| metrics.number(name).unwrap_or(f64::NAN) as f32;
        let trained = |name: &str| if metrics.transitions > 0 { number(name) } else { f32::NAN };
        Ok(Epoch {
            epoch: metrics.epoch as u32,
            reward: metrics.reward as f32,
            ratio_min: trained("ratio.min"),
            ratio_max: trained("ratio.max"),
            clipped: trained("clipped_low") + trained("clipped_high"),
            kl: trained("kl_reference"),
            gradient: metrics.gradient_norm as f32,
            zero_spread: metrics.zero_spread as f32,
        })
    }

    /// Points that the averaged policy draws by the ODE from the same noise at every call: x and y
    /// of one after the other.
    pub fn points(&self) -> Vec<f32> {
        self.points_of(0, POINTS)
    }

    /// A part of [`Self::points`]: `count` points, at most, from number `first` on. A page that
    /// draws an epoch a frame has no time for all of them.
    pub fn points_of(&self, first: usize, count: usize) -> Vec<f32> {
        let first = first.min(POINTS - 1);
        let count = count.clamp(1, POINTS - first);
        let Ok(grid) = (GridKind::Linear {}).grid(STEPS) else {
            unreachable!("the grid has steps");
        };
        let prompts = vec![TokenIds::from([]); count];
        let none = |_| unreachable!("an ODE step draws no noise");
        let noise = self.noise.clone().narrow(0, first, count);
        let points =
            Sampler::ode(grid).sample(&self.trainer.averaged_policy(), &prompts, noise, none);
        points.into_data().iter().collect()
    }

    /// The number of clusters that points share evenly, `e^H` with the entropy `H` of the nearest
    /// clusters: 8 for the base model, 1 if all points are in one cluster.
    pub fn clusters(points: &[f32]) -> f32 {
        let mut counts = [0_u32; toy::MODES];
        for point in points.chunks_exact(2) {
            let distance = |mode: &usize| {
                let [x, y] = toy::center(*mode);
                (point[0] - x).hypot(point[1] - y)
            };
            let nearest = (0..toy::MODES).min_by(|a, b| distance(a).total_cmp(&distance(b)));
            counts[nearest.unwrap_or(0)] += 1;
        }
        let all: u32 = counts.iter().sum();
        let shares = counts.iter().filter(|&&count| count > 0).map(|&count| {
            let share = count as f32 / all as f32;
            -share * share.ln()
        });
        shares.sum::<f32>().exp()
    }

    /// The diversity of points: the root of their mean squared distance from each other.
    pub fn diversity(points: &[f32]) -> f32 {
        let count = (points.len() / 2) as f32;
        let spread = |axis: usize| {
            let values = || points.iter().skip(axis).step_by(2);
            let mean = values().sum::<f32>() / count;
            values().map(|x| (x - mean).powi(2)).sum::<f32>()
        };
        (2.0 * (spread(0) + spread(1)) / (count - 1.0)).sqrt()
    }

    /// The centres of the eight clusters: x and y of one after the other.
    pub fn centers() -> Vec<f32> {
        (0..toy::MODES).flat_map(toy::center).collect()
    }
}

/// The settings of the preset `toy-2d`, with those of the sliders.
fn config(
    noise_level: f64,
    group_size: usize,
    learning_rate: f64,
    updates_per_epoch: usize,
    kl_weight: f64,
    random_steps: usize,
) -> Result<GrpoConfig, String> {
    let noise_level = NoiseLevel::try_from(noise_level)?;
    let objective = ObjectiveConfig {
        clip_range_low: 0.05,
        clip_range_high: 0.05,
        kl_weight,
        ..ObjectiveConfig::default()
    };
    let config = GrpoConfig {
        groups: 1,
        group_size,
        updates_per_epoch,
        micro_batch: TOGETHER,
        rollout_batch: TOGETHER,
        warm_up: 2,
        rollout: RolloutConfig {
            steps: STEPS,
            transition: FlowSde { noise_level }.into(),
            random_steps,
            ..RolloutConfig::default()
        },
        advantage: AdvantageConfig::default(),
        objective: Objective::Clipped(objective),
        optimizer: AdamWConfig { learning_rate, ..AdamWConfig::default() },
        ema: EmaConfig { decay: 0.9, every: 2, repeat: 1 },
        ..GrpoConfig::default()
    };
    let problems = config.problems();
    if problems.is_empty() { Ok(config) } else { Err(problems.join("; ")) }
}

/// A trainer of the base model for a rewarded place.
fn trainer(
    config: GrpoConfig,
    seed: u64,
    place: [f32; 2],
    base: &MlpField<Plain>,
) -> Trainer<Autodiff<Plain>, MlpField<Autodiff<Plain>>> {
    let prompt = |prompt| EncodedPrompt { prompt, condition: TokenIds::from([]) };
    let prompts = toy::prompts().prompts.into_iter().map(prompt).collect();
    let task = Task::new(
        prompts,
        TokenIds::from([]),
        Near { place },
        [SIZES.elements, 1, 1],
        Decoder::Points,
    );
    let workers = Workers::on_the_calling_thread();
    Trainer::new(config, EPOCHS, seed, task, Policy::full(base.clone()), workers)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    fn run(group: usize, rate: f64, kl_weight: f64, [x, y]: [f32; 2]) -> TrainToy {
        TrainToy::new(0.7, group, rate, 2, kl_weight, 9, x, y, 1).expect("settings in range")
    }

    fn reward_after(run: &mut TrainToy, epochs: usize) -> f32 {
        (0..epochs).map(|_| run.epoch().expect("finite numbers").reward).last().unwrap_or_default()
    }

    #[test]
    fn thirty_epochs_find_the_rewarded_place_wherever_it_is() {
        for mode in [0, 3] {
            let mut run = run(256, 1e-3, 0.0, toy::center(mode));
            let before = TrainToy::clusters(&run.points());
            let reward = reward_after(&mut run, 30);
            let after = TrainToy::clusters(&run.points());
            assert!(before > 7.0 && after < 2.0, "cluster {mode}: {before} clusters, then {after}");
            assert!(reward > 0.8, "cluster {mode}: a reward of {reward}");
        }
    }

    #[test]
    fn other_settings_keep_the_policy_and_the_epochs() {
        let mut run = run(32, 1e-3, 0.0, [2.0, 0.0]);
        reward_after(&mut run, 4);
        let points = run.points();
        assert_eq!(run.points_of(50, 25), points[100..150], "a part of the points");
        assert!(run.change(0.7, 0, 1e-3, 2, 0.0, 9, 2.0, 0.0).is_err(), "a group of nobody");
        run.change(1.0, 16, 2e-3, 1, 0.1, 5, -2.0, 0.0).expect("settings in range");
        assert_eq!(run.points(), points);
        let epoch = run.epoch().expect("finite numbers");
        assert_eq!(epoch.epoch, 5);
        assert!(epoch.kl > 0.0, "the penalty is on: {epoch:?}");
    }

    #[test]
    fn a_setting_out_of_range_is_refused() {
        let new = |noise_level, rate, updates, kl_weight, random| {
            TrainToy::new(noise_level, 8, rate, updates, kl_weight, random, 2.0, 0.0, 1)
        };
        assert!(new(0.7, 1e-3, 2, 0.0, 9).is_ok());
        assert!(new(-0.1, 1e-3, 2, 0.0, 9).is_err(), "a negative noise level");
        assert!(new(0.0, 1e-3, 2, 0.0, 9).is_err(), "no noise, so nothing to train");
        assert!(new(0.7, 0.0, 2, 0.0, 9).is_err(), "no learning rate");
        assert!(new(0.7, 1e-3, 0, 0.0, 9).is_err(), "no update");
        assert!(new(0.7, 1e-3, 2, f64::NAN, 9).is_err(), "a weight that is no number");
        assert!(new(0.7, 1e-3, 2, 0.0, 0).is_err(), "no random step");
    }

    #[test]
    fn points_count_the_clusters_that_they_share() {
        let all = TrainToy::centers();
        assert!((TrainToy::clusters(&all) - 8.0).abs() < 1e-5);
        assert!((TrainToy::clusters(&all[..4]) - 2.0).abs() < 1e-5);
        assert_eq!(TrainToy::clusters(&all[..2]), 1.0);
    }

    #[test]
    fn diversity_is_the_distance_of_two_points() {
        assert_eq!(TrainToy::diversity(&[1.0, 1.0, 4.0, 5.0]), 5.0);
        let [ab, ac, bc] = [3.0_f32, 4.0, 5.0];
        let all = ((ab * ab + ac * ac + bc * bc) / 3.0).sqrt();
        assert!((TrainToy::diversity(&[0.0, 0.0, 3.0, 0.0, 0.0, 4.0]) - all).abs() < 1e-5);
    }

    #[test]
    fn what_has_no_slider_is_as_in_the_preset() {
        #[derive(Deserialize)]
        struct Preset {
            grpo: GrpoConfig,
        }
        let preset = include_str!("../../../assets/presets/toy-2d.toml");
        let Preset { grpo } = toml::from_str(preset).expect("a preset");
        let demo = config(0.7, 256, 1e-3, 2, 0.0, 9).expect("settings in range");
        // Batches change only rounding.
        let batches = (grpo.micro_batch, grpo.rollout_batch);
        assert_eq!(GrpoConfig { micro_batch: batches.0, rollout_batch: batches.1, ..demo }, grpo);
    }
}
