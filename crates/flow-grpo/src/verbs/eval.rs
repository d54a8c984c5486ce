//! `eval`: strict accuracy on held-out prompts, or GenEval's score.

mod benchmark;
mod foreign;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, Error, Result, bail};
use clap::Args;
use files::{text_file, write_atomically};
use models::Adapter;
use pipelines::{Pipeline, Visitor};
use run::png;
use tasks::cache::ScoreCache;
use training::workers::Workers;

use self::foreign::{Foreign, ForeignArgs};
use super::model_options::{self, MOST_IMAGES, ModelArgs};
use crate::{
    backend::{self, Device, Training},
    config,
    evaluation::{Evaluation, Evaluator, Prompts},
    machine::{self, host, needs},
    rewards::{self, Surroundings},
    terminal::output,
    train::{self, config::TrainConfig, tuning::Tuning},
};

/// Options of `eval`.
#[derive(Args, Clone, Debug)]
pub struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Repeats the evaluation of a training run, with its noise, validation prompts, number of
    /// images, grid, steps, guidance and rewards, so the results equal the run's metrics. Evaluates
    /// the newest policy of the run, or --checkpoint, e.g. RUN/best.safetensors.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["steps", "guidance", "seed", "samples"])]
    as_in: Option<PathBuf>,
    /// The prompts: shapes:test, shapes:unseen, shapes:validation, shapes:train, or a GenEval
    /// metadata file [default: shapes:test]. With --as-in also text:test, text:validation and
    /// text:train.
    #[arg(long)]
    prompts: Option<String>,
    /// Images per kind of prompt, spread evenly over the prompts of the kind; 0 takes every prompt
    /// once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=MOST_IMAGES))]
    samples: u32,
    #[command(flatten)]
    foreign: ForeignArgs,
    /// A file that keeps the scores of slow rewards (judge, geneval, ocr), so that no image is scored
    /// twice. Created if it does not exist. Remove it when a server or its model changes.
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// The JSON file to write.
    #[arg(long)]
    output: Option<PathBuf>,
    /// A model in the layout of diffusers: a directory, or hub:OWNER/NAME, which is downloaded.
    #[arg(id = "directory", long = "model", value_name = "DIR", conflicts_with = "checkpoint")]
    directory: Option<String>,
    /// With --preset: writes the images to this directory, in the layout of GenEval's scripts,
    /// instead of asking the server.
    #[arg(long, value_name = "DIR", requires = "preset", conflicts_with = "samples_dir")]
    images: Option<PathBuf>,
}

/// Evaluates a model and prints tables.
///
/// # Errors
/// If the model, the prompts or the run cannot be read, or no image can be verified.
pub fn run(args: &EvalArgs) -> Result<()> {
    args.output.as_deref().map_or(Ok(()), png::check_directory_of)?;
    let args = &EvalArgs { model: args.model.fetched()?, ..args.clone() };
    if let (Some(preset), None) = (&args.foreign.preset, &args.foreign.samples_dir) {
        return benchmark::run(args, preset);
    }
    let run = args.as_in.as_deref().map(EvaluatedRun::open).transpose()?;
    let device = machine::device()?;
    let cache = args.cache.as_deref().map(ScoreCache::open).transpose()?.map(Arc::new);
    if let Some(directory) = &args.foreign.samples_dir {
        let of_run = run.map(|run| run.config.rewards);
        let rewards = args.foreign.rewards(of_run)?;
        let asked = Foreign { directory, prompts: args.prompts.as_deref(), rewards, cache };
        let (evaluation, with_rewards) = asked.evaluate(&device)?;
        return print_evaluation(&evaluation, with_rewards, args.output.as_deref());
    }
    let checkpoint = args.model.checkpoint.clone().or_else(|| args.directory.clone());
    let mut model = (checkpoint, args.model.adapter.clone());
    if let Some(EvaluatedRun { policy, .. }) = run.as_ref().filter(|_| model == (None, None)) {
        model = policy.clone();
    }
    let (checkpoint, adapter) = model;
    let trained = run.as_ref().and_then(|run| run.config.model.as_ref());
    let source = model_options::source(checkpoint.as_deref(), adapter.as_deref(), trained)?;
    let work = Evaluating { args, run, adapter, cache, device: &device };
    pipelines::open::<Training, _>(source, &host::machine(&device), work)
}

