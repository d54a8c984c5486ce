//! The trainer: one iteration of Flow-GRPO after the other.

use std::{sync::Arc, time::Instant};

use burn::{
    module::{AutodiffModule, Module},
    prelude::*,
    tensor::backend::AutodiffBackend,
};
use flow::{Guidance, Sampler, VelocityField};
use rand::seq::{SliceRandom, index};
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, RewardError, Scores, WeightedReward},
};
use thiserror::Error;

use crate::{
    advantage::{Advantages, group_advantages},
    config::{GrpoConfig, ReplayBatches, TrainedSteps, holdable_steps, trainable_steps},
    evaluate::{EncodedPrompt, Row},
    groups::{self, Mix},
    images::Decode,
    loss_scale::LossScale,
    metrics::{EpochMetrics, Update},
    noise::{Key, Purpose},
    objective::ObjectiveConfig,
    optimizer::{AdamW, AdamWState, Updated},
    parameters::{Parameters, Trained},
    rollout::Rollout,
    schedule,
    trajectories::Trajectories,
    update::{AsReplayed, Differentiate, InOnePiece, Replay, ReplayOutcome, Seen, Transition},
    workers::{Stopped, Workers},
};

/// What is trained on: prompts, how often each kind is drawn, and how pictures are judged.
pub struct Task<B: Backend, C> {
    /// The prompts with their conditions.
    pub prompts: Vec<EncodedPrompt<C>>,
    /// Which of them are drawn how often.
    pub mix: Mix,
    /// The judge.
    pub reward: WeightedReward,
    /// `[C, H, W]` of a latent.
    pub latent_shape: [usize; 3],
    /// What makes a picture of a final latent.
    pub decoder: Arc<dyn Decode<B>>,
    /// The condition of the empty prompt, for guidance.
    pub unconditional: C,
    /// The largest `|log π_new − log π_old|` at an epoch's first update that rounding explains, in clip ranges: the replay computes what
    /// the rollout computed, but in batches of another size, so sums may be ordered differently. 1 is right for f32.
    pub on_policy_limit: f64,
}

impl<B: Backend, C> Task<B, C> {
    /// The task of pleasing one judge, with all prompts drawn equally often, in f32.
    pub fn new(
        prompts: Vec<EncodedPrompt<C>>,
        unconditional: C,
        reward: impl Reward + 'static,
        latent_shape: [usize; 3],
        decoder: impl Decode<B> + 'static,
    ) -> Self {
        Self {
            mix: Mix::even(prompts.len()),
            prompts,
            reward: WeightedReward::new(vec![(1.0, Box::new(reward))]),
            latent_shape,
            decoder: Arc::new(decoder),
            unconditional,
            on_policy_limit: 1.0,
        }
    }
}

// ANCHOR: policy
/// What is trained, and what it must stay close to.
#[derive(Clone, Debug)]
pub struct Policy<N> {
    /// The network that is trained.
    pub network: N,
    /// The one that the KL penalty holds it to: the base model. Its tensors are shared with those of the policy that are not
    /// trained, so adapters need no second copy.
    pub reference: N,
    /// Which parameters of the network are trained.
    pub trained: Trained,
}
// ANCHOR_END: policy

impl<N> Policy<N> {
    /// Full fine-tuning of `base`.
    pub fn full<B: Backend>(base: N) -> Self
    where
        N: Module<B>,
    {
        Self { trained: Trained::all(&base), reference: base.clone(), network: base }
    }
}

/// The state of a training run.
pub struct Trainer<B: AutodiffBackend, M: AutodiffModule<B>, C> {
    config: GrpoConfig,
    seed: u64,
    task: Task<B::InnerBackend, C>,
    guidance: Option<Guidance<C>>,
    differentiate: Box<dyn Differentiate<B, M, C>>,
    sampler: Sampler,
    workers: Workers,
    device: B::Device,
    policy: M::InnerModule,
    reference: M::InnerModule,
    trained: Trained,
    average: Parameters<B::InnerBackend>,
    optimizer: AdamW<B::InnerBackend>,
    kl_weight: f64,
    loss_scale: Option<LossScale>,
    epoch: usize,
    epochs: usize,
}

