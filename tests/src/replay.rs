//! Sampling, replay and refusals of an epoch: each test fails when one line of the loop is changed.

mod broken_gradients;
mod epochs;

use burn::tensor::Tensor;
use flow::{Query, Reduction, Sampler};
use grpo::{
    GrpoConfig, Policy, ReplayBatches, RolloutConfig, TrainError, TrainedSteps,
    algorithm::{Clipped, Example},
    evaluate::{EncodedPrompt, Row},
    rollout::{Rollout, RolloutKeys},
    trajectories::{KeptOn, Trajectories},
    update::{Batches, Differentiate, Others, Replay, ReplayOutcome, WholeGraph},
};
use models::{Dit, TokenIds};
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Darkness, Reward, Unjudged},
};
use training::{
    noise::{Key, Purpose},
    parameters::{Parameters, Trained},
    workers::Workers,
};

use crate::{
    backend::{Device, Plain, Training, distance},
    networks::{conditions, network},
    training::{TestTrainer, config, objective, policy_trainer, task, trainer_for},
};

const SHAPE: [usize; 3] = [3, 16, 16];

/// Eleven rows sampled four at a time, to be replayed.
struct Sampled {
    network: Dit<Plain>,
    sampler: Sampler,
    trajectories: Trajectories<Plain>,
    conditions: Vec<TokenIds>,
    workers: Workers,
}

const ROWS: usize = 11;
const BATCH: usize = 4;

impl Sampled {
    fn by(network: Dit<Plain>) -> Self {
        let (sampler, workers) =
            (config().rollout.sampler().expect("valid"), Workers::new(2).expect("threads"));
        let rows: Vec<Row> =
            (0..ROWS).map(|row| Row { prompt: row / 3, sample: row % 3 }).collect();
        let prompts = conditions(4)
            .into_iter()
            .map(|condition| EncodedPrompt { prompt: Prompt::plain("a"), condition });
        let prompts: Vec<EncodedPrompt<TokenIds>> = prompts.collect();
        let rollout = Rollout {
            sampler: &sampler,
            reduction: Reduction::Mean,
            guidance: None,
            shape: SHAPE,
            batch: BATCH,
            kept_on: KeptOn::Device,
            workers: &workers,
        };
        let keys = RolloutKeys::new(5, 0);
        let trajectories = rollout
            .sample(&network, &prompts, &rows, keys, &Device::default())
            .expect("not stopped");
        let conditions = rows.iter().map(|row| prompts[row.prompt].condition.clone()).collect();
        Self { network, sampler, trajectories, conditions, workers }
    }

    /// Some transitions of some steps: not whole batches of the rollout.
    fn transitions() -> Vec<Example> {
        (0..3)
            .flat_map(|step| {
                (0..ROWS)
                    .filter(move |row| (row + step) % 5 != 0)
                    .map(move |row| Example { step, row })
            })
            .collect()
    }

    fn replay(&self, how: &How) -> ReplayOutcome<Plain> {
        let trained_steps = TrainedSteps::AllButLast {};
        let mut algorithm =
            Clipped::new(objective(&config()), Reduction::Mean, trained_steps, &self.sampler);
        algorithm.step_weights = how.step_weights.to_vec();
        let replay = Replay {
            sampler: &self.sampler,
            guidance: None,
            trajectories: &self.trajectories,
            conditions: &self.conditions,
            advantages: &how.advantages,
            kl_weight: how.kl_weight,
            noise: Key::new(1, Purpose::Forward),
            trained: &Trained::all(&self.network),
            batches: how.batches,
            loss_scale: how.loss_scale,
            workers: &self.workers,
        };
        let others = Others { reference: Some(network(2)), old: None };
        let examples = std::slice::from_ref(&how.transitions);
        let outcome = replay.gradient::<Training, Dit<Training>>(
            &algorithm,
            &WholeGraph,
            &self.network,
            &others,
            examples,
        );
        outcome.expect("not stopped")
    }
}

/// Settings of a test's replay.
struct How {
    batches: Batches,
    kl_weight: f64,
    advantages: Vec<f32>,
    step_weights: [f64; 4],
    loss_scale: f64,
    transitions: Vec<Example>,
}

impl Default for How {
    fn default() -> Self {
        Self {
            batches: Batches::Of(8),
            kl_weight: 0.1,
            advantages: (0..ROWS).map(|row| row as f32 * 0.3 - 1.4).collect(),
            step_weights: [1.0; 4],
            loss_scale: 1.0,
            transitions: Sampled::transitions(),
        }
    }
}

fn flat(parameters: &Parameters<Plain>) -> Vec<f64> {
    parameters.to_data().values().flat_map(|data| data.iter::<f64>().collect::<Vec<_>>()).collect()
}

