//! `curves.svg` and `report.html`: the results of a run in self-contained files.

mod page;
mod panels;

use crate::{RunDir, RunError, curves::curves};

pub use page::Facts;

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