/// What changes in training and must be saved.
#[derive(Clone, Debug)]
pub struct TrainerState<B: Backend> {
    /// The policy's trained weights.
    pub weights: Parameters<B>,
    /// Their average.
    pub average: Parameters<B>,
    /// The optimiser's state.
    pub optimizer: AdamWState<B>,
    /// The weight of the KL divergence, which a controller may have moved.
    pub kl_weight: f64,
    /// The scale of the loss, where layers compute in f16.
    pub loss_scale: Option<LossScale>,
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
    /// A trainer that is to be iterated `epochs` times, on the device of the policy's weights.
    ///
    /// # Panics
    /// If [`GrpoConfig::problems`] finds any.
    pub fn new(
        config: GrpoConfig,
        epochs: usize,
        seed: u64,
        task: Task<B::InnerBackend, C>,
        policy: Policy<M::InnerModule>,
        workers: Workers,
    ) -> Self {
        assert_eq!(config.problems(), Vec::<String>::new(), "an invalid configuration");
        let Policy { network, reference, trained } = policy;
        let weights = trained.of(&network);
        let device = network.devices().into_iter().next().unwrap_or_default();
        Self {
            sampler: config.sampler().expect("checked above"),
            optimizer: AdamW::new(config.optimizer, &weights).with_muon(config.muon, trained.matrices(&network, "blocks.")),
            average: weights,
            policy: network,
            reference,
            trained,
            guidance: (config.rollout.guidance != 1.0)
                .then(|| Guidance { unconditional: task.unconditional.clone(), scale: config.rollout.guidance }),
            differentiate: Box::new(InOnePiece),
            kl_weight: config.objective.kl_weight,
            loss_scale: None,
            epoch: 0,
            epochs,
            config,
            seed,
            task,
            workers,
            device,
        }
    }

    /// Finds gradients in another way.
    #[must_use]
    pub fn differentiating(mut self, differentiate: Box<dyn Differentiate<B, M, C>>) -> Self {
        self.differentiate = differentiate;
        self
    }

    /// Scales the loss, for layers that compute in f16: smaller gradients than that can hold are not lost, and an update whose gradient
    /// overflows is skipped.
    #[must_use]
    pub fn scaling_loss(mut self, scale: LossScale) -> Self {
        self.loss_scale = Some(scale);
        self
    }

    /// Goes on from a saved state.
    pub fn restore(&mut self, state: TrainerState<B::InnerBackend>) {
        self.policy = state.weights.put_into(self.policy.clone());
        self.average = state.average;
        self.optimizer.restore(state.optimizer);
        self.kl_weight = state.kl_weight;
        self.loss_scale = state.loss_scale;
        self.epoch = state.epoch;
    }

    /// The state to save.
    pub fn state(&self) -> TrainerState<B::InnerBackend> {
        TrainerState {
            weights: self.trained.of(&self.policy),
            average: self.average.clone(),
            optimizer: self.optimizer.state().clone(),
            kl_weight: self.kl_weight,
            loss_scale: self.loss_scale,
            epoch: self.epoch,
        }
    }

    /// Epochs that are done.
    pub fn epoch(&self) -> usize {
        self.epoch
    }

    /// The prompts that are trained on.
    pub fn prompts(&self) -> &[EncodedPrompt<C>] {
        &self.task.prompts
    }

    /// The judge.
    pub fn reward(&self) -> &WeightedReward {
        &self.task.reward
    }

    /// Goes on with the weights, average and optimiser of a saved state; the epoch, the KL weight and the scale of the loss stay.
    pub fn roll_back(&mut self, state: TrainerState<B::InnerBackend>) {
        let (epoch, kl_weight, loss_scale) = (self.epoch, self.kl_weight, self.loss_scale);
        self.restore(TrainerState { kl_weight, loss_scale, epoch, ..state });
    }

    /// Changes the weight of the KL divergence from the next epoch on.
    pub fn set_kl_weight(&mut self, kl_weight: f64) {
        self.kl_weight = kl_weight;
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
        let trajectories = self.rollout(&rows)?;
        let images = self.task.decoder.decode(trajectories.final_latents());
        let sampled = Instant::now();
        let scores = self.score(&images, &rows)?;
        let advantages = group_advantages(&scores.total, self.config.group_size, &self.config.advantage);
        let updates = self.update(&trajectories, &rows, &advantages)?;
        let learning_rate = self.config.optimizer.learning_rate * self.rate();
        self.epoch += 1;
        let kinds: Vec<&str> = rows.iter().map(|row| self.task.prompts[row.prompt].prompt.tag.as_str()).collect();
        let metrics = EpochMetrics::new(self.epoch, &scores, &kinds, &advantages, &updates, &self.objective(), learning_rate);
        if metrics.transitions > 0 {
            self.kl_weight = self.config.objective.kl_controller.next(self.kl_weight, metrics.policy.kl_reference);
        }
        let metrics = metrics.timed(started, sampled, rows.len());
        Ok(Iteration { metrics, images, rows, scores })
    }
    // ANCHOR_END: iterate

