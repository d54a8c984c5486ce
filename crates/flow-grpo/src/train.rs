//! Training: reinforcement learning from a base model, with evaluations on held-out prompts, in a
//! run directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};
use flow::GridKind;
use grpo::{
    Iteration, Task, TrainError, Trainer, TrainerState, evaluate::Row, groups::Mix,
    trajectories::KeptOn, update,
};
use pipelines::{Cache, DirectorySettings, Pipeline, Trainable, Visitor};
use run::{
    Expected, Recorded, RunDir, SampleSet,
    record::{ActionLine, EpochLine, EvaluationLine, number},
    report::{self, Facts},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tasks::{image::Image, prompts::Prompt, reward::WeightedReward};
use training::{
    loss_scale::LossScale,
    noise::{Key, Purpose},
    parameters::Parameters,
    schedule,
    workers::{Stopped, Workers},
};

use crate::{
    backend::{self, Device, ON_CPU, Training},
    checkpoints, config,
    evaluation::{self, Evaluation, Evaluator, Prompts, Sampling},
    host, interrupt,
    memory::{self, Batches, Needs},
    monitors::{self, BASE_DISTANCE, Features, Monitors},
    named,
    outcome::BrokeRun,
    output,
    progress::whole_seconds,
    record::{Best, Inputs, Watched, numbers},
    rewards::{self, Surroundings},
    rules::{self, Action},
    train_config::{PromptsConfig, TrainConfig},
    training_state::{self, SavedState},
    tuning::{policy, write_policy},
    view::View,
    warnings::Warnings,
};

/// Trains from the configured base model; `live` shows the full-screen view.
pub fn train(config: &TrainConfig, run: &mut RunDir, live: bool, device: &Device) -> Result<()> {
    check_begun(config, run)?; // Before anything is written or takes its time.
    let config = &named::pinned(config)?;
    let is_directory = named::is_name(&config.base) || Path::new(&config.base).is_dir();
    let settings = match (&config.model, is_directory) {
        (Some(model), true) => {
            let directory = run.prompt_embeddings();
            model.settings(Cache { directory, resume: run.resume_command("train") })
        }
        (None, false) => DirectorySettings::default(),
        (Some(_), false) => bail!(
            "base: `{}` is no directory; this preset trains a model in a directory of diffusers' layout: pass --model DIR",
            config.base
        ),
        (None, true) => bail!(
            "base: `{}` is a model directory, which the preset does not expect; use one of the presets sd35m-…",
            config.base
        ),
    };
    let source = checkpoints::source(&config.base, settings)?;
    let work = Work { config, run, live, device };
    pipelines::open::<Training, _>(source, &host::machine(device), work)
}

/// Training on a model, whatever its pipeline is.
struct Work<'a> {
    config: &'a TrainConfig,
    run: &'a mut RunDir,
    live: bool,
    device: &'a Device,
}

impl Visitor<Training> for Work<'_> {
    type Output = ();
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<()> {
        let Self { config, run, live, device } = self;
        let config = &resolved(config, &pipeline)?;
        let sets = PromptSets::read(&config.prompts, &pipeline)?;
        // Report errors of the configuration before encoding, which takes time.
        mix(&sets.train, &config.prompts.mix)?;
        check_numbers(config, &sets.validation, pipeline.image_shape())?;
        pipeline.check_room()?;
        let rewards = Rewards::open(config, pipeline.image_shape(), &sets, device)?;
        if !pipeline.keeps_conditions() {
            let setup = Setup { config, pipeline, sets, rewards, live, device };
            return Session::start(setup, run)?.run(run).context(BrokeRun);
        }
        // From here on the run can be resumed. Encode all prompts at once and before the network is
        // loaded: text encoders can be larger than it.
        run.configure(config)?;
        pipeline.encode(&sets.all())?;
        let mend = format!(
            "the prompts are read; fix this, then resume with {} --set …",
            run.resume_command("train")
        );
        let setup = Setup { config, pipeline, sets, rewards, live, device };
        Session::start(setup, run).context(mend)?.run(run).context(BrokeRun)
    }
}

