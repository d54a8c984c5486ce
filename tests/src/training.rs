//! Flow-GRPO as a whole, on small tasks: it learns what it must, and stops where it must.

use std::sync::Arc;

use burn::tensor::Tensor;
use flow::{FlowSde, GridKind, GuidanceGradient, KlForm, NoiseLevel, Reduction};
use grpo::{
    GrpoConfig, Objective, Policy, ReplayBatches, RolloutConfig, Task, TrainError, TrainedSteps,
    Trainer,
    advantage::AdvantageConfig,
    evaluate::EncodedPrompt,
    groups::Mix,
    images::Decoder,
    objective::{KlController, ObjectiveConfig, StepWeight},
    trajectories::KeptOn,
};
use models::{Dit, TokenIds};
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Darkness, Reward, RewardError, Unjudged, WeightedReward},
};
use training::{
    ema::EmaConfig,
    optimizer::{AdamWConfig, MuonConfig, Optimizer, Stepped},
    parameters::Parameters,
    workers::Workers,
};

use crate::{
    backend::{Device, Plain, Training, distance},
    networks::{conditions, network},
};

pub fn config() -> GrpoConfig {
    GrpoConfig {
        groups: 3,
        group_size: 8,
        updates_per_epoch: 1,
        micro_batch: 8,
        rollout_batch: 8,
        replay_batches: ReplayBatches::MicroBatch,
        warm_up: 0,
        cool_down: 0,
        rollout: RolloutConfig {
            steps: 4,
            grid: GridKind::Linear {},
            transition: FlowSde { noise_level: NoiseLevel::new(0.7).expect("valid") }.into(),
            random_steps: 3,
            log_prob: Reduction::Mean,
            guidance: 1.0,
            trajectories: KeptOn::Device,
        },
        trained_steps: TrainedSteps::AllButLast {},
        advantage: AdvantageConfig::default(),
        objective: Objective::Clipped(ObjectiveConfig {
            clip_range_low: 1e-2,
            clip_range_high: 1e-2,
            step_weight: StepWeight::Equal,
            kl_weight: 0.0,
            kl_controller: KlController::Fixed {},
            kl_form: KlForm::Reference,
            kl_ode_steps: 0,
            guidance_gradient: GuidanceGradient::Both,
        }),
        optimizer: AdamWConfig {
            learning_rate: 3e-3,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 1e-4,
            max_gradient_norm: 1.0,
        },
        muon: None,
        ema: EmaConfig { decay: 0.9, every: 1, repeat: 1 },
    }
}

/// The configuration with another clipped objective.
pub fn with_objective(config: GrpoConfig, change: impl FnOnce(&mut ObjectiveConfig)) -> GrpoConfig {
    let Objective::Clipped(mut objective) = config.objective else {
        panic!("the clipped objective")
    };
    change(&mut objective);
    GrpoConfig { objective: Objective::Clipped(objective), ..config }
}

/// The clipped objective of a configuration.
pub fn objective(config: &GrpoConfig) -> ObjectiveConfig {
    let Objective::Clipped(objective) = config.objective else { panic!("the clipped objective") };
    objective
}

pub type TestTrainer = Trainer<Training, Dit<Training>>;

pub fn trainer_for(
    config: GrpoConfig,
    seed: u64,
    workers: usize,
    reward: Box<dyn Reward>,
) -> TestTrainer {
    Trainer::new(
        config,
        10,
        seed,
        task(reward),
        Policy::full(network(1)),
        Workers::new(workers).expect("threads"),
    )
}

/// A trainer of this policy, with the reward [`Darkness`].
pub fn policy_trainer(config: GrpoConfig, policy: Policy<Dit<Plain>>) -> TestTrainer {
    let workers = Workers::new(2).expect("threads");
    Trainer::new(config, 10, 1, task(Box::new(Darkness)), policy, workers)
}

pub fn task(reward: Box<dyn Reward>) -> Task<Plain, TokenIds> {
    let prompt = |(i, condition): (usize, TokenIds)| EncodedPrompt {
        prompt: Prompt::plain(&format!("prompt {i}")),
        condition,
    };
    Task {
        prompts: conditions(4).into_iter().enumerate().map(prompt).collect(),
        mix: Mix::even(4),
        reward: WeightedReward::only("reward", reward),
        latent_shape: [3, 16, 16],
        decoder: Arc::new(Decoder::Pixels),
        unconditional: conditions(1).remove(0),
        on_policy_limit: 1.0,
    }
}

pub fn trainer(config: GrpoConfig, seed: u64) -> TestTrainer {
    trainer_for(config, seed, 2, Box::new(Darkness))
}

