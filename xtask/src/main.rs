//! `cargo xtask`: the verbs that people use. Knows cargo and the command line, not Burn.

mod app;
mod arrows;
mod book;
mod check;
mod exercise;
mod measure;
mod same;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::app::AppArgs;

/// Build, run and check Flow-GRPO.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measure a machine: the parts, the growth of an epoch, and complete main jobs. For a GPU:
    /// --backend cuda.
    Measure(measure::MeasureArgs),
    /// Compare the numbers of two builds of the program: `same OLD NEW`.
    Same(same::SameArgs),
    /// List the exercises of the book, or check an answer by its law: `exercise 3.2`.
    Exercise(exercise::ExerciseArgs),
    /// Run all tests on a backend.
    Test(test::TestArgs),
    /// Run all checks, cheapest first: format, arrows between crates, clippy, licences, docs, tests
    /// and book.
    Check,
    /// Build the book with its demos into book/book. Missing tools are installed into target/tools.
    Book(book::BookArgs),
    /// Run all checks and a smoke run of the program, as continuous integration does.
    Ci,
    /// List the verbs of the program: train, sample, eval, ….
    Verbs(AppArgs),
    #[command(external_subcommand)]
    Program(Vec<String>),
}

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    // On a machine without the sources, xtask works in the current directory.
    if root().exists() {
        std::env::set_current_dir(root())?;
    }
    match Cli::parse().verb {
        Verb::Measure(args) => measure::measure(&args),
        Verb::Same(args) => same::same(&args).map(|()| ExitCode::SUCCESS),
        Verb::Exercise(args) => exercise::exercise(&args),
        Verb::Test(args) => test::test(&args).map(|()| ExitCode::SUCCESS),
        Verb::Check => check::check().map(|()| ExitCode::SUCCESS),
        Verb::Book(args) => book::book(&args).map(|()| ExitCode::SUCCESS),
        Verb::Ci => check::ci().map(|()| ExitCode::SUCCESS),
        Verb::Verbs(args) => app::run("help", &args.args),
        Verb::Program(args) => match args.split_first() {
            Some((verb, args)) => app::run(verb, args),
            None => unreachable!("an external subcommand has a name"),
        },
    }
}

/// The root of the workspace.
fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}
