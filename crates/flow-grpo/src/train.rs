//! Training: Flow-GRPO from a base model, evaluated on held-out prompts, in a run directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use grpo::{
    Policy, Task, Trainer, TrainerState,
    noise::{Key, Purpose},
    parameters::{Parameters, Trained},
    workers::Workers,
};
use models::{Adapter, Dit, MlpField, TokenIds, WeightsFile, lora, weights::StoredAs};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    backend::{self, Device, Plain, Training},
    config,
    evaluation::{self, Evaluation, Evaluator, Prompts},
    interrupt,
    memory::{self, Needs},
    network::{AnyNetwork, Card, Network, Trainable, open_checkpoint},
    outcome::BrokeRun,
    progress::{Progress, whole_seconds},
    report,
    run_dir::RunDir,
    train_config::{TrainConfig, Tuning},
    training_state::TrainingState,
};

/// Trains from the configured base model.
pub fn train(config: &TrainConfig, run: &mut RunDir, device: &Device) -> Result<()> {
    let (card, network) = AnyNetwork::load(&open_checkpoint(&config.base)?, device)?;
    match network {
        AnyNetwork::Dit(network) => {
            Session::<Dit<Training>>::start(config, card, *network, run, device)?.run(run).context(BrokeRun)
        }
        AnyNetwork::Mlp(network) => {
            Session::<MlpField<Training>>::start(config, card, *network, run, device)?.run(run).context(BrokeRun)
        }
    }
}

/// The line of an evaluation in `metrics.jsonl`.
#[derive(Debug, Serialize)]
struct EvaluationMetrics {
    event: &'static str,
    epoch: usize,
    #[serde(flatten)]
    test: Evaluation,
    #[serde(skip_serializing_if = "Option::is_none")]
    unseen: Option<Evaluation>,
}

/// The line of an epoch in `metrics.jsonl`.
#[derive(Debug, Serialize)]
struct EpochLine {
    event: &'static str,
    #[serde(flatten)]
    metrics: grpo::EpochMetrics,
}

/// What a checkpoint holds beside numbers by parameter. The positions of all streams of random numbers are those of the epoch.
#[derive(Debug, Serialize, Deserialize)]
struct Counters {
    epoch: usize,
    kl_weight: f64,
    best: Option<Best>,
    config: TrainConfig,
}

/// The best evaluation so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Best {
    epoch: usize,
    /// What `best_by` names.
    value: f64,
}

struct Session<'a, N: Trainable<Training>> {
    config: &'a TrainConfig,
    device: &'a Device,
    card: Card,
    trainer: Trainer<Training, N, TokenIds>,
    test: Prompts,
    unseen: Option<Prompts>,
    best: Option<Best>,
}

impl<'a, N: Trainable<Training>> Session<'a, N> {
    fn start(config: &'a TrainConfig, card: Card, base: N::InnerModule, run: &RunDir, device: &'a Device) -> Result<Self> {
        let prompts = Prompts::open(&config.prompts.train, &card).context("prompts.train")?.0;
        let weights =
            draw_weights(&prompts.iter().map(|prompt| prompt.prompt.tag.as_str()).collect::<Vec<_>>(), &config.prompts.mix)?;
        let task = Task {
            prompts,
            weights,
            reward: evaluation::rewards(&config.rewards, &card, device)?,
            latent_shape: card.latent_shape(),
            decoder: card.decoder(),
            on_policy_tolerance: backend::ON_POLICY_TOLERANCE,
        };
        let workers = Workers::new(backend::workers()).context("cannot start worker threads")?;
        let policy = policy(config, base, device)?;
        let mut trainer = Trainer::new(config.grpo.clone(), config.epochs, config.seed, task, policy, workers, device.clone());
        let mut best_so_far = None;
        if let Some(saved) = run.newest_checkpoint()? {
            let file = WeightsFile::read(&saved)?;
            let Counters { epoch, kl_weight, best, config: begun } = TrainingState::counters(&file)?;
            config::check_unchanged(&begun, config)?;
            best_so_far = best;
            let state = TrainingState::read(&trainer.averaged_policy(), &trainer.state().weights, &file, device)?;
            ensure!(epoch <= config.epochs, "epochs ({}) must be at least {epoch}: the run has done as many", config.epochs);
            trainer.restore(TrainerState {
                weights: state.weights,
                average: state.average,
                optimizer: state.optimizer,
                kl_weight,
                epoch,
            });
        }
        let open = |key: &'static str, source: &str| Prompts::open(source, &card).context(key);
        let test = open("prompts.test", &config.prompts.test)?;
        let numbers = test.numbers(config.rewards.keys());
        ensure!(
            numbers.contains(&config.best_by),
            "best_by: an evaluation has no number `{}`; it has: {}",
            config.best_by,
            numbers.join(", ")
        );
        let unseen = (!config.prompts.unseen.is_empty()).then(|| open("prompts.unseen", &config.prompts.unseen)).transpose()?;
        let session = Self { config, device, card, trainer, test, unseen, best: best_so_far };
        session.needs().check()?;
        Ok(session)
    }

