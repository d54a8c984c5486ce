//! A session of pre-training, from its start or from a checkpoint to its end.

mod checkpoint;

use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use flow::VelocityField;
use models::TokenIds;
use pipelines::{Architecture, Own, Pipeline, Trainable};
use run::{Expected, Recorded, RunDir, SampleSet};
use serde::Serialize;
use tasks::reward::WeightedReward;
use training::{
    loss_scale::LossScale,
    noise::{Key, Purpose},
    optimisation::{Optimisation, Update},
    optimizer::Optimizer,
    parameters::Trained,
    workers::Workers,
};

use crate::{
    backend::{self, Device, Plain, Training},
    evaluation::{Evaluation, Evaluator, Prompts, Sampling},
    machine::needs::{self, Needs},
    pretrain::{batches::Batches, config::PretrainConfig, examples::Examples},
    rewards::{self, Surroundings},
    terminal::{
        interrupt, output,
        progress::{Progress, whole_seconds},
    },
};

/// One line of `metrics.jsonl` per interval.
#[derive(Debug, Serialize)]
struct StepMetrics {
    event: &'static str,
    step: usize,
    loss: f64,
    gradient_norm: f64,
    gradient_rms: f64,
    learning_rate: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_scale: Option<f64>,
    images_per_second: f64,
}

/// The line of an evaluation.
#[derive(Debug, Serialize)]
struct EvaluationMetrics {
    event: &'static str,
    step: usize,
    #[serde(flatten)]
    evaluation: Evaluation,
}

/// Updates between two lines of `metrics.jsonl`.
const REPORT_EVERY: usize = 50;

/// The state of pre-training between two updates.
pub struct Session<'a, N: Trainable<Training>> {
    config: &'a PretrainConfig,
    device: &'a Device,
    own: Own<Training, N>,
    batches: Batches<'a>,
    held_out: Prompts<TokenIds>,
    /// The reward of evaluations, if there is one.
    reward: Option<WeightedReward>,
    workers: Workers,
    network: N::InnerModule,
    trained: Trained,
    optimisation: Optimisation<Plain>,
    step: usize,
}

impl<'a, N> Session<'a, N>
where
    N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
{
    /// Starts pre-training, or resumes it from the run directory.
    pub fn start(
        config: &'a PretrainConfig,
        own: Own<Training, N>,
        run: &RunDir,
        device: &'a Device,
    ) -> Result<Self> {
        let (card, network) = (own.card.clone(), own.network()?);
        let trained = Trained::in_layers(&network, config.layers.as_deref().unwrap_or_default())
            .context("layers")?;
        let weights = trained.of(&network);
        let optimizer = Optimizer::new(config.optimizer, &weights).with_muon(
            config.muon.unwrap_or_default(),
            trained.matrices(&network, network.blocks()),
        );
        let mut optimisation = Optimisation::new(weights, optimizer, config.ema);
        if backend::SCALES_LOSS {
            optimisation = optimisation.scaling_loss(LossScale::default());
        }
        let (held_out, reward) = match card.architecture {
            Architecture::Dit(_) => config.data.evaluated(),
            Architecture::Mlp(_) => ("toy", None),
        };
        let held_out = Prompts::open(held_out, &own)?;
        let image_shape = own.image_shape();
        let surroundings = Surroundings { image_shape, device, cache: None };
        let reward = reward.map(|name| rewards::by_name(name, &surroundings)).transpose()?;
        let mut session = Self {
            config,
            device,
            own,
            batches: Batches { config, device, examples: Examples::new(&card, config.data)?, card },
            held_out,
            reward,
            workers: Workers::new(backend::workers()).context("cannot start worker threads")?,
            optimisation,
            network,
            trained,
            step: 0,
        };
        session.resume(run)?;
        session.needs().check()?;
        Ok(session)
    }
}