/// The rewards of some epochs.
fn rewards(mut trainer: TestTrainer, epochs: usize) -> Vec<f64> {
    (0..epochs).map(|_| trainer.iterate().expect("an epoch").metrics.reward).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[test]
fn a_dense_reward_rises_whatever_the_seed() {
    for seed in 1..=3 {
        let rewards = rewards(trainer(config(), seed), 24);
        let (first, last) = (mean(&rewards[..4]), mean(&rewards[20..]));
        println!("seed {seed}: {first:.3} to {last:.3}");
        assert!(last > first + 0.1, "seed {seed}: {first} to {last}: {rewards:?}");
    }
}

#[test]
fn a_dense_reward_rises_with_muon_too() {
    let config = GrpoConfig {
        optimizer: AdamWConfig { learning_rate: 5e-4, ..config().optimizer },
        muon: Some(MuonConfig { learning_rate: 0.03, momentum: 0.9 }),
        ..config()
    };
    let rewards = rewards(trainer(config, 1), 24);
    assert!(mean(&rewards[20..]) > mean(&rewards[..4]) + 0.06, "{rewards:?}");
}

#[test]
fn the_opposite_reward_falls() {
    struct Brightness;
    impl Reward for Brightness {
        fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
            Ok(Darkness.score(images, prompts)?.into_iter().map(|score| -score).collect())
        }
    }
    let rewards = rewards(trainer_for(config(), 1, 2, Box::new(Brightness)), 24);
    assert!(mean(&rewards[20..]) > mean(&rewards[..4]) + 0.1, "{rewards:?}");
}

#[test]
fn the_ratio_is_one_on_policy() {
    for updates_per_epoch in [1, 3] {
        let mut trainer = trainer(GrpoConfig { updates_per_epoch, ..config() }, 5);
        for _ in 0..3 {
            let metrics = trainer.iterate().expect("an epoch").metrics;
            let number = |name: &str| metrics.number(name).expect(name);
            assert!(number("on_policy.max") < 1e-5, "{metrics:?}");
            if updates_per_epoch == 1 {
                assert!(
                    ["ratio.min", "ratio.max"].iter().all(|name| (number(name) - 1.0).abs() < 1e-5),
                    "{metrics:?}"
                );
            } else {
                let spread = number("ratio.max") - number("ratio.min");
                assert!(spread > 1e-4, "later updates must leave the rollout's policy: {spread}");
            }
        }
    }
}

/// Then the loss is that of REINFORCE: every ratio is 1, with or without a clip.
#[test]
fn with_one_update_an_epoch_the_clip_changes_nothing() {
    let weights = |updates_per_epoch: usize, clip: f64| {
        let config = GrpoConfig { updates_per_epoch, ..config() };
        let mut trainer = trainer(
            with_objective(config, |objective| {
                (objective.clip_range_low, objective.clip_range_high) = (clip, clip);
            }),
            3,
        );
        (0..3).for_each(|_| drop(trainer.iterate().expect("an epoch")));
        trainer.weights().to_data()
    };
    assert_eq!(weights(1, 1e-4), weights(1, 1e4));
    assert_ne!(weights(3, 1e-4), weights(3, 1e4), "later updates are clipped");
}

#[test]
fn a_constant_reward_moves_nothing() {
    struct Constant;
    impl Reward for Constant {
        fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
            Ok(vec![0.1; images.len()])
        }
    }
    let mut trainer = trainer_for(config(), 1, 2, Box::new(Constant));
    let before = trainer.weights().to_data();
    let metrics = trainer.iterate().expect("an epoch").metrics;
    assert_eq!((metrics.zero_spread, metrics.updates, metrics.transitions), (1.0, 0, 0));
    assert_eq!(trainer.weights().to_data(), before);
}

#[test]
fn a_reward_that_is_not_a_number_stops_the_run_and_is_named() {
    struct Broken;
    impl Reward for Broken {
        fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
            Ok((0..images.len()).map(|i| if i == 7 { f32::NAN } else { 0.0 }).collect())
        }
    }
    let mut trainer = trainer_for(config(), 1, 2, Box::new(Broken));
    let before = trainer.weights().to_data();
    let error = trainer.iterate().expect_err("NaN");
    assert!(
        matches!(&error, TrainError::Reward(RewardError::NotFinite { index: 7, .. })),
        "{error}"
    );
    assert_eq!(trainer.weights().to_data(), before);
}