/// The configuration as the run keeps it: with the model's own time grid, if it asks for that, and
/// an absolute path of the base, so that the run resumes from any directory.
fn resolved<P: Pipeline<Training>>(config: &TrainConfig, pipeline: &P) -> Result<TrainConfig> {
    let mut config = config.clone();
    if !checkpoints::is_built_in(&config.base) && !named::is_name(&config.base) {
        let path = std::path::absolute(&config.base).context("base")?;
        config.base = path.to_string_lossy().into_owned();
    }
    if config.grpo.rollout.grid == (GridKind::OfModel {}) {
        config.grpo.rollout.grid = pipeline.grid()?;
    }
    Ok(config)
}

/// The rewards of a run.
struct Rewards {
    trained: WeightedReward,
    gold: WeightedReward,
}

impl Rewards {
    /// Opens the rewards and shows them every prompt.
    fn open(
        config: &TrainConfig,
        image_shape: [usize; 3],
        sets: &PromptSets,
        device: &Device,
    ) -> Result<Self> {
        let surroundings = Surroundings { image_shape, device };
        let trained = rewards::open("rewards", &config.rewards, &surroundings)?;
        let gold = rewards::open("gold", &config.gold, &surroundings)?;
        trained.check(sets.prompts())?;
        gold.check(sets.train.iter().chain(&sets.validation))?;
        Ok(Self { trained, gold })
    }
}

/// The prompts of a run, before they are encoded.
struct PromptSets {
    train: Vec<Prompt>,
    validation: Vec<Prompt>,
    test: Option<Vec<Prompt>>,
    unseen: Option<Vec<Prompt>>,
}

impl PromptSets {
    fn read<P: Pipeline<Training>>(config: &PromptsConfig, pipeline: &P) -> Result<Self> {
        let read = |key: &'static str, set: &str| {
            Ok::<_, Error>(evaluation::prompt_set(set, pipeline).context(key)?.prompts)
        };
        let optional =
            |key, set: &Option<String>| set.as_deref().map(|set| read(key, set)).transpose();
        Ok(Self {
            train: read("prompts.train", &config.train)?,
            validation: read("prompts.validation", &config.validation)?,
            test: optional("prompts.test", &config.test)?,
            unseen: optional("prompts.unseen", &config.unseen)?,
        })
    }

    /// The prompts of all sets.
    fn prompts(&self) -> impl Iterator<Item = &Prompt> + Clone {
        let held_out = [&self.test, &self.unseen].into_iter().flatten();
        [&self.train, &self.validation].into_iter().chain(held_out).flatten()
    }

    /// All prompts, and the empty one, which guidance needs.
    fn all(&self) -> Vec<Prompt> {
        std::iter::once(Prompt::plain("")).chain(self.prompts().cloned()).collect()
    }
}

/// # Errors
/// If the run has a checkpoint and cannot resume from it under this configuration.
fn check_begun(config: &TrainConfig, run: &RunDir) -> Result<()> {
    let Some((saved, warning)) = SavedState::newest(run)? else { return Ok(()) };
    warning.into_iter().for_each(output::log);
    let counters: Counters = saved.counters()?;
    counters.check(&saved)?;
    let Counters { epoch, config: begun, .. } = counters;
    config::check_unchanged(&begun, config)?;
    ensure!(
        config.rules.is_empty() || begun.evaluate_every == config.evaluate_every,
        "evaluate_every is {} in the run, {} now: with rules, which act at evaluations, it stays",
        begun.evaluate_every,
        config.evaluate_every
    );
    ensure!(
        epoch <= config.epochs,
        "epochs ({}) must be at least {epoch}: the run has done as many",
        config.epochs
    );
    let rate = |config: &TrainConfig, epoch| {
        schedule::rate(epoch, config.epochs, config.grpo.warm_up, config.grpo.cool_down)
    };
    let differs = (0..epoch).find(|&epoch| rate(&begun, epoch) != rate(config, epoch));
    if let Some(first) = differs {
        bail!(
            "epochs is {} in the run, {} now: with grpo.cool_down = {} the learning rate falls towards the last epoch, and epoch {} was trained at \
             another rate than a run of {1} epochs has there; resume with --set epochs={0}, or begin a new run from the weights of this one, \
             with --set base=CHECKPOINT",
            begun.epochs,
            config.epochs,
            config.grpo.cool_down,
            first + 1
        );
    }
    Ok(())
}

