//! The replay: the gradient of an algorithm's loss over the examples of an update.

use std::collections::BTreeSet;

use burn::{prelude::*, tensor::backend::AutodiffBackend};
use flow::{
    Checkpointed, Guidance, GuidanceGradient, Query, Sampler, Step, TrainableField, VelocityField,
};
use training::{
    noise::Key,
    parameters::{Parameters, Trained},
    workers::{Stopped, Workers},
};

use crate::{
    algorithm::{Algorithm, Batch, Example, Other, Outcome, Question},
    trajectories::Trajectories,
};

/// Computes the gradient of a loss with respect to the trained parameters.
pub trait Differentiate<B: AutodiffBackend, M: TrainableField<B>>: Send + Sync {
    /// The gradient of `loss(v)`, where `v` is the network's answer to the query.
    fn gradient(
        &self,
        network: M::InnerModule,
        trained: &Trained,
        query: Query<B::InnerBackend, M::Condition>,
        loss: &mut dyn FnMut(Tensor<B, 4>) -> Tensor<B, 1>,
    ) -> Parameters<B::InnerBackend>;

    /// The velocity whose loss [`Self::gradient`] takes, equal to the last bit. A backend may have
    /// one kernel for a softmax without a graph and another one with a graph, which round
    /// differently.
    fn velocity(
        &self,
        network: &M::InnerModule,
        query: Query<B::InnerBackend, M::Condition>,
    ) -> Tensor<B::InnerBackend, 4>;
}

/// A network that answers with [`Differentiate::velocity`], so that a replay in the same batches
/// repeats a rollout to the last bit.
pub struct AsReplayed<'a, B: AutodiffBackend, M: TrainableField<B>> {
    /// The network.
    pub network: M::InnerModule,
    /// The computation of gradients whose forward pass is used.
    pub differentiate: &'a dyn Differentiate<B, M>,
}

impl<B: AutodiffBackend, M: TrainableField<B>> Clone for AsReplayed<'_, B, M> {
    fn clone(&self) -> Self {
        Self { network: self.network.clone(), differentiate: self.differentiate }
    }
}

impl<B: AutodiffBackend, M: TrainableField<B>> VelocityField<B::InnerBackend>
    for AsReplayed<'_, B, M>
{
    type Condition = M::Condition;

    fn velocity(
        &self,
        latent: Tensor<B::InnerBackend, 4>,
        time: Tensor<B::InnerBackend, 1>,
        conditions: &[M::Condition],
    ) -> Tensor<B::InnerBackend, 4> {
        self.differentiate
            .velocity(&self.network, Query { latent, time, conditions: conditions.to_vec() })
    }

    fn prepare(&mut self, conditions: &[M::Condition], latent: [usize; 3]) {
        self.network.prepare(conditions, latent);
    }

    fn prepare_like(&mut self, other: &Self) {
        self.network.prepare_like(&other.network);
    }
}

/// Gradients by one graph of the whole network.
#[derive(Clone, Copy, Debug)]
pub struct WholeGraph;

impl<B: AutodiffBackend, M: TrainableField<B>> Differentiate<B, M> for WholeGraph {
    fn gradient(
        &self,
        network: M::InnerModule,
        trained: &Trained,
        query: Query<B::InnerBackend, M::Condition>,
        loss: &mut dyn FnMut(Tensor<B, 4>) -> Tensor<B, 1>,
    ) -> Parameters<B::InnerBackend> {
        let network: M = trained.with_graph(network);
        let gradients = loss(query.onto_autodiff::<B>().ask(&network)).backward();
        trained.gradients(&network, gradients)
    }

    fn velocity(
        &self,
        network: &M::InnerModule,
        query: Query<B::InnerBackend, M::Condition>,
    ) -> Tensor<B::InnerBackend, 4> {
        let network: M = Trained::none().with_graph(network.clone());
        query.onto_autodiff::<B>().ask(&network).inner()
    }
}

/// Gradients with activation checkpointing, one graph per block: less memory, one more forward
/// pass, the same gradient.
#[derive(Clone, Copy, Debug)]
pub struct Checkpointing;

impl<B: AutodiffBackend, M: Checkpointed<B>> Differentiate<B, M> for Checkpointing {
    fn gradient(
        &self,
        network: M::InnerModule,
        trained: &Trained,
        query: Query<B::InnerBackend, M::Condition>,
        loss: &mut dyn FnMut(Tensor<B, 4>) -> Tensor<B, 1>,
    ) -> Parameters<B::InnerBackend> {
        let (velocity, kept) = M::forward_keeping(&network, query);
        let velocity = Tensor::<B, 4>::from_inner(velocity).require_grad();
        let mut gradients = loss(velocity.clone()).backward();
        let of_velocity =
            velocity.grad_remove(&mut gradients).expect("the loss is one of the velocity");
        let network: M = trained.with_graph(network);
        let mut sum = Parameters::default();
        network.backward(kept, of_velocity, |gradients| {
            let reached = trained.reached(&network, gradients);
            sum = std::mem::take(&mut sum).merged(reached);
        });
        trained.with_zeros(&network, sum)
    }

