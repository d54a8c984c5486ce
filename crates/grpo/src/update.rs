//! The update: replay stored steps with a gradient, compare with the rollout, move the weights.

use burn::{
    module::{AutodiffModule, Module},
    prelude::*,
    tensor::backend::AutodiffBackend,
};
use flow::{Guidance, InParts, Query, Reduction, Sampler, VelocityField};

use crate::{
    objective::{ObjectiveConfig, clipped_loss},
    parameters::{Parameters, Trained},
    trajectories::Trajectories,
    workers::{Stopped, Workers},
};

/// One step of one row: what is trained on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transition {
    /// The denoising step.
    pub step: usize,
    /// The row of the trajectory.
    pub row: usize,
}

/// How a loss of a field's velocity becomes a gradient of the trained parameters.
pub trait Differentiate<B: AutodiffBackend, M: AutodiffModule<B>, C>: Send + Sync {
    /// The gradient of `loss(v)`, `v` being the network's answer to the query.
    fn gradient(
        &self,
        network: M::InnerModule,
        trained: &Trained,
        query: Query<B::InnerBackend, C>,
        loss: &mut dyn FnMut(Tensor<B, 4>) -> Tensor<B, 1>,
    ) -> Parameters<B::InnerBackend>;
}

/// One graph of the whole network.
#[derive(Clone, Copy, Debug)]
pub struct InOnePiece;

impl<B, M, C> Differentiate<B, M, C> for InOnePiece
where
    B: AutodiffBackend,
    M: AutodiffModule<B> + VelocityField<B, Condition = C>,
    C: Clone,
{
    fn gradient(
        &self,
        network: M::InnerModule,
        trained: &Trained,
        query: Query<B::InnerBackend, C>,
        loss: &mut dyn FnMut(Tensor<B, 4>) -> Tensor<B, 1>,
    ) -> Parameters<B::InnerBackend> {
        let network: M = trained.with_graph(network);
        let query = Query {
            latent: Tensor::from_inner(query.latent),
            time: Tensor::from_inner(query.time),
            conditions: query.conditions,
        };
        let gradients = loss(query.ask(&network)).backward();
        trained.gradients(&network, gradients)
    }
}

/// One graph after the other, for the parts of the network: less memory, one more forward pass, the same gradient.
#[derive(Clone, Copy, Debug)]
pub struct PartByPart;

impl<B, M, C> Differentiate<B, M, C> for PartByPart
where
    B: AutodiffBackend,
    M: InParts<B> + VelocityField<B, Condition = C>,
    C: Clone,
{
    fn gradient(
        &self,
        network: M::InnerModule,
        trained: &Trained,
        query: Query<B::InnerBackend, C>,
        loss: &mut dyn FnMut(Tensor<B, 4>) -> Tensor<B, 1>,
    ) -> Parameters<B::InnerBackend> {
        let (velocity, kept) = M::forward_keeping(&network, query);
        let velocity = Tensor::<B, 4>::from_inner(velocity).require_grad();
        let mut gradients = loss(velocity.clone()).backward();
        let of_velocity = velocity.grad_remove(&mut gradients).expect("the loss is one of the velocity");
        let network: M = trained.with_graph(network);
        let mut sum: Option<Parameters<B::InnerBackend>> = None;
        network.backward(kept, of_velocity, |gradients| {
            let part = trained.gradients(&network, gradients);
            sum = Some(match sum.take() {
                None => part,
                Some(sum) => sum.plus(&part),
            });
        });
        sum.expect("there is at least one part")
    }
}

/// Everything an epoch's updates replay.
#[derive(Clone, Debug)]
pub struct Replay<'a, B: Backend, C> {
    /// Grid and transitions: the same code that sampled.
    pub sampler: &'a Sampler,
    /// How log-probabilities are reduced.
    pub reduction: Reduction,
    /// Guidance of the field, as it was sampled.
    pub guidance: Option<&'a Guidance<C>>,
    /// What was sampled.
    pub trajectories: &'a Trajectories<B>,
    /// One condition per row.
    pub conditions: &'a [C],
    /// One advantage per row.
    pub advantages: &'a [f32],
    /// What is minimised.
    pub objective: &'a ObjectiveConfig,
    /// How much each step of the grid counts.
    pub step_weights: &'a [f64],
    /// Which parameters of the policy get a gradient.
    pub trained: &'a Trained,
    /// Transitions per forward and backward pass.
    pub micro_batch: usize,
    /// Who does the work.
    pub workers: &'a Workers,
}

