//! Measurements in other processes: every batch size in its own, and the peer in Python.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{
    backend,
    bench::directory::{DirectoryArgs, report::Report},
    terminal::output::log,
};

/// The peer, which a Python reads from standard input.
const PEER: &str = include_str!("../../../peer/sd3.py");

/// Times every batch size in its own process, and writes what there is after each.
///
/// # Errors
/// If this program cannot be run again, or a report not be written.
pub fn in_processes(
    args: &DirectoryArgs,
    model: &Path,
    repetitions: u32,
    output: Option<&Path>,
) -> Result<Report> {
    let mut report = Report::new(args, 0.0);
    for &batch in &args.batch {
        let cases = in_a_process(args, model, batch, repetitions)?.map(|of_batch| {
            report.flop_per_row = of_batch.flop_per_row;
            of_batch.cases.into_values().next().flatten()
        });
        report.cases.insert(batch, cases.flatten());
        report.write(output)?;
    }
    Ok(report)
}

/// Times one batch size in its own process, so that running out of memory ends only that process.
fn in_a_process(
    args: &DirectoryArgs,
    model: &Path,
    batch: usize,
    repetitions: u32,
) -> Result<Option<Report>> {
    let output =
        std::env::temp_dir().join(format!("flow-grpo-bench-{}-{batch}.json", std::process::id()));
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg("bench").arg("--model").arg(model).arg("--output").arg(&output);
    command.args([
        "--resolution",
        &args.resolution.to_string(),
        "--text-length",
        &args.text_length.to_string(),
    ]);
    command.args(["--batch", &batch.to_string(), "--repetitions", &repetitions.to_string()]);
    command.args(args.recompute.then_some("--recompute"));
    let status = command.stdout(Stdio::null()).status().context("cannot run this program")?;
    if !status.success() {
        log(format!("batch {batch}: {status}; see above"));
        return Ok(None);
    }
    let text = std::fs::read_to_string(&output)
        .with_context(|| format!("cannot read {}", output.display()))?;
    std::fs::remove_file(&output).with_context(|| format!("cannot remove {}", output.display()))?;
    Ok(Some(serde_json::from_str(&text)?))
}

/// The measurements of the peer.
///
/// # Errors
/// If the peer cannot be run or fails.
pub fn run_peer(
    python: &Path,
    args: &DirectoryArgs,
    model: &Path,
    repetitions: u32,
) -> Result<serde_json::Value> {
    let mut command = Command::new(python);
    command.arg("-c").arg(PEER).arg(model);
    command.args([
        "--resolution",
        &args.resolution.to_string(),
        "--text-length",
        &args.text_length.to_string(),
    ]);
    command.args([
        "--precision",
        backend::PRECISION_NAME,
        "--repetitions",
        &repetitions.to_string(),
    ]);
    command.args(["--device", if backend::ON_CPU { "cpu" } else { "cuda" }]);
    if backend::ON_CPU {
        command.args(["--threads", &backend::workers().to_string()]);
    }
    command.args(args.recompute.then_some("--recompute")).args(args.compile.then_some("--compile"));
    command.arg("--batch").args(args.batch.iter().map(ToString::to_string));
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", python.display()))?;
    ensure!(output.status.success(), "the peer failed ({}); its message is above", output.status);
    serde_json::from_slice(&output.stdout).context("the peer did not print what it should")
}
