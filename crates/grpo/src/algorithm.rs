//! What an epoch teaches: the one thing in which algorithms differ.
//!
//! The trainer draws groups, samples, scores and updates; an [`Algorithm`] says which examples an update is made of, what the network is
//! asked about them, the loss of its answer, and which numbers are logged. To add one, write a file beside [`clipped`] and name it in
//! [`Objective`](crate::config::Objective).

pub mod clipped;
pub mod nft;

use burn::{prelude::*, tensor::backend::AutodiffBackend};
use flow::Query;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

pub use clipped::Clipped;
pub use nft::Nft;

use crate::{trainer::TrainError, update::Replay};

/// A row of the epoch at a step of the time grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Example {
    /// The step of the grid.
    pub step: usize,
    /// The row of the epoch.
    pub row: usize,
}

/// An algorithm, for one kind of backend and condition.
pub trait Algorithm<B: AutodiffBackend, C>: Send + Sync {
    /// The examples of some rows, apart by the terms of the loss; every call has the same number of terms. The mean loss is taken over
    /// the first term, so a row's examples of another term count as those of the first do.
    fn examples(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Vec<Vec<Example>>;

    /// The question to the network about a batch, all of one term and one step.
    ///
    /// `ask` answers a query by another network, without a gradient; it has no answer if the epoch has no such network.
    fn question<'a>(
        &'a self,
        replay: &'a Replay<'_, B::InnerBackend, C>,
        batch: &'a Batch,
        ask: &Ask<'_, B::InnerBackend, C>,
    ) -> Question<'a, B, C>;

    /// The loss of a term and the numbers of its examples, from the numbers of its batches one after the other.
    fn outcome(&self, replay: &Replay<'_, B::InnerBackend, C>, batches: &[Batch], numbers: &[f64]) -> Outcome;

    /// Refuses an epoch by the outcomes of its first update, before anything has moved; `limit` is
    /// [`Task::on_policy_limit`](crate::Task::on_policy_limit).
    ///
    /// # Errors
    /// If the epoch must not be trained on.
    fn check(&self, epoch: usize, first: &[Outcome], limit: f64) -> Result<(), TrainError> {
        let _ = (epoch, first, limit);
        Ok(())
    }

    /// The numbers of an epoch to log, by name, from the outcomes of every update, term by term.
    fn metrics(&self, updates: &[&[Outcome]]) -> Map<String, Value>;

    /// What the line of an epoch shows of these numbers.
    fn headline(&self, metrics: &Map<String, Value>) -> String;

    /// The weight of the KL penalty in the next epoch.
    fn next_kl_weight(&self, kl_weight: f64, metrics: &Map<String, Value>) -> f64 {
        let _ = metrics;
        kl_weight
    }

    /// The share of an old policy that stays at the end of an epoch, after `updates` updates of the optimiser in all. Where there is one,
    /// it starts as the policy and is what samples.
    fn old_policy_decay(&self, updates: usize) -> Option<f64> {
        let _ = updates;
        None
    }
}

/// Examples of one term and one step that go through the network together.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Which term of the loss.
    pub term: usize,
    /// The weight of an example in the mean loss: one over the examples of the update's first term.
    pub share: f64,
    /// The step of the grid.
    pub step: usize,
    /// The rows that go through the network.
    pub rows: Vec<usize>,
    /// Which of the rows are examples, by their position in `rows`; the others only complete a batch of the rollout.
    pub trained: Vec<usize>,
}

impl Batch {
    /// The numbers of the examples, given one number for each row.
    pub fn trained<B: Backend>(&self, numbers: Tensor<B, 1>) -> Tensor<B, 1> {
        if self.trained.len() == self.rows.len() {
            return numbers;
        }
        let positions: Vec<i32> = self.trained.iter().map(|&position| position as i32).collect();
        let device = numbers.device();
        numbers.select(0, Tensor::from_ints(positions.as_slice(), &device))
    }

    /// The examples.
    pub fn examples(&self) -> impl Iterator<Item = Example> + '_ {
        self.trained.iter().map(|&position| Example { step: self.step, row: self.rows[position] })
    }
}

/// A network beside the one that is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// The base model, which the KL penalty compares with; there is none while the weight of that is 0.
    Reference,
    /// The old policy; see [`Algorithm::old_policy_decay`].
    Old,
}

/// Answers a query by another network.
pub type Ask<'a, B, C> = dyn Fn(Other, Query<B, C>) -> Option<Tensor<B, 4>> + 'a;

/// What the network is asked, and the loss of its answer.
pub struct Question<'a, B: AutodiffBackend, C> {
    /// The query.
    pub query: Query<B::InnerBackend, C>,
    /// The loss of the velocity, `[B, C, H, W]`; called once.
    pub loss: Box<dyn FnMut(Tensor<B, 4>) -> Loss<B> + 'a>,
}

/// The loss of a batch.
pub struct Loss<B: AutodiffBackend> {
    /// The sum over the examples, each multiplied by [`Batch::share`], `[1]`.
    pub value: Tensor<B, 1>,
    /// Any numbers for [`Algorithm::outcome`], on the device still.
    pub numbers: Tensor<B::InnerBackend, 1>,
}

/// What the examples of a term showed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The part of the mean loss.
    pub loss: f64,
    /// The examples.
    pub examples: Vec<Example>,
    /// Columns of numbers, one number per example each.
    pub columns: Vec<Vec<f64>>,
}