    /// What the run needs: latents are alive twice while the parts of a rollout are joined, and once more as pictures.
    fn needs(&self) -> Needs {
        let grpo = &self.config.grpo;
        let kept = 2 * (grpo.rollout.random_steps.min(grpo.rollout.steps) + 2) + 1;
        let trained = self.trainer.state().weights.count();
        let frozen = Parameters::of(&self.trainer.averaged_policy()).count() - trained;
        let rows = grpo.groups * grpo.group_size;
        Needs::new(&self.card, [trained, frozen], rows * kept, grpo.micro_batch.min(rows))
    }

    fn run(mut self, run: &mut RunDir) -> Result<()> {
        run.describe(self.config)?;
        let done = self.trainer.epoch();
        let fresh = run.newest_checkpoint()?.is_none();
        // Without a checkpoint everything is done again, the first evaluation too.
        run.keep_metrics(|line| !fresh && line["epoch"].as_u64().is_some_and(|epoch| epoch <= done as u64))?;
        self.print_plan(run);
        if fresh {
            let started = Instant::now();
            self.evaluate(run)?;
            eprintln!("estimated time: {}", whole_seconds(self.estimated_time(started.elapsed())));
            self.save(run)?;
        } else {
            eprintln!("going on after epoch {done}");
        }
        let progress = Progress::new("training", self.config.epochs, "epochs");
        progress.start_at(done);
        let started = Instant::now();
        while self.trainer.epoch() < self.config.epochs {
            let iteration = self
                .trainer
                .iterate()
                .with_context(|| format!("the last good checkpoint is in {}/checkpoints", run.path().display()))?;
            progress.say(&epoch_line(&iteration.metrics, self.remaining(done, started)));
            run.append(&EpochLine { event: "epoch", metrics: iteration.metrics })?;
            progress.advance(1);
            let epoch = self.trainer.epoch();
            let last = epoch == self.config.epochs;
            if last || epoch.is_multiple_of(self.config.evaluate_every) {
                self.evaluate(run)?;
                report::write(run, self.config, &self.card)?;
            }
            let best = self.best.is_some_and(|best| best.epoch == epoch);
            let interrupted = interrupt::requested();
            if last || best || interrupted || epoch.is_multiple_of(self.config.checkpoint_every) {
                self.save(run)?;
            }
            if interrupted && !last {
                report::write(run, self.config, &self.card)?;
                return Err(interrupt::Interrupted { resume: run.resume_command("train") }.into());
            }
        }
        let took = progress.finish();
        report::write(run, self.config, &self.card)?;
        let memory = memory::peak_mib().map(|peak| format!(" and {peak} MiB of memory")).unwrap_or_default();
        eprintln!("training took {}{memory}; see {}", whole_seconds(took), run.path().join("report.html").display());
        Ok(())
    }

    fn remaining(&self, done: usize, started: Instant) -> Duration {
        let epochs = (self.trainer.epoch() - done).max(1) as f64;
        started.elapsed().mul_f64((self.config.epochs - self.trainer.epoch()) as f64 / epochs)
    }