#[test]
fn kl_to_the_reference_changes_the_update_and_holds_the_policy() {
    let run = |kl_weight: f64| {
        let mut trainer =
            trainer(with_objective(config(), |objective| objective.kl_weight = kl_weight), 2);
        (0..12).for_each(|_| drop(trainer.iterate().expect("an epoch")));
        let metrics = trainer.iterate().expect("an epoch").metrics;
        (metrics.number("kl_reference").expect("a KL penalty"), trainer.weights().clone())
    };
    let (_, free) = run(0.0);
    let (weak, _) = run(1e-9);
    let (strong, held) = run(10.0);
    assert!(weak > 0.0, "the policy must have left the reference: {weak}");
    assert!(strong < 0.5 * weak, "β must hold the policy: {strong} against {weak}");
    assert_ne!(free.to_data(), held.to_data());
}

#[test]
fn the_whole_gradient_is_clipped_not_each_tensor() {
    // A gradient of ones has norm √count, so clipping the whole to norm 1 leaves 1/√count
    // everywhere.
    let network = network(1);
    let parameters = Parameters::of(&network);
    let gradient = parameters.map(|values| values.zeros_like() + 1.0);
    let count = gradient.count() as f64;
    let optimizer = |max_gradient_norm: f64| {
        let config = AdamWConfig {
            learning_rate: 1.0,
            beta1: 0.0,
            beta2: 0.0,
            epsilon: 1.0,
            weight_decay: 0.0,
            max_gradient_norm,
        };
        Optimizer::new(config, &parameters)
    };
    let Stepped { parameters: moved, gradient_norm: norm, gradient_rms } =
        optimizer(1.0).update(&parameters, &gradient, 1.0);
    assert!((norm - count.sqrt()).abs() < 1e-3 * norm);
    assert!(
        (gradient_rms * count.sqrt() - 1.0).abs() < 1e-3,
        "the clipped gradient has norm 1: {gradient_rms:e}"
    );
    // With β = 0 the step is g/(|g| + ε): its size shows the clipped g, which is 1/√count in every
    // tensor.
    let g = 1.0 / count.sqrt();
    let step = g / (g + 1.0);
    for (id, before) in parameters.to_data() {
        let after = &moved.to_data()[&id];
        for (a, b) in after.iter::<f64>().zip(before.iter::<f64>()) {
            assert!((b - a - step).abs() < 1e-5, "moved by {} instead of {step}", b - a);
        }
    }
    let far = optimizer(1e9).update(&parameters, &gradient, 1.0);
    assert!((far.gradient_rms - 1.0).abs() < 1e-3);
    assert_ne!(far.parameters.to_data(), moved.to_data());
}

#[test]
fn adamw_is_the_published_algorithm() {
    // Two updates of a parameter by hand: g = 0.5 then −0.25, from 2.0.
    let (lr, b1, b2, eps, decay) = (0.1_f64, 0.9_f64, 0.99_f64, 1e-8_f64, 0.01_f64);
    let (mut p, mut m, mut s) = (2.0_f64, 0.0_f64, 0.0_f64);
    for (n, g) in [(1, 0.5_f64), (2, -0.25)] {
        m = b1 * m + (1.0 - b1) * g;
        s = b2 * s + (1.0 - b2) * g * g;
        p = p * (1.0 - lr * decay)
            - lr * (m / (1.0 - b1.powi(n))) / ((s / (1.0 - b2.powi(n))).sqrt() + eps);
    }
    let like = Parameters::of(&network(1));
    let all = |value: f64| like.map(|values| values.zeros_like() + value);
    let config = AdamWConfig {
        learning_rate: lr,
        beta1: b1,
        beta2: b2,
        epsilon: eps,
        weight_decay: decay,
        max_gradient_norm: 1e9,
    };
    let mut optimizer = Optimizer::new(config, &like);
    let once = optimizer.update(&all(2.0), &all(0.5), 1.0).parameters;
    let twice = optimizer.update(&once, &all(-0.25), 1.0).parameters;
    for data in twice.to_data().values() {
        assert!(
            distance(&data.iter::<f64>().collect::<Vec<_>>(), &vec![p; data.num_elements()]) < 1e-6
        );
    }
}

#[test]
fn the_schedule_reaches_the_weights() {
    let moved = |cool_down| {
        let mut trainer = trainer(GrpoConfig { cool_down, ..self::config() }, 1);
        let before = trainer.weights().clone();
        trainer.iterate().expect("an epoch");
        let after = trainer.weights();
        before.zip(after, |before, after| after - before).norm()
    };
    // Ten epochs, all in the cool-down: the first has 10/40 of the rate.
    assert!((moved(39) / moved(0) - 0.25).abs() < 0.01);
}

#[test]
fn nothing_in_a_trajectory_carries_a_graph() {
    // By type: a rollout runs on the plain backend, which has no graph; this line compiles only
    // because of that.
    let trainer = trainer(config(), 1);
    let weights: &Parameters<Plain> = trainer.weights();
    let _: Tensor<Plain, 1> = Tensor::from_data([weights.norm() as f32], &Device::default());
}
