//! How the program ends: 0 when all went well, 2 for what the user can mend before a run, 1 for what broke during it, 130 after
//! Ctrl-C.

use std::process::ExitCode;

use anyhow::Result;

use crate::{interrupt::Interrupted, output};

/// Marks an error as one that broke a run that had begun.
#[derive(Clone, Copy, Debug)]
pub struct BrokeRun;

impl std::fmt::Display for BrokeRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the run broke off")
    }
}

/// Says what went wrong, if anything did, and turns it into an exit code.
pub fn report(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        output::log(interrupted);
        return ExitCode::from(crate::interrupt::EXIT_CODE);
    }
    output::log(format!("error: {error:#}"));
    ExitCode::from(if error.is::<BrokeRun>() { 1 } else { 2 })
}
