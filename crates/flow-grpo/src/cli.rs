//! The command line.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
};

use anyhow::{Context, Error, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use files::{text_file, write_atomically};
use models::{
    Adapter, lora,
    sd3::random::{self, Sizes},
};
use pipelines::{ModelSource, Pipeline, Visitor};
use run::{RunDir, png};
use training::{
    noise::{Key, Purpose},
    ranges::MOST_GUIDANCE,
    workers::Workers,
};

use crate::{
    backend::{self, Device, Plain, Training},
    bench::{self, BenchArgs},
    checkpoints,
    compare::{self, CompareArgs},
    config::{self, Checked, Preset},
    evaluation::{Evaluation, Evaluator, Prompts, Sampling},
    figure, host, interrupt, memory,
    model_config::ModelConfig,
    output,
    presets::{PRETRAIN_PRESETS, PROFILES, TRAIN_PRESETS},
    pretrain::{self, PretrainConfig},
    program::program,
    progress::Progress,
    proxy::{self, ProxyArgs},
    rewards::{self, Surroundings},
    sample::{self, MOST_IMAGES, SampleArgs},
    train,
    train_config::TrainConfig,
    tuning::Tuning,
    verbs::{self, config::ConfigArgs, score::ScoreArgs, serve::ServeArgs},
};

/// Train flow-matching image models by reinforcement learning.
#[derive(Debug, Parser)]
#[command(name = "flow-grpo", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Improve a base model by Flow-GRPO. Presets: shapes (default), shapes-64 (for a GPU), text,
    /// toy-2d; with --model, for Stable Diffusion 3.5 Medium: sd35m-geneval, sd35m-ocr,
    /// sd35m-ocr-1gpu, sd35m-pickscore.
    #[command(after_help = format!("Rewards, for --set rewards.NAME=WEIGHT:\n{}", rewards::table()))]
    Train(TrainArgs),
    /// Train a base model by flow matching. Presets: shapes-base (default), shapes-64-base (for a
    /// GPU), text-base, toy-2d-base.
    Pretrain(RunArgs),
    /// Sample images for prompts.
    Sample(SampleArgs),
    /// Measure strict accuracy on held-out prompts.
    Eval(EvalArgs),
    /// Add a LoRA adapter to the weights of its base model.
    Merge(MergeArgs),
    /// Train the classifier of the reward `shapes_proxy`, which can be hacked.
    Proxy(ProxyArgs),
    /// Plot a metric of several runs side by side.
    Compare(CompareArgs),
    /// Time the parts, optionally beside the same network in PyTorch.
    Bench(BenchArgs),
    /// Write a model directory of the published size with random weights, for measurements without
    /// the published weights.
    InitRandom(InitRandomArgs),
    /// Score images on disk, or detections in them, by rewards.
    #[command(after_help = format!("Rewards:\n{}", rewards::table()))]
    Score(ScoreArgs),
    /// Serve rewards to other programs over HTTP.
    #[command(after_help = format!("Rewards:\n{}", rewards::table()))]
    Serve(ServeArgs),
    /// Show a configuration, or explain its keys.
    Config(ConfigArgs),
    /// Draw the book's computed figure.
    Figure {
        /// The SVG file to write.
        #[arg(long, default_value = "book/src/figures/marginals.svg")]
        output: PathBuf,
    },
}

#[derive(Args, Debug)]
struct TrainArgs {
    #[command(flatten)]
    run: RunArgs,
    /// A profile, applied to the preset: `flow_grpo` follows the reference code in every choice
    /// that the paper leaves open.
    #[arg(long, conflicts_with = "resume")]
    profile: Option<String>,
    /// The base model: a model directory in the layout of diffusers, or a checkpoint; equivalent to
    /// --set base=….
    #[arg(long, value_name = "DIR", conflicts_with = "resume")]
    model: Option<PathBuf>,
    /// Shows curves and the newest numbers in a full-screen view.
    #[arg(long)]
    live: bool,
}

#[derive(Args, Debug)]
struct InitRandomArgs {
    /// The published model whose sizes are used.
    #[arg(long, value_enum)]
    like: Like,
    /// The directory to write; 16 GB for sd35-medium, 7 GB without T5.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of layers of the transformer, at most that of the model; each has full width, for a
    /// small machine.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    layers: Option<u32>,
    /// Leaves out T5, 9.5 GB.
    #[arg(long)]
    without_t5: bool,
    /// Seed of the weights.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A published model.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Like {
    /// Stable Diffusion 3 Medium.
    Sd3Medium,
    /// Stable Diffusion 3.5 Medium.
    Sd35Medium,
    /// Stable Diffusion 3.5 Large.
    Sd35Large,
}

