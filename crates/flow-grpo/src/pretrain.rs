//! Pre-training: the base model learns to draw rendered scenes by flow matching.
//!
//! A share of the captions is deliberately wrong (`caption_noise`), as captions of the web are: the base learns to draw well and
//! to compose as well as its captions, which leaves reinforcement learning something to improve.

use std::{ops::Range, path::PathBuf};

use anyhow::{Context, Result, bail};
use burn::prelude::*;
use flow::{GridKind, Sampler, matching::{TimeDistribution, flow_matching_loss}};
use grpo::{
    ema::{EmaConfig, average},
    evaluate::{EncodedPrompt, Generator},
    images::Decoder,
    noise::{Key, Purpose, normal},
    optimizer::{AdamW, AdamWConfig},
    parameters::{self, Parameters},
    workers::Workers,
};
use models::{Dit, DitConfig, TokenIds, Vocabulary, weights::StoredAs};
use rand::{Rng, seq::IndexedRandom};
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use tasks::{
    image::Image,
    shapes::{self, Scene, Split},
};

use crate::{
    backend::{self, Device, Plain, Training},
    config::Checked,
    evaluation::{self, Accuracy},
    interrupt,
    network::{Architecture, Card},
    progress::{Progress, whole_seconds},
    run_dir::RunDir,
    training_state::TrainingState,
};

/// What the base model is and how it is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Seed of the weights and of every random draw.
    pub seed: u64,
    /// Sizes of the network.
    pub model: DitConfig,
    /// Optimiser updates.
    pub steps: usize,
    /// Pictures per update.
    pub batch_size: usize,
    /// Pictures per forward and backward pass.
    pub micro_batch: usize,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// Updates over which the learning rate rises from 0.
    pub warm_up: usize,
    /// Updates at the end over which the learning rate falls to 0, as a share of `steps`.
    pub cool_down: f64,
    /// Which times the loss is taken at.
    pub times: TimeDistribution,
    /// Share of captions that describe a similar but different scene.
    pub caption_noise: f64,
    /// Share of captions that are empty, for classifier-free guidance.
    pub caption_dropout: f64,
    /// The average of the weights, which is what is kept.
    pub ema: EmaConfig,
    /// Updates between two checkpoints.
    pub checkpoint_every: usize,
    /// Updates between two evaluations.
    pub evaluate_every: usize,
    /// Pictures of each kind of prompt in an evaluation.
    pub evaluation_samples: usize,
}

impl PretrainConfig {
    /// The learning rate of an update relative to its peak: linear warm-up, constant, linear cool-down
    /// (arXiv 2405.18392: as good as a cosine, and a run can be lengthened).
    fn rate(&self, step: usize) -> f64 {
        let warm = (step + 1) as f64 / self.warm_up.max(1) as f64;
        let cool = (self.steps - step) as f64 / (self.steps as f64 * self.cool_down).max(1.0);
        warm.min(cool).min(1.0)
    }

}

impl Checked for PretrainConfig {
    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.model.problems().into_iter().map(|problem| format!("model.{problem}")).collect();
        let mut positive = |name: &str, value: usize| {
            if value == 0 {
                problems.push(format!("{name} must be at least 1"));
            }
        };
        positive("steps", self.steps);
        positive("batch_size", self.batch_size);
        positive("micro_batch", self.micro_batch);
        positive("checkpoint_every", self.checkpoint_every);
        positive("evaluate_every", self.evaluate_every);
        positive("evaluation_samples", self.evaluation_samples);
        positive("ema.every", self.ema.every);
        for (name, share) in
            [("caption_noise", self.caption_noise), ("caption_dropout", self.caption_dropout), ("cool_down", self.cool_down)]
        {
            if !(0.0..=1.0).contains(&share) {
                problems.push(format!("{name} ({share}) must lie between 0 and 1"));
            }
        }
        problems
    }
}

/// The counters of a pre-training checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Counters {
    step: usize,
}

/// One line of `metrics.jsonl` per interval.
#[derive(Debug, Serialize)]
struct StepMetrics {
    event: &'static str,
    step: usize,
    loss: f64,
    gradient_norm: f64,
    rate: f64,
    images_per_second: f64,
}

/// The line of an evaluation.
#[derive(Debug, Serialize)]
struct EvalMetrics {
    event: &'static str,
    step: usize,
    #[serde(flatten)]
    accuracy: Accuracy,
}

/// Updates between two lines of `metrics.jsonl`.
const REPORT_EVERY: usize = 50;