#[test]
fn batches_of_any_kind_have_the_same_gradient() {
    let sampled = Sampled::by(network(1));
    let of = |batches| sampled.replay(&How { batches, ..How::default() });
    let whole = of(Batches::Of(100));
    assert_eq!(whole.terms[0].examples.len(), Sampled::transitions().len());
    for batches in [
        Batches::Of(1),
        Batches::Of(5),
        Batches::Of(8),
        Batches::AsSampled(BATCH),
        Batches::AsSampled(7),
    ] {
        let other = of(batches);
        let far = distance(&flat(&other.gradient), &flat(&whole.gradient));
        assert!(far < 2e-5, "{batches:?}: gradients differ by {far:e}");
        assert!(
            (other.loss - whole.loss).abs() < 1e-5 * whole.loss.abs(),
            "{batches:?}: {} {}",
            other.loss,
            whole.loss
        );
        let transitions = |outcome: &ReplayOutcome<Plain>| outcome.terms[0].examples.clone();
        assert_eq!(transitions(&other), transitions(&whole), "{batches:?}");
        let kl = |outcome: &ReplayOutcome<Plain>| outcome.terms[0].columns[2].clone();
        assert!(distance(&kl(&other), &kl(&whole)) < 1e-5, "{batches:?}");
    }
}

#[test]
fn the_weight_of_a_step_multiplies_its_policy_gradient_and_not_its_kl() {
    let sampled = Sampled::by(network(1));
    let transitions: Vec<Example> = (0..ROWS).map(|row| Example { step: 1, row }).collect();
    let gradient = |kl_weight: f64, advantages: Option<Vec<f32>>, weight: f64| {
        let how = How {
            kl_weight,
            step_weights: [7.0, weight, 7.0, 7.0],
            transitions: transitions.clone(),
            ..How::default()
        };
        flat(
            &sampled
                .replay(&How {
                    advantages: advantages.unwrap_or_else(|| how.advantages.clone()),
                    ..how
                })
                .gradient,
        )
    };
    let (once, thrice) = (gradient(0.0, None, 1.0), gradient(0.0, None, 3.0));
    assert!(distance(&thrice, &once.iter().map(|value| 3.0 * value).collect::<Vec<_>>()) < 1e-5);
    let of_kl = |weight| gradient(1.0, Some(vec![0.0; ROWS]), weight);
    assert!(of_kl(1.0).iter().any(|value| *value != 0.0));
    assert!(distance(&of_kl(3.0), &of_kl(1.0)) < 1e-6);
}

#[test]
fn a_scaled_loss_gives_the_same_gradient() {
    let sampled = Sampled::by(network(1));
    let outcome = |loss_scale| sampled.replay(&How { loss_scale, ..How::default() });
    let (one, scaled) = (outcome(1.0), outcome(65_536.0));
    assert!(distance(&flat(&scaled.gradient), &flat(&one.gradient)) < 1e-6);
    assert_eq!((scaled.loss, scaled.terms), (one.loss, one.terms));
}

/// On flex, the CPU backend that computes in 16 bits; a GPU computes in the same way.
#[cfg(feature = "flex")]
#[test]
fn a_scaled_loss_keeps_what_half_precision_rounds_to_nothing() {
    use burn::tensor::FloatDType;
    let exact = Sampled::by(network(1));
    let half =
        Sampled { network: network(1).computing_in(FloatDType::F16), ..Sampled::by(network(1)) };
    // Scales gradients to about the share of a transition, and of an element of its latent, in an
    // epoch of the paper's size.
    let how = |loss_scale| How {
        kl_weight: 0.0,
        advantages: How::default().advantages.iter().map(|advantage| advantage * 2e-5).collect(),
        loss_scale,
        ..How::default()
    };
    let exact = flat(&exact.replay(&how(1.0)).gradient);
    let error = |loss_scale| {
        let gradient = flat(&half.replay(&how(loss_scale)).gradient);
        let norm = |values: &mut dyn Iterator<Item = f64>| {
            values.map(|value| value * value).sum::<f64>().sqrt()
        };
        norm(&mut gradient.iter().zip(&exact).map(|(a, b)| a - b))
            / norm(&mut exact.iter().copied())
    };
    let (unscaled, scaled) = (error(1.0), error(training::loss_scale::LossScale::default().factor));
    println!("relative error of the gradient: {unscaled:.3} unscaled, {scaled:.4} scaled");
    assert!(unscaled > 0.2 && scaled < 0.05, "{unscaled} {scaled}");
}

fn in_one_piece(
    network: Dit<Plain>,
    trained: &Trained,
    query: Query<Plain, TokenIds>,
    loss: &mut dyn FnMut(Tensor<Training, 4>) -> Tensor<Training, 1>,
) -> Parameters<Plain> {
    Differentiate::<Training, Dit<Training>>::gradient(&WholeGraph, network, trained, query, loss)
}

/// A replay that goes through another network than the rollout.
struct Drifting(f64);

