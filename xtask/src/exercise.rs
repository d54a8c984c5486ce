//! `cargo xtask exercise`: the exercises of the book, which check themselves.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Args;

use crate::app::cargo;

/// Which exercise, and what to do with it.
#[derive(Args, Debug)]
pub struct ExerciseArgs {
    /// Its number, as in 3.2. Without one, all exercises are listed, each with its state.
    number: Option<String>,
    /// Shows the solution instead.
    #[arg(long, requires = "number", conflicts_with = "curves")]
    solution: bool,
    /// Draws the curves of a debugging exercise beside those of a healthy program.
    #[arg(long, requires = "number")]
    curves: bool,
}

/// Builds the exercises, and lists them or runs the law of one.
///
/// Returns the exit code of the exercise: 0 if it is done, 1 if it is not, 2 if there is none.
pub fn exercise(args: &ExerciseArgs) -> Result<ExitCode> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "exercises", "--"]).args(arguments(args));
    let status = command.status().context("cannot run cargo")?;
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(130)).unwrap_or(1)))
}

/// The arguments of the exercises' own program.
fn arguments(args: &ExerciseArgs) -> Vec<&str> {
    let flags = [(args.solution, "--solution"), (args.curves, "--curves")];
    let flags = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag);
    args.number.as_deref().into_iter().chain(flags).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_and_the_flag_reach_the_exercises() {
        let of = |number: Option<&str>, solution, curves| ExerciseArgs {
            number: number.map(str::to_owned),
            solution,
            curves,
        };
        assert!(arguments(&of(None, false, false)).is_empty());
        assert_eq!(arguments(&of(Some("3.2"), true, false)), ["3.2", "--solution"]);
        assert_eq!(arguments(&of(Some("7.3"), false, true)), ["7.3", "--curves"]);
    }
}
