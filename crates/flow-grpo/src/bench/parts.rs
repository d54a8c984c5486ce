//! Timing of the parts of one of the program's own networks: named cases with median and spread,
//! optionally beside the same network in PyTorch.

mod cases;
mod peer;
mod report;

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use files::write_atomically;
use flow::VelocityField;
use models::TokenIds;
use pipelines::{Own, Trainable};

use crate::{
    backend::{self, Device, Training},
    bench::{
        count,
        parts::{cases::Bench, report::Report},
    },
    machine::{self, memory},
    terminal::output,
    train::config::TrainConfig,
};

/// Options of the measurement of the parts.
#[derive(Args, Debug)]
pub struct PartsArgs {
    /// Images per repetition.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub images: u32,
    /// Timed repetitions of every case in a round, after one untimed repetition.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub repetitions: u32,
    /// Number of rounds; with --peer, rounds of this program and of the peer alternate.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// A Python with torch, numpy and safetensors. Times the same network in PyTorch, after checking
    /// that it computes the same numbers.
    #[arg(long, value_name = "PYTHON")]
    pub peer: Option<PathBuf>,
    /// The JSON file to write.
    #[arg(long)]
    pub output: Option<PathBuf>,
}

/// Counts every case.
///
/// # Errors
/// If this build does not count.
pub fn count<N>(
    args: &PartsArgs,
    own: Own<Training, N>,
    epoch: &TrainConfig,
    device: &Device,
) -> Result<()>
where
    N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
{
    let title = format!("{}, {} images", backend::NAME, args.images);
    let bench = Bench::new(own, epoch, args.images as usize, device)?;
    bench.with_cases(|cases| count::count(&title, cases))
}

/// Seconds of every repetition, by case.
type Times = BTreeMap<String, Vec<f64>>;

/// Times all rounds, prints a table and optionally writes JSON.
pub fn time<N>(
    args: &PartsArgs,
    own: Own<Training, N>,
    epoch: &TrainConfig,
    device: &Device,
) -> Result<()>
where
    N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
{
    let bench = Bench::new(own, epoch, args.images as usize, device)?;
    let exchange =
        std::env::temp_dir().join(format!("flow-grpo-bench-{}.safetensors", std::process::id()));
    let (mut ours, mut theirs) = (Times::new(), None);
    if args.peer.is_some() {
        bench.write_exchange(&exchange)?;
    }
    for round in 1..=args.rounds {
        output::log(format!("round {round} of {}", args.rounds));
        bench.round(args.repetitions, &mut ours);
        if let Some(python) = &args.peer {
            let times = peer::run(python, &exchange, args.repetitions, bench.workers.count())?;
            theirs = Some(match theirs.take() {
                None => times,
                Some(before) => peer::merge(before, times),
            });
        }
    }
    if args.peer.is_some() {
        std::fs::remove_file(&exchange)
            .with_context(|| format!("cannot remove {}", exchange.display()))?;
    }
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        backend: backend::NAME,
        threads: bench.workers.count(),
        machine: machine::processor(),
        images: args.images,
        peak_memory_mib: memory::peak_mib(),
        seconds: ours,
        peer: theirs,
    };
    output::print(report.table())?;
    if let Some(path) = &args.output {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        write_atomically(path, json.as_bytes())?;
    }
    Ok(())
}