/// Trains the base model; returns where its checkpoint is.
pub fn pretrain(config: &PretrainConfig, run: &mut RunDir, device: &Device) -> Result<PathBuf> {
    let mut session = Session::start(config, run, device)?;
    let progress = Progress::new("pre-training", config.steps, "steps");
    progress.start_at(session.step);
    let mut interval = Interval::default();
    while session.step < config.steps {
        let outcome = session.update()?;
        interval.add(&outcome);
        progress.advance(1);
        if session.step.is_multiple_of(REPORT_EVERY) {
            let metrics = interval.take(session.step, config.rate(session.step - 1), config.batch_size);
            progress.say(&format!("step {:>6}  loss {:.4}  {:.0} images/s", metrics.step, metrics.loss, metrics.images_per_second));
            run.append(&metrics)?;
        }
        let last = session.step == config.steps;
        if last || session.step.is_multiple_of(config.evaluate_every) {
            let accuracy = session.evaluate(run)?;
            progress.say(&format!("step {:>6}  {}", session.step, accuracy.line()));
            run.append(&EvalMetrics { event: "eval", step: session.step, accuracy })?;
        }
        let interrupted = interrupt::requested();
        if last || interrupted || session.step.is_multiple_of(config.checkpoint_every) {
            session.save(run)?;
        }
        if interrupted {
            return Err(interrupt::Interrupted { resume: run.resume_command("pretrain") }.into());
        }
    }
    let took = progress.finish();
    eprintln!("pre-training took {}", whole_seconds(took));
    Ok(run.base_checkpoint())
}

/// Sums since the last report.
#[derive(Debug, Default)]
struct Interval {
    loss: f64,
    gradient_norm: f64,
    steps: usize,
    started: Option<std::time::Instant>,
}

impl Interval {
    fn add(&mut self, outcome: &Outcome) {
        self.started.get_or_insert_with(|| std::time::Instant::now() - outcome.took);
        self.loss += outcome.loss;
        self.gradient_norm += outcome.gradient_norm;
        self.steps += 1;
    }

    fn take(&mut self, step: usize, rate: f64, batch_size: usize) -> StepMetrics {
        let Self { loss, gradient_norm, steps, started } = std::mem::take(self);
        let n = steps.max(1) as f64;
        let seconds = started.map_or(f64::NAN, |started| started.elapsed().as_secs_f64());
        let images_per_second = n * batch_size as f64 / seconds;
        StepMetrics { event: "step", step, loss: loss / n, gradient_norm: gradient_norm / n, rate, images_per_second }
    }
}

/// What one update did.
struct Outcome {
    loss: f64,
    gradient_norm: f64,
    took: std::time::Duration,
}

/// Pre-training between two updates.
struct Session<'a> {
    config: &'a PretrainConfig,
    device: &'a Device,
    card: Card,
    captions: Captions,
    held_out: Vec<EncodedPrompt<TokenIds>>,
    workers: Workers,
    network: Dit<Plain>,
    average: Parameters<Plain>,
    optimizer: AdamW<Plain>,
    step: usize,
}

impl<'a> Session<'a> {
    /// A fresh start, or the continuation of what the run directory holds.
    fn start(config: &'a PretrainConfig, run: &RunDir, device: &'a Device) -> Result<Self> {
        let vocabulary = Vocabulary::new(shapes::vocabulary());
        let made_by = format!("flow-grpo {} pretrain, seed {}, {} steps", env!("CARGO_PKG_VERSION"), config.seed, config.steps);
        let card = Card { architecture: Architecture::Dit(config.model.clone()), vocabulary, made_by };
        let network = config.model.init::<Plain>(card.vocabulary.len(), config.seed, device);
        let weights = Parameters::of(&network);
        let mut session = Self {
            config,
            device,
            captions: Captions::new(&card, config)?,
            held_out: card.encode(&shapes::prompts(Split::Test).prompts)?,
            card,
            workers: Workers::new(backend::workers()).context("cannot start worker threads")?,
            average: weights.clone(),
            optimizer: AdamW::new(config.optimizer, &weights),
            network,
            step: 0,
        };
        let saved = run.training_state();
        if saved.exists() {
            let (state, Counters { step }) = TrainingState::read(&session.network, &saved, device)?;
            session.network = state.weights.put_into(session.network);
            session.average = state.average;
            session.optimizer = AdamW::resume(config.optimizer, state.optimizer);
            session.step = step;
        }
        Ok(session)
    }

    fn update(&mut self) -> Result<Outcome> {
        let started = std::time::Instant::now();
        let rows = self.config.batch_size;
        let micro_batches = (0..rows).step_by(self.config.micro_batch).map(|from| from..(from + self.config.micro_batch).min(rows));
        let jobs: Vec<(Dit<Plain>, Range<usize>)> = micro_batches.map(|rows| (self.network.clone(), rows)).collect();
        let results = self.workers.map(jobs, |(network, rows)| self.loss_and_gradient(network, rows));
        let loss: f64 = results.iter().map(|(loss, _)| loss).sum();
        let gradient = results.into_iter().map(|(_, gradient)| gradient).reduce(|a, b| a.zip(&b, |a, b| a + b));
        let gradient = gradient.expect("a batch has at least one micro-batch");
        let rate = self.config.rate(self.step);
        let (weights, gradient_norm) = self.optimizer.update(&Parameters::of(&self.network), &gradient, rate);
        if !(loss.is_finite() && gradient_norm.is_finite()) {
            bail!("step {}: loss {loss}, gradient norm {gradient_norm}: lower the learning rate", self.step);
        }
        self.network = weights.put_into(self.network.clone());
        self.step += 1;
        if self.step.is_multiple_of(self.config.ema.every) {
            let decay = self.config.ema.decay_at(self.step / self.config.ema.every);
            self.average = average(&self.average, &weights, decay);
        }
        Ok(Outcome { loss, gradient_norm, took: started.elapsed() })
    }