/// The gradient over a set of transitions, with what was seen on the way.
#[derive(Clone, Debug)]
pub struct ReplayOutcome<B: Backend> {
    /// The gradient of the mean loss over the transitions.
    pub gradient: Parameters<B>,
    /// The mean loss, policy and KL together.
    pub loss: f64,
    /// What each transition showed.
    pub seen: Vec<Seen>,
}

/// What one transition showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Which one.
    pub transition: Transition,
    /// `π_new / π_old`.
    pub ratio: f64,
    /// `log π_new − log π_old`.
    pub log_ratio: f64,
    /// The KL divergence to the reference, 0 where it is not evaluated.
    pub kl: f64,
    /// The advantage of its row.
    pub advantage: f64,
}

impl Seen {
    /// `|log π_new − log π_old|`: at the first update of an epoch 0 but for rounding.
    pub fn deviation(&self) -> f64 {
        self.log_ratio.abs()
    }

    /// Whether the clip took this transition's gradient: the ratio has gone too far in the direction that it was pushed.
    pub fn is_clipped(&self, clip_range: f64) -> bool {
        if self.advantage > 0.0 { self.ratio > 1.0 + clip_range } else { self.ratio < 1.0 - clip_range }
    }
}

impl<B: Backend, C: Clone + Sync> Replay<'_, B, C> {
    /// The gradient of the mean objective over `transitions`.
    ///
    /// ```text
    /// L = mean over transitions of [ w_t·max(−A·r, −A·clip(r, 1 − c, 1 + c)) + β·KL(π_new ‖ π_ref) ]
    /// ```
    ///
    /// Source: arXiv 2505.05470, equation 6. A micro-batch holds transitions of one step; the last one of a step may be
    /// smaller. Each counts by its share of the whole, so the size of micro-batches changes nothing beyond rounding.
    ///
    /// # Errors
    /// If the work was stopped.
    ///
    /// # Panics
    /// If there is no transition, or one of a deterministic step.
    pub fn gradient<AB, M>(
        &self,
        differentiate: &dyn Differentiate<AB, M, C>,
        policy: &M::InnerModule,
        reference: Option<&M::InnerModule>,
        transitions: &[Transition],
    ) -> Result<ReplayOutcome<B>, Stopped>
    where
        AB: AutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<AB> + VelocityField<AB, Condition = C>,
        M::InnerModule: VelocityField<B, Condition = C> + Module<B>,
    {
        let share = 1.0 / transitions.len() as f64;
        let batches = self.micro_batches(transitions);
        let jobs = batches.iter().map(|batch| (policy.clone(), reference.cloned(), batch)).collect();
        let (mut gradient, mut numbers) = (None, Vec::with_capacity(batches.len()));
        self.workers.for_each(
            jobs,
            |(policy, reference, batch)| self.micro_batch(differentiate, policy, reference, batch, share),
            |part: MicroBatch<B>| {
                numbers.push(part.numbers);
                gradient = Some(match gradient.take() {
                    None => part.gradient,
                    Some(sum) => Parameters::plus(sum, &part.gradient),
                });
            },
        )?;
        // One read for the whole update: at each the host waits for the device, and has nothing to give it meanwhile.
        let numbers: Vec<f64> = Tensor::cat(numbers, 0).into_data().iter().collect();
        let (loss, seen) = self.told_apart(&batches, &numbers);
        Ok(ReplayOutcome { gradient: gradient.expect("there are transitions"), loss, seen })
    }

    /// The loss and what was seen, from the numbers of every micro-batch after the other.
    fn told_apart(&self, batches: &[Vec<Transition>], mut numbers: &[f64]) -> (f64, Vec<Seen>) {
        let (mut loss, mut seen) = (0.0, Vec::new());
        for batch in batches {
            let (own, rest) = numbers.split_at(1 + 3 * batch.len());
            numbers = rest;
            loss += own[0];
            let value = |column: usize, row: usize| own[1 + column * batch.len() + row];
            seen.extend(batch.iter().enumerate().map(|(row, &transition)| Seen {
                transition,
                ratio: value(0, row),
                log_ratio: value(1, row),
                kl: value(2, row),
                advantage: self.advantages[transition.row].into(),
            }));
        }
        (loss, seen)
    }

    /// Transitions of one step each, at most `micro_batch` together, in a fixed order.
    fn micro_batches(&self, transitions: &[Transition]) -> Vec<Vec<Transition>> {
        let mut sorted = transitions.to_vec();
        sorted.sort_unstable();
        let steps = sorted.chunk_by(|a, b| a.step == b.step);
        steps.flat_map(|step| step.chunks(self.micro_batch.max(1))).map(<[_]>::to_vec).collect()
    }

    /// The velocity under guidance from the answer to the query.
    fn guided<AnyB: Backend>(&self, velocity: Tensor<AnyB, 4>) -> Tensor<AnyB, 4> {
        match self.guidance {
            Some(guidance) => guidance.combined(velocity),
            None => velocity,
        }
    }

    // ANCHOR: replay
    fn micro_batch<AB, M>(
        &self,
        differentiate: &dyn Differentiate<AB, M, C>,
        policy: M::InnerModule,
        reference: Option<M::InnerModule>,
        batch: &[Transition],
        share: f64,
    ) -> MicroBatch<B>
    where
        AB: AutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<AB> + VelocityField<AB, Condition = C>,
        M::InnerModule: VelocityField<B, Condition = C>,
    {
        let (step, transition) = self.sampler.step(batch[0].step);
        let device = self.trajectories.device().clone();
        let rows: Vec<usize> = batch.iter().map(|transition| transition.row).collect();
        let conditions: Vec<C> = batch.iter().map(|transition| self.conditions[transition.row].clone()).collect();
        let advantages: Vec<f32> = batch.iter().map(|transition| self.advantages[transition.row]).collect();
        let latent = self.trajectories.latents(step.index, &rows);
        let next = self.trajectories.latents(step.index + 1, &rows);
        let old_log_prob = self.trajectories.log_probs(step.index, &rows);
        let query = Query::at(step.from, latent.clone(), &conditions);
        let query = match self.guidance {
            Some(guidance) => guidance.doubled(query),
            None => query,
        };
        let reference = reference.map(|reference| {
            let velocity = self.guided(query.clone().ask(&reference));
            transition.gaussian(latent.clone(), velocity, step)
        });

        let mut numbers = None;
        let mut loss = |velocity: Tensor<AB, 4>| {
            let gaussian = transition.gaussian(Tensor::from_inner(latent.clone()), self.guided(velocity), step);
            let new_log_prob = gaussian.log_prob(Tensor::from_inner(next.clone()), self.reduction);
            let log_ratio = new_log_prob.clone().inner() - old_log_prob.clone();
            let advantage = Tensor::from_inner(Tensor::<B, 1>::from_floats(advantages.as_slice(), &device));
            let old_log_prob = Tensor::<AB, 1>::from_inner(old_log_prob.clone());
            let policy_loss = clipped_loss(new_log_prob, old_log_prob, advantage, self.objective.clip_range);
            let kl = reference.as_ref().map(|reference| {
                let reference = flow::IsotropicGaussian { mean: Tensor::from_inner(reference.mean.clone()), std: reference.std };
                gaussian.kl(&reference, self.objective.kl_form, step)
            });
            let mut loss = policy_loss.loss * self.step_weights[step.index];
            if let Some(kl) = kl.clone() {
                loss = loss + kl * self.objective.kl_weight;
            }
            let loss = loss.sum() * share;
            let kl = kl.map_or_else(|| log_ratio.zeros_like(), Tensor::inner);
            numbers = Some(Tensor::cat(vec![loss.clone().inner(), policy_loss.ratio.inner(), log_ratio, kl], 0));
            loss
        };
        let gradient = differentiate.gradient(policy, self.trained, query, &mut loss);
        MicroBatch { gradient, numbers: numbers.expect("the gradient is that of the loss") }
    }
    // ANCHOR_END: replay
}

/// What a micro-batch gives, on the device still.
struct MicroBatch<B: Backend> {
    gradient: Parameters<B>,
    /// Its share of the loss, then the ratios, the log-ratios and the KL divergences of its rows.
    numbers: Tensor<B, 1>,
}
