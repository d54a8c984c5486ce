//! The trainer: runs iterations of an algorithm and keeps the state between them.

use std::sync::Arc;

use burn::{module::Module, prelude::*, tensor::backend::AutodiffBackend};
use flow::{Guidance, Sampler, TrainableField, VelocityField};
use rand::seq::SliceRandom;
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, RewardError, Scores, WeightedReward},
};
use thiserror::Error;
use training::{
    loss_scale::LossScale,
    noise::{Key, Purpose},
    optimisation::{NotFinite, Optimisation, OptimisationState},
    optimizer::Optimizer,
    parameters::{Parameters, Trained},
    schedule,
    workers::{Stopped, Workers},
};
// The clock of the standard library panics in WebAssembly.
use web_time::Instant;

use crate::{
    advantage::Advantages,
    algorithm::{Algorithm, Example, Outcome},
    config::{GrpoConfig, ReplayBatches},
    evaluate::{EncodedPrompt, Row},
    groups::{self, Mix},
    images::Decode,
    metrics::{EpochMetrics, EpochUpdate},
    rollout::{Rollout, RolloutKeys},
    scoring::{self, Scored, ScoringError, Take},
    trajectories::Trajectories,
    update::{AsReplayed, Differentiate, Others, Replay, ReplayOutcome, WholeGraph},
};

/// A training task: prompts, how often each kind is drawn, and the reward.
pub struct Task<B: Backend, C> {
    /// The prompts with their conditions.
    pub prompts: Vec<EncodedPrompt<C>>,
    /// The kinds of prompt and how often each is drawn.
    pub mix: Mix,
    /// The reward.
    pub reward: WeightedReward,
    /// `[C, H, W]` of a latent.
    pub latent_shape: [usize; 3],
    /// Decodes final latents to images.
    pub decoder: Arc<dyn Decode<B>>,
    /// The condition of the empty prompt, for guidance.
    pub unconditional: C,
    /// The largest `|log π_new − log π_old|` at an epoch's first update that rounding explains, in
    /// clip ranges. The replay repeats the computation of the rollout, but in batches of another
    /// size, so sums may be ordered differently. 1 is right for f32.
    pub on_policy_limit: f64,
}

impl<B: Backend, C> Task<B, C> {
    /// A task with one reward, in f32, that draws all prompts equally often.
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
            reward: WeightedReward::only("reward", Box::new(reward)),
            latent_shape,
            decoder: Arc::new(decoder),
            unconditional,
            on_policy_limit: 1.0,
        }
    }
}

// ANCHOR: policy
/// The network to train, with its reference.
#[derive(Clone, Debug)]
pub struct Policy<N> {
    /// The network that is trained.
    pub network: N,
    /// The reference of the KL penalty: the base model. Parameters that are not trained share their
    /// tensors with the policy, so adapters need no second copy.
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

/// Trains a policy, one epoch at a time.
pub struct Trainer<B: AutodiffBackend, M: TrainableField<B>> {
    config: GrpoConfig,
    seed: u64,
    task: Task<B::InnerBackend, M::Condition>,
    guidance: Option<Guidance<M::Condition>>,
    algorithm: Box<dyn Algorithm<B, M::Condition>>,
    differentiate: Box<dyn Differentiate<B, M>>,
    at_phase_end: fn(),
    sampler: Sampler,
    workers: Workers,
    device: B::Device,
    policy: M::InnerModule,
    reference: M::InnerModule,
    trained: Trained,
    /// Weights, average and moments; the old policy if the algorithm samples with one.
    optimisation: Optimisation<B::InnerBackend>,
    kl_weight: f64,
    epoch: usize,
    epochs: usize,
}

/// The state of training that a checkpoint saves.
#[derive(Clone, Debug)]
pub struct TrainerState<B: Backend> {
    /// The state of the optimisation, with the old policy if the algorithm samples with one.
    pub optimisation: OptimisationState<B>,
    /// The weight of the KL penalty, which a controller may have changed.
    pub kl_weight: f64,
    /// Number of finished epochs.
    pub epoch: usize,
}

impl<B: AutodiffBackend, M: TrainableField<B>> Trainer<B, M> {
    /// Creates a trainer for a run of `epochs` epochs, on the device of the policy's weights.
    ///
    /// # Panics
    /// If [`GrpoConfig::problems`] finds any.
    pub fn new(
        config: GrpoConfig,
        epochs: usize,
        seed: u64,
        task: Task<B::InnerBackend, M::Condition>,
        policy: Policy<M::InnerModule>,
        workers: Workers,
    ) -> Self {
        assert_eq!(config.problems(), Vec::<String>::new(), "an invalid configuration");
        let Policy { network, reference, trained } = policy;
        let weights = trained.of(&network);
        let device = network.devices().into_iter().next().unwrap_or_default();
        let sampler = config.sampler().expect("checked above");
        let algorithm = config.objective.algorithm(&config, &sampler);
        let optimizer = Optimizer::new(config.optimizer, &weights).with_muon(
            config.muon.unwrap_or_default(),
            trained.matrices(&network, network.blocks()),
        );
        let mut optimisation = Optimisation::new(weights, optimizer, config.ema);
        if algorithm.old_policy_decay(0).is_some() {
            optimisation = optimisation.keeping_old();
        }
        Self {
            sampler,
            algorithm,
            optimisation,
            policy: network,
            reference,
            trained,
            guidance: (config.rollout.guidance != 1.0).then(|| Guidance {
                unconditional: task.unconditional.clone(),
                scale: config.rollout.guidance,
            }),
            differentiate: Box::new(WholeGraph),
            at_phase_end: || {},
            kl_weight: config.objective.kl_weight(),
            epoch: 0,
            epochs,
            config,
            seed,
            task,
            workers,
            device,
        }
    }