    fn velocity(
        &self,
        network: &M::InnerModule,
        query: Query<B::InnerBackend, M::Condition>,
    ) -> Tensor<B::InnerBackend, 4> {
        M::forward_keeping(network, query).0
    }
}

/// Which examples of one step share a forward and backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batches {
    /// At most this number of examples, in the order of their rows.
    Of(usize),
    /// All rows that a rollout in batches of this size sampled together, including rows that are
    /// not trained.
    AsSampled(usize),
}

/// An epoch's data for the replay.
#[derive(Clone, Debug)]
pub struct Replay<'a, B: Backend, C> {
    /// Grid and transitions of the rollout.
    pub sampler: &'a Sampler,
    /// Guidance of the rollout, if used.
    pub guidance: Option<&'a Guidance<C>>,
    /// The trajectories of the rollout.
    pub trajectories: &'a Trajectories<B>,
    /// One condition per row.
    pub conditions: &'a [C],
    /// One advantage per row.
    pub advantages: &'a [f32],
    /// The weight of the KL penalty in this epoch.
    pub kl_weight: f64,
    /// The key of noise that an algorithm draws for its examples.
    pub noise: Key,
    /// The parameters of the policy that get a gradient.
    pub trained: &'a Trained,
    /// Which examples share a forward and backward pass.
    pub batches: Batches,
    /// The factor of the loss before the backward pass, removed from the gradient after it; 1
    /// unless layers compute in f16.
    pub loss_scale: f64,
    /// The threads that do the work.
    pub workers: &'a Workers,
}

/// The networks, besides the policy, that an algorithm can query.
#[derive(Clone, Debug)]
pub struct Others<N> {
    /// The reference model, while the KL weight is above 0.
    pub reference: Option<N>,
    /// The old policy, if the algorithm has one.
    pub old: Option<N>,
}

/// The gradient of an update, with its loss and outcomes.
#[derive(Clone, Debug)]
pub struct ReplayOutcome<B: Backend> {
    /// The gradient of the mean loss.
    pub gradient: Parameters<B>,
    /// The mean loss, all terms together.
    pub loss: f64,
    /// The outcome of each term of the loss.
    pub terms: Vec<Outcome>,
}

impl<B: Backend, C: Clone> Replay<'_, B, C> {
    /// The query for a batch at the start of a step; with guidance it has twice the rows.
    pub fn query(&self, step: Step, latent: Tensor<B, 4>, batch: &Batch) -> Query<B, C> {
        let conditions: Vec<C> =
            batch.rows.iter().map(|&row| self.conditions[row].clone()).collect();
        let query = Query::at(step.from, latent, &conditions);
        match self.guidance {
            Some(guidance) => guidance.doubled(query),
            None => query,
        }
    }

    /// Combines the answer to [`Self::query`] into the guided velocity.
    pub fn guided<AnyB: Backend>(
        &self,
        velocity: Tensor<AnyB, 4>,
        gradient: GuidanceGradient,
    ) -> Tensor<AnyB, 4> {
        match self.guidance {
            Some(guidance) => guidance.combined(velocity, gradient),
            None => velocity,
        }
    }
}

