//! Pre-training of a base model by flow matching.
//!
//! A share of the captions is deliberately wrong (`captions.wrong`), as on the web: the base learns
//! to draw well and to compose as well as its captions, which leaves something for reinforcement
//! learning to improve.

use std::{ops::Range, path::PathBuf, time::Instant};

use anyhow::{Context, Error, Result, anyhow, ensure};
use burn::prelude::*;
use flow::{
    VelocityField,
    matching::{TimeDistribution, flow_matching_loss},
};
use models::{TokenIds, Vocabulary, weights::StoredAs};
use pipelines::{Architecture, Card, Own, OwnVisitor, Pipeline, Trainable, Weights, open_own};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use run::{Expected, Recorded, RunDir, SampleSet};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasks::{image::Image, reward::WeightedReward, shapes, toy};
use training::{
    ema::EmaConfig,
    loss_scale::LossScale,
    noise::{Key, Purpose, normal},
    optimisation::{Optimisation, Update},
    optimizer::{AdamWConfig, MuonConfig, Optimizer},
    parameters::{Parameters, Trained},
    ranges::MOST,
    schedule::{self, Setting},
    workers::Workers,
};

use crate::{
    backend::{self, Device, Plain, Training},
    checkpoints,
    config::{self, Checked},
    evaluation::{Evaluation, Evaluator, Prompts, Sampling},
    examples::{CaptionConfig, Drawn, Examples},
    host, interrupt,
    memory::{self, Needs},
    outcome::BrokeRun,
    output,
    progress::{Progress, whole_seconds},
    rewards::{self, Surroundings},
    training_state::{self, SavedState},
};

/// Configuration of pre-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Seed of the weights and of all random numbers.
    pub seed: u64,
    /// Number of optimiser updates.
    #[schemars(range(min = 1, max = MOST))]
    pub steps: usize,
    /// Images per update.
    #[schemars(range(min = 1, max = MOST))]
    pub batch_size: usize,
    /// Images per forward and backward pass.
    #[schemars(range(min = 1, max = MOST))]
    pub micro_batch: usize,
    /// Updates over which the learning rate rises from 0.
    pub warm_up: usize,
    /// Updates at the end over which the learning rate falls to 0, as a share of `steps`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub cool_down: f64,
    /// Updates between two checkpoints.
    #[schemars(range(min = 1, max = MOST))]
    pub checkpoint_every: usize,
    /// Updates between two evaluations.
    #[schemars(range(min = 1, max = MOST))]
    pub evaluate_every: usize,
    /// Images per kind of prompt in an evaluation.
    #[schemars(range(min = 1, max = MOST))]
    pub evaluation_samples: usize,
    /// The initial weights: the name of a built-in checkpoint or the path of one; random weights if
    /// there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The task whose images a `dit` learns to draw; an `mlp` learns the points of the toy task.
    #[serde(default)]
    pub task: Drawn,
    /// Kind and sizes of the network.
    pub model: Architecture,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// The optimiser of the matrices of transformer blocks; AdamW takes them too if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon: Option<MuonConfig>,
    /// The distribution of times in the loss.
    pub times: TimeDistribution,
    /// The composition of the captions.
    pub captions: CaptionConfig,
    /// The exponential moving average of the weights, which is saved.
    pub ema: EmaConfig,
}

impl PretrainConfig {
    /// The learning rate of an update relative to its peak.
    fn rate(&self, step: usize) -> f64 {
        schedule::rate(step, self.steps, self.warm_up, self.cooling())
    }

    /// Updates over which the learning rate falls.
    fn cooling(&self) -> usize {
        (self.steps as f64 * self.cool_down) as usize
    }
}

impl Checked for PretrainConfig {
    const MAY_CHANGE: &'static [&'static str] =
        &["steps", "checkpoint_every", "evaluate_every", "evaluation_samples"];

    fn problems(&self) -> Vec<String> {
        let mut problems = settings::problems(self);
        // Relations between the sizes; their ranges are checked above.
        let mut of_model: Vec<String> =
            self.model.problems().into_iter().map(|problem| format!("model.{problem}")).collect();
        of_model.retain(|problem| !problems.contains(problem));
        problems.extend(of_model);
        match &self.model {
            Architecture::Dit(sizes) if sizes.image_size < shapes::SMALLEST_IMAGE => problems.push(format!(
                "model.image_size ({}) must be at least {}: the objects of smaller scenes cannot be told apart",
                sizes.image_size,
                shapes::SMALLEST_IMAGE
            )),
            Architecture::Dit(sizes) if sizes.channels != 3 => {
                problems.push(format!("model.channels ({}) must be 3: scenes are RGB images", sizes.channels));
            }
            Architecture::Mlp(sizes) if sizes.elements != 2 => {
                problems.push(format!("model.elements ({}) must be 2: the toy task draws points of the plane", sizes.elements));
            }
            Architecture::Dit(_) | Architecture::Mlp(_) => {}
        }
        if (0.0..=1.0).contains(&self.cool_down) {
            let cool_down = format!("cool_down ({}) of steps", self.cool_down);
            problems.extend(schedule::problem(
                Setting { key: "warm_up", value: self.warm_up },
                Setting { key: &cool_down, value: self.cooling() },
                Setting { key: "steps", value: self.steps },
            ));
        }
        problems
    }
}

