//! `cargo xtask`: the verbs that people use. Knows cargo and the command line, not Burn.

mod app;
mod book;
mod check;
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
    /// Improve a base model by Flow-GRPO.
    #[command(disable_help_flag = true)]
    Train(AppArgs),
    /// Train a base model by flow matching.
    #[command(disable_help_flag = true)]
    Pretrain(AppArgs),
    /// Sample images for prompts.
    #[command(disable_help_flag = true)]
    Sample(AppArgs),
    /// Measure strict accuracy on held-out prompts.
    #[command(disable_help_flag = true)]
    Eval(AppArgs),
    /// Add a LoRA adapter to the weights of its base model.
    #[command(disable_help_flag = true)]
    Merge(AppArgs),
    /// Train the classifier of the reward `shapes_proxy`, which can be hacked.
    #[command(disable_help_flag = true)]
    Proxy(AppArgs),
    /// Plot a metric of several runs side by side.
    #[command(disable_help_flag = true)]
    Compare(AppArgs),
    /// Time the parts, optionally beside the same network in PyTorch.
    #[command(disable_help_flag = true)]
    Bench(AppArgs),
    /// Draw the book's computed figure.
    #[command(disable_help_flag = true)]
    Figure(AppArgs),
    /// Measure a machine: the parts, how an epoch grows, the main jobs from start to end. For a
    /// GPU: --backend cuda.
    Measure(measure::MeasureArgs),
    /// Whether two builds of the program compute the same numbers: `same OLD NEW`.
    Same(same::SameArgs),
    /// Run all tests on a backend.
    Test(test::TestArgs),
    /// Format, clippy, docs, tests and book, cheapest first.
    Check,
    /// Build the book into book/book; its tools are installed into target/tools if they are
    /// missing.
    Book,
    /// Run check and a smoke run of the application, as continuous integration does.
    Ci,
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
        Verb::Train(args) => app::run("train", &args),
        Verb::Pretrain(args) => app::run("pretrain", &args),
        Verb::Sample(args) => app::run("sample", &args),
        Verb::Eval(args) => app::run("eval", &args),
        Verb::Merge(args) => app::run("merge", &args),
        Verb::Proxy(args) => app::run("proxy", &args),
        Verb::Compare(args) => app::run("compare", &args),
        Verb::Bench(args) => app::run("bench", &args),
        Verb::Figure(args) => app::run("figure", &args),
        Verb::Measure(args) => measure::measure(&args),
        Verb::Same(args) => same::same(&args).map(|()| ExitCode::SUCCESS),
        Verb::Test(args) => test::test(&args).map(|()| ExitCode::SUCCESS),
        Verb::Check => check::check().map(|()| ExitCode::SUCCESS),
        Verb::Book => book::build().map(|()| ExitCode::SUCCESS),
        Verb::Ci => check::ci().map(|()| ExitCode::SUCCESS),
    }
}

/// The root of the workspace.
fn root() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace")
}
