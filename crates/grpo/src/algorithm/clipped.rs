//! Flow-GRPO: the clipped policy gradient over the random steps of the rollout, with a KL penalty
//! to the reference.

mod metrics;

use burn::{prelude::*, tensor::backend::AutodiffBackend};
use flow::{Reduction, Sampler};
use rand::seq::index;
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value};

pub use metrics::{ClippedMetrics, DenoisingStep, OnPolicy, PolicyMetrics};

use super::{Algorithm, Ask, Batch, Example, Loss, Numbers, Other, Outcome, Question};
use crate::{
    config::{TrainedSteps, holdable_steps, trainable_steps},
    objective::{ObjectiveConfig, clipped_loss},
    trainer::TrainError,
    update::Replay,
};

/// The clipped objective of Flow-GRPO.
///
/// ```text
/// L = mean over transitions of [ ω·max(−A·ρ, −A·clip(ρ, 1 − low, 1 + high)) + β·KL(π_new ‖ π_ref) ]
/// ```
///
/// Source: arXiv 2505.05470, equation 6. The examples of the first term are transitions that drew
/// noise; the examples of the second are ODE steps, for which only the KL penalty is taken.
#[derive(Clone, Debug)]
pub struct Clipped {
    /// The settings of the loss.
    pub objective: ObjectiveConfig,
    /// How log-probabilities are reduced, as in the rollout.
    pub reduction: Reduction,
    /// The weight of each step of the grid.
    pub step_weights: Vec<f64>,
    trainable: Vec<usize>,
    holdable: Vec<usize>,
    count: usize,
}

/// Indices of the terms of the loss.
const POLICY: usize = 0;
const HELD: usize = 1;

/// Columns of the policy term's outcome; the outcome of the held term has the KL divergence alone.
const RATIO: usize = 0;
const LOG_RATIO: usize = 1;
const KL: usize = 2;
const ADVANTAGE: usize = 3;

impl Clipped {
    /// Creates the algorithm for rollouts of `sampler`.
    pub fn new(
        objective: ObjectiveConfig,
        reduction: Reduction,
        trained_steps: TrainedSteps,
        sampler: &Sampler,
    ) -> Self {
        let trainable = trainable_steps(sampler);
        Self {
            objective,
            reduction,
            step_weights: objective.step_weight.weights(sampler, &trainable),
            count: trained_steps.count(trainable.len()),
            trainable,
            holdable: holdable_steps(sampler),
        }
    }

    /// The clipped loss of transitions that drew noise, with the KL penalty.
    fn policy_gradient<'a, B: AutodiffBackend, C: Clone>(
        &'a self,
        replay: &'a Replay<'_, B::InnerBackend, C>,
        batch: &'a Batch,
        ask: &Ask<'_, B::InnerBackend, C>,
    ) -> Question<'a, B, C> {
        let (step, transition) = replay.sampler.step(batch.step);
        let device = replay.trajectories.device().clone();
        let advantages: Vec<f32> =
            batch.examples().map(|example| replay.advantages[example.row]).collect();
        let latent = replay.trajectories.latents(step.index, &batch.rows);
        let next = replay.trajectories.latents(step.index + 1, &batch.rows);
        let old_log_prob = batch.trained(replay.trajectories.log_probs(step.index, &batch.rows));
        let query = replay.query(step, latent.clone(), batch);
        let guided = self.objective.guidance_gradient;
        let reference =
            ask(Other::Reference, query.clone()).map(|velocity| replay.guided(velocity, guided));

        // ANCHOR: loss
        let loss = move |velocity: Tensor<B, 4>| {
            let velocity = replay.guided(velocity, guided);
            let gaussian =
                transition.gaussian(Tensor::from_inner(latent.clone()), velocity.clone(), step);
            let new_log_prob =
                batch.trained(gaussian.log_prob(Tensor::from_inner(next.clone()), self.reduction));
            let log_ratio = new_log_prob.clone().inner() - old_log_prob.clone();
            let advantage = Tensor::from_inner(Tensor::<B::InnerBackend, 1>::from_floats(
                advantages.as_slice(),
                &device,
            ));
            let old_log_prob = Tensor::<B, 1>::from_inner(old_log_prob.clone());
            let policy_loss =
                clipped_loss(new_log_prob, old_log_prob, advantage, self.objective.clip());
            let kl = reference.clone().map(|reference| {
                batch.trained(transition.kl(
                    self.objective.kl_form,
                    step,
                    velocity,
                    Tensor::from_inner(reference),
                ))
            });
            let mut loss = policy_loss.loss * self.step_weights[step.index];
            if let Some(kl) = kl.clone() {
                loss = loss + kl * replay.kl_weight;
            }
            let value = loss.sum() * batch.share;
            // ANCHOR_END: loss
            let kl = kl.map_or_else(|| log_ratio.zeros_like(), Tensor::inner);
            let numbers = Tensor::cat(
                vec![value.clone().inner(), policy_loss.ratio.inner(), log_ratio, kl],
                0,
            );
            Loss { value, numbers }
        };
        Question { query, loss: Box::new(loss) }
    }

    /// The KL penalty of ODE steps, computed as if they drew noise.
    fn hold<'a, B: AutodiffBackend, C: Clone>(
        &'a self,
        replay: &'a Replay<'_, B::InnerBackend, C>,
        batch: &'a Batch,
        ask: &Ask<'_, B::InnerBackend, C>,
    ) -> Question<'a, B, C> {
        let step = replay.sampler.step(batch.step).0;
        let query = replay.query(step, replay.trajectories.latents(step.index, &batch.rows), batch);
        let guided = self.objective.guidance_gradient;
        let reference = ask(Other::Reference, query.clone()).expect("a KL penalty has a reference");
        let reference = replay.guided(reference, guided);
        let loss = move |velocity: Tensor<B, 4>| {
            let velocity = replay.guided(velocity, guided);
            let transition = replay.sampler.stochastic();
            let kl = transition.kl(
                self.objective.kl_form,
                step,
                velocity,
                Tensor::from_inner(reference.clone()),
            );
            let kl = batch.trained(kl);
            Loss { numbers: kl.clone().inner(), value: kl.sum() * (batch.share * replay.kl_weight) }
        };
        Question { query, loss: Box::new(loss) }
    }
}