/// The counters of a pre-training checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Counters {
    step: usize,
    config: PretrainConfig,
}

/// Number of checkpoints that are kept.
const KEPT_CHECKPOINTS: usize = 2;

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

/// Trains the base model and returns the path of its checkpoint.
pub fn pretrain(config: &PretrainConfig, run: &mut RunDir, device: &Device) -> Result<PathBuf> {
    let vocabulary = match config.model {
        Architecture::Dit(_) => config.task.vocabulary(),
        Architecture::Mlp(_) => {
            let prompts = toy::prompts().prompts;
            let words = prompts.iter().flat_map(|prompt| prompt.text.split(' '));
            Vocabulary::new(words.map(str::to_owned))
        }
    };
    let made_by = format!(
        "flow-grpo {} pretrain, seed {}, {} steps",
        env!("CARGO_PKG_VERSION"),
        config.seed,
        config.steps
    );
    let fresh = Card { architecture: config.model.clone(), vocabulary, made_by };
    let (card, weights) = match &config.base {
        Some(base) => continued(fresh, base)?,
        None => (fresh, Weights::Random { seed: config.seed }),
    };
    open_own::<Training, _>(card, &weights, &host::machine(device), Work { config, run, device })
}

/// Pre-training of a network of either kind.
struct Work<'a> {
    config: &'a PretrainConfig,
    run: &'a mut RunDir,
    device: &'a Device,
}

impl OwnVisitor<Training> for Work<'_> {
    type Output = PathBuf;
    type Error = Error;

    fn visit<N>(self, own: Own<Training, N>) -> Result<PathBuf>
    where
        N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
    {
        let Self { config, run, device } = self;
        Session::start(config, own, run, device)?.run(run).context(BrokeRun)?;
        Ok(run.base_checkpoint())
    }
}

/// Loads the weights of a checkpoint, with a card that names their origin.
///
/// # Errors
/// If the checkpoint cannot be read, or has another network or vocabulary than `card`.
fn continued(card: Card, base: &str) -> Result<(Card, Weights)> {
    let file = checkpoints::open(base)?;
    let from = Card::of(&file)?;
    ensure!(
        from.architecture == card.architecture,
        "base `{base}` is a network of other sizes than `model` asks for:\n  base:  {}\n  model: {}",
        serde_json::to_string(&from.architecture)?,
        serde_json::to_string(&card.architecture)?
    );
    ensure!(
        from.vocabulary == card.vocabulary,
        "base `{base}` knows other words than the task's prompts have"
    );
    let made_by = format!("{}, from {base} ({})", card.made_by, from.made_by);
    Ok((Card { made_by, ..card }, Weights::File(file)))
}

/// The state of pre-training between two updates.
struct Session<'a, N: Trainable<Training>> {
    config: &'a PretrainConfig,
    device: &'a Device,
    own: Own<Training, N>,
    batches: Batches<'a>,
    held_out: Prompts<TokenIds>,
    /// The reward of evaluations, if there is one.
    reward: Option<WeightedReward>,
    workers: Workers,
    network: N::InnerModule,
    optimisation: Optimisation<Plain>,
    step: usize,
}

