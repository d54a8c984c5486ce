//! `sample`: samples images for prompts with any model.

use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use burn::tensor::Tensor;
use clap::Args;
use grpo::evaluate::Row;
use models::{Adapter, lora};
use pipelines::{ModelSource, Pipeline, Visitor, sampled::read_latents};
use run::png;
use tasks::prompts::{Prompt, PromptSet};
use training::{
    noise::{Key, Purpose},
    workers::Workers,
};

use super::{
    directory_options::DirectoryArgs,
    model_options::{MOST_IMAGES, ModelArgs},
};
use crate::{
    backend::{self, Device, Plain, Training},
    checkpoints,
    evaluation::{Evaluator, Prompts, Sampling},
    machine::{host, needs},
    terminal::output::{log, print},
    train::model_config::ModelConfig,
};

/// Options of `sample`.
#[derive(Args, Clone, Debug)]
pub struct SampleArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// A prompt; may be repeated.
    #[arg(long = "prompt", value_name = "TEXT")]
    prompts: Vec<String>,
    /// A file of prompts: one per line, or GenEval metadata (.jsonl).
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Images per prompt [default: 6, or 1 with --model].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=MOST_IMAGES))]
    count: Option<u32>,
    /// The PNG file to write, with all images in a grid, or a directory for one PNG file per image.
    #[arg(long, default_value = "samples.png")]
    output: PathBuf,
    #[command(flatten)]
    directory: DirectoryArgs,
}

/// Lower bound on the shape of an image.
const SMALLEST: [usize; 3] = [2, 1, 1];

/// Samples the images of the options.
pub fn run(args: &SampleArgs) -> Result<()> {
    png::check_directory_of(&args.output)?;
    let device = Device::default();
    let prompts = args.read_prompts()?;
    needs::check_images(prompts.len().saturating_mul(args.count.unwrap_or(1) as usize), SMALLEST)?;
    ensure!(
        !args.directory.save_latents || !png::is_grid(&args.output),
        "--save-latents needs --output DIR, where the tensors go beside the images"
    );
    let latents = args.directory.latents.as_deref();
    let latents = latents.map(|path| read_latents::<Plain>(path, &device)).transpose()?;
    let args = &SampleArgs { model: args.model.fetched()?, ..args.clone() };
    let source = args.source(latents.as_ref())?;
    let drawing = Drawing { args, prompts, latents, device: &device };
    pipelines::open::<Training, _>(source, &host::machine(&device), drawing)
}

impl SampleArgs {
    /// The prompts of the options.
    ///
    /// # Errors
    /// If no prompt is given, or the file cannot be read.
    fn read_prompts(&self) -> Result<Vec<Prompt>> {
        let mut prompts: Vec<Prompt> =
            self.prompts.iter().map(|text| Prompt::plain(text)).collect();
        if let Some(file) = &self.prompt_file {
            prompts.extend(PromptSet::read(file)?.prompts);
        }
        if prompts.is_empty() {
            bail!("give at least one --prompt \"…\", or a --prompt-file");
        }
        Ok(prompts)
    }

    /// The model of the options: a directory, a checkpoint, or the base of the adapter.
    fn source(&self, latents: Option<&Tensor<Plain, 4>>) -> Result<ModelSource> {
        let adapter = self.model.adapter.as_deref();
        // An adapter's base can be a directory.
        let of_adapter = || {
            let adapter = adapter.filter(|_| self.model.checkpoint.is_none())?;
            let base = PathBuf::from(lora::base_of(adapter).ok().flatten()?);
            checkpoints::is_directory(&base).then_some(base)
        };
        if let Some(path) = self.directory.model.clone().or_else(of_adapter) {
            let trained = adapter.map(run_of).transpose()?.flatten();
            let settings = self.directory.settings(trained.as_ref(), latents);
            return checkpoints::directory(&path.to_string_lossy(), settings);
        }
        if let Some(option) = self.directory.first_given() {
            bail!(
                "{option} is for a model directory: also give --model DIR, or --adapter RUN/adapter of a run that trained one"
            );
        }
        self.model.checkpoint()
    }
}

