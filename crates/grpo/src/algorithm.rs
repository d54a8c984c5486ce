//! The algorithm interface: the part of an epoch in which algorithms differ.
//!
//! The trainer draws groups, samples, scores and updates. An [`Algorithm`] chooses the examples of
//! an update, the query to the network, the loss of the answer and the metrics. To add one, write a
//! file beside [`clipped`] and name it in [`Objective`](crate::config::Objective).

pub mod clipped;
pub mod nft;

use burn::{prelude::*, tensor::backend::AutodiffBackend};
use flow::Query;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

pub use clipped::Clipped;
pub use nft::Nft;

use crate::{trainer::TrainError, update::Replay};

/// An example: one row of the epoch at one step of the time grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Example {
    /// The step of the grid.
    pub step: usize,
    /// The row of the epoch.
    pub row: usize,
}

/// A training algorithm, for one backend and one type of condition.
pub trait Algorithm<B: AutodiffBackend, C>: Send + Sync {
    /// Chooses the examples of some rows, grouped by the terms of the loss; every call returns the
    /// same number of terms. The mean loss is taken over the examples of the first term, so an
    /// example of another term has the same weight as one of the first.
    fn examples(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Vec<Vec<Example>>;

    /// Builds the query to the network and the loss for a batch of one term and one step.
    ///
    /// `ask` answers a query by another network, without a gradient; it returns `None` if the epoch
    /// has no such network.
    fn question<'a>(
        &'a self,
        replay: &'a Replay<'_, B::InnerBackend, C>,
        batch: &'a Batch,
        ask: &Ask<'_, B::InnerBackend, C>,
    ) -> Question<'a, B, C>;

    /// Computes the outcome of a term from the concatenated numbers of its batches.
    fn outcome(
        &self,
        replay: &Replay<'_, B::InnerBackend, C>,
        batches: &[Batch],
        numbers: &[f64],
    ) -> Outcome;

    /// Refuses an epoch by the outcomes of its first update, before any weight has moved; `limit`
    /// is [`Task::on_policy_limit`](crate::Task::on_policy_limit).
    ///
    /// # Errors
    /// If the epoch must not be trained on.
    fn check(&self, epoch: usize, first: &[Outcome], limit: f64) -> Result<(), TrainError> {
        let _ = (epoch, first, limit);
        Ok(())
    }

    /// The metrics of an epoch by name, from the outcomes of every update, term by term.
    fn metrics(&self, updates: &[&[Outcome]]) -> Map<String, Value>;

    /// The part of the epoch's progress line that shows these metrics.
    fn headline(&self, metrics: &Map<String, Value>) -> String;

    /// The weight of the KL penalty in the next epoch.
    fn next_kl_weight(&self, kl_weight: f64, metrics: &Map<String, Value>) -> f64 {
        let _ = metrics;
        kl_weight
    }

    /// The share of the old policy that remains at the end of an epoch, after `updates` optimiser
    /// updates in total. An algorithm that returns a value has an old policy, which starts as a
    /// copy of the policy and samples the rollouts.
    fn old_policy_decay(&self, updates: usize) -> Option<f64> {
        let _ = updates;
        None
    }
}

/// Examples of one term and one step that share a forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The index of the term of the loss.
    pub term: usize,
    /// The weight of an example in the mean loss: 1 divided by the number of examples of the
    /// update's first term.
    pub share: f64,
    /// The step of the grid.
    pub step: usize,
    /// The rows that go through the network.
    pub rows: Vec<usize>,
    /// Positions in `rows` of the rows that are examples; the others only complete a batch of the
    /// rollout.
    pub trained: Vec<usize>,
}

impl Batch {
    /// Selects the values of the examples from one value per row.
    pub fn trained<B: Backend>(&self, numbers: Tensor<B, 1>) -> Tensor<B, 1> {
        if self.trained.len() == self.rows.len() {
            return numbers;
        }
        let positions: Vec<i32> = self.trained.iter().map(|&position| position as i32).collect();
        let device = numbers.device();
        numbers.select(0, Tensor::from_ints(positions.as_slice(), &device))
    }

    /// The examples of the batch.
    pub fn examples(&self) -> impl Iterator<Item = Example> + '_ {
        self.trained.iter().map(|&position| Example { step: self.step, row: self.rows[position] })
    }
}

/// A network other than the one that is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// The reference model of the KL penalty; absent while the KL weight is 0.
    Reference,
    /// The old policy; see [`Algorithm::old_policy_decay`].
    Old,
}

/// A function that answers a query by another network.
pub type Ask<'a, B, C> = dyn Fn(Other, Query<B, C>) -> Option<Tensor<B, 4>> + 'a;

/// The query to the network, and the loss of its answer.
pub struct Question<'a, B: AutodiffBackend, C> {
    /// The query.
    pub query: Query<B::InnerBackend, C>,
    /// The loss as a function of the velocity, `[B, C, H, W]`; called once.
    pub loss: Box<dyn FnMut(Tensor<B, 4>) -> Loss<B> + 'a>,
}

/// The loss of a batch.
pub struct Loss<B: AutodiffBackend> {
    /// The sum over the examples, each multiplied by [`Batch::share`], `[1]`.
    pub value: Tensor<B, 1>,
    /// Any numbers for [`Algorithm::outcome`], still on the device.
    pub numbers: Tensor<B::InnerBackend, 1>,
}

/// The numbers of one term, sorted out of those that its batches concatenate: some of a batch
/// itself, then columns with one number per example.
struct Numbers {
    of_batches: Vec<f64>,
    columns: Vec<Vec<f64>>,
}

impl Numbers {
    /// Sorts `numbers`, of which every batch has `of_batch` of its own and `columns` columns.
    fn sorted(batches: &[Batch], of_batch: usize, columns: usize, mut numbers: &[f64]) -> Self {
        let mut sorted = Self { of_batches: Vec::new(), columns: vec![Vec::new(); columns] };
        for batch in batches {
            let count = batch.trained.len();
            let (own, rest) = numbers.split_at(of_batch + columns * count);
            numbers = rest;
            sorted.of_batches.extend(&own[..of_batch]);
            for (column, values) in sorted.columns.iter_mut().zip(own[of_batch..].chunks(count)) {
                column.extend(values);
            }
        }
        sorted
    }
}

/// The results of the examples of one term.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The contribution of the term to the mean loss.
    pub loss: f64,
    /// The examples of the term.
    pub examples: Vec<Example>,
    /// Columns of numbers, each with one number per example.
    pub columns: Vec<Vec<f64>>,
}