/// # Errors
/// If the configuration names a number that an evaluation does not have.
fn check_numbers(
    config: &TrainConfig,
    validation: &[Prompt],
    image_shape: [usize; 3],
) -> Result<()> {
    let numbers = numbers(config, validation, image_shape);
    let watched = config.rules.iter().map(|rule| ("rules: watch", &rule.watch));
    for (key, name) in [("best_by", &config.best_by)].into_iter().chain(watched) {
        ensure!(
            numbers.contains(name),
            "{key}: an evaluation has no number `{name}`; it has: {}",
            numbers.join(", ")
        );
    }
    Ok(())
}

/// The metadata of a checkpoint. The streams of random numbers need no position besides the epoch.
#[derive(Debug, Serialize, Deserialize)]
struct Counters {
    epoch: usize,
    /// Whether the evaluation after this epoch is still due.
    evaluation_due: bool,
    kl_weight: f64,
    inputs: Inputs,
    watched: Watched,
    config: TrainConfig,
}

impl Counters {
    /// # Errors
    /// If a value is impossible for a run.
    fn check(&self, saved: &SavedState) -> Result<()> {
        let Self { epoch, kl_weight, watched, config, .. } = self;
        saved.check_name(*epoch)?;
        let updates = saved.updates()?;
        let most = epoch.saturating_mul(config.grpo.updates_per_epoch);
        ensure!(
            updates <= most,
            "the checkpoint counts {updates} updates; {epoch} epochs make {most} at most"
        );
        ensure!(
            *kl_weight >= 0.0 && kl_weight.is_finite(),
            "the checkpoint's KL weight is {kl_weight}"
        );
        saved.loss_scale()?;
        if let Some(Best { epoch: best, value }) = watched.best {
            ensure!(
                value.is_finite() && best <= *epoch,
                "the checkpoint's best evaluation is {value} after epoch {best} of {epoch}"
            );
        }
        Ok(())
    }
}

/// What a session starts from.
struct Setup<'a, P> {
    config: &'a TrainConfig,
    pipeline: P,
    sets: PromptSets,
    rewards: Rewards,
    live: bool,
    device: &'a Device,
}

struct Session<'a, P: Pipeline<Training>> {
    config: &'a TrainConfig,
    device: &'a Device,
    pipeline: P,
    trainer: Trainer<Training, P::Trained>,
    validation: Prompts<P::Condition>,
    test: Option<Prompts<P::Condition>>,
    unseen: Option<Prompts<P::Condition>>,
    gold: WeightedReward,
    /// Memory of the models of all rewards, in bytes.
    reward_bytes: u64,
    view: View,
    watched: Watched,
    inputs: Inputs,
    evaluation_due: bool,
    /// Time and duration of the last report.
    reported: Option<(Instant, Duration)>,
    warnings: Warnings,
}

impl<'a, P: Pipeline<Training>> Session<'a, P> {
    /// Starts training, or resumes it from the run directory.
    fn start(setup: Setup<'a, P>, run: &RunDir) -> Result<Self> {
        let Setup { config, pipeline, sets, rewards, live, device } = setup;
        let Rewards { trained: reward, gold } = rewards;
        let reward_bytes = reward.bytes() + gold.bytes();
        let encode = |prompts: &[Prompt]| Ok::<_, Error>(Prompts(pipeline.encode(prompts)?));
        let validation = encode(&sets.validation).context("prompts.validation")?;
        let optional = |set: &Option<Vec<Prompt>>| set.as_deref().map(encode).transpose();
        let test = optional(&sets.test).context("prompts.test")?;
        let unseen = optional(&sets.unseen).context("prompts.unseen")?;
        let mut trainer = trainer(config, &pipeline, &sets.train, reward, device)?;
        let held_out =
            std::iter::once(&validation).chain(&test).chain(&unseen).map(|prompts| &prompts.0[..]);
        let inputs =
            Inputs::of(pipeline.digest()?, std::iter::once(trainer.prompts()).chain(held_out));
        let Restored { watched, evaluation_due } = restore(&mut trainer, run, &inputs, device)?;
        let view = View::new(live, trainer.epoch(), config.epochs)?;
        let session = Self {
            config,
            device,
            pipeline,
            trainer,
            validation,
            test,
            unseen,
            gold,
            reward_bytes,
            view,
            watched,
            inputs,
            evaluation_due,
            reported: None,
            warnings: Warnings::default(),
        };
        session.needs().check()?;
        Ok(session)
    }