/// Options of every run.
#[derive(Args, Clone, Debug)]
struct RunArgs {
    /// A built-in configuration.
    #[arg(long)]
    preset: Option<String>,
    /// A TOML file; its keys replace those of the preset.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Sets one key, e.g. `--set epochs=10` or `--set grpo.group_size=8`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// The directory of the run [default: runs/PRESET-SECONDS, the seconds since 1970].
    #[arg(long, conflicts_with = "resume")]
    out: Option<PathBuf>,
    /// Resumes a run; `--set epochs=300` lengthens it, unless its learning rate has begun to fall.
    /// Settings that would change its results are refused.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["preset", "config"])]
    resume: Option<PathBuf>,
}

/// The network and how it samples.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// A checkpoint file, or a built-in checkpoint: shapes-base, toy-2d-base [default: the base of
    /// the adapter, or shapes-base].
    #[arg(long)]
    pub checkpoint: Option<String>,
    /// A LoRA adapter for the checkpoint: RUN/adapter, another directory of PEFT or diffusers, or a
    /// file of diffusers.
    #[arg(long, value_name = "PATH")]
    pub adapter: Option<PathBuf>,
    /// Number of ODE steps.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=MOST_STEPS))]
    pub steps: u32,
    /// Scale of classifier-free guidance; 1 turns it off [default: 1,
    /// or with --model that of the published model: 4.5 for SD3.5, 3.5 for FLUX.1-dev, which reads
    /// the scale itself].
    #[arg(long, value_parser = guidance)]
    pub guidance: Option<f64>,
    /// Seed of the noise.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Upper bound on ODE steps.
const MOST_STEPS: i64 = 10_000;

/// Parses a guidance scale.
fn guidance(text: &str) -> Result<f64, String> {
    let scale: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    let within = (0.0..=MOST_GUIDANCE).contains(&scale);
    within.then_some(scale).ok_or_else(|| format!("it must lie between 0 and {MOST_GUIDANCE}"))
}

#[derive(Args, Debug)]
struct EvalArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Evaluates like a training run, with its noise, validation prompts, number of images, grid,
    /// steps, guidance and rewards, so that the results equal its metrics; uses its newest policy,
    /// or the given --checkpoint, e.g. RUN/best.safetensors.
    #[arg(long, value_name = "RUN", conflicts_with_all = ["steps", "guidance", "seed", "samples"])]
    as_in: Option<PathBuf>,
    /// Prompts: shapes:test, shapes:unseen, shapes:validation, shapes:train, or a GenEval metadata
    /// file [default: shapes:test].
    #[arg(long)]
    prompts: Option<String>,
    /// Images per kind of prompt, spread evenly over its prompts; 0 takes every prompt once.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=MOST_IMAGES))]
    samples: u32,
    /// The JSON file to write.
    #[arg(long)]
    output: Option<PathBuf>,
}

#[derive(Args, Debug)]
struct MergeArgs {
    /// The adapter: RUN/adapter, another directory of PEFT or diffusers, or a file of diffusers.
    #[arg(long, value_name = "PATH")]
    adapter: PathBuf,
    /// The base model: a checkpoint file, a built-in checkpoint, or a model directory [default: the
    /// base of the adapter, or shapes-base].
    #[arg(long)]
    checkpoint: Option<String>,
    /// The checkpoint to write; for a model directory, a new directory for its transformer.
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
}

/// Runs the verb of the command line.
pub fn run() -> Result<()> {
    let cli = Cli::parse();
    if matches!(cli.verb, Verb::Train(_) | Verb::Pretrain(_) | Verb::Proxy(_)) {
        interrupt::listen()?;
    }
    match cli.verb {
        Verb::Train(args) => train(&args),
        Verb::Pretrain(args) => pretrain(&args),
        Verb::Sample(args) => sample::sample(&args),
        Verb::Eval(args) => eval(&args),
        Verb::Merge(args) => merge(&args),
        Verb::Proxy(args) => proxy::train(&args, &Device::default()),
        Verb::Compare(args) => compare::compare(&args),
        Verb::Bench(args) => bench(&args),
        Verb::InitRandom(args) => init_random(&args),
        Verb::Score(args) => verbs::score::run(&args),
        Verb::Serve(args) => verbs::serve::run(&args),
        Verb::Config(args) => verbs::config::run(&args),
        Verb::Figure { output } => figure::marginals(&output),
    }
}

