//! Exit codes of the program: 0 for success, 2 for an error before a run, 1 for a run that broke,
//! 130 after Ctrl-C.

use std::process::ExitCode;

use anyhow::Result;
use pipelines::PipelineError;

use crate::terminal::{interrupt::Interrupted, output};

/// Marks an error that broke a run in progress.
#[derive(Clone, Copy, Debug)]
pub struct BrokeRun;

impl std::fmt::Display for BrokeRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the run broke off")
    }
}

/// Reports the error of a failed program and returns the exit code.
pub fn report(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        output::log(interrupted);
        return ExitCode::from(crate::terminal::interrupt::EXIT_CODE);
    }
    if let Some(interrupted @ PipelineError::Interrupted { .. }) = error.downcast_ref() {
        output::log(interrupted);
        return ExitCode::from(crate::terminal::interrupt::EXIT_CODE);
    }
    output::log(format!("error: {error:#}"));
    ExitCode::from(if error.is::<BrokeRun>() { 1 } else { 2 })
}