impl<N> Session<'_, N>
where
    N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
{
    /// Estimated memory: data and noise of a batch.
    fn needs(&self) -> Needs {
        let (trained, rows) = (self.optimisation.weights().count(), self.config.batch_size);
        let micro_batch = self.config.micro_batch.min(rows);
        let batches = needs::Batches { key: "micro_batch", micro_batch, rollout_batch: 0, rows: 1 };
        let (footprint, latent_shape) = (self.own.footprint(), self.own.latent_shape());
        let network = needs::Network { footprint, latent_shape, trained, frozen: 0 };
        Needs::new(needs::Place::here(), network, 2 * rows, batches)
    }

    pub fn run(mut self, run: &mut RunDir) -> Result<()> {
        run.describe(self.config)?.iter().for_each(output::log);
        output::log(self.needs().line());
        let fresh = run.newest_checkpoints()?.is_empty();
        run.set_aside_after(self.step)?;
        let recorded = (!fresh).then_some(Recorded { done: self.step, evaluation_due: false });
        let expected = Expected { event: "step", every: REPORT_EVERY };
        run.record_after(recorded, expected)?.iter().for_each(output::log);
        // Save on resume, too: a kill may have come between a checkpoint and the files derived from
        // it.
        self.save(run)?;
        let progress = Progress::new("pre-training", self.config.steps, "steps");
        progress.start_at(self.step);
        let (mut interval, mut interval_started) = (Vec::new(), Instant::now());
        while self.step < self.config.steps {
            interval.push(self.update()?);
            progress.advance(1);
            if self.step.is_multiple_of(REPORT_EVERY) {
                let metrics = self.metrics(&std::mem::take(&mut interval), interval_started);
                interval_started = Instant::now();
                progress.say(&format!(
                    "step {:>6}  loss {:.4}  {:.0} images/s",
                    metrics.step, metrics.loss, metrics.images_per_second
                ));
                run.append(&metrics)?;
            }
            let last = self.step == self.config.steps;
            if last || self.step.is_multiple_of(self.config.evaluate_every) {
                let evaluation = self.evaluate(run)?;
                progress.say(&format!("step {:>6}  {}", self.step, evaluation.line()));
                run.append(&EvaluationMetrics { event: "eval", step: self.step, evaluation })?;
                interval_started = Instant::now();
            }
            let interrupted = interrupt::requested();
            if last || interrupted || self.step.is_multiple_of(self.config.checkpoint_every) {
                self.save(run)?;
            }
            if interrupted {
                return Err(
                    interrupt::Interrupted { resume: run.resume_command("pretrain") }.into()
                );
            }
        }
        output::log(format!("pre-training took {}", whole_seconds(progress.finish())));
        Ok(())
    }

    fn metrics(&self, interval: &[Update], started: Instant) -> StepMetrics {
        let n = interval.len().max(1) as f64;
        let taken = interval.iter().filter(|update| update.taken).count().max(1) as f64;
        let of_taken = |number: fn(&Update) -> f64| {
            interval.iter().filter(|update| update.taken).map(number).sum::<f64>() / taken
        };
        StepMetrics {
            event: "step",
            step: self.step,
            loss: interval.iter().map(|update| update.loss).sum::<f64>() / n,
            gradient_norm: of_taken(|update| update.gradient_norm),
            gradient_rms: of_taken(|update| update.gradient_rms),
            learning_rate: self.config.optimizer.learning_rate * self.config.rate(self.step - 1),
            loss_scale: self.optimisation.loss_scale().map(|scale| scale.factor),
            images_per_second: n * self.config.batch_size as f64 / started.elapsed().as_secs_f64(),
        }
    }

    fn update(&mut self) -> Result<Update> {
        let rows = self.config.batch_size;
        let micro_batches = (0..rows)
            .step_by(self.config.micro_batch)
            .map(|from| from..(from + self.config.micro_batch).min(rows));
        let trained = &self.trained;
        let jobs = micro_batches.map(|rows| (self.network.clone(), rows)).collect();
        let (batches, step) = (&self.batches, self.step);
        let scale = self.optimisation.loss_factor();
        let results = self.workers.map(jobs, |(network, rows)| {
            batches.loss_and_gradient::<N>(network, trained, step, rows, scale)
        })?;
        let loss: f64 = results.iter().map(|(loss, _)| loss).sum();
        let gradient = results.into_iter().map(|(_, gradient)| gradient).reduce(|a, b| a.plus(&b));
        let gradient = gradient.context("a batch has at least one micro-batch")?;
        let rate = self.config.rate(self.step);
        let update = self.optimisation.take(loss, &gradient, rate).map_err(|numbers| {
            anyhow!("step {}: {numbers}; lower optimizer.learning_rate", self.step)
        })?;
        self.step += 1;
        if update.taken {
            self.network = self.optimisation.weights().put_into(self.network.clone());
        }
        Ok(update)
    }

    fn evaluate(&self, run: &mut RunDir) -> Result<Evaluation> {
        let evaluator = Evaluator {
            pipeline: &self.own,
            workers: &self.workers,
            device: self.device,
            sampling: Sampling {
                key: Key::new(self.config.seed, Purpose::Evaluation),
                grid: flow::GridKind::Linear {},
                steps: 40,
                guidance: 1.0,
            },
        };
        let network = self.averaged();
        let rows = self.held_out.rows(self.config.evaluation_samples);
        let images = evaluator.generate(network, &self.held_out, &rows)?;
        self.held_out.write_images(
            &images,
            &rows,
            &run.samples(SampleSet::Pretraining, self.step),
        )?;
        run.append_image(SampleSet::Pretraining, self.step)?;
        Evaluation::of(&self.held_out, &images, &rows, self.reward.as_ref())
    }

    /// The network with averaged weights, which is evaluated and saved.
    fn averaged(&self) -> N::InnerModule {
        self.optimisation.average().put_into(self.network.clone())
    }
}