fn train(args: &TrainArgs) -> Result<()> {
    ensure!(
        !args.live || std::io::stderr().is_terminal(),
        "--live needs a terminal on standard error"
    );
    let mut run_args = args.run.clone();
    let layer = args
        .profile
        .as_deref()
        .map(|name| config::preset(&PROFILES, name))
        .transpose()?
        .map(|profile| profile.text);
    // Quote the path: it is data, not TOML.
    run_args.set.extend(
        args.model
            .iter()
            .map(|path| format!("base={}", toml::Value::String(path.display().to_string()))),
    );
    let (config, mut run): (TrainConfig, _) = open_run("train", &run_args, &TRAIN_PRESETS, layer)?;
    train::train(&config, &mut run, args.live, &Device::default())
}

fn pretrain(args: &RunArgs) -> Result<()> {
    let (config, mut run): (PretrainConfig, _) =
        open_run("pretrain", args, &PRETRAIN_PRESETS, None)?;
    let checkpoint = pretrain::pretrain(&config, &mut run, &Device::default())?;
    output::print(format!("base model: {}\n", checkpoint.display()))
}

fn bench(args: &BenchArgs) -> Result<()> {
    let sizes = |name: &str| -> Result<_> {
        let preset = config::preset(&PRETRAIN_PRESETS, name)?;
        Ok(config::resolve::<PretrainConfig>(preset.table(&PRETRAIN_PRESETS), None, None, &[])?
            .model)
    };
    let epoch = config::resolve(TRAIN_PRESETS[0].table(&TRAIN_PRESETS), None, None, &[])?;
    bench::bench(args, &epoch, args.preset.as_deref().map(sizes).transpose()?, &Device::default())
}

fn eval(args: &EvalArgs) -> Result<()> {
    args.output.as_deref().map_or(Ok(()), png::check_directory_of)?;
    let run = args.as_in.as_deref().map(EvaluatedRun::open).transpose()?;
    let mut model = (args.model.checkpoint.clone(), args.model.adapter.clone());
    if let Some(EvaluatedRun { policy, .. }) = run.as_ref().filter(|_| model == (None, None)) {
        model = policy.clone();
    }
    let (checkpoint, adapter) = model;
    let source = source(checkpoint.as_deref(), adapter.as_deref(), run.as_ref())?;
    let device = Device::default();
    let work = Evaluating { args, run, adapter, device: &device };
    pipelines::open::<Training, _>(source, &host::machine(&device), work)
}

/// Work of `eval` on a model.
struct Evaluating<'a> {
    args: &'a EvalArgs,
    run: Option<EvaluatedRun>,
    adapter: Option<PathBuf>,
    device: &'a Device,
}

impl Visitor<Training> for Evaluating<'_> {
    type Output = ();
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<()> {
        let Self { args, run, adapter, device } = self;
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
        memory::check_images(rows.len(), pipeline.image_shape())?;
        let surroundings = Surroundings { image_shape: pipeline.image_shape(), device };
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
        let evaluation = prompts.evaluate(&images, &rows, rewards.as_ref())?;
        if evaluation.accuracy.is_none() && rewards.is_none() {
            bail!("{source} has prompts without metadata: nothing can be verified");
        }
        print_evaluation(&evaluation, rewards.is_some(), args.output.as_deref())
    }
}

/// Prints an evaluation and writes it to a file, if one is given.
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

/// The model of `--checkpoint` or `--adapter`; a directory is used as in the run, if there is one.
fn source(
    checkpoint: Option<&str>,
    adapter: Option<&Path>,
    run: Option<&EvaluatedRun>,
) -> Result<ModelSource> {
    let named = adapter.map(lora::base_of).transpose()?.flatten();
    let name = checkpoint.or(named.as_deref()).unwrap_or(checkpoints::DEFAULT);
    let model = run.and_then(|run| run.config.model.as_ref());
    let settings = model.map(ModelConfig::settings_in_memory).unwrap_or_default();
    checkpoints::source(name, settings)
}