    /// What is minimised now.
    fn objective(&self) -> ObjectiveConfig {
        ObjectiveConfig { kl_weight: self.kl_weight, ..self.config.objective }
    }

    fn draw_rows(&self) -> Vec<Row> {
        groups::draw(&self.task.mix, self.config.groups, self.config.group_size, self.key(Purpose::Prompts))
    }

    fn rollout(&self, rows: &[Row]) -> Result<Trajectories<B::InnerBackend>, Stopped> {
        let rollout = Rollout {
            sampler: &self.sampler,
            reduction: self.config.rollout.log_prob,
            guidance: self.guidance.as_ref(),
            shape: self.task.latent_shape,
            batch: self.config.rollout_batch,
            kept_on: self.config.rollout.trajectories,
            workers: &self.workers,
        };
        let keys = [self.key(Purpose::Initial), self.key(Purpose::Step)];
        let (policy, prompts) = (&self.policy, &self.task.prompts);
        match self.config.replay_batches {
            ReplayBatches::MicroBatch => rollout.sample(policy, prompts, rows, keys, &self.device),
            ReplayBatches::Rollout => {
                let policy = AsReplayed { network: policy.clone(), differentiate: &*self.differentiate };
                rollout.sample(&policy, prompts, rows, keys, &self.device)
            }
        }
    }

    fn score(&self, images: &[Image], rows: &[Row]) -> Result<Scores, TrainError> {
        let prompts: Vec<&Prompt> = rows.iter().map(|row| &self.task.prompts[row.prompt].prompt).collect();
        Ok(self.task.reward.score(images, &prompts)?)
    }

    /// The updates of an epoch; none if no group has spread.
    fn update(
        &mut self,
        trajectories: &Trajectories<B::InnerBackend>,
        rows: &[Row],
        advantages: &Advantages,
    ) -> Result<Vec<Update>, TrainError> {
        let conditions: Vec<C> = rows.iter().map(|row| self.task.prompts[row.prompt].condition.clone()).collect();
        let step_weights = self.config.objective.step_weight.weights(&self.sampler, &trainable_steps(&self.sampler));
        let objective = self.objective();
        let mut updates = Vec::new();
        for Planned { trained, held } in self.plan(advantages) {
            let replay = Replay {
                sampler: &self.sampler,
                reduction: self.config.rollout.log_prob,
                guidance: self.guidance.as_ref(),
                trajectories,
                conditions: &conditions,
                advantages: &advantages.values,
                objective: &objective,
                step_weights: &step_weights,
                trained: &self.trained,
                batches: self.config.batches(),
                loss_scale: self.loss_scale.map_or(1.0, |scale| scale.factor),
                workers: &self.workers,
            };
            let reference = (objective.kl_weight > 0.0).then_some(&self.reference);
            let mut outcome = replay.gradient(&*self.differentiate, &self.policy, reference, &trained)?;
            let mut held_kl = Vec::new();
            if let Some(reference) = reference.filter(|_| !held.is_empty()) {
                let share = 1.0 / trained.len() as f64;
                let held = replay.hold(&*self.differentiate, &self.policy, reference, &held, share)?;
                outcome.gradient = outcome.gradient.plus(&held.gradient);
                outcome.loss += share * objective.kl_weight * held.kl.iter().sum::<f64>();
                held_kl = held.kl;
            }
            if updates.is_empty() {
                check_on_policy(self.epoch + 1, &outcome.seen, self.task.on_policy_limit, objective.clip().range())?;
            }
            updates.push(Update { held_kl, ..self.step(outcome)? });
        }
        Ok(updates)
    }

    /// Moves the weights and their average, unless a scaled loss made a gradient that is not finite.
    fn step(&mut self, ReplayOutcome { gradient, loss, seen }: ReplayOutcome<B::InnerBackend>) -> Result<Update, TrainError> {
        if !loss.is_finite() {
            return Err(TrainError::NotFinite { epoch: self.epoch + 1, loss, gradient_norm: gradient.norm() });
        }
        let rate = self.rate();
        let updated = self.optimizer.update(&self.trained.of(&self.policy), &gradient, rate);
        let Updated { parameters: weights, gradient_norm, gradient_rms } = updated;
        let taken = gradient_norm.is_finite();
        let loss_scale = self.loss_scale.and_then(|scale| scale.after(taken));
        if !taken && loss_scale.is_none() {
            return Err(TrainError::NotFinite { epoch: self.epoch + 1, loss, gradient_norm });
        }
        let update = Update {
            loss,
            gradient_norm,
            gradient_rms,
            taken,
            loss_scale: self.loss_scale.map(|scale| scale.factor),
            seen,
            held_kl: Vec::new(),
        };
        self.loss_scale = loss_scale;
        if taken {
            self.policy = weights.put_into(self.policy.clone());
            self.average = self.config.ema.follow(self.average.clone(), &weights, self.optimizer.state().updates);
        }
        Ok(update)
    }

