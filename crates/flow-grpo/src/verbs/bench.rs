//! `bench`: times the parts of the program.

use std::path::PathBuf;

use anyhow::{Error, Result, bail};
use clap::Args;
use flow::VelocityField;
use models::{TokenIds, Vocabulary};
use pipelines::{Architecture, Card, Own, OwnVisitor, Trainable, Weights, open_own};
use tasks::shapes;

use crate::{
    backend::{Device, Training},
    bench::{
        directory::{self, DirectoryArgs},
        parts::{self, PartsArgs},
        scale,
    },
    checkpoints, config,
    machine::{self, counts, host},
    named,
    pretrain::{config::PretrainConfig, presets::PRETRAIN_PRESETS},
    train::{config::TrainConfig, presets::TRAIN_PRESETS},
};

/// Options of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// The network to time: a checkpoint file or a built-in checkpoint.
    #[arg(long, default_value = "shapes-base")]
    checkpoint: String,
    /// Times a network with random weights instead of a checkpoint, in the sizes of a preset of
    /// `pretrain`, e.g. shapes-64-base.
    #[arg(long, conflicts_with = "checkpoint")]
    preset: Option<String>,
    #[command(flatten)]
    parts: PartsArgs,
    /// Measures how the time and memory of an epoch grow with the number of groups and steps,
    /// instead of timing the parts; prints a table and writes this SVG file.
    #[arg(long, value_name = "SVG", conflicts_with_all = ["peer", "output"])]
    scale: Option<PathBuf>,
    /// With --scale: only the smallest numbers, for a rehearsal.
    #[arg(long, requires = "scale")]
    smallest: bool,
    /// Counts launches, compiled kernels and memory of every case instead of timing it, on cuda;
    /// of a model directory, the smallest batch.
    #[arg(long, conflicts_with_all = ["peer", "output", "scale"])]
    count: bool,
    #[command(flatten)]
    directory: DirectoryArgs,
}

/// Runs the measurements of the options.
///
/// # Errors
/// If the network cannot be opened, or the peer fails.
pub fn run(args: &BenchArgs) -> Result<()> {
    if args.count {
        counts::start();
    }
    let device = &machine::device()?;
    let PartsArgs { repetitions, peer, output, .. } = &args.parts;
    if let Some(model) = &args.directory.model {
        let (peer, output) = (peer.as_deref(), output.as_deref());
        let model = &named::place(model)?;
        if args.count {
            return directory::count(&args.directory, model, device);
        }
        return directory::bench(&args.directory, model, *repetitions, peer, output, device);
    }
    let (card, weights) = args.network()?;
    let epoch = &config::resolve(TRAIN_PRESETS[0].table(&TRAIN_PRESETS), None, None, &[])?;
    let timing = Timing { args, epoch, device };
    open_own::<Training, _>(card, &weights, &host::machine(device), timing)
}

impl BenchArgs {
    /// The network to time.
    ///
    /// # Errors
    /// If the checkpoint or the preset cannot be read, or its network is not a transformer.
    fn network(&self) -> Result<(Card, Weights)> {
        let (card, weights) = if let Some(name) = &self.preset {
            let table = config::preset(&PRETRAIN_PRESETS, name)?.table(&PRETRAIN_PRESETS);
            let preset: PretrainConfig = config::resolve(table, None, None, &[])?;
            let card = Card {
                architecture: preset.model,
                vocabulary: Vocabulary::new(shapes::vocabulary()),
                made_by: String::new(),
            };
            (card, Weights::Random { seed: 1 })
        } else {
            let file = checkpoints::open(&self.checkpoint)?;
            (Card::of(&file)?, Weights::File(file))
        };
        if !matches!(card.architecture, Architecture::Dit(_)) {
            bail!("bench times only transformers, and this network is not one")
        }
        Ok((card, weights))
    }
}

/// Timing of one of the program's own networks.
struct Timing<'a> {
    args: &'a BenchArgs,
    epoch: &'a TrainConfig,
    device: &'a Device,
}

impl OwnVisitor<Training> for Timing<'_> {
    type Output = ();
    type Error = Error;

    fn visit<N>(self, own: Own<Training, N>) -> Result<()>
    where
        N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
    {
        let Self { args, epoch, device } = self;
        match &args.scale {
            Some(plot) => scale::scale(epoch, &own, plot, args.smallest, device),
            None if args.count => parts::count(&args.parts, own, epoch, device),
            None => parts::time(&args.parts, own, epoch, device),
        }
    }
}