    /// The share of one micro-batch in the batch's mean loss and its gradient.
    fn loss_and_gradient(&self, network: Dit<Plain>, rows: Range<usize>) -> (f64, Parameters<Plain>) {
        let example = |row: usize| self.captions.example(self.config, self.step, row);
        let examples: Vec<Example> = rows.map(example).collect();
        let images: Vec<Image> = examples.iter().map(|example| example.image.clone()).collect();
        let conditions: Vec<TokenIds> = examples.iter().map(|example| example.caption.clone()).collect();
        let times: Vec<f32> = examples.iter().map(|example| example.time as f32).collect();
        let keys: Vec<Key> = examples.iter().map(|example| example.noise).collect();
        let data = Decoder::Pixels.encode::<Plain>(&images, self.device);
        let noise = normal::<Plain>(&keys, self.card.latent_shape(), self.device);
        let time = Tensor::<Plain, 1>::from_floats(times.as_slice(), self.device);
        let network: Dit<Training> = parameters::trainable(network);
        let [data, noise] = [data, noise].map(Tensor::from_inner);
        let loss = flow_matching_loss(&network, data, noise, Tensor::from_inner(time), &conditions);
        let loss = loss.sum() / self.config.batch_size as f64;
        let gradient = parameters::gradients(&network, loss.backward());
        (loss.into_scalar().elem(), gradient)
    }

    fn evaluate(&self, run: &RunDir) -> Result<Accuracy> {
        let network = self.average.put_into(self.network.clone());
        let rows = evaluation::balanced_rows(&self.held_out, self.config.evaluation_samples);
        let progress = Progress::new("evaluation", rows.len(), "images");
        let generator = Generator {
            sampler: Sampler::ode(GridKind::Linear.grid(40)?),
            shape: self.card.latent_shape(),
            decoder: Decoder::Pixels,
            batch: 16,
            workers: &self.workers,
        };
        let key = Key::new(self.config.seed, Purpose::Evaluation);
        let images = generator.generate(&network, &self.held_out, &rows, key, self.device, |n| progress.advance(n));
        progress.finish();
        evaluation::write_grid(&images, &self.held_out, &rows, &run.samples(&format!("step-{:06}", self.step)))?;
        evaluation::accuracy(&images, &self.held_out, &rows)
    }

    /// The resumable state and the base checkpoint, each written in one go.
    fn save(&self, run: &RunDir) -> Result<()> {
        let weights = Parameters::of(&self.network);
        let state = TrainingState { weights, average: self.average.clone(), optimizer: self.optimizer.state().clone() };
        state.write(&self.network, &Counters { step: self.step }, &run.training_state())?;
        self.card.write(&self.average.put_into(self.network.clone()), StoredAs::F32, &run.base_checkpoint())
    }
}

/// Where captions and scenes come from: the training prompts, tag by tag.
struct Captions {
    by_tag: Vec<Vec<(shapes::Metadata, TokenIds)>>,
    empty: TokenIds,
}

/// One training example.
struct Example {
    image: Image,
    caption: TokenIds,
    time: f64,
    noise: Key,
}

impl Captions {
    fn new(card: &Card, config: &PretrainConfig) -> Result<Self> {
        let mut by_tag: std::collections::BTreeMap<String, Vec<_>> = std::collections::BTreeMap::new();
        for prompt in shapes::prompts(Split::Train).prompts {
            let metadata = prompt.metadata.with_context(|| format!("prompt \"{}\" has no metadata", prompt.text))?;
            by_tag.entry(prompt.tag).or_default().push((metadata, card.condition(&prompt.text)?));
        }
        let empty = card.vocabulary.encode("", config.model.text_length)?;
        Ok(Self { by_tag: by_tag.into_values().collect(), empty })
    }

    /// The example of a row of a step: every tag equally often.
    fn example(&self, config: &PretrainConfig, step: usize, row: usize) -> Example {
        let key = Key::new(config.seed, Purpose::Pretraining).epoch(step).row(row, 0);
        let mut rng = key.rng();
        let prompts = self.by_tag.choose(&mut rng).expect("there are tags");
        let (metadata, caption) = prompts.choose(&mut rng).expect("a tag has prompts");
        let scene = if rng.random_bool(config.caption_noise) {
            Scene::sample(&metadata.similar(&mut rng), config.model.image_size, &mut rng)
        } else {
            Scene::sample(metadata, config.model.image_size, &mut rng)
        };
        let caption = if rng.random_bool(config.caption_dropout) { &self.empty } else { caption };
        let time = config.times.time(rng.random(), StandardNormal.sample(&mut rng));
        Example { image: shapes::render(&scene, config.model.image_size), caption: caption.clone(), time, noise: key.step(1) }
    }
}
