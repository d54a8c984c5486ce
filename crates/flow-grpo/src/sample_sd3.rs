//! Sampling of images with a model directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use flow::GridKind;
use models::{Adapter, Choices, sd3::ModelDirectory};
use run::png;
use training::{
    noise::{Key, Purpose},
    workers::Workers,
};

use crate::{
    backend::{self, Device, Plain},
    cli::{self, SampleArgs},
    evaluation::{Evaluator, Prompts, Sampling},
    memory,
    network::Pipeline,
    output::{log, print},
    sd3::{self, Sd3, Sd3Config},
};

/// Options of `sample` for a model directory only.
#[derive(Args, Debug)]
pub struct DirectoryArgs {
    /// A model in the layout of diffusers: Stable Diffusion 3 or 3.5 [default: the base model of
    /// --adapter].
    #[arg(long, value_name = "DIR", conflicts_with = "checkpoint")]
    pub model: Option<PathBuf>,
    /// Height of the images in pixels [default: the resolution that the model was trained on].
    #[arg(long, conflicts_with = "latents")]
    height: Option<usize>,
    /// Width of the images in pixels.
    #[arg(long, conflicts_with = "latents")]
    width: Option<usize>,
    /// Tokens of a prompt that T5 reads [default: those of the run of --adapter
    /// (`sd3.max_sequence_length`), or 256].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=512))]
    max_sequence_length: Option<u32>,
    /// Leaves out T5: its features are zeros, as in diffusers.
    #[arg(long)]
    without_t5: bool,
    /// A file in the layout of Stability and ComfyUI whose transformer, and autoencoder if it has
    /// one, replace the directory's.
    #[arg(long, value_name = "FILE")]
    single_file: Option<PathBuf>,
    /// The time grid; the double shift is diffusers' [default: double-shift].
    #[arg(long, value_enum)]
    grid: Option<Grid>,
    /// Initial latents instead of noise, `[B, C, H, W]` under the name `latents` in a safetensors
    /// file: one per image.
    #[arg(long, value_name = "FILE")]
    latents: Option<PathBuf>,
    /// Writes `tensors.safetensors` beside the images: `final_latents`, and `decoded`, the
    /// autoencoder's output before clamping.
    #[arg(long)]
    save_latents: bool,
}

impl DirectoryArgs {
    /// The first given option that needs a model directory.
    pub fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--height", self.height.is_some()),
            ("--width", self.width.is_some()),
            ("--max-sequence-length", self.max_sequence_length.is_some()),
            ("--without-t5", self.without_t5),
            ("--single-file", self.single_file.is_some()),
            ("--grid", self.grid.is_some()),
            ("--latents", self.latents.is_some()),
            ("--save-latents", self.save_latents),
        ];
        given.into_iter().find_map(|(option, given)| given.then_some(option))
    }
}

/// A time grid by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Grid {
    /// The grid of diffusers: the shift of the scheduler's configuration is applied twice.
    DoubleShift,
    /// The shift is applied once.
    SingleShift,
    /// No shift.
    Linear,
}

/// Default number of tokens that T5 reads, as in diffusers.
const MAX_SEQUENCE_LENGTH: usize = 256;
/// Guidance scale of SD3.5-Medium.
const GUIDANCE: f64 = 4.5;

/// Configuration of the run that trained an adapter, if the adapter lies in a run directory:
/// sampling uses the embeddings of its training.
///
/// # Errors
/// If the run's configuration cannot be read.
fn run_of(adapter: &Path) -> Result<Option<Sd3Config>> {
    let directory = if adapter.is_dir() { Some(adapter) } else { adapter.parent() };
    let absolute = directory.and_then(|directory| directory.canonicalize().ok());
    let Some(path) = absolute.as_deref().and_then(Path::parent).map(|run| run.join("config.toml"))
    else {
        return Ok(None);
    };
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let table: toml::Table =
        text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    let sd3 = table.get("sd3").cloned().map(toml::Value::try_into).transpose();
    sd3.with_context(|| format!("{}: sd3", path.display()))
}

