//! The update: replay stored steps with a gradient, compare with the rollout, move the weights.

use burn::{
    module::{AutodiffModule, Module},
    prelude::*,
    tensor::backend::AutodiffBackend,
};
use flow::{Guidance, InParts, Query, Reduction, Sampler, VelocityField};

use crate::{
    objective::{Clip, ObjectiveConfig, clipped_loss},
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

    /// The velocity that [`Self::gradient`] takes the loss of, to the last bit: a backend may have one kernel for a softmax without a
    /// graph and several with one, which round differently.
    fn velocity(&self, network: &M::InnerModule, query: Query<B::InnerBackend, C>) -> Tensor<B::InnerBackend, 4>;
}

/// A network as [`Differentiate::velocity`] computes it: what is sampled with it is replayed to the last bit in the same batches.
pub struct AsReplayed<'a, B: AutodiffBackend, M: AutodiffModule<B>, C> {
    /// The network.
    pub network: M::InnerModule,
    /// How its gradients are found.
    pub differentiate: &'a dyn Differentiate<B, M, C>,
}

impl<B: AutodiffBackend, M: AutodiffModule<B>, C> Clone for AsReplayed<'_, B, M, C> {
    fn clone(&self) -> Self {
        Self { network: self.network.clone(), differentiate: self.differentiate }
    }
}

impl<B: AutodiffBackend, M: AutodiffModule<B>, C: Clone> VelocityField<B::InnerBackend> for AsReplayed<'_, B, M, C> {
    type Condition = C;

    fn velocity(
        &self,
        latent: Tensor<B::InnerBackend, 4>,
        time: Tensor<B::InnerBackend, 1>,
        conditions: &[C],
    ) -> Tensor<B::InnerBackend, 4> {
        self.differentiate.velocity(&self.network, Query { latent, time, conditions: conditions.to_vec() })
    }
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
        let gradients = loss(query.onto_autodiff::<B>().ask(&network)).backward();
        trained.gradients(&network, gradients)
    }

    fn velocity(&self, network: &M::InnerModule, query: Query<B::InnerBackend, C>) -> Tensor<B::InnerBackend, 4> {
        let network: M = Trained::none().with_graph(network.clone());
        query.onto_autodiff::<B>().ask(&network).inner()
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

    fn velocity(&self, network: &M::InnerModule, query: Query<B::InnerBackend, C>) -> Tensor<B::InnerBackend, 4> {
        M::forward_keeping(network, query).0
    }
}

/// Which transitions share a forward and backward pass. All of them are of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batches {
    /// At most this many, in the order of their rows.
    Of(usize),
    /// All rows that a rollout in batches of this many sampled together, those that are not trained as well.
    AsSampled(usize),
}

/// Rows that go through the network together at a step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Batch {
    step: usize,
    rows: Vec<usize>,
    /// Which of the rows are trained, by their position here.
    trained: Vec<usize>,
}

impl Batch {
    /// The trained ones of some numbers, one for each row.
    fn trained<B: Backend>(&self, numbers: Tensor<B, 1>) -> Tensor<B, 1> {
        if self.trained.len() == self.rows.len() {
            return numbers;
        }
        let positions: Vec<i32> = self.trained.iter().map(|&position| position as i32).collect();
        let device = numbers.device();
        numbers.select(0, Tensor::from_ints(positions.as_slice(), &device))
    }

    fn transitions(&self) -> impl Iterator<Item = Transition> + '_ {
        self.trained.iter().map(|&position| Transition { step: self.step, row: self.rows[position] })
    }
}

