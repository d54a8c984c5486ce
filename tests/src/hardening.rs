//! Odd sizes and broken rewards: an epoch that adds up or a clear error, never a panic.

use grpo::{GrpoConfig, TrainError, TrainedSteps, Trainer, groups::Mix};
use proptest::{prelude::*, test_runner::Config};
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, RewardError, Unjudged},
};
use training::workers::Workers;

use crate::{
    networks::network,
    training::{TestTrainer, config, task},
};

/// Kinds of scores that a reward gives.
#[derive(Clone, Copy, Debug)]
enum Gives {
    /// A score that differs from image to image.
    Spread,
    /// The same score for all images.
    Constant(f32),
    /// One score of this value, which is not finite.
    Broken(f32),
    /// Scores near the ends of the range of f32.
    Huge,
}

struct Odd(Gives);

impl Reward for Odd {
    fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let value = |index: usize| match self.0 {
            Gives::Spread => (index * 37 % 11) as f32 / 11.0,
            Gives::Constant(value) => value,
            Gives::Broken(value) => {
                if index == images.len() / 2 {
                    value
                } else {
                    0.5
                }
            }
            Gives::Huge => {
                if index.is_multiple_of(2) {
                    3e38
                } else {
                    -3e38
                }
            }
        };
        Ok((0..images.len()).map(value).collect())
    }
}

fn trainer(config: GrpoConfig, prompts: usize, gives: Gives) -> TestTrainer {
    let mut task = task(Box::new(Odd(gives)));
    task.prompts.truncate(prompts);
    task.mix = Mix::even(prompts);
    let workers = Workers::new(2).expect("threads");
    Trainer::new(config, 10, 1, task, grpo::Policy::full(network(1)), workers)
}

fn gives() -> impl Strategy<Value = Gives> {
    prop_oneof![
        4 => Just(Gives::Spread),
        1 => prop_oneof![Just(0.0), Just(0.1), Just(-1e9), Just(f32::MIN_POSITIVE)].prop_map(Gives::Constant),
        1 => prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)].prop_map(Gives::Broken),
        1 => Just(Gives::Huge),
    ]
}

proptest! {
    // The same cases in every run, so that a failure can be reproduced.
    #![proptest_config(Config { cases: 48, rng_seed: proptest::test_runner::RngSeed::Fixed(7), failure_persistence: None, ..Config::default() })]

    #[test]
    fn an_epoch_of_any_size_adds_up_and_a_broken_reward_is_named(
        (groups, group_size, prompts) in (1_usize..5, 1_usize..6, 1_usize..5),
        (micro_batch, rollout_batch, updates_per_epoch) in (1_usize..9, 1_usize..9, 1_usize..7),
        trained in 0_usize..4,
        gives in gives(),
    ) {
        let trained_steps = if trained == 0 { TrainedSteps::AllButLast {} } else { TrainedSteps::Random { count: trained } };
        let config = GrpoConfig { groups, group_size, micro_batch, rollout_batch, updates_per_epoch, trained_steps, ..config() };
        prop_assume!(config.problems().is_empty());
        let mut trainer = trainer(config.clone(), prompts, gives);
        let before = trainer.weights().to_data();
        match trainer.iterate() {
            Ok(iteration) => {
                let metrics = iteration.metrics;
                prop_assert!(!matches!(gives, Gives::Broken(_)));
                prop_assert_eq!(iteration.rows.len(), groups * group_size);
                prop_assert!(metrics.updates <= updates_per_epoch);
                let text = serde_json::to_string(&metrics).expect("JSON");
                prop_assert!(!text.contains("null"), "a number is none: {}", text);
                let taught = (1.0 - metrics.zero_spread) * config.transitions_per_epoch() as f64;
                prop_assert_eq!(metrics.transitions, taught.round() as usize);
                let steps = metrics.algorithm["steps"].as_array().expect("steps");
                let of_steps: u64 = steps.iter().filter_map(|step| step["transitions"].as_u64()).sum();
                prop_assert_eq!(of_steps, metrics.transitions as u64);
                if matches!(gives, Gives::Constant(_)) || group_size == 1 {
                    prop_assert_eq!(metrics.updates, 0);
                    prop_assert_eq!(trainer.weights().to_data(), before);
                }
                let weights = trainer.weights().to_data();
                prop_assert!(weights.values().all(|data| data.iter::<f32>().all(f32::is_finite)));
            }
            Err(TrainError::Reward(RewardError::NotFinite { reward, .. })) => {
                prop_assert!(matches!(gives, Gives::Broken(_)) && reward == "reward");
                prop_assert_eq!(trainer.weights().to_data(), before);
            }
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
