//! The trainer: one iteration of Flow-GRPO after the other.

use std::time::Instant;

use burn::{
    module::{AutodiffModule, Module},
    prelude::*,
    tensor::backend::AutodiffBackend,
};
use flow::{GridError, GridKind, NoiseLevel, Reduction, Sampler, Trajectory, VelocityField};
use rand::seq::{SliceRandom, index};
use serde::{Deserialize, Serialize};
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{RewardError, Scores, WeightedReward},
};
use thiserror::Error;

use crate::{
    advantage::{AdvantageConfig, Advantages, group_advantages, mean, std},
    ema::{EmaConfig, average},
    evaluate::{EncodedPrompt, Row},
    groups,
    images::Decoder,
    noise::{Key, Purpose},
    objective::ObjectiveConfig,
    optimizer::{AdamW, AdamWConfig, AdamWState},
    parameters::Parameters,
    rollout::Rollout,
    update::{Replay, ReplayOutcome, Seen, Transition},
    workers::Workers,
};

/// The numbers of Flow-GRPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpoConfig {
    /// Prompts per epoch; each is one group.
    pub groups: usize,
    /// Samples per prompt.
    pub group_size: usize,
    /// Optimiser updates per epoch; the first is on-policy, the others are not.
    pub updates_per_epoch: usize,
    /// Transitions per forward and backward pass; changes the speed, not the update.
    pub micro_batch: usize,
    /// Rows sampled together; changes the speed, not the samples.
    pub rollout_batch: usize,
    /// Epochs over which the learning rate rises from 0.
    pub warm_up: usize,
    /// How trajectories are sampled.
    pub rollout: RolloutConfig,
    /// Which steps of a trajectory are trained.
    pub trained_steps: TrainedSteps,
    /// How rewards become advantages.
    pub advantage: AdvantageConfig,
    /// What is minimised.
    pub objective: ObjectiveConfig,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// The average of the weights, which is what is evaluated and kept.
    pub ema: EmaConfig,
}

/// How trajectories are sampled in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutConfig {
    /// Denoising steps `N`.
    pub steps: usize,
    /// The time grid.
    pub grid: GridKind,
    /// The noise level `a`.
    pub noise_level: NoiseLevel,
    /// Steps that draw noise, from the start of the trajectory on; the others are ODE steps.
    pub random_steps: usize,
    /// How log-probabilities are reduced.
    pub log_prob: Reduction,
}

impl RolloutConfig {
    /// The sampler that these numbers describe.
    pub fn sampler(&self) -> Result<Sampler, GridError> {
        Ok(Sampler::flow_sde(self.grid.grid(self.steps)?, self.noise_level).with_ode_after(self.random_steps))
    }
}

/// Which of the random steps of a trajectory are trained. The last step of the grid never is: it is nearly deterministic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TrainedSteps {
    /// All but the last, as in the reference code.
    AllButLast,
    /// Some of those, drawn anew for every row: less work per sample.
    Random {
        /// How many.
        count: usize,
    },
}

