//! Runs beside each other: one panel for each number of their evaluations, one curve for each run.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use models::weights::write_atomically;
use serde_json::Value;

use crate::plot::{Curve, Panel, curves};

/// Which runs and which numbers.
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// Run directories, each on request with the name of its curve: NAME=RUN.
    #[arg(required = true, value_name = "[NAME=]RUN")]
    runs: Vec<String>,
    /// A number of the evaluations, as in `best_by`, or of the epochs as `epoch.NAME`; may be repeated.
    #[arg(long = "number", value_name = "NAME", default_value = "overall")]
    numbers: Vec<String>,
    /// The SVG file to write.
    #[arg(long, default_value = "comparison.svg")]
    output: PathBuf,
}

/// Draws the comparison and prints the last value of every curve.
///
/// # Errors
/// If a run cannot be read, or none of them has a number.
pub fn compare(args: &CompareArgs) -> Result<()> {
    let runs = args.runs.iter().map(|run| read(run)).collect::<Result<Vec<(String, Vec<Value>)>>>()?;
    let mut panels = Vec::new();
    for number in &args.numbers {
        let of_runs = runs.iter().map(|(name, lines)| Curve { name: name.clone(), points: points(lines, number) });
        let of_runs: Vec<Curve> = of_runs.collect();
        ensure!(of_runs.iter().any(|curve| !curve.points.is_empty()), "--number {number}: no run has it");
        for Curve { name, points } in &of_runs {
            if let (Some(first), Some(last)) = (points.first(), points.last()) {
                println!("{number:<28} {name:<24} {:.3} -> {:.3} after {} epochs", first.1, last.1, last.0);
            }
        }
        panels.push(Panel { title: number.clone(), curves: of_runs });
    }
    write_atomically(&args.output, curves(&panels)?.as_bytes()).with_context(|| format!("cannot write {}", args.output.display()))
}

/// A run's name and its lines of metrics.
fn read(run: &str) -> Result<(String, Vec<Value>)> {
    let (name, path) = run.split_once('=').unwrap_or((run, run));
    let path = Path::new(path).join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    // A run that is being written may end with half a line.
    Ok((name.to_owned(), text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()))
}

fn points(lines: &[Value], number: &str) -> Vec<(f64, f64)> {
    let (event, number) = number.strip_prefix("epoch.").map_or(("eval", number), |number| ("epoch", number));
    let pointer = format!("/{}", number.replace('.', "/"));
    let of_event = lines.iter().filter(|line| line["event"] == event);
    of_event.filter_map(|line| Some((line["epoch"].as_f64()?, line.pointer(&pointer)?.as_f64()?))).collect()
}