/// The model settings of the run that trained an adapter, if the adapter is in a run directory.
/// Sampling then encodes prompts as the training did.
///
/// # Errors
/// If the run's configuration cannot be read.
fn run_of(adapter: &Path) -> Result<Option<ModelConfig>> {
    let directory = if adapter.is_dir() { Some(adapter) } else { adapter.parent() };
    let absolute = directory.and_then(|directory| directory.canonicalize().ok());
    let Some(path) = absolute.as_deref().and_then(Path::parent).map(|run| run.join("config.toml"))
    else {
        return Ok(None);
    };
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let table: toml::Table =
        text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    // Older runs call the table `sd3`.
    let model = table.get("model").or_else(|| table.get("sd3"));
    let model = model.cloned().map(toml::Value::try_into).transpose();
    model.with_context(|| format!("{}: model", path.display()))
}

/// Work of `sample` on a model.
struct Drawing<'a> {
    args: &'a SampleArgs,
    prompts: Vec<Prompt>,
    latents: Option<Tensor<Plain, 4>>,
    device: &'a Device,
}

impl Visitor<Training> for Drawing<'_> {
    type Output = ();
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<()> {
        let Self { args, prompts: asked, latents, device } = self;
        let count = args.count.map_or(pipeline.defaults().images, |count| count as usize);
        let rows = Row::all(asked.len(), count);
        check_latents(latents.as_ref(), rows.len(), pipeline.latent_shape())?;
        needs::check_images(rows.len(), pipeline.image_shape())?;
        let sampling = Sampling {
            key: Key::new(args.model.seed, Purpose::Sampling),
            grid: args.directory.grid(&pipeline)?,
            steps: args.model.steps as usize,
            guidance: args.model.guidance.unwrap_or(pipeline.defaults().guidance),
        };
        let adapter = args.model.adapter.as_deref().map(Adapter::read).transpose()?;
        // Encode all prompts at once, with the empty prompt for guidance, before the network is
        // loaded.
        let texts = asked.iter().map(|prompt| prompt.text.as_str()).chain([""]);
        pipeline.conditions(&texts.collect::<Vec<_>>())?;
        let prompts = Prompts(pipeline.encode(&asked)?);
        let mut network = pipeline.network()?;
        if let Some(adapter) = adapter {
            network = adapter.attach(network, device)?;
        }
        let workers = Workers::new(backend::workers()).context("cannot start worker threads")?;
        let evaluator = Evaluator { pipeline: &pipeline, workers: &workers, device, sampling };
        let latents = evaluator.latents(network, &prompts, &rows, latents)?;
        let sampled = pipeline.finish(latents)?; // The network is freed: the decoder needs its memory.
        if sampled.images.first().is_some_and(|image| image.channels == 2) {
            log("note: this model samples points of the plane and ignores the prompt");
            prompts.write_images(&sampled.images, &rows, &args.output)?;
        } else {
            let captions: Vec<&str> =
                rows.iter().map(|row| prompts.prompt(row).text.as_str()).collect();
            png::write_all(&sampled.images, &captions, count, &args.output)?;
        }
        if args.directory.save_latents {
            sampled.write(&args.output.join("tensors.safetensors"))?;
        }
        print(format!("{}\n", args.output.display()))
    }
}

/// # Errors
/// If there is not one initial latent for every row, or the shape is not the model's.
fn check_latents(latents: Option<&Tensor<Plain, 4>>, rows: usize, shape: [usize; 3]) -> Result<()> {
    let Some([found, channels, height, width]) = latents.map(burn::Tensor::dims) else {
        return Ok(());
    };
    ensure!(found == rows, "--latents holds {found} rows, {rows} images are asked for");
    ensure!(
        channels == shape[0],
        "--latents has {channels} channels, the model takes {}",
        shape[0]
    );
    ensure!(
        [height, width] == shape[1..],
        "--latents are of {height} x {width}, the model takes {} x {}",
        shape[1],
        shape[2]
    );
    Ok(())
}