    /// The learning rate of this epoch, relative to its peak.
    fn rate(&self) -> f64 {
        schedule::rate(self.epoch, self.epochs, self.config.warm_up, self.config.cool_down)
    }

    /// The transitions of each of the epoch's updates.
    ///
    /// Rows of groups without spread are left out; the others are shuffled, alone or with those that they were sampled with, and dealt to
    /// the updates as evenly as they go.
    fn plan(&self, advantages: &Advantages) -> Vec<Planned> {
        let mut rng = self.key(Purpose::Order).rng();
        let together = match self.config.replay_batches {
            ReplayBatches::MicroBatch => 1,
            ReplayBatches::Rollout => self.config.rollout_batch,
        };
        let rows: Vec<usize> = (0..advantages.values.len()).collect();
        let varies = |row: &usize| advantages.has_spread[row / self.config.group_size];
        let batches = rows.chunks(together).map(|rows| rows.iter().copied().filter(varies).collect::<Vec<usize>>());
        let mut batches: Vec<Vec<usize>> = batches.filter(|rows| !rows.is_empty()).collect();
        batches.shuffle(&mut rng);
        let trainable = trainable_steps(&self.sampler);
        let count = match self.config.trained_steps {
            TrainedSteps::AllButLast {} => trainable.len(),
            TrainedSteps::Random { count } => count,
        };
        let updates = self.config.updates_per_epoch;
        let part = |update: usize| &batches[batches.len() * update / updates..batches.len() * (update + 1) / updates];
        let ode_steps = holdable_steps(&self.sampler);
        let mut of_rows = |rows: &[usize], steps: &[usize], count: usize| {
            let chosen = index::sample(&mut rng, steps.len(), count).into_vec();
            let at = |i: usize| rows.iter().map(move |&row| Transition { step: steps[i], row });
            chosen.into_iter().flat_map(at).collect::<Vec<_>>()
        };
        let mut planned = |update: usize| {
            let mut plan = Planned::default();
            for rows in part(update) {
                plan.trained.extend(of_rows(rows, &trainable, count));
                plan.held.extend(of_rows(rows, &ode_steps, self.config.objective.kl_ode_steps));
            }
            plan
        };
        (0..updates).map(&mut planned).filter(|plan| !plan.trained.is_empty()).collect()
    }

    fn key(&self, purpose: Purpose) -> Key {
        Key::new(self.seed, purpose).epoch(self.epoch)
    }
}

/// What an update replays.
#[derive(Clone, Debug, Default)]
struct Planned {
    /// Transitions that the policy gradient is taken of.
    trained: Vec<Transition>,
    /// ODE steps that are held to the reference.
    held: Vec<Transition>,
}

/// Before the first update of an epoch the policy has not changed: every ratio is 1.
fn check_on_policy(epoch: usize, seen: &[Seen], limit: f64, clip_range: f64) -> Result<(), TrainError> {
    let worst = seen.iter().max_by(|a, b| a.deviation().total_cmp(&b.deviation()));
    match worst {
        // A NaN is the largest of all by `total_cmp`.
        Some(worst) if worst.deviation().is_nan() || worst.deviation() > limit * clip_range => Err(TrainError::OffPolicy {
            epoch,
            step: worst.transition.step,
            row: worst.transition.row,
            deviation: worst.deviation(),
            clip_ranges: worst.deviation() / clip_range,
            limit,
        }),
        _ => Ok(()),
    }
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

/// Why training stopped.
#[derive(Debug, Error)]
pub enum TrainError {
    /// A reward failed.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// The epoch was stopped; some of its updates may have been made, so the state before it is to be restored.
    #[error(transparent)]
    Stopped(#[from] Stopped),
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
         {deviation:e}, {clip_ranges:.3} clip ranges where {limit} are allowed: the replay does not compute what the rollout computed; in \
         16 bits try grpo.replay_batches = \"rollout\", or f32"
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
        /// The same in clip ranges.
        clip_ranges: f64,
        /// The most that is allowed, in clip ranges.
        limit: f64,
    },
}