    /// Estimated memory. Latents exist twice while rollout batches are concatenated, and once more
    /// as images.
    fn needs(&self) -> Needs {
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
        let network = memory::Network {
            footprint: self.pipeline.footprint(),
            latent_shape: self.pipeline.latent_shape(),
            trained: weights.count(),
            frozen,
        };
        let needs = Needs::new(network, rows * latents, batches);
        Needs { rewards: self.reward_bytes, ..needs }
    }

    fn run(mut self, run: &mut RunDir) -> Result<()> {
        if let Some(note) = run.describe(self.config)? {
            self.view.say(&note);
        }
        let done = self.trainer.epoch();
        let fresh = run.newest_checkpoints()?.is_empty();
        run.set_aside_after(done)?;
        let recorded = (!fresh).then_some(Recorded { done, evaluation_due: self.evaluation_due });
        let hole = run.record_after(recorded, Expected { event: "epoch", every: 1 })?;
        self.view.say(&self.plan(run));
        if !fresh {
            self.view.say(&format!("resuming after epoch {done}"));
            if let Some(hole) = hole {
                self.view.say(&hole);
            }
            if self.watched.stopped {
                self.view
                    .say("a rule has ended this run; to train further, begin another run from its weights");
            }
            // A kill may have come between a checkpoint and the files derived from it.
            self.save(run)?;
            self.write_best(run)?;
        }
        let started = Instant::now();
        match self.go_on(run, started) {
            Err(error) if error.is::<Stopped>() => {
                self.save(run)?;
                self.report(run);
                return Err(interrupt::Interrupted { resume: run.resume_command("train") }.into());
            }
            result => result?,
        }
        self.view.finish();
        self.report(run);
        let memory =
            memory::peak_mib().map(|peak| format!(" and {peak} MiB of memory")).unwrap_or_default();
        let (took, report) = (whole_seconds(started.elapsed()), run.path().join("report.html"));
        self.view.say(&format!("training took {took}{memory}; see {}", report.display()));
        Ok(())
    }

    /// Trains until the last epoch.
    ///
    /// # Errors
    /// [`Stopped`] if the user interrupts; unfinished work has no effect.
    fn go_on(&mut self, run: &mut RunDir, started: Instant) -> Result<()> {
        let done = self.trainer.epoch();
        if self.evaluation_due {
            self.evaluate(run)?;
            let estimate = whole_seconds(self.estimated_time(started.elapsed()));
            self.view.say(&format!("estimated time: {estimate}"));
            self.save(run)?;
        }
        while !self.watched.stopped && self.trainer.epoch() < self.config.epochs {
            let iteration = self.iterate(run)?;
            let remaining = self.remaining(done, started);
            self.view.say(&epoch_line(&iteration.metrics, remaining));
            for warning in self.warnings.of(&iteration.metrics, self.config.grpo.optimizer.epsilon)
            {
                self.view.say(&warning);
            }
            let line = self.epoch_metrics(&iteration)?;
            run.append(&line)?;
            self.view.take(&serde_json::to_value(&line)?, remaining);
            let epoch = self.trainer.epoch();
            let last = epoch == self.config.epochs;
            self.evaluation_due = last || epoch.is_multiple_of(self.config.evaluate_every);
            let evaluated = self.evaluation_due;
            if evaluated {
                self.evaluate(run)?;
            }
            if last || self.must_save(epoch) || epoch.is_multiple_of(self.config.checkpoint_every) {
                self.save(run)?;
            }
            if evaluated
                && self.reported.is_none_or(|(at, took)| at.elapsed() > took * REPORT_SHARE)
            {
                self.report(run);
            }
            if interrupt::requested() && !last && !self.watched.stopped {
                return Err(Stopped.into());
            }
        }
        Ok(())
    }

