//! `curves.svg` and `report.html`: the results of a run in self-contained files.

mod page;
mod panels;

use serde_json::Value;

use crate::{RunDir, RunError, curves::curves};

/// The facts of a run that its records do not tell.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// Number of epochs of the whole run.
    pub epochs: usize,
    /// Number of prompts of an epoch.
    pub prompts: usize,
    /// Number of images of a prompt.
    pub images: usize,
    /// The base model, as configured.
    pub base: &'a str,
    /// Origin of the base model.
    pub made_by: &'a str,
    /// The configuration, as TOML.
    pub configuration: &'a str,
}

/// Draws the curves and writes the report of the run so far.
///
/// # Errors
/// If the metrics cannot be read, or a file cannot be written.
pub fn write(run: &RunDir, facts: &Facts<'_>) -> Result<(), RunError> {
    let lines = run.metrics()?;
    let svg = curves(&panels::of_run(&lines))?;
    run.write("curves.svg", &svg)?;
    run.write("report.html", &page::of_run(run, facts, &lines, &svg))
}

/// The lines of one kind of event.
fn of<'a>(lines: &'a [Value], event: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["event"] == event)
}

/// Converts a name to a part of a JSON pointer.
fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