/// A training run whose evaluation is repeated.
struct EvaluatedRun {
    config: TrainConfig,
    /// Checkpoint and adapter of the newest policy of the run.
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
            Tuning::Full {} => {
                (Some(path.join("policy.safetensors").to_string_lossy().into_owned()), None)
            }
            Tuning::Lora(_) => (Some(config.base.clone()), Some(path.join("adapter"))),
        };
        Ok(Self { config, policy })
    }
}

fn init_random(args: &InitRandomArgs) -> Result<()> {
    let sizes = match args.like {
        Like::Sd3Medium => Sizes::sd3_medium(),
        Like::Sd35Medium => Sizes::sd35_medium(),
        Like::Sd35Large => Sizes::sd35_large(),
    };
    let most = sizes.transformer.num_layers;
    let layers = args.layers.map_or(most, |layers| layers as usize);
    ensure!(
        layers <= most,
        "--layers ({layers}) must lie between 1 and {most}, as many as the model has"
    );
    let sizes = sizes.with_layers(layers);
    let sizes = if args.without_t5 { Sizes { t5: None, ..sizes } } else { sizes };
    ensure!(
        !args.out.join("model_index.json").exists(),
        "{} already holds a model: choose another --out",
        args.out.display()
    );
    let device = Device::default();
    let count = sizes.count::<Plain>(&device);
    let progress = Progress::new("writing", count / MILLION, "million numbers");
    let mut written = 0;
    random::write::<Plain>(&sizes, args.seed, &args.out, &device, |numbers| {
        let before = written / MILLION;
        written += numbers;
        progress.advance(written / MILLION - before);
    })?;
    progress.finish();
    output::print(format!("{}: {:.2} billion numbers\n", args.out.display(), count as f64 / 1e9))
}

const MILLION: usize = 1_000_000;

fn merge(args: &MergeArgs) -> Result<()> {
    png::check_directory_of(&args.output)?;
    let inputs = [args.checkpoint.as_deref().map(Path::new), Some(&args.adapter)];
    if let Some(input) =
        inputs.into_iter().flatten().find(|input| is_same_file(input, &args.output))
    {
        bail!(
            "--output {} is {}, which is read: choose another file",
            args.output.display(),
            input.display()
        );
    }
    let source = source(args.checkpoint.as_deref(), Some(&args.adapter), None)?;
    if let ModelSource::Directory { path, .. } = &source {
        ensure!(
            !args.output.exists(),
            "--output {} is there already: a model directory's merged transformer goes to a new directory, which then replaces {}/transformer",
            args.output.display(),
            path.display()
        );
    }
    pipelines::open::<Training, _>(source, &host::machine(&Device::default()), Merging(args))
}

/// Work of `merge` on a model.
struct Merging<'a>(&'a MergeArgs);

impl Visitor<Training> for Merging<'_> {
    type Output = ();
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<()> {
        let MergeArgs { adapter, output, .. } = self.0;
        let made_by = format!("{}, with the adapter {}", pipeline.made_by(), adapter.display());
        pipeline.write_merged(&Adapter::read(adapter)?, &made_by, output)?;
        output::print(format!("{}\n", output.display()))
    }
}

/// Whether two paths lead to the same file.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let [one, other] = [one, other].map(Path::canonicalize);
    one.is_ok_and(|one| other.is_ok_and(|other| one == other))
}

impl ModelArgs {
    /// How these options sample a model.
    ///
    /// # Errors
    /// If the settings of the model cannot be read.
    pub fn sampling<P: Pipeline<Training>>(&self, pipeline: &P) -> Result<Sampling> {
        Ok(Sampling {
            key: Key::new(self.seed, Purpose::Sampling),
            grid: pipeline.grid()?,
            steps: self.steps as usize,
            guidance: self.guidance.unwrap_or(pipeline.defaults().guidance),
        })
    }

    /// The checkpoint of these options: given, or the base of the adapter, or the default.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn checkpoint(&self) -> Result<ModelSource> {
        source(self.checkpoint.as_deref(), self.adapter.as_deref(), None)
    }
}