impl GrpoConfig {
    /// All that is out of range, one sentence each, beginning with the key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value) in [
            ("groups", self.groups),
            ("group_size", self.group_size),
            ("updates_per_epoch", self.updates_per_epoch),
            ("micro_batch", self.micro_batch),
            ("rollout_batch", self.rollout_batch),
            ("ema.every", self.ema.every),
        ] {
            if value == 0 {
                problems.push(format!("{key} must be at least 1"));
            }
        }
        for (key, value) in [
            ("optimizer.learning_rate", self.optimizer.learning_rate),
            ("optimizer.epsilon", self.optimizer.epsilon),
            ("optimizer.max_gradient_norm", self.optimizer.max_gradient_norm),
            ("objective.clip_range", self.objective.clip_range),
            ("advantage.clip", self.advantage.clip),
            ("advantage.epsilon", self.advantage.epsilon),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                problems.push(format!("{key} ({value}) must be a positive number"));
            }
        }
        for (key, value) in
            [("optimizer.beta1", self.optimizer.beta1), ("optimizer.beta2", self.optimizer.beta2), ("ema.decay", self.ema.decay)]
        {
            if !(0.0..1.0).contains(&value) {
                problems.push(format!("{key} ({value}) must be at least 0 and below 1"));
            }
        }
        for (key, value) in
            [("objective.kl_weight", self.objective.kl_weight), ("optimizer.weight_decay", self.optimizer.weight_decay)]
        {
            if !(value >= 0.0 && value.is_finite()) {
                problems.push(format!("{key} ({value}) must be at least 0"));
            }
        }
        match self.rollout.sampler() {
            Ok(sampler) => {
                let trainable = trainable_steps(&sampler).len();
                if trainable == 0 {
                    problems.push("rollout: no step can be trained; use at least two steps and a noise_level above 0".to_owned());
                }
                if let TrainedSteps::Random { count } = self.trained_steps
                    && !(1..=trainable).contains(&count)
                {
                    problems.push(format!("trained_steps.count ({count}) must lie between 1 and {trainable}"));
                }
            }
            Err(error) => problems.push(format!("rollout: {error}")),
        }
        problems
    }

    /// Transitions that an epoch trains if every group has spread.
    pub fn transitions_per_epoch(&self) -> usize {
        let per_row = match self.trained_steps {
            TrainedSteps::AllButLast => self.rollout.sampler().map_or(0, |sampler| trainable_steps(&sampler).len()),
            TrainedSteps::Random { count } => count,
        };
        self.groups * self.group_size * per_row
    }
}

/// The random steps of a sampler but for the last step of its grid.
fn trainable_steps(sampler: &Sampler) -> Vec<usize> {
    let last = sampler.grid().len() - 1;
    sampler.steps().filter(|(step, transition)| step.index < last && transition.is_random()).map(|(step, _)| step.index).collect()
}

/// What is trained on: prompts, how often each is drawn, and how pictures are judged.
pub struct Task<C> {
    /// The prompts with their conditions.
    pub prompts: Vec<EncodedPrompt<C>>,
    /// How often each is drawn, relative to the others.
    pub weights: Vec<f64>,
    /// The judge.
    pub reward: WeightedReward,
    /// `[C, H, W]` of a latent.
    pub latent_shape: [usize; 3],
    /// What a final latent means.
    pub decoder: Decoder,
}

/// The state of a training run.
pub struct Trainer<B: AutodiffBackend, M: AutodiffModule<B>, C> {
    config: GrpoConfig,
    seed: u64,
    task: Task<C>,
    sampler: Sampler,
    workers: Workers,
    device: B::Device,
    policy: M::InnerModule,
    reference: M::InnerModule,
    average: Parameters<B::InnerBackend>,
    optimizer: AdamW<B::InnerBackend>,
    epoch: usize,
}

/// What changes in training and must be saved.
#[derive(Clone, Debug)]
pub struct TrainerState<B: Backend> {
    /// The policy's weights.
    pub weights: Parameters<B>,
    /// Their average.
    pub average: Parameters<B>,
    /// The optimiser's state.
    pub optimizer: AdamWState<B>,
    /// Epochs that are done.
    pub epoch: usize,
}

