//! An epoch of the trainer: its groups, noise, steps, KL weight and rate.

use burn::tensor::Tensor;
use flow::{Reduction, VelocityField};
use grpo::{
    GrpoConfig, Policy, RolloutConfig, TrainedSteps,
    evaluate::{EncodedPrompt, Row},
    images::{Decode, Decoder},
    rollout::{Rollout, RolloutKeys},
    trajectories::KeptOn,
};
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, Unjudged},
};
use training::workers::Workers;

use crate::{
    backend::{Device, Plain, Training, distance},
    networks::network,
    training::{config, trainer, trainer_for, with_objective},
};

use super::SHAPE;

#[test]
fn a_group_is_one_prompt() {
    /// Scores every image with the number of its prompt.
    struct OfPrompt;
    impl Reward for OfPrompt {
        fn score(&self, _images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
            Ok(prompts
                .iter()
                .map(|prompt| prompt.text.trim_start_matches("prompt ").parse().expect("a number"))
                .collect())
        }
    }
    let mut trainer = trainer_for(config(), 1, 2, Box::new(OfPrompt));
    for _ in 0..4 {
        let metrics = trainer.iterate().expect("an epoch").metrics;
        assert!(metrics.reward_std > 0.0, "the epoch has several prompts");
        assert_eq!((metrics.zero_spread, metrics.updates), (1.0, 0), "no group has two rewards");
    }
}

#[test]
fn the_last_step_of_the_grid_is_never_trained() {
    for trained_steps in [TrainedSteps::AllButLast {}, TrainedSteps::Random { count: 3 }] {
        let rollout = RolloutConfig { random_steps: 4, ..config().rollout };
        let metrics = trainer(GrpoConfig { rollout, trained_steps, ..config() }, 1)
            .iterate()
            .expect("an epoch")
            .metrics;
        let steps = metrics.algorithm["steps"].as_array().expect("steps");
        assert_eq!(steps.iter().map(|step| &step["step"]).collect::<Vec<_>>(), [0, 1, 2]);
    }
    let rollout = RolloutConfig { random_steps: 4, ..config().rollout };
    let problems =
        GrpoConfig { rollout, trained_steps: TrainedSteps::Random { count: 4 }, ..config() }
            .problems();
    assert_eq!(problems, ["trained_steps.count (4) must lie between 1 and 3"]);
}

#[test]
fn an_epoch_is_sampled_from_its_own_prompts_and_noise() {
    let seed = 8;
    let mut trainer = trainer(config(), seed);
    let (sampler, workers) =
        (config().rollout.sampler().expect("valid"), Workers::new(1).expect("a thread"));
    let rollout = Rollout {
        sampler: &sampler,
        reduction: Reduction::Mean,
        guidance: None,
        shape: SHAPE,
        batch: 8,
        kept_on: KeptOn::Device,
        workers: &workers,
    };
    let mut drawn = Vec::new();
    for epoch in 0..6 {
        let policy = trainer.weights().put_into(network(1));
        let prompts = trainer.prompts().to_vec();
        let iteration = trainer.iterate().expect("an epoch");
        let keys = RolloutKeys::new(seed, epoch);
        let again = rollout
            .sample(&policy, &prompts, &iteration.rows, keys, &Device::default())
            .expect("not stopped");
        assert!(Decoder::Pixels.decode(again.final_latents()) == iteration.images, "epoch {epoch}");
        drawn.push(
            iteration
                .rows
                .chunks(config().group_size)
                .map(|group| group[0].prompt)
                .collect::<Vec<_>>(),
        );
    }
    drawn.sort();
    drawn.dedup();
    assert!(drawn.len() > 1, "every epoch has the same prompts: {drawn:?}");
}

#[test]
fn x_1_and_the_noise_of_every_step_differ() {
    let (sampler, workers) =
        (config().rollout.sampler().expect("valid"), Workers::new(1).expect("a thread"));
    let rollout = Rollout {
        sampler: &sampler,
        reduction: Reduction::Mean,
        guidance: None,
        shape: SHAPE,
        batch: 2,
        kept_on: KeptOn::Device,
        workers: &workers,
    };
    let prompts = [EncodedPrompt { prompt: Prompt::plain("a"), condition: () }];
    let keys = RolloutKeys::new(1, 0);
    let field = Still::<Plain> {
        nothing: burn::module::Param::from_tensor(Tensor::zeros([1], &Device::default())),
    };
    let trajectories = rollout
        .sample(&field, &prompts, &Row::all(1, 2), keys, &Device::default())
        .expect("not stopped");
    let latent = |index: usize, row: usize| trajectories.latents(index, &[row]);
    let mut noises: Vec<Vec<f64>> =
        (0..2).map(|row| crate::backend::numbers(latent(0, row))).collect();
    for index in 0..3 {
        let (step, transition) = sampler.step(index);
        for row in 0..2 {
            let gaussian =
                transition.gaussian(latent(index, row), latent(index, row).zeros_like(), step);
            noises.push(crate::backend::numbers(
                (latent(index + 1, row) - gaussian.mean) / gaussian.std,
            ));
        }
    }
    for (i, a) in noises.iter().enumerate() {
        for b in &noises[..i] {
            let correlation = a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / a.len() as f64;
            // Standard normal: the mean of 768 products has a standard deviation of 0.036.
            assert!(correlation.abs() < 0.18, "two of x_1 and the noises are alike: {correlation}");
        }
    }
}

