//! The plan of a run, in words: its size, memory and time.

use std::{collections::BTreeSet, time::Duration};

use grpo::{trajectories::KeptOn, update};
use pipelines::Pipeline;
use run::RunDir;
use training::parameters::Parameters;

use super::{Session, evaluate::EVALUATION_STEPS};
use crate::{
    backend::{self, ON_CPU, Training},
    evaluation::Prompts,
    machine::needs::{self, Batches, Needs},
    train::config::TrainConfig,
};

/// Cost of a trained transition in denoising steps: a forward and a backward pass.
const TRANSITION_COST: usize = 4;

impl<P: Pipeline<Training>> Session<'_, P> {
    /// Describes the run for people.
    pub(super) fn plan(&self, run: &RunDir) -> String {
        let grpo = &self.config.grpo;
        let images = grpo.groups * grpo.group_size;
        let plan = format!(
            "plan: {} epochs x {} prompts x {} images = {} images, {} denoising steps each; up to {} transitions and {} updates an \
             epoch\n      {} trainable parameters, {} backend, base {} ({}), run directory {}",
            self.config.epochs,
            grpo.groups,
            grpo.group_size,
            self.config.epochs as u128 * images as u128,
            grpo.rollout.steps,
            grpo.transitions_per_epoch(),
            grpo.updates_per_epoch,
            self.trainer.weights().count(),
            backend::NAME,
            self.config.base,
            self.pipeline.made_by(),
            run.path().display(),
        );
        format!("{plan}\n      {}\n      {}", self.evaluation_plan(), self.needs().line())
    }

    /// Describes the evaluations for people.
    fn evaluation_plan(&self) -> String {
        let samples = self.config.evaluation_samples;
        let rows = |prompts: &Prompts<P::Condition>| prompts.rows(samples);
        let size = |prompts: &Prompts<P::Condition>| {
            format!("{} images for {} prompts", rows(prompts).len(), prompts.0.len())
        };
        let distinct: BTreeSet<usize> =
            rows(&self.validation).iter().map(|row| row.prompt).collect();
        let left_out = self.validation.0.len() - distinct.len();
        let note = match left_out {
            0 => String::new(),
            left_out => format!(
                " ({left_out} of them without an image; evaluation_samples=0 takes each once)"
            ),
        };
        let ends = [("test", &self.test), ("unseen", &self.unseen)].into_iter();
        let ends = ends.filter_map(|(name, prompts)| {
            Some(format!("; {name} at start and end: {}", size(prompts.as_ref()?)))
        });
        let every = self.config.evaluate_every;
        let ends: String = ends.collect();
        format!(
            "validation every {every} epochs: {}{note}{ends}; {EVALUATION_STEPS} ODE steps",
            size(&self.validation)
        )
    }

    /// Estimated memory. Latents exist twice while rollout batches are concatenated, and once more
    /// as images.
    pub(super) fn needs(&self) -> Needs {
        let grpo = &self.config.grpo;
        let kept = grpo.kept_latents();
        let on_device = ON_CPU || grpo.rollout.trajectories == KeptOn::Device;
        let latents = if on_device { 2 * kept + 1 } else { 1 };
        let weights = self.trainer.weights();
        let frozen = Parameters::of(&self.trainer.averaged_policy()).bytes() - weights.bytes();
        let rows = grpo.groups * grpo.group_size;
        let guided = rows_of(self.pipeline.classifier_free(grpo.rollout.guidance));
        let (key, replayed) = match grpo.batches() {
            update::Batches::Of(size) => ("grpo.micro_batch", size),
            update::Batches::AsSampled(size) => ("grpo.rollout_batch", size),
        };
        let batches = Batches {
            key,
            micro_batch: replayed.min(rows),
            rollout_batch: grpo.rollout_batch.min(rows),
            rows: guided,
        };
        let network = needs::Network {
            footprint: self.pipeline.footprint(),
            latent_shape: self.pipeline.latent_shape(),
            trained: weights.count(),
            frozen,
        };
        // Those of an update, or those of the batches that the workers sample, with the empty one.
        let together = backend::workers() * (batches.rollout_batch.min(grpo.groups) + 1);
        let conditions = together.max(grpo.groups + 1) as u64 * network.footprint.condition_bytes;
        let needs = Needs::new(needs::Place::here(), network, rows * latents, batches);
        Needs { rewards: self.reward_bytes, conditions, ..needs }
    }

    /// Estimates the time of training from the pace of the first evaluation.
    pub(super) fn estimated_time(&self, evaluation: Duration) -> Duration {
        let TrainConfig { grpo, epochs, evaluate_every, evaluation_samples, .. } = self.config;
        let sets = std::iter::once(&self.validation).chain(&self.test).chain(&self.unseen);
        let evaluated: usize = sets.map(|prompts| prompts.rows(*evaluation_samples).len()).sum();
        let reference = usize::from(grpo.objective.kl_weight() > 0.0);
        let rollout = grpo.groups * grpo.group_size * grpo.rollout.steps;
        let epoch = rollout + grpo.transitions_per_epoch() * (TRANSITION_COST + reference);
        let [trained, shown] = [grpo.rollout.guidance, self.config.evaluation_guidance]
            .map(|scale| rows_of(self.pipeline.classifier_free(scale)));
        let (trained, shown) = (trained * epoch, shown * evaluated);
        let training = *epochs as f64 * trained as f64 / (shown * EVALUATION_STEPS) as f64;
        let seconds = evaluation.as_secs_f64() * (training + (epochs / evaluate_every) as f64);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Network rows per sample: 2 with guidance, otherwise 1.
fn rows_of(guidance: f64) -> usize {
    if guidance == 1.0 { 1 } else { 2 }
}
