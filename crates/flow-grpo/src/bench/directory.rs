//! Timing of a model directory in sampling and training: the same cases as `peer/sd3.py`,
//! optionally beside it.

mod cases;
mod processes;
mod report;

use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use clap::Args;
use models::Choices;
use pipelines::{DirectorySettings, ModelSource, Pipeline, Size, Visitor};

use crate::{
    backend::{self, Device, Training},
    bench::{
        count,
        directory::{cases::Bench, report::Report},
    },
    config,
    machine::host,
    terminal::output::print,
    train::config::TrainConfig,
};

/// Options of `bench` for a model directory.
#[derive(Args, Clone, Debug)]
pub struct DirectoryArgs {
    /// Times a model directory instead of a checkpoint, e.g. one of `init-random`, or hub:OWNER/NAME:
    /// its denoising step, trained transition, update and decoder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["checkpoint", "preset", "scale"])]
    pub model: Option<PathBuf>,
    /// Height and width of the images in pixels.
    #[arg(long, requires = "model", default_value_t = 512)]
    resolution: usize,
    /// Images per batch; each size runs in its own process, and a size that does not fit is
    /// reported as such.
    #[arg(long, requires = "model", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16])]
    batch: Vec<usize>,
    /// Tokens per prompt: 77 for CLIP, the rest for T5.
    #[arg(long, requires = "model", default_value_t = 205)]
    text_length: usize,
    /// Uses activation checkpointing: recomputes every block in the backward pass.
    #[arg(long, requires = "model")]
    recompute: bool,
    /// Lets the peer measure torch.compile, too.
    #[arg(long, requires = "model")]
    compile: bool,
    /// Peak speed of the machine in matrix products, in TFLOP/s; the table then has the share of
    /// this peak.
    #[arg(long, requires = "model", value_name = "TFLOPS")]
    peak: Option<f64>,
}

const CASES: [&str; 4] = ["denoise", "transition", "update", "decode"];

const GUIDANCE: f64 = 4.5;

/// Times all batch sizes, prints a table and optionally writes JSON.
pub fn bench(
    args: &DirectoryArgs,
    model: &Path,
    repetitions: u32,
    peer: Option<&Path>,
    output: Option<&Path>,
    device: &Device,
) -> Result<()> {
    let mut report = match args.batch[..] {
        [batch] => of_batch(args, model, batch, repetitions, device)?,
        _ => processes::in_processes(args, model, repetitions, output)?,
    };
    if let Some(python) = peer {
        // Measured results must not be lost if the peer fails.
        report.write(output)?;
        report.peer = Some(processes::run_peer(python, args, model, repetitions)?);
    }
    print(report.table(args.peak))?;
    report.write(output)
}

/// Counts the cases of the smallest batch size.
///
/// # Errors
/// If the model cannot be loaded, or this build does not count.
pub fn count(args: &DirectoryArgs, model: &Path, device: &Device) -> Result<()> {
    let batch = args.batch.iter().copied().min().unwrap_or(1);
    let counting = Counting { args, batch, device };
    pipelines::open::<Training, _>(source(args, model), &host::machine(device), counting)
}

/// Times one batch size in this process.
fn of_batch(
    args: &DirectoryArgs,
    model: &Path,
    batch: usize,
    repetitions: u32,
    device: &Device,
) -> Result<Report> {
    let timing = Timing { args, batch, repetitions, device };
    pipelines::open::<Training, _>(source(args, model), &host::machine(device), timing)
}

/// The model directory, which reads no prompts.
fn source(args: &DirectoryArgs, model: &Path) -> ModelSource {
    let size = Some(args.resolution);
    let settings = DirectorySettings {
        size: Size::Pixels { height: size, width: size },
        max_sequence_length: Some(1),
        // No prompt is read; the model's T5 need not be there, if it can do without.
        choices: Choices::default(),
        recompute: args.recompute,
        cache: None,
    };
    ModelSource::Directory { path: model.to_owned(), settings }
}

/// Counting of a batch size on a model, whatever its family is.
struct Counting<'a> {
    args: &'a DirectoryArgs,
    batch: usize,
    device: &'a Device,
}

impl Visitor<Training> for Counting<'_> {
    type Output = ();
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<()> {
        let Self { args, batch, device } = self;
        let side = args.resolution;
        let title = format!(
            "{} {}, batches of {batch}, {side} x {side} pixels, {} tokens of text, guidance {GUIDANCE}",
            backend::NAME,
            backend::PRECISION_NAME,
            args.text_length
        );
        let preset = preset()?;
        let bench = Bench::new(args, pipeline, &preset, batch, device)?;
        bench.with_cases(|cases| count::count(&title, cases))?
    }
}

/// Timing of a batch size on a model, whatever its family is.
struct Timing<'a> {
    args: &'a DirectoryArgs,
    batch: usize,
    repetitions: u32,
    device: &'a Device,
}

impl Visitor<Training> for Timing<'_> {
    type Output = Report;
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<Report> {
        let Self { args, batch, repetitions, device } = self;
        let flop_per_row = pipeline.flop_per_row(args.text_length).unwrap_or(0.0);
        let bench = Bench::new(args, pipeline, &preset()?, batch, device)?.cases(repetitions)?;
        let mut report = Report::new(args, flop_per_row);
        report.cases.insert(batch, Some(bench));
        Ok(report)
    }
}

/// The preset whose adapter and optimiser are timed; its reward is not used.
fn preset() -> Result<TrainConfig> {
    let text = include_str!("../../../../assets/presets/sd35m-ocr.toml");
    config::resolve(
        config::parse(text)?,
        None,
        None,
        &["rewards={ jpeg_compressibility = 1 }".to_owned()],
    )
}
