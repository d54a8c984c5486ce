//! Scoring beside sampling: a slow reward scores the images of a rollout batch while the next batch
//! is sampled.
//!
//! The scores are those of scoring everything at the end: batches are scored one after the other in
//! the order of the rows, and a slow reward scores every image by itself.

use std::{
    panic,
    sync::{
        Arc,
        mpsc::{self, Receiver},
    },
    thread,
};

use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{RewardError, SlowScores, WeightedReward},
};
use thiserror::Error;
use training::workers::{Stopped, Workers};

/// The images of an epoch and the scores that came while they were sampled.
pub(crate) struct Scored<T> {
    /// The result of sampling.
    pub sampled: T,
    /// All images, in the order of the rows.
    pub images: Vec<Image>,
    /// The scores of the slow rewards.
    pub slow: SlowScores,
}

/// Sampling and scoring ended early.
#[derive(Debug, Error)]
#[error(transparent)]
pub(crate) enum ScoringError {
    /// A reward failed.
    Reward(#[from] RewardError),
    /// The work was stopped.
    Stopped(#[from] Stopped),
}

/// Passes images of some rows on, in the order of the rows.
pub(crate) type Take<'a> = dyn FnMut(Vec<Image>) + Send + 'a;

/// Runs `sample`, which passes on images batch by batch, and scores each batch on another thread by
/// the slow rewards.
///
/// # Errors
/// If a reward fails, or the work was stopped; the batch in hand is then the last that is scored.
pub(crate) fn beside<T>(
    reward: &WeightedReward,
    prompts: &[&Prompt],
    workers: &Workers,
    sample: impl FnOnce(&mut Take<'_>) -> Result<T, Stopped>,
) -> Result<Scored<T>, ScoringError> {
    let mut batches: Vec<Arc<Vec<Image>>> = Vec::new();
    let (send, receive) = mpsc::channel();
    let (sampled, slow) = thread::scope(|scope| {
        let scoring = thread::Builder::new()
            .spawn_scoped(scope, move || score(reward, prompts, workers, &receive));
        let sampled = sample(&mut |images| {
            let images = Arc::new(images);
            // Nobody listens after a fault, which is reported below.
            let _ = send.send(Arc::clone(&images));
            batches.push(images);
        });
        drop(send);
        let slow = match scoring.map(thread::ScopedJoinHandle::join) {
            Ok(joined) => joined.unwrap_or_else(|panic| panic::resume_unwind(panic)),
            // The system has no thread left: all rewards score at the end.
            Err(_) => Ok(SlowScores::default()),
        };
        Ok::<_, ScoringError>((sampled?, slow?))
    })?;
    let images = batches.into_iter().flat_map(Arc::unwrap_or_clone).collect();
    Ok(Scored { sampled, images, slow })
}

/// Scores batches until there are no more.
fn score(
    reward: &WeightedReward,
    mut prompts: &[&Prompt],
    workers: &Workers,
    batches: &Receiver<Arc<Vec<Image>>>,
) -> Result<SlowScores, ScoringError> {
    let all = prompts.len();
    let mut scores = SlowScores::default();
    while let Ok(images) = batches.recv() {
        if workers.stopped() {
            return Err(Stopped.into());
        }
        let first = all - prompts.len();
        let (of_batch, rest) = prompts.split_at(images.len());
        prompts = rest;
        let of_batch = reward.score_slow(&images, of_batch);
        scores.append(of_batch.map_err(|error| error.in_batch_from(first))?);
    }
    Ok(scores)
}