impl Differentiate<Training, Dit<Training>> for Drifting {
    fn gradient(
        &self,
        network: Dit<Plain>,
        trained: &Trained,
        query: Query<Plain, TokenIds>,
        loss: &mut dyn FnMut(Tensor<Training, 4>) -> Tensor<Training, 1>,
    ) -> Parameters<Plain> {
        let network = trained.of(&network).map(|values| values * (1.0 + self.0)).put_into(network);
        in_one_piece(network, trained, query, loss)
    }

    fn velocity(&self, network: &Dit<Plain>, query: Query<Plain, TokenIds>) -> Tensor<Plain, 4> {
        query.ask(network)
    }
}

#[test]
fn a_replay_that_is_not_the_rollout_stops_the_run_beyond_a_limit_in_clip_ranges() {
    let with_limit = |on_policy_limit: f64| {
        let task = grpo::Task { on_policy_limit, ..task(Box::new(Darkness)) };
        let workers = Workers::new(2).expect("threads");
        let trainer = TestTrainer::new(config(), 10, 1, task, Policy::full(network(1)), workers);
        trainer.differentiating(Box::new(Drifting(1e-2)))
    };
    let metrics = with_limit(f64::INFINITY).iterate().expect("no limit").metrics;
    let [mean, max, ranges] = ["mean", "max", "clip_ranges"]
        .map(|name| metrics.number(&format!("on_policy.{name}")).expect(name));
    println!("{mean:e} {max:e} {ranges:e}");
    assert!(max > 1e-4 && mean > 0.0 && mean < max, "{mean} {max}");
    assert!((ranges * objective(&config()).clip_range_low / max - 1.0).abs() < 1e-9, "{ranges}");
    assert!(with_limit(1.01 * ranges).iterate().is_ok());
    let mut stopped = with_limit(0.99 * ranges);
    let before = stopped.weights().to_data();
    let error = stopped.iterate().expect_err("another policy");
    let TrainError::OffPolicy { epoch, deviation, clip_ranges, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((epoch, deviation, clip_ranges), (1, max, ranges));
    assert_eq!(stopped.weights().to_data(), before);
}

#[test]
fn a_replay_in_the_rollouts_batches_computes_the_same_numbers_to_the_last_bit() {
    let config = |replay_batches, trained_steps| GrpoConfig {
        micro_batch: 7,
        rollout_batch: 5,
        updates_per_epoch: 2,
        replay_batches,
        trained_steps,
        rollout: RolloutConfig { guidance: 3.0, ..config().rollout },
        ..config()
    };
    let precisions: &[_] = if cfg!(feature = "flex") {
        &[
            burn::tensor::FloatDType::F32,
            burn::tensor::FloatDType::BF16,
            burn::tensor::FloatDType::F16,
        ]
    } else {
        &[burn::tensor::FloatDType::F32]
    };
    for &precision in precisions {
        for trained_steps in [TrainedSteps::AllButLast {}, TrainedSteps::Random { count: 2 }] {
            let first = |replay_batches| {
                let policy = Policy::full(network(1).computing_in(precision));
                let mut trainer = policy_trainer(config(replay_batches, trained_steps), policy);
                let max = |metrics: grpo::EpochMetrics| {
                    metrics.number("on_policy.max").expect("a comparison")
                };
                (0..3)
                    .map(|_| max(trainer.iterate().expect("an epoch").metrics))
                    .fold(0.0, f64::max)
            };
            let [same, other] = [ReplayBatches::Rollout, ReplayBatches::MicroBatch].map(first);
            println!("{precision:?}: the rollout's batches {same:e}, others {other:e}");
            assert_eq!(same, 0.0, "{precision:?}");
        }
    }
}

#[test]
fn batches_of_the_rollout_train_every_row_that_has_something_to_learn_once() {
    /// Darkness, but a constant for the first prompt, which therefore has nothing to learn.
    struct Mostly;
    impl Reward for Mostly {
        fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
            let scores = Darkness.score(images, prompts)?;
            Ok(scores
                .into_iter()
                .zip(prompts)
                .map(|(score, prompt)| if prompt.text == "prompt 0" { 0.0 } else { score })
                .collect())
        }
    }
    for replay_batches in [ReplayBatches::MicroBatch, ReplayBatches::Rollout] {
        // All four prompts; batches of five cut across groups of eight.
        let config = GrpoConfig {
            groups: 4,
            rollout_batch: 5,
            updates_per_epoch: 3,
            replay_batches,
            ..config()
        };
        let metrics =
            trainer_for(config, 1, 2, Box::new(Mostly)).iterate().expect("an epoch").metrics;
        assert_eq!(
            (metrics.zero_spread, metrics.updates, metrics.transitions),
            (0.25, 3, 3 * 8 * 3),
            "{replay_batches:?}"
        );
    }
}