/// The configuration and directory of a new or resumed run.
fn open_run<C: Checked>(
    verb: &str,
    args: &RunArgs,
    presets: &[Preset],
    layer: Option<&str>,
) -> Result<(C, RunDir)> {
    if let Some(path) = &args.resume {
        let (run, text) = RunDir::open(path, program())?;
        let table =
            config::parse(&text).with_context(|| format!("{}/config.toml", path.display()))?;
        let of = if table.contains_key("grpo") { "train" } else { "pretrain" };
        ensure!(
            of == verb,
            "{} is a run of `{of}`: resume it with `{of} --resume`",
            path.display()
        );
        let file = || format!("{}/config.toml", path.display());
        config::resolve::<C>(table.clone(), None, None, &[]).with_context(|| {
            let weights = if verb == "train" { "policy.safetensors" } else { "base.safetensors" };
            format!(
                "{}: this program cannot read it. The run was begun with {}: resume it with that version, or begin a new run from its \
                 weights, with --set base={}/{weights}",
                file(),
                run.begun_with(),
                path.display()
            )
        })?;
        let config: C = config::resolve(table, None, None, &args.set).with_context(file)?;
        return Ok((config, run));
    }
    let preset = config::preset(presets, args.preset.as_deref().unwrap_or(presets[0].name))?;
    let config: C =
        config::resolve(preset.table(presets), layer, args.config.as_deref(), &args.set)?;
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("runs/{}-{}", preset.name, timestamp())));
    let run = RunDir::create(&out, program())?;
    Ok((config, run))
}