impl<B: AutodiffBackend, C: Clone> Algorithm<B, C> for Clipped {
    fn examples(&self, rows: &[usize], rng: &mut ChaCha8Rng) -> Vec<Vec<Example>> {
        let mut of_rows = |steps: &[usize], count: usize| {
            let chosen = index::sample(rng, steps.len(), count).into_vec();
            let at = |i: usize| rows.iter().map(move |&row| Example { step: steps[i], row });
            chosen.into_iter().flat_map(at).collect()
        };
        vec![
            of_rows(&self.trainable, self.count),
            of_rows(&self.holdable, self.objective.kl_ode_steps),
        ]
    }

    fn question<'a>(
        &'a self,
        replay: &'a Replay<'_, B::InnerBackend, C>,
        batch: &'a Batch,
        ask: &Ask<'_, B::InnerBackend, C>,
    ) -> Question<'a, B, C> {
        if batch.term == HELD {
            self.hold(replay, batch, ask)
        } else {
            self.policy_gradient(replay, batch, ask)
        }
    }

    fn outcome(
        &self,
        replay: &Replay<'_, B::InnerBackend, C>,
        batches: &[Batch],
        numbers: &[f64],
    ) -> Outcome {
        let examples: Vec<Example> = batches.iter().flat_map(Batch::examples).collect();
        if batches.first().is_some_and(|batch| batch.term == HELD) {
            let loss = batches[0].share * replay.kl_weight * numbers.iter().sum::<f64>();
            return Outcome { loss, examples, columns: vec![numbers.to_vec()] };
        }
        let Numbers { of_batches, mut columns } = Numbers::sorted(batches, 1, 3, numbers);
        let loss = of_batches.iter().fold(0.0, |sum, loss| sum + loss);
        columns
            .push(examples.iter().map(|example| replay.advantages[example.row].into()).collect());
        Outcome { loss, examples, columns }
    }

    fn check(&self, epoch: usize, first: &[Outcome], limit: f64) -> Result<(), TrainError> {
        let outcome = &first[POLICY];
        let deviations = outcome.columns[LOG_RATIO].iter().map(|log_ratio| log_ratio.abs());
        let Some((example, deviation)) =
            outcome.examples.iter().zip(deviations).max_by(|a, b| a.1.total_cmp(&b.1))
        else {
            return Ok(());
        };
        let clip_range = self.objective.clip().range();
        // `total_cmp` orders NaN above every number, so a NaN is found here.
        if deviation <= limit * clip_range {
            return Ok(());
        }
        let Example { step, row } = *example;
        Err(TrainError::OffPolicy {
            epoch,
            step,
            row,
            deviation,
            clip_ranges: deviation / clip_range,
            limit,
        })
    }

    fn metrics(&self, updates: &[&[Outcome]]) -> Map<String, Value> {
        ClippedMetrics::of(updates, self.objective.clip()).named()
    }

    fn headline(&self, metrics: &Map<String, Value>) -> String {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let [least, most] = ["min", "max"].map(|bound| number(&metrics["ratio"][bound]));
        let clipped = number(&metrics["clipped_low"]) + number(&metrics["clipped_high"]);
        format!("ratio {least:.4}…{most:.4}  clipped {clipped:.2}")
    }

    fn next_kl_weight(&self, kl_weight: f64, metrics: &Map<String, Value>) -> f64 {
        metrics["kl_reference"]
            .as_f64()
            .map_or(kl_weight, |kl| self.objective.kl_controller.next(kl_weight, kl))
    }
}