/// A field of zeros: a step adds its noise and nothing else.
#[derive(burn::module::Module, Debug)]
struct Still<B: burn::tensor::backend::Backend> {
    nothing: burn::module::Param<Tensor<B, 1>>,
}

impl<B: burn::tensor::backend::Backend> VelocityField<B> for Still<B> {
    type Condition = ();

    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        _time: Tensor<B, 1>,
        _conditions: &[()],
    ) -> Tensor<B, 4> {
        latent.zeros_like() + self.nothing.val().reshape([1, 1, 1, 1])
    }
}

/// The same reward for everything.
struct Indifferent;
impl Reward for Indifferent {
    fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        Ok(vec![0.5; images.len()])
    }
}

/// The steps of a trainer's rollouts draw noise of their own: with a velocity of zero, variances
/// add up.
#[test]
fn a_trainers_x_1_is_not_drawn_again_at_a_step() {
    let config = GrpoConfig { groups: 2, group_size: 32, rollout_batch: 32, ..config() };
    let variance = config.rollout.sampler().expect("valid").steps().fold(
        1.0,
        |variance, (step, transition)| {
            let affine = transition.affine(step);
            affine.latent.powi(2) * variance + affine.std.powi(2)
        },
    );
    let prompt = EncodedPrompt { prompt: Prompt::plain("a"), condition: () };
    let task = grpo::Task::new(vec![prompt], (), Indifferent, SHAPE, Decoder::Points);
    let field = Still::<Plain> {
        nothing: burn::module::Param::from_tensor(Tensor::zeros([1], &Device::default())),
    };
    let workers = Workers::new(2).expect("threads");
    let mut trainer = grpo::Trainer::<Training, Still<Training>>::new(
        config,
        1,
        1,
        task,
        Policy::full(field),
        workers,
    );
    let images = trainer.iterate().expect("an epoch").images;
    let squares: Vec<f64> =
        images.iter().flat_map(|image| &image.pixels).map(|&x| f64::from(x).powi(2)).collect();
    let found = squares.iter().sum::<f64>() / squares.len() as f64;
    // The mean of 49,152 squares has a relative standard deviation of 0.6 %.
    assert!((found / variance - 1.0).abs() < 0.03, "{found} instead of {variance}");
}

#[test]
fn a_trainer_taken_back_keeps_its_epoch_and_its_kl_weight() {
    let mut trainer = trainer(with_objective(config(), |objective| objective.kl_weight = 0.1), 1);
    let start = trainer.state().optimisation;
    (0..2).for_each(|_| drop(trainer.iterate().expect("an epoch")));
    assert_eq!(trainer.epoch(), 2);
    assert_ne!(trainer.weights().to_data(), start.weights.to_data());
    trainer.set_kl_weight(0.7);
    trainer.roll_back(start.clone());
    let back = trainer.state().optimisation;
    assert_eq!(
        (trainer.epoch(), trainer.kl_weight(), back.optimizer.updates),
        (2, 0.7, start.optimizer.updates)
    );
    assert_eq!(back.weights.to_data(), start.weights.to_data());
    assert_eq!(back.average.to_data(), start.average.to_data());
    assert_eq!(trainer.iterate().expect("an epoch").metrics.kl_weight, 0.7);
}

#[test]
fn the_kl_weight_follows_its_controller_where_something_was_trained() {
    let adaptive = |kl_weight| {
        with_objective(config(), |objective| {
            objective.kl_weight = kl_weight;
            objective.kl_controller =
                grpo::objective::KlController::Adaptive { target: 1e-9, rate: 0.5 };
        })
    };
    let mut moved = trainer(adaptive(0.1), 1);
    let weights: Vec<f64> =
        (0..3).map(|_| moved.iterate().expect("an epoch").metrics.kl_weight).collect();
    // The first epoch starts at the reference, far below the target; then the policy is far above
    // it.
    assert!((weights[1] - 0.09).abs() < 1e-12 && (weights[2] - 0.099).abs() < 1e-12, "{weights:?}");
    let mut still = trainer_for(adaptive(0.1), 1, 2, Box::new(Indifferent));
    let weights: Vec<f64> =
        (0..3).map(|_| still.iterate().expect("an epoch").metrics.kl_weight).collect();
    assert_eq!(weights, [0.1; 3], "nothing was trained, so nothing was measured");
}

#[test]
fn without_a_kl_penalty_the_reference_is_not_asked() {
    let mut trainer = trainer(config(), 1);
    for _ in 0..3 {
        assert_eq!(trainer.iterate().expect("an epoch").metrics.number("kl_reference"), Some(0.0));
    }
}

#[test]
fn the_learning_rate_of_an_epoch_is_the_peak_times_the_schedule() {
    let mut trainer = trainer(GrpoConfig { warm_up: 2, cool_down: 4, ..config() }, 1);
    let rates: Vec<f64> = (0..10)
        .map(|_| trainer.iterate().expect("an epoch").metrics.learning_rate / 3e-3)
        .collect();
    let expected: Vec<f64> =
        (0..10).map(|epoch| training::schedule::rate(epoch, 10, 2, 4)).collect();
    assert!(distance(&rates, &expected) < 1e-12 && rates[0] < 1.0 && rates[9] < 1.0, "{rates:?}");
}