impl<B, M, C> Trainer<B, M, C>
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + VelocityField<B, Condition = C>,
    M::InnerModule: VelocityField<B::InnerBackend, Condition = C> + Module<B::InnerBackend>,
    C: Clone + Sync + Send,
{
    /// A trainer that starts from `base`, which stays the reference policy.
    ///
    /// # Panics
    /// If [`GrpoConfig::problems`] finds any, or prompts and weights differ in number.
    pub fn new(config: GrpoConfig, seed: u64, task: Task<C>, base: M::InnerModule, workers: Workers, device: B::Device) -> Self {
        assert_eq!(config.problems(), Vec::<String>::new(), "an invalid configuration");
        assert_eq!(task.prompts.len(), task.weights.len(), "every prompt needs a weight");
        let weights = Parameters::of(&base);
        Self {
            sampler: config.rollout.sampler().expect("checked above"),
            optimizer: AdamW::new(config.optimizer, &weights),
            average: weights,
            reference: base.clone(),
            policy: base,
            epoch: 0,
            config,
            seed,
            task,
            workers,
            device,
        }
    }

    /// Goes on from a saved state.
    pub fn restore(&mut self, state: TrainerState<B::InnerBackend>) {
        self.policy = state.weights.put_into(self.policy.clone());
        self.average = state.average;
        self.optimizer.restore(state.optimizer);
        self.epoch = state.epoch;
    }

    /// The state to save.
    pub fn state(&self) -> TrainerState<B::InnerBackend> {
        TrainerState {
            weights: Parameters::of(&self.policy),
            average: self.average.clone(),
            optimizer: self.optimizer.state().clone(),
            epoch: self.epoch,
        }
    }

    /// Epochs that are done.
    pub fn epoch(&self) -> usize {
        self.epoch
    }

    /// The policy with averaged weights: what is evaluated and kept.
    pub fn averaged_policy(&self) -> M::InnerModule {
        self.average.put_into(self.policy.clone())
    }

    /// The threads that do the work.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// One iteration of Flow-GRPO: sample groups, score them, take the updates.
    // ANCHOR: iterate
    pub fn iterate(&mut self) -> Result<Iteration, TrainError> {
        let started = Instant::now();
        let rows = self.draw_rows();
        let trajectory = self.rollout(&rows);
        let images = self.task.decoder.decode(trajectory.final_latent());
        let sampled = Instant::now();
        let scores = self.score(&images, &rows)?;
        let advantages = group_advantages(&scores.total, self.config.group_size, &self.config.advantage);
        let updates = self.update(&trajectory, &rows, &advantages)?;
        self.epoch += 1;
        let clip_range = self.config.objective.clip_range;
        let metrics =
            EpochMetrics::new(self.epoch, &scores, &advantages, &updates, clip_range).timed(started, sampled, rows.len());
        Ok(Iteration { metrics, images, rows, scores })
    }
    // ANCHOR_END: iterate

    fn draw_rows(&self) -> Vec<Row> {
        groups::draw(&self.task.weights, self.config.groups, self.config.group_size, self.key(Purpose::Prompts))
    }

    fn rollout(&self, rows: &[Row]) -> Trajectory<B::InnerBackend> {
        let rollout = Rollout {
            sampler: &self.sampler,
            reduction: self.config.rollout.log_prob,
            shape: self.task.latent_shape,
            batch: self.config.rollout_batch,
            workers: &self.workers,
        };
        let keys = [self.key(Purpose::Initial), self.key(Purpose::Step)];
        rollout.sample(&self.policy, &self.task.prompts, rows, keys, &self.device)
    }

    fn score(&self, images: &[Image], rows: &[Row]) -> Result<Scores, TrainError> {
        let prompts: Vec<&Prompt> = rows.iter().map(|row| &self.task.prompts[row.prompt].prompt).collect();
        Ok(self.task.reward.score(images, &prompts)?)
    }

    /// The updates of an epoch; none if no group has spread.
    fn update(
        &mut self,
        trajectory: &Trajectory<B::InnerBackend>,
        rows: &[Row],
        advantages: &Advantages,
    ) -> Result<Vec<Update>, TrainError> {
        let conditions: Vec<C> = rows.iter().map(|row| self.task.prompts[row.prompt].condition.clone()).collect();
        let mut updates = Vec::new();
        for transitions in self.plan(advantages) {
            let replay = Replay {
                sampler: &self.sampler,
                reduction: self.config.rollout.log_prob,
                trajectory,
                conditions: &conditions,
                advantages: &advantages.values,
                objective: &self.config.objective,
                micro_batch: self.config.micro_batch,
                workers: &self.workers,
            };
            let reference = (self.config.objective.kl_weight > 0.0).then_some(&self.reference);
            let outcome = replay.gradient::<B, M>(&self.policy, reference, &transitions);
            if updates.is_empty() {
                check_on_policy(self.epoch + 1, &outcome.seen)?;
            }
            updates.push(self.step(outcome)?);
        }
        Ok(updates)
    }

    /// Moves the weights and their average.
    fn step(&mut self, outcome: ReplayOutcome<B::InnerBackend>) -> Result<Update, TrainError> {
        let rate = ((self.epoch + 1) as f64 / (self.config.warm_up + 1) as f64).min(1.0);
        let (weights, gradient_norm) = self.optimizer.update(&Parameters::of(&self.policy), &outcome.gradient, rate);
        if !(outcome.loss.is_finite() && gradient_norm.is_finite()) {
            return Err(TrainError::NotFinite { epoch: self.epoch + 1, loss: outcome.loss, gradient_norm });
        }
        self.policy = weights.put_into(self.policy.clone());
        let updates = self.optimizer.state().updates;
        if updates.is_multiple_of(self.config.ema.every) {
            let decay = self.config.ema.decay_at(updates / self.config.ema.every);
            self.average = average(&self.average, &weights, decay);
        }
        Ok(Update { loss: outcome.loss, gradient_norm, seen: outcome.seen })
    }

    /// The transitions of each of the epoch's updates.
    ///
    /// Rows of groups without spread are left out; the others are shuffled and dealt to the updates as evenly as they go.
    fn plan(&self, advantages: &Advantages) -> Vec<Vec<Transition>> {
        let mut rng = self.key(Purpose::Order).rng();
        let mut rows: Vec<usize> =
            (0..advantages.values.len()).filter(|row| advantages.has_spread[row / self.config.group_size]).collect();
        rows.shuffle(&mut rng);
        let trainable = trainable_steps(&self.sampler);
        let count = match self.config.trained_steps {
            TrainedSteps::AllButLast => trainable.len(),
            TrainedSteps::Random { count } => count,
        };
        let updates = self.config.updates_per_epoch;
        let part = |update: usize| &rows[rows.len() * update / updates..rows.len() * (update + 1) / updates];
        let mut transitions_of = |row: usize| {
            let chosen = index::sample(&mut rng, trainable.len(), count).into_vec();
            chosen.into_iter().map(|i| Transition { step: trainable[i], row }).collect::<Vec<_>>()
        };
        let plan = (0..updates).map(|update| part(update).iter().flat_map(|&row| transitions_of(row)).collect::<Vec<_>>());
        plan.filter(|transitions| !transitions.is_empty()).collect()
    }

    fn key(&self, purpose: Purpose) -> Key {
        Key::new(self.seed, purpose).epoch(self.epoch)
    }
}

