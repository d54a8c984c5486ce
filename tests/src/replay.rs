//! Sampling, replay and refusals of an epoch: each test fails when one line of the loop is changed.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Tensor;
use flow::{Query, Reduction, Sampler, VelocityField};
use grpo::{
    GrpoConfig, Policy, ReplayBatches, RolloutConfig, TrainError, TrainedSteps,
    algorithm::{Clipped, Example},
    evaluate::{EncodedPrompt, Row},
    images::{Decode, Decoder},
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
    loss_scale::LossScale,
    noise::{Key, Purpose},
    optimisation::NotFinite,
    parameters::{Parameters, Trained},
    workers::Workers,
};

use crate::{
    backend::{Device, Plain, Training, distance},
    networks::{conditions, network},
    training::{
        TestTrainer, config, objective, policy_trainer, task, trainer, trainer_for, with_objective,
    },
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
    let (unscaled, scaled) = (error(1.0), error(LossScale::default().factor));
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

/// Gives a NaN or infinite gradient at the first calls.
struct Broken {
    calls: AtomicUsize,
    bad: usize,
    gradient: f64,
}

impl Differentiate<Training, Dit<Training>> for Broken {
    fn gradient(
        &self,
        network: Dit<Plain>,
        trained: &Trained,
        query: Query<Plain, TokenIds>,
        loss: &mut dyn FnMut(Tensor<Training, 4>) -> Tensor<Training, 1>,
    ) -> Parameters<Plain> {
        let gradient = in_one_piece(network, trained, query, loss);
        if self.calls.fetch_add(1, Ordering::Relaxed) < self.bad {
            return gradient.map(|values| values.zeros_like() + self.gradient);
        }
        gradient
    }

    fn velocity(&self, network: &Dit<Plain>, query: Query<Plain, TokenIds>) -> Tensor<Plain, 4> {
        query.ask(network)
    }
}

fn broken(config: GrpoConfig, bad: usize, gradient: f64) -> TestTrainer {
    trainer_for(config, 1, 1, Box::new(Darkness)).differentiating(Box::new(Broken {
        calls: AtomicUsize::new(0),
        bad,
        gradient,
    }))
}

#[test]
fn a_gradient_or_a_loss_that_is_not_a_number_stops_the_run_and_changes_nothing() {
    let refused = |mut trainer: TestTrainer| {
        let before = trainer.state().optimisation;
        let error = trainer.iterate().expect_err("not a number");
        let after = trainer.state().optimisation;
        assert_eq!(after.weights.to_data(), before.weights.to_data());
        assert_eq!(
            (after.average.to_data(), after.optimizer.updates),
            (before.average.to_data(), 0)
        );
        let TrainError::NotFinite { epoch: 1, numbers: NotFinite { loss, gradient_norm } } = error
        else {
            panic!("{error}")
        };
        (loss.is_finite(), gradient_norm.is_finite())
    };
    assert_eq!(refused(broken(config(), 1, f64::NAN)), (true, false));
    assert_eq!(refused(broken(config(), 1, f64::INFINITY)), (true, false));
    // The KL penalty against a broken reference model: the loss is NaN, whatever its gradient is.
    let reference =
        Parameters::of(&network(1)).map(|values| values * f64::NAN).put_into(network(1));
    let policy = Policy { reference, ..Policy::full(network(1)) };
    let config = with_objective(config(), |objective| objective.kl_weight = 0.1);
    let quiet = Broken { calls: AtomicUsize::new(0), bad: usize::MAX, gradient: 0.0 };
    assert_eq!(
        refused(policy_trainer(config, policy).differentiating(Box::new(quiet))),
        (false, true)
    );
}

#[test]
fn an_update_whose_scaled_gradient_overflows_is_skipped_counted_and_remembered() {
    let small = || GrpoConfig {
        updates_per_epoch: 2,
        micro_batch: 100,
        trained_steps: TrainedSteps::Random { count: 1 },
        ..config()
    };
    let start = LossScale::default();
    let mut trainer = broken(small(), 1, f64::INFINITY).scaling_loss(start);
    let metrics = trainer.iterate().expect("an epoch").metrics;
    assert_eq!(
        (metrics.updates, metrics.skipped_updates, metrics.loss_scale),
        (1, Some(1), Some(start.factor / 2.0))
    );
    assert!(
        metrics.gradient_norm.is_finite()
            && metrics.gradient_rms > 0.0
            && metrics.transitions == 24
    );
    let state = trainer.state();
    assert_eq!(
        state.optimisation.loss_scale,
        Some(LossScale { factor: start.factor / 2.0, good: 1 })
    );
    assert_eq!(state.optimisation.optimizer.updates, 1, "the skipped one does not count");
    // A resumed trainer continues with the scale and its count.
    let mut resumed = broken(small(), 0, 0.0).scaling_loss(start);
    resumed.restore(state);
    for trainer in [&mut trainer, &mut resumed] {
        assert_eq!(trainer.iterate().expect("an epoch").metrics.skipped_updates, Some(0));
    }
    let scale = |trainer: &TestTrainer| trainer.state().optimisation.loss_scale;
    assert_eq!(scale(&trainer), Some(LossScale { factor: start.factor / 2.0, good: 3 }));
    assert_eq!(scale(&resumed), scale(&trainer));
    assert_eq!(resumed.weights().to_data(), trainer.weights().to_data());
    // The scale cannot be halved any further.
    let mut hopeless =
        broken(small(), usize::MAX, f64::INFINITY).scaling_loss(LossScale { factor: 2.0, good: 0 });
    let error = hopeless.iterate().expect_err("the second update finds a scale of 1");
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
}

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