    /// Runs the next epoch; if it is stopped, the state before it is restored.
    fn iterate(&mut self, run: &RunDir) -> Result<Iteration> {
        let before = self.trainer.state();
        match self.trainer.iterate() {
            Err(TrainError::Stopped(stopped)) => {
                self.trainer.restore(before);
                Err(stopped.into())
            }
            result => result.with_context(|| match run.newest_checkpoints() {
                Ok(all) if !all.is_empty() => format!(
                    "the newest checkpoint, from before this epoch, is {}",
                    all[0].display()
                ),
                _ => "there is no checkpoint yet".to_owned(),
            }),
        }
    }

    /// Writes the report. A failure is no reason to lose a run.
    fn report(&mut self, run: &RunDir) {
        let started = Instant::now();
        if let Err(error) = self.write_report(run) {
            self.view.say(&format!("warning: the report cannot be written: {error:#}"));
        }
        self.reported = Some((Instant::now(), started.elapsed()));
    }

    fn write_report(&self, run: &RunDir) -> Result<()> {
        let facts = Facts {
            epochs: self.config.epochs,
            prompts: self.config.grpo.groups,
            images: self.config.grpo.group_size,
            base: &self.config.base,
            made_by: &self.pipeline.made_by(),
            configuration: &toml::to_string(self.config)?,
        };
        Ok(report::write(run, &facts)?)
    }

    fn remaining(&self, done: usize, started: Instant) -> Duration {
        let epochs = (self.trainer.epoch() - done).max(1) as f64;
        started.elapsed().mul_f64((self.config.epochs - self.trainer.epoch()) as f64 / epochs)
    }