impl<B: Backend, C: Clone + Send + Sync> Replay<'_, B, C> {
    /// Computes the gradient of an algorithm's mean loss over the examples of an update, term by
    /// term.
    ///
    /// A batch holds examples of one term and one step; the last batch of a step may be smaller.
    /// Each example has the weight [`Batch::share`], so batch sizes change nothing beyond rounding.
    ///
    /// # Errors
    /// If the work was stopped.
    ///
    /// # Panics
    /// If the first term has no example, or the rollout did not keep the latents that the algorithm
    /// needs.
    pub fn gradient<AB, M>(
        &self,
        algorithm: &dyn Algorithm<AB, C>,
        differentiate: &dyn Differentiate<AB, M>,
        policy: &M::InnerModule,
        others: &Others<M::InnerModule>,
        update: &[Vec<Example>],
    ) -> Result<ReplayOutcome<B>, Stopped>
    where
        AB: AutodiffBackend<InnerBackend = B>,
        M: TrainableField<AB, Condition = C>,
    {
        let share = 1.0 / update[0].len() as f64;
        let terms = update.iter().enumerate();
        let of_terms: Vec<Vec<Batch>> =
            terms.map(|(term, examples)| self.batches(term, share, examples)).collect();
        let (policy, others) = &self.prepared::<AB, M>(policy, others, of_terms.iter().flatten());
        let (mut sum, mut loss, mut terms) = (None, 0.0, Vec::with_capacity(update.len()));
        for batches in of_terms {
            if batches.is_empty() {
                terms.push(Outcome::default());
                continue;
            }
            let jobs =
                batches.iter().map(|batch| (policy.clone(), others.clone(), batch)).collect();
            let (gradient, numbers) = self.summed(jobs, |(policy, others, batch)| {
                self.micro_batch(algorithm, differentiate, policy, &others, batch)
            })?;
            let outcome = algorithm.outcome(self, &batches, &numbers);
            loss += outcome.loss;
            terms.push(outcome);
            sum = Some(match sum.take() {
                None => gradient,
                Some(sum) => Parameters::plus(sum, &gradient),
            });
        }
        Ok(ReplayOutcome { gradient: sum.expect("the first term has examples"), loss, terms })
    }

    /// The networks, with the conditions of all batches on their device.
    fn prepared<'a, AB, M>(
        &self,
        policy: &M::InnerModule,
        others: &Others<M::InnerModule>,
        batches: impl Iterator<Item = &'a Batch>,
    ) -> (M::InnerModule, Others<M::InnerModule>)
    where
        AB: AutodiffBackend<InnerBackend = B>,
        M: TrainableField<AB, Condition = C>,
    {
        let rows: BTreeSet<usize> = batches.flat_map(|batch| batch.rows.iter().copied()).collect();
        let conditions: Vec<C> = rows.iter().map(|&row| self.conditions[row].clone()).collect();
        let conditions = match self.guidance {
            Some(guidance) => guidance.and_unconditional(&conditions),
            None => conditions,
        };
        let (mut policy, mut others) = (policy.clone(), others.clone());
        policy.prepare(&conditions, self.trajectories.latent_shape());
        for other in others.reference.iter_mut().chain(&mut others.old) {
            other.prepare_like(&policy);
        }
        (policy, others)
    }

    /// Computes the gradient of a batch and the numbers of its examples.
    fn micro_batch<AB, M>(
        &self,
        algorithm: &dyn Algorithm<AB, C>,
        differentiate: &dyn Differentiate<AB, M>,
        policy: M::InnerModule,
        others: &Others<M::InnerModule>,
        batch: &Batch,
    ) -> MicroBatch<B>
    where
        AB: AutodiffBackend<InnerBackend = B>,
        M: TrainableField<AB, Condition = C>,
    {
        let ask = |other: Other, query: Query<B, C>| {
            let network = match other {
                Other::Reference => &others.reference,
                Other::Old => &others.old,
            };
            network.as_ref().map(|network| query.ask(network))
        };
        let Question { query, mut loss } = algorithm.question(self, batch, &ask);
        let mut numbers = None;
        let mut scaled = |velocity: Tensor<AB, 4>| {
            let loss = loss(velocity);
            numbers = Some(loss.numbers);
            loss.value * self.loss_scale
        };
        let gradient = differentiate.gradient(policy, self.trained, query, &mut scaled);
        MicroBatch { gradient, numbers: numbers.expect("the gradient is that of the loss") }
    }

    /// Sums the gradients of micro-batches and concatenates their numbers.
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
        // One read for the whole term: during a read the host waits for the device and queues no
        // work.
        let numbers = Tensor::cat(numbers, 0).into_data().iter().collect();
        let gradient = gradient.expect("there are examples");
        let gradient = if self.loss_scale == 1.0 {
            gradient
        } else {
            gradient.map(|values| values / self.loss_scale)
        };
        Ok((gradient, numbers))
    }

    /// Divides the examples of a term into batches, in a fixed order.
    fn batches(&self, term: usize, share: f64, examples: &[Example]) -> Vec<Batch> {
        let mut sorted = examples.to_vec();
        sorted.sort_unstable();
        let batch = |examples: &[Example], rows: Vec<usize>, trained: Vec<usize>| Batch {
            term,
            share,
            step: examples[0].step,
            rows,
            trained,
        };
        let steps = sorted.chunk_by(|a, b| a.step == b.step);
        match self.batches {
            Batches::Of(size) => {
                let alone = |examples: &[Example]| {
                    batch(
                        examples,
                        examples.iter().map(|example| example.row).collect(),
                        (0..examples.len()).collect(),
                    )
                };
                steps.flat_map(|step| step.chunks(size.max(1)).map(alone)).collect()
            }
            Batches::AsSampled(size) => {
                let size = size.max(1);
                let whole = |examples: &[Example]| {
                    let first = examples[0].row / size * size;
                    let rows = (first..(first + size).min(self.advantages.len())).collect();
                    batch(
                        examples,
                        rows,
                        examples.iter().map(|example| example.row - first).collect(),
                    )
                };
                let together = move |a: &Example, b: &Example| a.row / size == b.row / size;
                steps.flat_map(|step| step.chunk_by(together).map(whole)).collect()
            }
        }
    }
}

/// The result of a micro-batch, still on the device.
struct MicroBatch<B: Backend> {
    gradient: Parameters<B>,
    numbers: Tensor<B, 1>,
}