    fn print_plan(&self, run: &RunDir) {
        let grpo = &self.config.grpo;
        let images = grpo.groups * grpo.group_size;
        eprintln!(
            "plan: {} epochs x {} prompts x {} images = {} images, {} denoising steps each; up to {} transitions and {} updates an \
             epoch\n      {} trainable numbers, {} backend, base {} ({}), run directory {}",
            self.config.epochs,
            grpo.groups,
            grpo.group_size,
            self.config.epochs * images,
            grpo.rollout.steps,
            grpo.transitions_per_epoch(),
            grpo.updates_per_epoch,
            self.trainer.state().weights.count(),
            backend::NAME,
            self.config.base,
            self.card.made_by,
            run.path().display(),
        );
        if let Some(line) = self.needs().line() {
            eprintln!("      {line}");
        }
    }

    /// How long training will take if it keeps the pace of the first evaluation.
    fn estimated_time(&self, evaluation: Duration) -> Duration {
        let TrainConfig { grpo, epochs, evaluate_every, evaluation_samples, .. } = self.config;
        let sets = std::iter::once(&self.test).chain(&self.unseen);
        let evaluated: usize = sets.map(|prompts| prompts.balanced_rows(*evaluation_samples).len()).sum();
        let reference = usize::from(grpo.objective.kl_weight > 0.0);
        let rollout = grpo.groups * grpo.group_size * grpo.rollout.steps;
        let epoch = rollout + grpo.transitions_per_epoch() * (TRANSITION_COST + reference);
        let training = (epochs * epoch) as f64 / (evaluated * EVALUATION_STEPS) as f64;
        evaluation.mul_f64(training + (epochs / evaluate_every) as f64)
    }

    /// Evaluates the averaged policy, and keeps it if none was better; the unseen prompts only at both ends.
    fn evaluate(&mut self, run: &mut RunDir) -> Result<()> {
        let epoch = self.trainer.epoch();
        let policy = self.trainer.averaged_policy();
        let ends = epoch == 0 || epoch == self.config.epochs;
        let test = self.evaluate_on(&policy, &self.test, &run.samples(&format!("epoch-{epoch:04}")))?;
        let unseen = match &self.unseen {
            Some(unseen) if ends => Some(self.evaluate_on(&policy, unseen, &run.samples(&format!("unseen-{epoch:04}")))?),
            _ => None,
        };
        eprintln!("epoch {epoch:>4}  held out: {}", test.line());
        if let Some(unseen) = &unseen {
            eprintln!("epoch {epoch:>4}  unseen:   {}", unseen.line());
        }
        let metrics = EvaluationMetrics { event: "eval", epoch, test, unseen };
        let value = number(&serde_json::to_value(&metrics)?, &self.config.best_by)?;
        run.append(&metrics)?;
        if self.best.is_none_or(|best| value > best.value) {
            self.best = Some(Best { epoch, value });
            self.write_policy(policy, &run.best_checkpoint(), &run.best_adapter())?;
        }
        Ok(())
    }

    fn evaluate_on(&self, policy: &N::InnerModule, prompts: &Prompts, picture: &std::path::Path) -> Result<Evaluation> {
        let evaluator = Evaluator {
            card: &self.card,
            workers: self.trainer.workers(),
            device: self.device,
            key: Key::new(self.config.seed, Purpose::Evaluation),
            steps: EVALUATION_STEPS,
            guidance: 1.0,
        };
        let rows = prompts.balanced_rows(self.config.evaluation_samples);
        let images = evaluator.generate(policy, prompts, &rows);
        prompts.write_picture(&images, &rows, picture)?;
        prompts.evaluate(&images, &rows, Some(&evaluation::rewards(&self.config.rewards, &self.card, self.device)?))
    }

    /// The resumable state and the policy, each written in one go.
    fn save(&self, run: &RunDir) -> Result<()> {
        let TrainerState { weights, average, optimizer, kl_weight, epoch } = self.trainer.state();
        let policy = self.trainer.averaged_policy();
        let state = TrainingState { weights, average, optimizer };
        let counters = Counters { epoch, kl_weight, best: self.best, config: self.config.clone() };
        state.write::<N::InnerModule>(&policy, &counters, &run.checkpoint(epoch))?;
        run.retain_checkpoints(self.config.keep_checkpoints, self.best.map(|best| best.epoch))?;
        self.write_policy(policy, &run.policy_checkpoint(), &run.adapter())
    }