    /// Describes the run for people.
    fn plan(&self, run: &RunDir) -> String {
        let grpo = &self.config.grpo;
        let images = grpo.groups * grpo.group_size;
        let plan = format!(
            "plan: {} epochs x {} prompts x {} images = {} images, {} denoising steps each; up to {} transitions and {} updates an \
             epoch\n      {} trainable numbers, {} backend, base {} ({}), run directory {}",
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
            Some(format!("; {name} at both ends: {}", size(prompts.as_ref()?)))
        });
        let every = self.config.evaluate_every;
        let ends: String = ends.collect();
        format!(
            "validation every {every} epochs: {}{note}{ends}; {EVALUATION_STEPS} ODE steps",
            size(&self.validation)
        )
    }

    /// Estimates the time of training from the pace of the first evaluation.
    fn estimated_time(&self, evaluation: Duration) -> Duration {
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

    /// Evaluates the averaged policy on the validation prompts and saves it if it is the best so
    /// far. Test and unseen prompts, which choose nothing, are evaluated only before the first and
    /// after the last epoch.
    fn evaluate(&mut self, run: &mut RunDir) -> Result<()> {
        let epoch = self.trainer.epoch();
        let policy = self.trainer.averaged_policy();
        let rows = self.validation.rows(self.config.evaluation_samples);
        let (validation, images) = self.evaluate_on(
            &policy,
            &self.validation,
            &rows,
            &run.samples(SampleSet::Validation, epoch),
        )?;
        let gold = self.validation.means(&self.gold, &images, &rows)?;
        let monitors = self.monitors(&images, &rows)?;
        let drift = monitors.relative_to(&self.watched.base_monitors);
        self.view.say(&format!("epoch {epoch:>4}  validation: {}", validation.line()));
        run.append_image(SampleSet::Validation, epoch)?;
        let test = self.evaluate_at_ends(&policy, self.test.as_ref(), SampleSet::Test, run)?;
        let unseen =
            self.evaluate_at_ends(&policy, self.unseen.as_ref(), SampleSet::Unseen, run)?;
        for (set, evaluation) in [(SampleSet::Test, &test), (SampleSet::Unseen, &unseen)] {
            if let Some(evaluation) = evaluation {
                self.view.say(&format!(
                    "epoch {epoch:>4}  {:<11} {}",
                    format!("{}:", set.name()),
                    evaluation.line()
                ));
                run.append_image(set, epoch)?;
            }
        }
        if epoch == self.config.epochs {
            self.view.say(monitors.drift_table(&self.watched.base_monitors).trim_end());
        }
        let metrics = EvaluationLine {
            event: "eval",
            epoch,
            validation,
            gold,
            monitors,
            drift,
            test,
            unseen,
        };
        run.append(&metrics)?;
        let metrics = serde_json::to_value(&metrics)?;
        self.view.take(&metrics, Duration::ZERO);
        let value = number(&metrics, &self.config.best_by)?;
        if self.watched.best.is_none_or(|best| value > best.value) {
            self.watched.best = Some(Best { epoch, value });
            write_policy(
                self.config,
                &self.pipeline,
                policy,
                &run.best_checkpoint(),
                &run.best_adapter(),
            )?;
        }
        self.apply_rules(&metrics, run)?;
        self.evaluation_due = false;
        Ok(())
    }

    /// Evaluates on prompts, if there are any, before the first and after the last epoch.
    fn evaluate_at_ends(
        &self,
        policy: &P::Network,
        prompts: Option<&Prompts<P::Condition>>,
        set: SampleSet,
        run: &RunDir,
    ) -> Result<Option<Evaluation>> {
        let epoch = self.trainer.epoch();
        let Some(prompts) = prompts.filter(|_| epoch == 0 || epoch == self.config.epochs) else {
            return Ok(None);
        };
        let rows = prompts.rows(self.config.evaluation_samples);
        Ok(Some(self.evaluate_on(policy, prompts, &rows, &run.samples(set, epoch))?.0))
    }

    /// The line of an epoch, with gold rewards and monitors of its images.
    fn epoch_metrics(
        &self,
        iteration: &Iteration,
    ) -> Result<EpochLine<grpo::EpochMetrics, Monitors>> {
        let prompts = self.trainer.prompts();
        let prompts: Vec<&Prompt> =
            iteration.rows.iter().map(|row| &prompts[row.prompt].prompt).collect();
        let mut metrics = iteration.metrics.clone();
        metrics.time.peak_memory_mib = memory::peak_mib();
        let gold = monitors::means(&self.gold, &iteration.images, &prompts)?;
        let monitors = Monitors::of(&iteration.images, &iteration.rows, &prompts)?;
        Ok(EpochLine { event: "epoch", metrics, gold, monitors })
    }

    /// Whether the state after this epoch must be saved: it is the best one, or a rule ended the
    /// run.
    fn must_save(&self, epoch: usize) -> bool {
        self.watched.stopped || self.watched.best.is_some_and(|best| best.epoch == epoch)
    }

    /// Applies the rules to an evaluation, and records each action with its reason.
    fn apply_rules(&mut self, evaluation: &Value, run: &mut RunDir) -> Result<()> {
        let epoch = self.trainer.epoch();
        for rule in &self.config.rules {
            let value = number(evaluation, &rule.watch)?;
            let Some(mut reason) = rules::reason(rule, value, &mut self.watched.peaks) else {
                continue;
            };
            match rule.action {
                Action::Stop {} => self.watched.stopped = true,
                Action::RaiseKl { factor } => {
                    let weight = self.trainer.kl_weight();
                    self.trainer.set_kl_weight(weight * factor);
                    reason += &format!("; the KL weight goes from {weight} to {}", weight * factor);
                }
                Action::RollBack {} => match self.watched.best.filter(|best| best.epoch < epoch) {
                    // Missing if the run was rolled back to before a later best, whose checkpoint
                    // had replaced it.
                    Some(best) if !run.checkpoint(best.epoch).exists() => {
                        reason += &format!(
                            "; the checkpoint of epoch {} is gone, nothing is done",
                            best.epoch
                        );
                    }
                    Some(best) => match SavedState::read(&run.checkpoint(best.epoch)) {
                        Ok(saved) => {
                            self.roll_back(saved)?;
                            reason += &format!(
                                "; the weights are those after epoch {} again",
                                best.epoch
                            );
                        }
                        Err(error) => reason += &format!("; {error:#}: nothing is done"),
                    },
                    None => reason += "; no evaluation before this one was better, nothing is done",
                },
            }
            self.view.say(&format!("epoch {epoch:>4}  rule: {reason}"));
            run.append(&ActionLine { event: "action", epoch, action: rule.action, reason })?;
        }
        Ok(())
    }

    /// Restores the files of the best policy from its checkpoint, if that is there and intact.
    fn write_best(&mut self, run: &RunDir) -> Result<()> {
        let Some(path) =
            self.watched.best.map(|best| run.checkpoint(best.epoch)).filter(|path| path.exists())
        else {
            return Ok(());
        };
        let saved = match SavedState::read(&path) {
            Ok(saved) => saved,
            Err(error) => {
                self.view.say(&format!(
                    "warning: the best evaluation's weights stay as they were written: {error:#}"
                ));
                return Ok(());
            }
        };
        let policy = self.trainer.averaged_policy();
        let state = saved.state(&policy, self.trainer.weights(), self.device)?;
        write_policy(
            self.config,
            &self.pipeline,
            state.average.put_into(policy),
            &run.best_checkpoint(),
            &run.best_adapter(),
        )
    }

    fn roll_back(&mut self, saved: SavedState) -> Result<()> {
        let policy = self.trainer.averaged_policy();
        self.trainer.roll_back(saved.state(&policy, self.trainer.weights(), self.device)?);
        Ok(())
    }

    /// The monitors of an evaluation; the images of the first evaluation are those of the base
    /// model.
    fn monitors(&mut self, images: &[Image], rows: &[Row]) -> Result<Monitors> {
        let features = Features::of(images);
        let prompts: Vec<&Prompt> = rows.iter().map(|row| self.validation.prompt(row)).collect();
        let mut monitors = Monitors::of(images, rows, &prompts)?;
        if self.trainer.epoch() == 0 {
            self.watched.base.clone_from(&features);
            self.watched.base_monitors.clone_from(&monitors);
        }
        if let Some((now, base)) = features.zip(self.watched.base.as_ref()) {
            monitors.insert(BASE_DISTANCE, now.distance(base));
        }
        Ok(monitors)
    }

    fn evaluate_on(
        &self,
        policy: &P::Network,
        prompts: &Prompts<P::Condition>,
        rows: &[Row],
        image: &Path,
    ) -> Result<(Evaluation, Vec<Image>)> {
        let evaluator = Evaluator {
            pipeline: &self.pipeline,
            workers: self.trainer.workers(),
            device: self.device,
            sampling: sampling(self.config),
        };
        let images = evaluator.generate(policy.clone(), prompts, rows)?;
        prompts.write_images(&images, rows, image)?;
        Ok((prompts.evaluate(&images, rows, Some(self.trainer.reward()))?, images))
    }

    /// Writes the resumable state and the policy, each atomically.
    fn save(&self, run: &RunDir) -> Result<()> {
        run.sync_records()?;
        let TrainerState { optimisation, kl_weight, epoch } = self.trainer.state();
        let policy = self.trainer.averaged_policy();
        let counters = Counters {
            epoch,
            evaluation_due: self.evaluation_due,
            kl_weight,
            inputs: self.inputs.clone(),
            watched: self.watched.clone(),
            config: self.config.clone(),
        };
        training_state::write(&optimisation, &policy, &counters, &run.checkpoint(epoch))?;
        run.retain_checkpoints(
            self.config.keep_checkpoints,
            self.watched.best.map(|best| best.epoch),
        )?;
        write_policy(self.config, &self.pipeline, policy, &run.policy_checkpoint(), &run.adapter())
    }
}