/// The largest `|log π_new − log π_old|` per element that rounding explains in f32.
///
/// The replay computes what the rollout computed, but in batches of another size, so sums may be ordered differently.
pub const ON_POLICY_TOLERANCE: f64 = 1e-4;

/// Before the first update of an epoch the policy has not changed: every ratio is 1.
fn check_on_policy(epoch: usize, seen: &[Seen]) -> Result<(), TrainError> {
    let worst = seen.iter().max_by(|a, b| deviation(a).total_cmp(&deviation(b)));
    match worst {
        // A NaN is the largest of all by `total_cmp`.
        Some(worst) if deviation(worst).is_nan() || deviation(worst) > ON_POLICY_TOLERANCE => Err(TrainError::OffPolicy {
            epoch,
            step: worst.transition.step,
            row: worst.transition.row,
            deviation: deviation(worst),
        }),
        _ => Ok(()),
    }
}

fn deviation(seen: &Seen) -> f64 {
    seen.log_ratio.abs()
}

/// What an iteration did.
#[derive(Clone, Debug)]
pub struct Iteration {
    /// The numbers.
    pub metrics: EpochMetrics,
    /// The pictures it was trained on, prompt-major.
    pub images: Vec<Image>,
    /// Which prompt and sample each of them is.
    pub rows: Vec<Row>,
    /// What they were worth.
    pub scores: Scores,
}

/// What one update did.
#[derive(Clone, Debug)]
struct Update {
    loss: f64,
    gradient_norm: f64,
    seen: Vec<Seen>,
}

/// The numbers of an epoch: one line of `metrics.jsonl`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EpochMetrics {
    /// Epochs done, this one included.
    pub epoch: usize,
    /// Mean of the total reward.
    pub reward: f64,
    /// Its standard deviation over the epoch.
    pub reward_std: f64,
    /// Mean of each reward.
    pub rewards: std::collections::BTreeMap<&'static str, f64>,
    /// Share of groups whose rewards are all equal.
    pub zero_spread: f64,
    /// Mean absolute advantage of the rows.
    pub advantage: f64,
    /// Updates taken.
    pub updates: usize,
    /// Transitions trained.
    pub transitions: usize,
    /// Mean loss.
    pub loss: f64,
    /// Mean gradient norm before clipping.
    pub gradient_norm: f64,
    /// Largest `|log π_new − log π_old|` at the first update, which must be 0 but for rounding.
    pub on_policy_deviation: f64,
    /// Smallest, mean and largest ratio of all updates.
    pub ratio: [f64; 3],
    /// Share of transitions whose ratio was outside the clip range on the side where that stops the gradient.
    pub clipped: f64,
    /// `½·mean((log π_new − log π_old)²)` over all updates.
    pub kl_old: f64,
    /// Mean KL divergence to the reference; 0 where it is not evaluated.
    pub kl_reference: f64,
    /// Wall-clock times, which differ between runs that are otherwise equal.
    pub time: EpochTimes,
}