/// Seconds since 1970, which sort by time and need no time zone.
fn timestamp() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_valid() {
        for preset in TRAIN_PRESETS {
            let table = preset.table(&TRAIN_PRESETS);
            config::resolve::<TrainConfig>(table, None, None, &[])
                .unwrap_or_else(|error| panic!("{}: {error:#}", preset.name));
        }
        for preset in PRETRAIN_PRESETS {
            config::resolve::<PretrainConfig>(preset.table(&PRETRAIN_PRESETS), None, None, &[])
                .unwrap_or_else(|error| panic!("{}: {error:#}", preset.name));
        }
    }

    /// The dotted keys of a table, except keys that are names.
    fn keys(prefix: &str, table: &toml::Table) -> Vec<String> {
        let key = |(key, value): (&String, &toml::Value)| match value {
            toml::Value::Table(inner) if !["rewards", "mix"].contains(&key.as_str()) => {
                keys(&format!("{prefix}{key}."), inner)
            }
            _ => vec![format!("{prefix}{key}")],
        };
        table.iter().flat_map(key).collect()
    }

    #[test]
    fn a_preset_names_every_key_that_can_be_set() {
        for preset in TRAIN_PRESETS {
            let config: TrainConfig =
                config::resolve(preset.table(&TRAIN_PRESETS), None, None, &[]).expect("valid");
            let whole = toml::Table::try_from(&config).expect("plain data");
            let named = keys("", &preset.table(&TRAIN_PRESETS));
            for key in keys("", &whole) {
                assert!(named.contains(&key), "{}: {key}", preset.name);
            }
        }
    }

    /// Values of the reference code (`yifan123/flow_grpo`, commit ac4c86e) with file and line; an
    /// entry for one configuration begins with its name.
    const REFERENCE: [(&str, &str, &str); 57] = [
        ("seed", "42", "config/base.py:11"),
        ("evaluate_every", "60", "config/grpo.py:58"),
        ("evaluation_guidance", "4.5", "config/base.py:43, scripts/train_sd3.py:254"),
        ("tuning.kind", "'lora'", "config/base.py:25"),
        ("tuning.rank", "32", "scripts/train_sd3.py:430"),
        ("tuning.alpha", "64.0", "scripts/train_sd3.py:431"),
        ("tuning.init", "'gaussian'", "scripts/train_sd3.py:432"),
        (
            "tuning.targets",
            "['attn.to_q', 'attn.to_k', 'attn.to_v', 'attn.to_out.0', 'attn.add_q_proj', 'attn.add_k_proj', 'attn.add_v_proj', \
             'attn.to_add_out']",
            "scripts/train_sd3.py:419-428",
        ),
        ("model.resolution", "512", "config/grpo.py:40"),
        ("model.max_sequence_length", "128", "scripts/train_sd3.py:625"),
        ("model.t5", "true", "scripts/train_sd3.py:387"),
        ("grpo.groups", "48", "config/grpo.py:43: 4 batches x 9 x 32 GPUs / 24"),
        ("sd35m-ocr-1gpu grpo.groups", "8", "config/grpo.py:235: 8 batches x 8 / 8"),
        (
            "grpo.group_size",
            "24",
            "config/grpo.py:42; 8 in general_ocr_sd3_1gpu, line 234: too few (arXiv 2505.05470, section 5.3)",
        ),
        ("grpo.updates_per_epoch", "2", "config/grpo.py:48"),
        ("grpo.warm_up", "0", "scripts/train_sd3.py:465-471: no scheduler"),
        ("grpo.cool_down", "0", "scripts/train_sd3.py:465-471: no scheduler"),
        ("grpo.rollout.steps", "10", "config/grpo.py:36"),
        (
            "grpo.rollout.grid.kind",
            "'sd3_double_shift'",
            "diffusers' FlowMatchEulerDiscreteScheduler",
        ),
        ("grpo.rollout.grid.shift", "3.0", "scheduler_config.json of SD3.5-Medium"),
        (
            "grpo.rollout.transition.kind",
            "'flow_sde'",
            "flow_grpo/diffusers_patch/sd3_sde_with_logprob.py:58-66",
        ),
        ("grpo.rollout.transition.noise_level", "0.7", "config/base.py:54"),
        (
            "grpo.rollout.random_steps",
            "10",
            "flow_grpo/diffusers_patch/sd3_pipeline_with_logprob.py:137-167",
        ),
        ("grpo.rollout.log_prob", "'mean'", "flow_grpo/diffusers_patch/sd3_sde_with_logprob.py:68"),
        ("grpo.rollout.guidance", "4.5", "config/grpo.py:38"),
        (
            "grpo.trained_steps.kind",
            "'all_but_last'",
            "config/grpo.py:50, scripts/train_sd3.py:345",
        ),
        ("grpo.advantage.spread", "'epoch'", "config/grpo.py:54, flow_grpo/stat_tracking.py:27"),
        ("grpo.advantage.epsilon", "1e-4", "flow_grpo/stat_tracking.py:27"),
        ("grpo.advantage.clip", "5.0", "config/base.py:84"),
        ("grpo.objective.kind", "'clipped'", "scripts/train_sd3.py:886-893"),
        ("grpo.objective.clip_range_low", "1e-4", "config/base.py:86"),
        ("grpo.objective.clip_range_high", "1e-4", "config/base.py:86"),
        ("grpo.objective.step_weight", "'equal'", "scripts/train_sd3.py:893"),
        ("sd35m-geneval grpo.objective.kl_weight", "0.04", "config/grpo.py:91"),
        ("sd35m-ocr grpo.objective.kl_weight", "0.04", "config/grpo.py:52"),
        ("sd35m-ocr-1gpu grpo.objective.kl_weight", "0.04", "config/grpo.py:244"),
        ("sd35m-pickscore grpo.objective.kl_weight", "0.01", "config/grpo.py:128"),
        ("grpo.objective.kl_controller.kind", "'fixed'", "scripts/train_sd3.py:897"),
        ("grpo.objective.kl_form", "'reference'", "scripts/train_sd3.py:895"),
        (
            "grpo.objective.kl_ode_steps",
            "0",
            "scripts/train_sd3.py:345: every trained step draws noise",
        ),
        (
            "grpo.objective.guidance_gradient",
            "'both'",
            "scripts/train_sd3.py:189-195 at ed4e82b and 74db691; detached at ac4c86e",
        ),
        ("grpo.optimizer.learning_rate", "3e-4", "config/base.py:63"),
        ("grpo.optimizer.beta1", "0.9", "config/base.py:65"),
        ("grpo.optimizer.beta2", "0.999", "config/base.py:67"),
        ("grpo.optimizer.weight_decay", "1e-4", "config/base.py:69"),
        ("grpo.optimizer.epsilon", "1e-8", "config/base.py:71"),
        ("grpo.optimizer.max_gradient_norm", "1.0", "config/base.py:76"),
        ("grpo.muon", "'none'", "scripts/train_sd3.py:463: AdamW alone"),
        ("grpo.ema.decay", "0.9", "scripts/train_sd3.py:445"),
        ("grpo.ema.every", "8", "scripts/train_sd3.py:445"),
        ("grpo.ema.repeat", "2", "config/grpo.py:43, scripts/train_sd3.py:955: half of 4 batches"),
        (
            "sd35m-ocr-1gpu grpo.ema.repeat",
            "4",
            "config/grpo.py:235, scripts/train_sd3.py:955: half of 8 batches",
        ),
        ("sd35m-geneval best_by", "'rewards.geneval'", "config/grpo.py:98"),
        ("sd35m-ocr best_by", "'rewards.ocr'", "config/grpo.py:61"),
        ("sd35m-ocr-1gpu best_by", "'rewards.ocr'", "config/grpo.py:252"),
        ("sd35m-pickscore best_by", "'rewards.pickscore'", "config/grpo.py:134"),
        ("prompts.unseen", "'none'", "scripts/train_sd3.py:604"),
    ];

    /// The reference code's value of a key, in the configuration that a preset stands for.
    fn reference(preset: &str, key: &str) -> Option<toml::Value> {
        let of = |name: &str| {
            REFERENCE.iter().find(|(key, ..)| *key == name).map(|(_, value, _)| *value)
        };
        let value = of(&format!("{preset} {key}")).or_else(|| of(key))?;
        Some(format!("v = {value}").parse::<toml::Table>().expect("TOML")["v"].clone())
    }

    fn at<'a>(table: &'a toml::Table, key: &str) -> Option<&'a toml::Value> {
        let (first, rest) = key.split_once('.').unwrap_or((key, ""));
        let value = table.get(first)?;
        if rest.is_empty() { Some(value) } else { at(value.as_table()?, rest) }
    }

    #[test]
    fn presets_and_profile_have_the_numbers_of_the_reference_code() {
        let profile: toml::Table = PROFILES[0].text.parse().expect("TOML");
        let presets: Vec<Preset> =
            TRAIN_PRESETS.into_iter().filter(|preset| preset.name.starts_with("sd35m")).collect();
        assert_eq!(presets.len(), 4);
        for preset in presets {
            let config: TrainConfig =
                config::resolve(preset.table(&TRAIN_PRESETS), None, None, &[]).expect("valid");
            let config = toml::Table::try_from(&config).expect("plain data");
            for (key, _, source) in REFERENCE {
                let key = key.strip_prefix(preset.name).map_or(key, str::trim_start);
                // An entry for another preset.
                if key.contains(' ') {
                    continue;
                }
                let want = reference(preset.name, key);
                let want = want.as_ref().filter(|want| want.as_str() != Some("none"));
                assert_eq!(at(&config, key), want, "{}: {key}, {source}", preset.name);
            }
        }
        // The profile is the configuration of GenEval and text rendering on 32 GPUs, without the
        // settings of task and machine.
        for key in keys("", &profile) {
            let want = reference("sd35m-ocr", &key)
                .unwrap_or_else(|| panic!("the profile has {key}, the table has not"));
            assert_eq!(at(&profile, &key), Some(&want), "the profile: {key}");
        }
        let named = keys("", &profile);
        for (key, _, source) in REFERENCE {
            let of_task = ["seed", "tuning.targets", "model.", "grpo.group", "prompts."];
            if !key.contains(' ') && !of_task.iter().any(|prefix| key.starts_with(prefix)) {
                assert!(named.iter().any(|name| name == key), "the profile lacks {key}, {source}");
            }
        }
    }

    #[test]
    fn the_profile_makes_a_preset_of_any_kind_that_of_the_reference_code() {
        let profile = Some(PROFILES[0].text);
        let changed: TrainConfig =
            config::resolve(TRAIN_PRESETS[0].table(&TRAIN_PRESETS), profile, None, &[])
                .expect("valid");
        assert_eq!(changed.grpo.rollout.grid, flow::GridKind::Sd3DoubleShift { shift: 3.0 });
        assert_eq!(
            (changed.grpo.warm_up, changed.grpo.cool_down, changed.grpo.optimizer.learning_rate),
            (0, 0, 3e-4)
        );
        assert_eq!(changed.tuning, crate::tuning::Tuning::Full {}, "it trains all weights still");
        for preset in TRAIN_PRESETS.iter().filter(|preset| preset.name.starts_with("sd35m")) {
            let own = preset.table(&TRAIN_PRESETS);
            let mut other = own.clone();
            other["tuning"]["rank"] = 8.into();
            other["grpo"]["optimizer"]["learning_rate"] = 1e-5.into();
            let resolve = |table: toml::Table, layer| {
                config::resolve::<TrainConfig>(table, layer, None, &[]).expect("valid")
            };
            let (own, mut changed) = (resolve(own, None), resolve(other, profile));
            // The task and the machine decide these.
            let grpo::Objective::Clipped(objective) = &mut changed.grpo.objective else {
                unreachable!("the reference's")
            };
            objective.kl_weight = own.grpo.objective.kl_weight();
            changed.grpo.ema.repeat = own.grpo.ema.repeat;
            assert_eq!(changed, own, "{}", preset.name);
        }
    }
}