/// The trainer of a run, before its first epoch.
fn trainer<P: Pipeline<Training>>(
    config: &TrainConfig,
    pipeline: &P,
    prompts: &[Prompt],
    reward: WeightedReward,
    device: &Device,
) -> Result<Trainer<Training, P::Trained>> {
    let task = Task {
        mix: mix(prompts, &config.prompts.mix)?,
        prompts: pipeline.encode(prompts).context("prompts.train")?,
        reward,
        latent_shape: pipeline.latent_shape(),
        decoder: pipeline.decoder()?,
        unconditional: pipeline.conditions(&[""])?.remove(0),
        on_policy_limit: backend::ON_POLICY_LIMIT,
    };
    let workers = Workers::new(backend::workers()).context("cannot start worker threads")?;
    let workers = workers.stopping_when(interrupt::requested);
    let mut grpo = config.grpo.clone();
    let base = pipeline.guide(pipeline.network()?, grpo.rollout.guidance);
    grpo.rollout.guidance = pipeline.classifier_free(grpo.rollout.guidance);
    let policy = policy(config, base, device)?;
    let trainer = Trainer::new(grpo, config.epochs, config.seed, task, policy, workers);
    let trainer = trainer.differentiating(pipeline.differentiate());
    Ok(if backend::SCALES_LOSS { trainer.scaling_loss(LossScale::default()) } else { trainer })
}

