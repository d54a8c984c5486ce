//! Comparison of runs: one panel per number, one curve per run.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use models::weights::write_atomically;
use serde_json::Value;

use crate::{
    output,
    plot::{Curve, Panel, curves},
};

/// Options of `compare`.
#[derive(Args, Debug)]
pub struct CompareArgs {
    /// Run directories, each optionally with the name of its curve: NAME=RUN.
    #[arg(required = true, value_name = "[NAME=]RUN")]
    runs: Vec<String>,
    /// A number of the evaluations, as in `best_by`, or of the epochs, as `epoch.NAME`; may be
    /// repeated.
    #[arg(long = "number", value_name = "NAME", default_value = "overall")]
    numbers: Vec<String>,
    /// The SVG file to write.
    #[arg(long, default_value = "comparison.svg")]
    output: PathBuf,
}

/// Draws the comparison and prints the last value of every curve.
///
/// # Errors
/// If a run cannot be read, or no run has one of the numbers.
pub fn compare(args: &CompareArgs) -> Result<()> {
    let runs =
        args.runs.iter().map(|run| read(run)).collect::<Result<Vec<(String, Vec<Value>)>>>()?;
    let (mut panels, mut table) = (Vec::new(), String::new());
    for number in &args.numbers {
        let of_runs = runs
            .iter()
            .map(|(name, lines)| Curve { name: name.clone(), points: points(lines, number) });
        let of_runs: Vec<Curve> = of_runs.collect();
        ensure!(
            of_runs.iter().any(|curve| !curve.points.is_empty()),
            "--number {number}: no run has it; there are: {}",
            numbers(&runs)
        );
        for Curve { name, points } in &of_runs {
            if points.is_empty() {
                output::log(format!("note: {name} has no `{number}` and no curve"));
            }
            if let (Some(first), Some(last)) = (points.first(), points.last()) {
                let (first, last, epochs) = (first.1, last.1, last.0);
                table += &format!(
                    "{number:<28} {name:<24} {first:.3} -> {last:.3} after {epochs} epochs\n"
                );
            }
        }
        panels.push(Panel { title: number.clone(), curves: of_runs });
    }
    write_atomically(&args.output, curves(&panels)?.as_bytes())
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    output::print(table)
}

/// The numbers in the metrics of any run, as `--number` names them.
fn numbers(runs: &[(String, Vec<Value>)]) -> String {
    let mut names = BTreeSet::new();
    for line in runs.iter().flat_map(|(_, lines)| lines) {
        let prefix = if line["event"] == "epoch" { "epoch." } else { "" };
        if line["event"] == "epoch" || line["event"] == "eval" {
            collect(prefix, line, &mut names);
        }
    }
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// Collects the dotted names of the numbers in an object and in nested objects.
fn collect(prefix: &str, value: &Value, into: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Number(_) if name != "epoch" => drop(into.insert(format!("{prefix}{name}"))),
            Value::Object(_) => collect(&format!("{prefix}{name}."), value, into),
            _ => {}
        }
    }
}

/// Reads the name of a run and the lines of its metrics.
fn read(run: &str) -> Result<(String, Vec<Value>)> {
    // The name of a directory may contain `=`.
    let (name, path) =
        run.split_once('=').filter(|_| !Path::new(run).is_dir()).unwrap_or((run, run));
    let path = Path::new(path).join("metrics.jsonl");
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    // A running run may end with an incomplete line.
    Ok((name.to_owned(), text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()))
}

fn points(lines: &[Value], number: &str) -> Vec<(f64, f64)> {
    let (event, number) =
        number.strip_prefix("epoch.").map_or(("eval", number), |number| ("epoch", number));
    let pointer = format!("/{}", number.replace('.', "/"));
    let of_event = lines.iter().filter(|line| line["event"] == event);
    of_event
        .filter_map(|line| Some((line["epoch"].as_f64()?, line.pointer(&pointer)?.as_f64()?)))
        .collect()
}