impl<'a, N> Session<'a, N>
where
    N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
{
    /// Starts pre-training, or resumes it from the run directory.
    fn start(
        config: &'a PretrainConfig,
        own: Own<Training, N>,
        run: &RunDir,
        device: &'a Device,
    ) -> Result<Self> {
        let (card, network) = (own.card.clone(), own.network()?);
        let trained = Trained::all(&network);
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
            Architecture::Dit(_) => config.task.evaluated(),
            Architecture::Mlp(_) => ("toy", None),
        };
        let held_out = Prompts::open(held_out, &own)?;
        let surroundings = Surroundings { image_shape: own.image_shape(), device };
        let reward = reward.map(|name| rewards::by_name(name, &surroundings)).transpose()?;
        let mut session = Self {
            config,
            device,
            own,
            batches: Batches { config, device, examples: Examples::new(&card, config.task)?, card },
            held_out,
            reward,
            workers: Workers::new(backend::workers()).context("cannot start worker threads")?,
            optimisation,
            network,
            step: 0,
        };
        if let Some((saved, warning)) = SavedState::newest(run)? {
            warning.into_iter().for_each(output::log);
            let Counters { step, config: begun } = saved.counters()?;
            saved.check_name(step)?;
            // Updates can be fewer than steps, because a scaled loss may have skipped some.
            let updates = saved.updates()?;
            let fits =
                if saved.loss_scale()?.is_some() { updates <= step } else { updates == step };
            ensure!(fits, "the checkpoint counts {updates} updates after {step} steps");
            config::check_unchanged(&begun, config)?;
            let state = saved.state(&session.network, session.optimisation.weights(), device)?;
            ensure!(
                step <= config.steps,
                "steps ({}) must be at least {step}: the run has done as many",
                config.steps
            );
            ensure!(
                (0..step).all(|step| begun.rate(step) == config.rate(step)),
                "steps is {} in the run, {} now: with cool_down = {} the learning rate falls towards the last step, and some of the {step} steps \
                 that are done were trained at another rate than a run of {1} steps has there; resume with --set steps={0}, or begin a new run \
                 with --set base=CHECKPOINT",
                begun.steps,
                config.steps,
                config.cool_down
            );
            session.network = state.weights.put_into(session.network);
            session.optimisation.restore(state);
            session.step = step;
        }
        session.needs().check()?;
        Ok(session)
    }

    /// Estimated memory: data and noise of a batch.
    fn needs(&self) -> Needs {
        let (trained, rows) = (self.optimisation.weights().count(), self.config.batch_size);
        let micro_batch = self.config.micro_batch.min(rows);
        let batches =
            memory::Batches { key: "micro_batch", micro_batch, rollout_batch: 0, rows: 1 };
        let (footprint, latent_shape) = (self.own.footprint(), self.own.latent_shape());
        let network = memory::Network { footprint, latent_shape, trained, frozen: 0 };
        Needs::new(network, 2 * rows, batches)
    }

    fn run(mut self, run: &mut RunDir) -> Result<()> {
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
        let trained = Trained::all(&self.network);
        let jobs = micro_batches.map(|rows| (self.network.clone(), rows)).collect();
        let (batches, step) = (&self.batches, self.step);
        let scale = self.optimisation.loss_factor();
        let results = self.workers.map(jobs, |(network, rows)| {
            batches.loss_and_gradient::<N>(network, &trained, step, rows, scale)
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
        self.held_out.evaluate(&images, &rows, self.reward.as_ref())
    }

    /// Writes the resumable state and the base checkpoint, each atomically.
    fn save(&self, run: &RunDir) -> Result<()> {
        run.sync_records()?;
        let counters = Counters { step: self.step, config: self.config.clone() };
        let state = self.optimisation.state();
        training_state::write(&state, &self.network, &counters, &run.checkpoint(self.step))?;
        run.retain_checkpoints(KEPT_CHECKPOINTS, None)?;
        Ok(self.own.write(&self.averaged(), StoredAs::F16, &run.base_checkpoint())?)
    }

    /// The network with averaged weights, which is evaluated and saved.
    fn averaged(&self) -> N::InnerModule {
        self.optimisation.average().put_into(self.network.clone())
    }
}

/// The inputs of all micro-batches.
struct Batches<'a> {
    config: &'a PretrainConfig,
    device: &'a Device,
    card: Card,
    examples: Examples,
}

impl Batches<'_> {
    /// The contribution of one micro-batch to the batch's mean loss and its gradient; `scale`
    /// multiplies the loss before the backward pass and is removed from the gradient.
    fn loss_and_gradient<N>(
        &self,
        network: N::InnerModule,
        trained: &Trained,
        step: usize,
        rows: Range<usize>,
        scale: f64,
    ) -> (f64, Parameters<Plain>)
    where
        N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
    {
        let (mut images, mut conditions, mut times, mut keys) =
            (Vec::<Image>::new(), Vec::<TokenIds>::new(), Vec::<f32>::new(), Vec::new());
        for row in rows {
            let key = Key::new(self.config.seed, Purpose::Pretraining).epoch(step).row(row, 0);
            let mut rng = key.rng();
            let (image, caption) = self.examples.draw(&self.config.captions, &mut rng);
            images.push(image);
            conditions.push(caption);
            times
                .push(self.config.times.time(rng.random(), StandardNormal.sample(&mut rng)) as f32);
            keys.push(key.step(1));
        }
        let data = self.card.architecture.decoder().encode::<Plain>(&images, self.device);
        let noise = normal::<Plain>(&keys, self.card.architecture.latent_shape(), self.device);
        let time = Tensor::<Plain, 1>::from_floats(times.as_slice(), self.device);
        let network: N = trained.with_graph(network);
        let [data, noise] = [data, noise].map(Tensor::from_inner);
        let loss = flow_matching_loss(&network, data, noise, Tensor::from_inner(time), &conditions);
        let loss = loss.sum() / self.config.batch_size as f64;
        let gradient = trained
            .gradients(&network, (loss.clone() * scale).backward())
            .map(|values| values / scale);
        (loss.into_scalar().elem(), gradient)
    }
}