/// The state of a run besides that of its trainer.
struct Restored {
    watched: Watched,
    evaluation_due: bool,
}

/// Restores the newest checkpoint of a run, if it has one.
fn restore<N: Trainable<Training>>(
    trainer: &mut Trainer<Training, N>,
    run: &RunDir,
    now: &Inputs,
    device: &Device,
) -> Result<Restored> {
    let Some((saved, _)) = SavedState::newest(run)? else {
        return Ok(Restored { watched: Watched::default(), evaluation_due: true });
    };
    let Counters { epoch, kl_weight, inputs, watched, evaluation_due, .. } = saved.counters()?;
    now.check(&inputs)?;
    let optimisation = saved.state(&trainer.averaged_policy(), trainer.weights(), device)?;
    trainer.restore(TrainerState { optimisation, kl_weight, epoch });
    Ok(Restored { watched, evaluation_due })
}

/// Sampling settings of a run's evaluations.
pub fn sampling(config: &TrainConfig) -> Sampling {
    let rollout = &config.grpo.rollout;
    let key = Key::new(config.seed, Purpose::Evaluation);
    Sampling {
        key,
        grid: rollout.grid,
        steps: EVALUATION_STEPS,
        guidance: config.evaluation_guidance,
    }
}

/// Time between two reports during a run, in units of the duration of the last one, so that reports
/// take at most 2 % of a run.
const REPORT_SHARE: u32 = 50;

/// ODE steps of an evaluation, as in the paper.
const EVALUATION_STEPS: usize = 40;

/// Cost of a trained transition in denoising steps: a forward and a backward pass.
const TRANSITION_COST: usize = 4;

/// Network rows per sample: 2 with guidance, otherwise 1.
fn rows_of(guidance: f64) -> usize {
    if guidance == 1.0 { 1 } else { 2 }
}

/// Builds the mix of the kinds of prompt.
///
/// # Errors
/// If the configured weights do not fit the prompts.
fn mix(prompts: &[Prompt], weights: &BTreeMap<String, f64>) -> Result<Mix> {
    if weights.is_empty() {
        return Ok(Mix::even(prompts.len()));
    }
    let kinds: Vec<&str> = prompts.iter().map(|prompt| prompt.tag.as_str()).collect();
    Mix::by_kind(&kinds, weights).map_err(|problem| anyhow!("prompts.mix: {problem}"))
}

fn epoch_line(metrics: &grpo::EpochMetrics, remaining: Duration) -> String {
    if metrics.updates == 0 {
        return format!(
            "epoch {:>4}  reward {:.3} ± {:.3}  no group has spread, no update  {:.1}s  {} left",
            metrics.epoch,
            metrics.reward,
            metrics.reward_std,
            metrics.time.seconds,
            whole_seconds(remaining),
        );
    }
    format!(
        "epoch {:>4}  reward {:.3} ± {:.3}  {}  grad {:.2e}  {:.1}s  {} left",
        metrics.epoch,
        metrics.reward,
        metrics.reward_std,
        metrics.headline,
        metrics.gradient_norm,
        metrics.time.seconds,
        whole_seconds(remaining),
    )
}
