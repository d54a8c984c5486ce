//! `compare`: plots metrics of several runs in one figure.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use files::write_atomically;
use run::compare::{Comparison, NamedRun};

use crate::terminal::output;

/// Options of `compare`.
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// Run directories; NAME=RUN gives a curve another name. Runs of one NAME are seeds of one
    /// experiment and share a curve: their mean, in a band from the lowest to the highest, at the
    /// epochs that all have.
    #[arg(required = true, value_name = "[NAME=]RUN")]
    runs: Vec<String>,
    /// A metric: of the evaluations as in `best_by`, or of the epochs as `epoch.NAME`; may be
    /// repeated.
    #[arg(long = "number", value_name = "NAME", default_value = "overall")]
    numbers: Vec<String>,
    /// The SVG file to write.
    #[arg(long, default_value = "comparison.svg")]
    output: PathBuf,
    /// A page to write as well: all curves, settings that differ, newest images.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Draws the comparison and prints the first and last value of every run.
///
/// # Errors
/// If a run cannot be read, or no run has one of the metrics.
pub fn run(args: &CompareArgs) -> Result<()> {
    let runs: Vec<NamedRun> =
        args.runs.iter().map(|run| NamedRun::read(run)).collect::<Result<_, _>>()?;
    let Comparison { svg, table, notes } = run::compare::compare(&runs, &args.numbers)?;
    notes.iter().for_each(output::log);
    write_atomically(&args.output, svg.as_bytes())?;
    if let Some(page) = &args.html {
        write_atomically(page, run::report::comparison(&runs).as_bytes())?;
    }
    output::print(table)
}