    /// Sets how gradients are computed, for example with activation checkpointing.
    #[must_use]
    pub fn differentiating(mut self, differentiate: Box<dyn Differentiate<B, M>>) -> Self {
        self.differentiate = differentiate;
        self
    }

    /// Sets what is called at the end of each phase of an epoch (sampling, decoding, updates), before
    /// the device gets back the memory that the phase has left.
    #[must_use]
    pub fn at_phase_end(mut self, call: fn()) -> Self {
        self.at_phase_end = call;
        self
    }

    /// Enables loss scaling for layers that compute in f16: gradients below the range of f16 are
    /// not lost, and an update whose gradient overflows is skipped.
    #[must_use]
    pub fn scaling_loss(mut self, scale: LossScale) -> Self {
        self.optimisation = self.optimisation.scaling_loss(scale);
        self
    }

    /// Restores a saved state.
    pub fn restore(&mut self, state: TrainerState<B::InnerBackend>) {
        let TrainerState { optimisation, kl_weight, epoch } = state;
        self.policy = optimisation.weights.put_into(self.policy.clone());
        self.optimisation.restore(optimisation);
        (self.kl_weight, self.epoch) = (kl_weight, epoch);
    }

    /// The state to save.
    pub fn state(&self) -> TrainerState<B::InnerBackend> {
        TrainerState {
            optimisation: self.optimisation.state(),
            kl_weight: self.kl_weight,
            epoch: self.epoch,
        }
    }

    /// The trained weights.
    pub fn weights(&self) -> &Parameters<B::InnerBackend> {
        self.optimisation.weights()
    }

    /// Number of finished epochs.
    pub fn epoch(&self) -> usize {
        self.epoch
    }

    /// The prompts that are trained on.
    pub fn prompts(&self) -> &[EncodedPrompt<M::Condition>] {
        &self.task.prompts
    }

    /// The reward of the task.
    pub fn reward(&self) -> &WeightedReward {
        &self.task.reward
    }

    /// Restores weights, average, old policy and optimiser of a saved state; the epoch, the KL
    /// weight and the loss scale stay.
    pub fn roll_back(&mut self, state: OptimisationState<B::InnerBackend>) {
        let loss_scale = self.optimisation.loss_scale();
        self.restore(TrainerState {
            optimisation: OptimisationState { loss_scale, ..state },
            kl_weight: self.kl_weight,
            epoch: self.epoch,
        });
    }

    /// The weight of the KL penalty in the next epoch.
    pub fn kl_weight(&self) -> f64 {
        self.kl_weight
    }

    /// Sets the weight of the KL penalty from the next epoch on.
    pub fn set_kl_weight(&mut self, kl_weight: f64) {
        self.kl_weight = kl_weight;
    }

    /// The policy with averaged weights, which is evaluated and saved.
    pub fn averaged_policy(&self) -> M::InnerModule {
        self.optimisation.average().put_into(self.policy.clone())
    }

    /// The threads that do the work.
    pub fn workers(&self) -> &Workers {
        &self.workers
    }