/// The batch that holds these transitions of a step and nothing else.
fn batch_of(transitions: &[Transition]) -> Batch {
    let rows = transitions.iter().map(|transition| transition.row).collect();
    Batch { step: transitions[0].step, rows, trained: (0..transitions.len()).collect() }
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
    /// Which transitions share a forward and backward pass.
    pub batches: Batches,
    /// What the loss is multiplied by before the backward pass, and the gradient divided by after it; 1 unless layers compute in f16.
    pub loss_scale: f64,
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

/// The gradient of the KL divergence at ODE steps.
#[derive(Clone, Debug)]
pub struct Held<B: Backend> {
    /// The gradient of `share·β·ΣKL`.
    pub gradient: Parameters<B>,
    /// The KL divergences, in the order of steps and rows.
    pub kl: Vec<f64>,
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
    pub fn is_clipped(&self, clip: Clip) -> bool {
        if self.advantage > 0.0 { self.ratio > 1.0 + clip.high } else { self.ratio < 1.0 - clip.low }
    }
}

impl<B: Backend, C: Clone + Sync> Replay<'_, B, C> {
    /// The gradient of the mean objective over `transitions`.
    ///
    /// ```text
    /// L = mean over transitions of [ w_t·max(−A·r, −A·clip(r, 1 − low, 1 + high)) + β·KL(π_new ‖ π_ref) ]
    /// ```
    ///
    /// Source: arXiv 2505.05470, equation 6. A batch holds transitions of one step; the last one of a step may be
    /// smaller. Each counts by its share of the whole, so the size of batches changes nothing beyond rounding.
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
        let batches = self.batches(transitions);
        let jobs = batches.iter().map(|batch| (policy.clone(), reference.cloned(), batch)).collect();
        let (gradient, numbers) =
            self.summed(jobs, |(policy, reference, batch)| self.micro_batch(differentiate, policy, reference, batch, share))?;
        let (loss, seen) = self.told_apart(&batches, &numbers);
        Ok(ReplayOutcome { gradient, loss, seen })
    }

    /// The gradient of `share·β·ΣKL(π_new ‖ π_ref)` over transitions of steps that draw no noise, each as if it did.
    ///
    /// # Panics
    /// If there is no transition, or the trajectories did not keep one of them.
    pub fn hold<AB, M>(
        &self,
        differentiate: &dyn Differentiate<AB, M, C>,
        policy: &M::InnerModule,
        reference: &M::InnerModule,
        transitions: &[Transition],
        share: f64,
    ) -> Result<Held<B>, Stopped>
    where
        AB: AutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<AB> + VelocityField<AB, Condition = C>,
        M::InnerModule: VelocityField<B, Condition = C> + Module<B>,
    {
        let batches = self.batches(transitions);
        let jobs = batches.iter().map(|batch| (policy.clone(), reference.clone(), batch)).collect();
        let hold = |(policy, reference, batch): (M::InnerModule, M::InnerModule, &Batch)| {
            let step = self.sampler.step(batch.step).0;
            let query = self.query(batch, self.trajectories.latents(step.index, &batch.rows));
            let reference = self.guided(query.clone().ask(&reference));
            let mut numbers = None;
            let mut loss = |velocity: Tensor<AB, 4>| {
                let kl = self.sampler.stochastic().kl(
                    self.objective.kl_form,
                    step,
                    self.guided(velocity),
                    Tensor::from_inner(reference.clone()),
                );
                let kl = batch.trained(kl);
                numbers = Some(kl.clone().inner());
                kl.sum() * (share * self.objective.kl_weight * self.loss_scale)
            };
            let gradient = differentiate.gradient(policy, self.trained, query, &mut loss);
            MicroBatch { gradient, numbers: numbers.expect("the gradient is that of the loss") }
        };
        let (gradient, kl) = self.summed(jobs, hold)?;
        Ok(Held { gradient, kl })
    }

    /// The sum of the gradients of micro-batches, and their numbers one after the other.
    fn summed<T: Send>(
        &self,
        jobs: Vec<T>,
        micro_batch: impl Fn(T) -> MicroBatch<B> + Sync,
    ) -> Result<(Parameters<B>, Vec<f64>), Stopped> {
        let (mut gradient, mut numbers) = (None, Vec::with_capacity(jobs.len()));
        self.workers.for_each(jobs, micro_batch, |part: MicroBatch<B>| {
            numbers.push(part.numbers);
            gradient = Some(match gradient.take() {
                None => part.gradient,
                Some(sum) => Parameters::plus(sum, &part.gradient),
            });
        })?;
        // One read for the whole update: at each the host waits for the device, and has nothing to give it meanwhile.
        let numbers = Tensor::cat(numbers, 0).into_data().iter().collect();
        let gradient = gradient.expect("there are transitions");
        let gradient = if self.loss_scale == 1.0 { gradient } else { gradient.map(|values| values / self.loss_scale) };
        Ok((gradient, numbers))
    }

    /// What the network is asked at a step of some rows.
    fn query(&self, batch: &Batch, latent: Tensor<B, 4>) -> Query<B, C> {
        let conditions: Vec<C> = batch.rows.iter().map(|&row| self.conditions[row].clone()).collect();
        let query = Query::at(self.sampler.step(batch.step).0.from, latent, &conditions);
        match self.guidance {
            Some(guidance) => guidance.doubled(query),
            None => query,
        }
    }

    /// The loss and what was seen, from the numbers of every micro-batch after the other.
    fn told_apart(&self, batches: &[Batch], mut numbers: &[f64]) -> (f64, Vec<Seen>) {
        let (mut loss, mut seen) = (0.0, Vec::new());
        for batch in batches {
            let count = batch.trained.len();
            let (own, rest) = numbers.split_at(1 + 3 * count);
            numbers = rest;
            loss += own[0];
            let value = |column: usize, row: usize| own[1 + column * count + row];
            seen.extend(batch.transitions().enumerate().map(|(row, transition)| Seen {
                transition,
                ratio: value(0, row),
                log_ratio: value(1, row),
                kl: value(2, row),
                advantage: self.advantages[transition.row].into(),
            }));
        }
        (loss, seen)
    }

    /// What goes through the network together, in a fixed order.
    fn batches(&self, transitions: &[Transition]) -> Vec<Batch> {
        let mut sorted = transitions.to_vec();
        sorted.sort_unstable();
        let steps = sorted.chunk_by(|a, b| a.step == b.step);
        match self.batches {
            Batches::Of(size) => steps.flat_map(|step| step.chunks(size.max(1)).map(batch_of)).collect(),
            Batches::AsSampled(size) => {
                let same = move |a: &Transition, b: &Transition| a.row / size.max(1) == b.row / size.max(1);
                steps.flat_map(|step| step.chunk_by(same).map(|batch| self.whole(batch, size.max(1)))).collect()
            }
        }
    }

    /// The batch that sampled these transitions.
    fn whole(&self, transitions: &[Transition], size: usize) -> Batch {
        let first = transitions[0].row / size * size;
        let rows = (first..(first + size).min(self.advantages.len())).collect();
        Batch { step: transitions[0].step, rows, trained: transitions.iter().map(|transition| transition.row - first).collect() }
    }

    /// The velocity under guidance from the answer to the query.
    fn guided<AnyB: Backend>(&self, velocity: Tensor<AnyB, 4>) -> Tensor<AnyB, 4> {
        match self.guidance {
            Some(guidance) => guidance.combined(velocity, self.objective.guidance_gradient),
            None => velocity,
        }
    }

    // ANCHOR: replay
    fn micro_batch<AB, M>(
        &self,
        differentiate: &dyn Differentiate<AB, M, C>,
        policy: M::InnerModule,
        reference: Option<M::InnerModule>,
        batch: &Batch,
        share: f64,
    ) -> MicroBatch<B>
    where
        AB: AutodiffBackend<InnerBackend = B>,
        M: AutodiffModule<AB> + VelocityField<AB, Condition = C>,
        M::InnerModule: VelocityField<B, Condition = C>,
    {
        let (step, transition) = self.sampler.step(batch.step);
        let device = self.trajectories.device().clone();
        let advantages: Vec<f32> = batch.transitions().map(|transition| self.advantages[transition.row]).collect();
        let latent = self.trajectories.latents(step.index, &batch.rows);
        let next = self.trajectories.latents(step.index + 1, &batch.rows);
        let old_log_prob = batch.trained(self.trajectories.log_probs(step.index, &batch.rows));
        let query = self.query(batch, latent.clone());
        let reference = reference.map(|reference| self.guided(query.clone().ask(&reference)));

        let mut numbers = None;
        let mut loss = |velocity: Tensor<AB, 4>| {
            let velocity = self.guided(velocity);
            let gaussian = transition.gaussian(Tensor::from_inner(latent.clone()), velocity.clone(), step);
            let new_log_prob = batch.trained(gaussian.log_prob(Tensor::from_inner(next.clone()), self.reduction));
            let log_ratio = new_log_prob.clone().inner() - old_log_prob.clone();
            let advantage = Tensor::from_inner(Tensor::<B, 1>::from_floats(advantages.as_slice(), &device));
            let old_log_prob = Tensor::<AB, 1>::from_inner(old_log_prob.clone());
            let policy_loss = clipped_loss(new_log_prob, old_log_prob, advantage, self.objective.clip());
            let kl = reference.clone().map(|reference| {
                batch.trained(transition.kl(self.objective.kl_form, step, velocity, Tensor::from_inner(reference)))
            });
            let mut loss = policy_loss.loss * self.step_weights[step.index];
            if let Some(kl) = kl.clone() {
                loss = loss + kl * self.objective.kl_weight;
            }
            let loss = loss.sum() * share;
            let kl = kl.map_or_else(|| log_ratio.zeros_like(), Tensor::inner);
            numbers = Some(Tensor::cat(vec![loss.clone().inner(), policy_loss.ratio.inner(), log_ratio, kl], 0));
            loss * self.loss_scale
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