/// How long an epoch took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct EpochTimes {
    /// Images per second in the rollout.
    pub images_per_second: f64,
    /// Transitions per second in scoring and training.
    pub transitions_per_second: f64,
    /// Seconds for the whole epoch.
    pub seconds: f64,
}

impl EpochMetrics {
    fn new(epoch: usize, scores: &Scores, advantages: &Advantages, updates: &[Update], clip_range: f64) -> Self {
        let total: Vec<f64> = scores.total.iter().copied().map(f64::from).collect();
        let seen: Vec<&Seen> = updates.iter().flat_map(|update| &update.seen).collect();
        let column = |f: fn(&Seen) -> f64| seen.iter().map(|seen| f(seen)).collect::<Vec<f64>>();
        let ratios = column(|seen| seen.ratio);
        let bound = |pick: fn(f64, f64) -> f64| ratios.iter().copied().reduce(pick).unwrap_or(1.0);
        let part = |scores: &[f32]| mean(&scores.iter().copied().map(f64::from).collect::<Vec<_>>());
        let first = updates.first().map_or(&[][..], |update| &update.seen);
        Self {
            epoch,
            reward: mean(&total),
            reward_std: std(&total),
            rewards: scores.parts.iter().map(|(name, scores)| (*name, part(scores))).collect(),
            zero_spread: mean(&advantages.has_spread.iter().map(|varies| if *varies { 0.0 } else { 1.0 }).collect::<Vec<_>>()),
            advantage: mean(&advantages.values.iter().map(|value| f64::from(value.abs())).collect::<Vec<_>>()),
            updates: updates.len(),
            transitions: seen.len(),
            loss: mean(&updates.iter().map(|update| update.loss).collect::<Vec<_>>()),
            gradient_norm: mean(&updates.iter().map(|update| update.gradient_norm).collect::<Vec<_>>()),
            on_policy_deviation: first.iter().map(deviation).fold(0.0, f64::max),
            ratio: [bound(f64::min), if ratios.is_empty() { 1.0 } else { mean(&ratios) }, bound(f64::max)],
            clipped: mean(&seen.iter().map(|seen| if seen.is_clipped(clip_range) { 1.0 } else { 0.0 }).collect::<Vec<_>>()),
            kl_old: 0.5 * mean(&column(|seen| seen.log_ratio.powi(2))),
            kl_reference: mean(&column(|seen| seen.kl)),
            time: EpochTimes::default(),
        }
    }

    fn timed(mut self, started: Instant, sampled: Instant, images: usize) -> Self {
        self.time = EpochTimes {
            images_per_second: images as f64 / (sampled - started).as_secs_f64(),
            transitions_per_second: self.transitions as f64 / sampled.elapsed().as_secs_f64(),
            seconds: started.elapsed().as_secs_f64(),
        };
        self
    }
}

/// Why training stopped.
#[derive(Debug, Error)]
pub enum TrainError {
    /// A reward failed.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// The loss or the gradient is NaN or infinite.
    #[error("epoch {epoch}: the loss is {loss} and the gradient norm {gradient_norm}; the weights were not changed")]
    NotFinite {
        /// The epoch.
        epoch: usize,
        /// The loss.
        loss: f64,
        /// The gradient norm.
        gradient_norm: f64,
    },
    /// The replay does not reproduce the rollout.
    #[error(
        "epoch {epoch}: before the first update the ratio must be 1, but at step {step} of row {row} the log-probability moved by \
         {deviation:e}; the replay does not compute what the rollout computed"
    )]
    OffPolicy {
        /// The epoch.
        epoch: usize,
        /// The denoising step.
        step: usize,
        /// The row.
        row: usize,
        /// How far the log-probability moved.
        deviation: f64,
    },
}