    /// Runs one epoch: samples groups, scores them and takes the updates.
    // ANCHOR: iterate
    pub fn iterate(&mut self) -> Result<Iteration, TrainError> {
        let started = Instant::now();
        let rows = self.draw_rows();
        let (reward, prompts) = (&self.task.reward, &self.prompts_of(&rows));
        let Scored { sampled: (trajectories, sampled), images, slow } =
            scoring::beside(reward, prompts, &self.workers, |take| self.rollout(&rows, take))?;
        let scores = reward.complete(&images, prompts, slow)?;
        let advantages =
            Advantages::of_scores(&scores, self.config.group_size, &self.config.advantage);
        let updates = self.update(&trajectories, &rows, &advantages)?;
        let learning_rate = self.config.optimizer.learning_rate * self.rate();
        self.epoch += 1;
        let kinds: Vec<&str> =
            self.prompts_of(&rows).iter().map(|prompt| prompt.tag.as_str()).collect();
        let (epoch, config) = (self.epoch, &self.config);
        let mut metrics = EpochMetrics::new(epoch, config, &scores, &kinds, &advantages, &updates);
        metrics.learning_rate = learning_rate;
        self.finish(&mut metrics, &updates);
        let metrics = metrics.timed(started, sampled, rows.len());
        Ok(Iteration { metrics, images, rows, scores, advantages: advantages.values })
    }
    // ANCHOR_END: iterate

    /// Finishes an epoch: adds the algorithm's metrics, sets the next KL weight and moves the old
    /// policy towards the new one.
    fn finish(&mut self, metrics: &mut EpochMetrics, updates: &[EpochUpdate]) {
        let terms: Vec<&[Outcome]> = updates.iter().map(|update| &update.terms[..]).collect();
        metrics.kl_weight = self.kl_weight;
        metrics.algorithm = self.algorithm.metrics(&terms);
        metrics.headline = self.algorithm.headline(&metrics.algorithm);
        if metrics.transitions > 0 {
            self.kl_weight = self.algorithm.next_kl_weight(self.kl_weight, &metrics.algorithm);
        }
        if let Some(decay) = self.algorithm.old_policy_decay(self.optimisation.updates()) {
            self.optimisation.move_old(decay);
        }
    }

    /// The old policy, if the algorithm samples with one.
    fn old_policy(&self) -> Option<M::InnerModule> {
        self.optimisation.old().map(|old| old.put_into(self.policy.clone()))
    }

    fn draw_rows(&self) -> Vec<Row> {
        groups::draw(
            &self.task.mix,
            self.config.groups,
            self.config.group_size,
            self.key(Purpose::Prompts),
        )
    }

    fn prompts_of(&self, rows: &[Row]) -> Vec<&Prompt> {
        rows.iter().map(|row| &self.task.prompts[row.prompt].prompt).collect()
    }

    /// Samples trajectories and decodes their images, which `take` gets batch by batch; also
    /// returns the time at which the last one was done.
    fn rollout(
        &self,
        rows: &[Row],
        take: &mut Take<'_>,
    ) -> Result<(Trajectories<B::InnerBackend>, Instant), Stopped> {
        let rollout = Rollout {
            sampler: &self.sampler,
            reduction: self.config.rollout.log_prob,
            guidance: self.guidance.as_ref(),
            shape: self.task.latent_shape,
            batch: self.config.rollout_batch,
            kept_on: self.config.rollout.trajectories,
            workers: &self.workers,
        };
        let keys = RolloutKeys::new(self.seed, self.epoch);
        let (policy, prompts) =
            (self.old_policy().unwrap_or_else(|| self.policy.clone()), &self.task.prompts);
        let decoder = &self.task.decoder;
        // Backends that keep memory for the next tensors of the same sizes give it back: the next phase
        // has other sizes.
        let (device, at_phase_end) = (&self.device, self.at_phase_end);
        let give_back = || {
            at_phase_end();
            B::memory_cleanup(device);
        };
        give_back();
        let take = |latents| {
            give_back();
            take(decoder.decode(latents));
            give_back();
        };
        let trajectories = match self.config.replay_batches {
            ReplayBatches::MicroBatch => {
                rollout.sample_and_pass_on(&policy, prompts, rows, keys, &self.device, take)
            }
            ReplayBatches::Rollout => {
                let policy = AsReplayed { network: policy, differentiate: &*self.differentiate };
                rollout.sample_and_pass_on(&policy, prompts, rows, keys, &self.device, take)
            }
        };
        Ok((trajectories?, Instant::now()))
    }

    /// Takes the updates of an epoch; none if no group has spread.
    fn update(
        &mut self,
        trajectories: &Trajectories<B::InnerBackend>,
        rows: &[Row],
        advantages: &Advantages,
    ) -> Result<Vec<EpochUpdate>, TrainError> {
        (self.at_phase_end)();
        B::memory_cleanup(&self.device);
        let conditions: Vec<M::Condition> =
            rows.iter().map(|row| self.task.prompts[row.prompt].condition.clone()).collect();
        let mut updates = Vec::new();
        for examples in self.plan(advantages) {
            let replay = Replay {
                sampler: &self.sampler,
                guidance: self.guidance.as_ref(),
                trajectories,
                conditions: &conditions,
                advantages: &advantages.values,
                kl_weight: self.kl_weight,
                noise: self.key(Purpose::Forward),
                trained: &self.trained,
                batches: self.config.batches(),
                loss_scale: self.optimisation.loss_factor(),
                workers: &self.workers,
            };
            let reference = (self.kl_weight > 0.0).then(|| self.reference.clone());
            let others = Others { reference, old: self.old_policy() };
            let outcome = replay.gradient(
                &*self.algorithm,
                &*self.differentiate,
                &self.policy,
                &others,
                &examples,
            )?;
            if updates.is_empty() {
                self.algorithm.check(self.epoch + 1, &outcome.terms, self.task.on_policy_limit)?;
            }
            updates.push(self.step(outcome)?);
        }
        Ok(updates)
    }