/// Work of `eval` on a model.
struct Evaluating<'a> {
    args: &'a EvalArgs,
    run: Option<EvaluatedRun>,
    adapter: Option<PathBuf>,
    cache: Option<Arc<ScoreCache>>,
    device: &'a Device,
}

impl Visitor<Training> for Evaluating<'_> {
    type Output = ();
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<()> {
        let Self { args, run, adapter, cache, device } = self;
        let (sampling, of_run, samples) = match &run {
            Some(EvaluatedRun { config, .. }) => (
                train::sampling(config),
                config.prompts.validation.as_str(),
                config.evaluation_samples,
            ),
            None => (args.model.sampling(&pipeline)?, "shapes:test", args.samples as usize),
        };
        let source = args.prompts.as_deref().unwrap_or(of_run);
        let prompts = Prompts::open(source, &pipeline)?;
        let rows = prompts.rows(samples);
        needs::check_images(rows.len(), pipeline.image_shape())?;
        let surroundings = Surroundings { image_shape: pipeline.image_shape(), device, cache };
        let rewards =
            |run: &EvaluatedRun| rewards::open("rewards", &run.config.rewards, &surroundings);
        let rewards = run.as_ref().map(rewards).transpose()?;
        pipeline.conditions(&[""])?; // Before the network is loaded.
        let mut network = pipeline.network()?;
        if let Some(adapter) = adapter {
            network = Adapter::read(&adapter)?.attach(network, device)?;
        }
        let workers = Workers::new(backend::workers()).context("cannot start worker threads")?;
        let evaluator = Evaluator { pipeline: &pipeline, workers: &workers, device, sampling };
        let images = evaluator.generate(network, &prompts, &rows)?;
        let evaluation = Evaluation::of(&prompts, &images, &rows, rewards.as_ref())?;
        if evaluation.accuracy.is_none() && rewards.is_none() {
            bail!("{source} has prompts without metadata: nothing can be verified");
        }
        print_evaluation(&evaluation, rewards.is_some(), args.output.as_deref())
    }
}

/// Prints an evaluation, and writes it to a file if one is given.
fn print_evaluation(
    evaluation: &Evaluation,
    with_rewards: bool,
    output: Option<&Path>,
) -> Result<()> {
    if let Some(path) = output {
        let json = serde_json::to_string_pretty(evaluation)? + "\n";
        write_atomically(path, json.as_bytes())?;
    }
    let tables = evaluation
        .accuracy
        .iter()
        .map(|accuracy| format!("{}\n{}", accuracy.table(), accuracy.fault_table()));
    let rewards = evaluation
        .rewards
        .iter()
        .filter(|_| with_rewards)
        .map(|(name, mean)| format!("{name} {mean:.4}\n"));
    output::print(tables.chain(rewards).collect::<String>())
}

/// A training run whose evaluation is repeated.
struct EvaluatedRun {
    config: TrainConfig,
    /// The checkpoint and the adapter of the run's newest policy.
    policy: (Option<String>, Option<PathBuf>),
}

impl EvaluatedRun {
    fn open(path: &Path) -> Result<Self> {
        let file = path.join("config.toml");
        let text = text_file::read(&file).context("--as-in")?;
        let config: TrainConfig = config::resolve(config::parse(&text)?, None, None, &[])
            .with_context(|| {
                format!("--as-in: {} is not the configuration of a training run", file.display())
            })?;
        let policy = match config.tuning {
            Tuning::Full { .. } => {
                (Some(path.join("policy.safetensors").to_string_lossy().into_owned()), None)
            }
            Tuning::Lora(_) => (Some(config.base.clone()), Some(path.join("adapter"))),
        };
        Ok(Self { config, policy })
    }
}