    /// Writes a policy for use: all weights to a file, or the adapter to a directory.
    fn write_policy(&self, mut policy: N::InnerModule, file: &Path, directory: &Path) -> Result<()> {
        match self.config.tuning {
            Tuning::Full => self.card.write(&policy, StoredAs::F32, file),
            Tuning::Lora(_) => {
                let adapter = Adapter::of(&mut policy);
                adapter.write_peft(directory, &self.config.base)?;
                Ok(adapter.write_diffusers(&directory.join("pytorch_lora_weights.safetensors"))?)
            }
        }
    }
}

/// What a run begins with: all weights of the base to be trained, or an adapter on it.
fn policy<N: Network<Plain>>(config: &TrainConfig, mut base: N, device: &Device) -> Result<Policy<N>> {
    let Tuning::Lora(lora) = &config.tuning else { return Ok(Policy::full(base)) };
    let adapter = if config.adapter.is_empty() {
        Adapter::new(lora, &mut base, config.seed).context("tuning")?
    } else {
        let adapter = Adapter::read(Path::new(&config.adapter)).context("adapter")?;
        ensure!(
            (adapter.rank(), adapter.alpha) == (lora.rank, lora.alpha),
            "adapter: {} has rank {} and alpha {}, tuning asks for {} and {}",
            config.adapter,
            adapter.rank(),
            adapter.alpha,
            lora.rank,
            lora.alpha
        );
        adapter
    };
    let network = adapter.attach(base.clone(), device).context("adapter")?;
    Ok(Policy { trained: Trained::named(&network, lora::is_of_adapter), network, reference: base })
}

/// ODE steps of an evaluation, as in the paper.
const EVALUATION_STEPS: usize = 40;

/// What a trained transition costs, in denoising steps: a forward and a backward pass.
const TRANSITION_COST: usize = 4;

/// The number of an evaluation that a dotted name stands for.
fn number(evaluation: &Value, name: &str) -> Result<f64> {
    let value = evaluation.pointer(&format!("/{}", name.replace('.', "/"))).and_then(Value::as_f64);
    value.with_context(|| format!("the evaluation has no number `{name}`"))
}

/// How often each prompt is drawn, from how often each kind is.
fn draw_weights(tags: &[&str], mix: &BTreeMap<String, f64>) -> Result<Vec<f64>> {
    if mix.is_empty() {
        return Ok(vec![1.0; tags.len()]);
    }
    if let Some(unknown) = mix.keys().find(|tag| !tags.contains(&tag.as_str())) {
        let known: BTreeSet<&str> = tags.iter().copied().collect();
        let known: Vec<&str> = known.into_iter().collect();
        anyhow::bail!("prompts.mix.{unknown}: prompts.train has no prompt of this kind; it has: {}", known.join(", "));
    }
    let count = |tag: &str| tags.iter().filter(|other| **other == tag).count() as f64;
    let weights: Vec<f64> = tags.iter().map(|tag| mix.get(*tag).copied().unwrap_or(0.0) / count(tag)).collect();
    ensure!(weights.iter().any(|weight| *weight > 0.0), "prompts.mix gives no prompt of prompts.train a positive weight");
    Ok(weights)
}

fn epoch_line(metrics: &grpo::EpochMetrics, remaining: Duration) -> String {
    format!(
        "epoch {:>4}  reward {:.3} ± {:.3}  ratio {:.4}…{:.4}  clipped {:.2}  grad {:.2e}  {:.1}s  {} left",
        metrics.epoch,
        metrics.reward,
        metrics.reward_std,
        metrics.policy.ratio.min,
        metrics.policy.ratio.max,
        metrics.policy.clipped(),
        metrics.gradient_norm,
        metrics.time.seconds,
        whole_seconds(remaining),
    )
}