/// Samples the images of the options with a model directory.
pub fn sample(args: &SampleArgs, model: &Path) -> Result<()> {
    png::check_directory_of(&args.output)?;
    let device = Device::default();
    let DirectoryArgs {
        height,
        width,
        max_sequence_length,
        without_t5,
        single_file,
        grid,
        latents,
        save_latents,
        ..
    } = &args.directory;
    let prompts = args.read_prompts()?;
    let count = args.count.unwrap_or(1) as usize;
    let rows = cli::rows(prompts.len(), count)?;
    let output = &args.output;
    ensure!(
        !save_latents || !png::is_grid(output),
        "--save-latents needs --output DIR, where the tensors go beside the images"
    );
    let guidance = args.model.guidance.unwrap_or(GUIDANCE);
    let adapter = args.model.adapter.as_deref().map(Adapter::read).transpose()?;
    let trained = args.model.adapter.as_deref().map(run_of).transpose()?.flatten();
    let without_t5 = *without_t5 || trained.as_ref().is_some_and(|trained| !trained.t5);
    let choices = Choices { single_file: single_file.clone(), without_t5 };
    let directory = ModelDirectory::open::<Plain>(model, &choices, &device)?;
    let latents = latents.as_deref().map(|path| sd3::read_latents(path, &device)).transpose()?;
    let scale = directory.vae_config().scale();
    let size = if let Some(latents) = &latents {
        let [found, _, height, width] = latents.dims();
        ensure!(
            found == rows.len(),
            "--latents holds {found} rows, {} images are asked for",
            rows.len()
        );
        [height * scale, width * scale]
    } else {
        let side = directory.transformer_config().sample_size * scale;
        [height.unwrap_or(side), width.unwrap_or(side)]
    };
    let latent_shape = directory.latent_shape(size).map_err(anyhow::Error::msg)?;
    let grid = match grid {
        Some(Grid::Linear) => GridKind::Linear {},
        Some(Grid::SingleShift) => {
            GridKind::Sd3SingleShift { shift: directory.grid_shift(latent_shape)? }
        }
        Some(Grid::DoubleShift) | None => {
            GridKind::Sd3DoubleShift { shift: directory.grid_shift(latent_shape)? }
        }
    };
    let of_run = trained.map(|trained| trained.max_sequence_length);
    if let (Some(length), None) = (of_run, max_sequence_length) {
        log(format!(
            "note: T5 reads {length} tokens of a prompt, as in the run that trained the adapter"
        ));
    }
    let max_sequence_length =
        max_sequence_length.map(|length| length as usize).or(of_run).unwrap_or(MAX_SEQUENCE_LENGTH);
    let pipeline = Sd3::open(directory, size, max_sequence_length, None, &device)?;
    memory::check_images(rows.len(), pipeline.image_shape())?;
    if let Some(latents) = &latents {
        let (channels, takes) = (latents.dims()[1], pipeline.latent_shape()[0]);
        ensure!(channels == takes, "--latents has {channels} channels, the model takes {takes}");
    }
    // Encode all prompts at once, with the empty prompt for guidance, before the transformer is
    // loaded.
    pipeline.conditions(
        &prompts.iter().map(|prompt| prompt.text.as_str()).chain([""]).collect::<Vec<_>>(),
    )?;
    let prompts = Prompts(pipeline.encode(&prompts)?);
    let mut transformer = pipeline.transformer()?;
    if let Some(adapter) = adapter {
        transformer = adapter.attach(transformer, &device)?;
    }
    let workers = Workers::new(backend::workers()).context("cannot start worker threads")?;
    let evaluator = Evaluator {
        pipeline: &pipeline,
        workers: &workers,
        device: &device,
        sampling: Sampling {
            key: Key::new(args.model.seed, Purpose::Sampling),
            grid,
            steps: args.model.steps as usize,
            guidance,
        },
    };
    let latents = evaluator.latents(&transformer, &prompts, &rows, latents)?;
    drop(transformer); // The decoder needs its room.
    let sampled = pipeline.finish(latents)?;
    let captions: Vec<&str> = rows.iter().map(|row| prompts.prompt(row).text.as_str()).collect();
    png::write_all(&sampled.images, &captions, count, output)?;
    if *save_latents {
        sd3::write_tensors(sampled, &output.join("tensors.safetensors"))?;
    }
    print(format!("{}\n", output.display()))
}
