//! `init-random`: writes a model directory with random weights in the sizes of a published model.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use models::sd3::random::{self, Sizes};

use crate::{
    backend::Plain,
    machine,
    terminal::{output, progress::Progress},
};

/// Options of `init-random`.
#[derive(Args, Debug)]
pub struct InitRandomArgs {
    /// The published model whose sizes are used.
    #[arg(long, value_enum)]
    like: Like,
    /// The directory to write; 16 GB for sd35-medium, 7 GB without T5.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Most layers that the transformer and the text encoders have, at most the transformer's own
    /// number. Fewer layers of full width fit on a small machine.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    layers: Option<u32>,
    /// Leaves out T5, which has 9.5 GB.
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
    /// Stable Diffusion 3.5 Medium with two narrow layers and without T5, for rehearsals.
    Sd35Tiny,
}

/// Writes the model directory.
///
/// # Errors
/// If the directory already holds a model, or cannot be written.
pub fn run(args: &InitRandomArgs) -> Result<()> {
    let sizes = match args.like {
        Like::Sd3Medium => Sizes::sd3_medium(),
        Like::Sd35Medium => Sizes::sd35_medium(),
        Like::Sd35Large => Sizes::sd35_large(),
        Like::Sd35Tiny => Sizes::tiny(),
    };
    let most = sizes.transformer.num_layers;
    let layers = args.layers.map_or(most, |layers| layers as usize);
    ensure!(
        layers <= most,
        "--layers ({layers}) must lie between 1 and {most}, the model's own number"
    );
    let sizes = sizes.with_layers(layers);
    let sizes = if args.without_t5 { Sizes { t5: None, ..sizes } } else { sizes };
    ensure!(
        !args.out.join("model_index.json").exists(),
        "{} already holds a model: choose another --out",
        args.out.display()
    );
    let device = machine::device()?;
    let count = sizes.count::<Plain>(&device);
    let progress = Progress::new("writing", count / MILLION, "million parameters");
    let mut written = 0;
    random::write::<Plain>(&sizes, args.seed, &args.out, &device, |numbers| {
        let before = written / MILLION;
        written += numbers;
        progress.advance(written / MILLION - before);
    })?;
    progress.finish();
    output::print(format!("{}: {:.2} billion parameters\n", args.out.display(), count as f64 / 1e9))
}

const MILLION: usize = 1_000_000;