    /// Updates the weights and their average, unless the gradient of a scaled loss is not finite.
    fn step(
        &mut self,
        ReplayOutcome { gradient, loss, terms }: ReplayOutcome<B::InnerBackend>,
    ) -> Result<EpochUpdate, TrainError> {
        let (rate, epoch) = (self.rate(), self.epoch + 1);
        let update = self
            .optimisation
            .take(loss, &gradient, rate)
            .map_err(|numbers| TrainError::NotFinite { epoch, numbers })?;
        if update.taken {
            self.policy = self.weights().put_into(self.policy.clone());
        }
        Ok(EpochUpdate { update, terms })
    }

    /// The learning rate of this epoch, relative to its peak.
    fn rate(&self) -> f64 {
        schedule::rate(self.epoch, self.epochs, self.config.warm_up, self.config.cool_down)
    }

    /// Plans the examples of each of the epoch's updates, term by term.
    ///
    /// Rows of groups without spread are left out. The others are shuffled, alone or in the batches
    /// in which they were sampled, and divided among the updates as evenly as possible.
    fn plan(&self, advantages: &Advantages) -> Vec<Vec<Vec<Example>>> {
        let mut rng = self.key(Purpose::Order).rng();
        let together = match self.config.replay_batches {
            ReplayBatches::MicroBatch => 1,
            ReplayBatches::Rollout => self.config.rollout_batch,
        };
        let rows: Vec<usize> = (0..advantages.values.len()).collect();
        let varies = |row: &usize| advantages.has_spread[row / self.config.group_size];
        let batches = rows
            .chunks(together)
            .map(|rows| rows.iter().copied().filter(varies).collect::<Vec<usize>>());
        let mut batches: Vec<Vec<usize>> = batches.filter(|rows| !rows.is_empty()).collect();
        batches.shuffle(&mut rng);
        let updates = self.config.updates_per_epoch;
        let part = |update: usize| {
            &batches[batches.len() * update / updates..batches.len() * (update + 1) / updates]
        };
        let mut planned = |update: usize| {
            let mut terms: Vec<Vec<Example>> = Vec::new();
            for rows in part(update) {
                let examples = self.algorithm.examples(rows, &mut rng);
                terms.resize(examples.len(), Vec::new());
                terms.iter_mut().zip(examples).for_each(|(term, examples)| term.extend(examples));
            }
            terms
        };
        (0..updates)
            .map(&mut planned)
            .filter(|terms| terms.first().is_some_and(|term| !term.is_empty()))
            .collect()
    }

    fn key(&self, purpose: Purpose) -> Key {
        Key::new(self.seed, purpose).epoch(self.epoch)
    }
}

/// The result of an epoch.
#[derive(Clone, Debug)]
pub struct Iteration {
    /// The metrics of the epoch.
    pub metrics: EpochMetrics,
    /// The sampled images, prompt-major.
    pub images: Vec<Image>,
    /// Prompt and sample index of each image.
    pub rows: Vec<Row>,
    /// The rewards of the images.
    pub scores: Scores,
    /// The advantages of the images.
    pub advantages: Vec<f32>,
}

impl From<ScoringError> for TrainError {
    fn from(error: ScoringError) -> Self {
        match error {
            ScoringError::Reward(error) => error.into(),
            ScoringError::Stopped(stopped) => stopped.into(),
        }
    }
}

/// Why training stopped.
#[derive(Debug, Error)]
pub enum TrainError {
    /// A reward failed.
    #[error(transparent)]
    Reward(#[from] RewardError),
    /// The epoch was stopped; some of its updates may have been taken, so the caller must restore
    /// the state before it.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The loss or the gradient is NaN or infinite.
    #[error("epoch {epoch}: {numbers}")]
    NotFinite {
        /// The epoch.
        epoch: usize,
        /// Loss and gradient norm.
        numbers: NotFinite,
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
        /// Change of the log-probability.
        deviation: f64,
        /// The change in clip ranges.
        clip_ranges: f64,
        /// The allowed change in clip ranges.
        limit: f64,
    },
}
