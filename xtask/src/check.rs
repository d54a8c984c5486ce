//! The checks before a change goes in, cheapest first, with the time of each.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    app::{self, Backend, Build, cargo, succeed},
    arrows, book, test,
};

type Stage = (&'static str, fn() -> Result<()>);

const CHECK: [Stage; 8] = [
    ("format", format),
    ("arrows", arrows::check),
    ("clippy", clippy),
    ("dependencies", deny),
    ("docs", docs),
    ("blank exercises", blanks),
    ("tests (ndarray)", tests),
    ("book", book::check),
];

/// Checks format, arrows between crates and modules, lints, dependencies, docs, tests and book.
pub fn check() -> Result<()> {
    run(&CHECK)
}

/// Runs all checks, and a smoke run of the application on flex, its default backend.
pub fn ci() -> Result<()> {
    let mut stages = CHECK.to_vec();
    stages.insert(CHECK.len() - 1, ("smoke run (flex)", smoke));
    run(&stages)
}

/// Runs stages in order, stops at the first that fails, and prints how long each took.
fn run(stages: &[Stage]) -> Result<()> {
    let mut times: Vec<(&str, Duration)> = Vec::new();
    for (name, stage) in stages {
        println!("== {name}");
        let started = Instant::now();
        let result = stage();
        times.push((name, started.elapsed()));
        if let Err(error) = result {
            print_times(&times);
            return Err(error.context(format!("stage `{name}`")));
        }
    }
    print_times(&times);
    Ok(())
}

fn print_times(times: &[(&str, Duration)]) {
    println!("== time of each stage");
    for (name, time) in times {
        println!("{name:<20} {:>6.0} s", time.as_secs_f64());
    }
}

fn format() -> Result<()> {
    succeed(cargo().args(["fmt", "--all", "--", "--check"]), "run `cargo fmt --all`")
}

fn clippy() -> Result<()> {
    succeed(
        cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        "clippy has warnings or errors",
    )
}

/// Checks licences and sources of the dependencies of every backend, if cargo-deny is installed.
/// Advisories, which change by the day and need the network, are left to `cargo deny check
/// advisories`.
fn deny() -> Result<()> {
    let installed =
        cargo().args(["deny", "--version"]).output().is_ok_and(|output| output.status.success());
    if !installed {
        println!("skipped: cargo-deny is not installed (cargo install cargo-deny)");
        return Ok(());
    }
    succeed(
        cargo().args(["deny", "check", "licenses", "bans", "sources"]),
        "a dependency breaks deny.toml",
    )
}

fn docs() -> Result<()> {
    let mut command = cargo();
    command.args(["doc", "--quiet", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings");
    succeed(&mut command, "the docs have warnings")
}

/// A student's clone has answers, so the tests alone do not ask for blanks.
fn blanks() -> Result<()> {
    let mut command = cargo();
    command.args([
        "test",
        "--quiet",
        "--package",
        "exercises",
        "--test",
        "laws",
        "--",
        "--ignored",
    ]);
    succeed(&mut command, "the exercises must be handed out blank")
}

fn tests() -> Result<()> {
    test::run(Backend::Ndarray, None)
}

/// Runs a whole training run on the toy task, and samples and evaluates the shapes base model.
fn smoke() -> Result<()> {
    let program = app::build(&Build::of(Backend::Flex))?;
    let directory = Path::new("target/smoke");
    if directory.exists() {
        std::fs::remove_dir_all(directory)?;
    }
    let run = directory.join("toy");
    let flow_grpo =
        |args: &[&str]| succeed(Command::new(&program).args(args), "the application failed");
    flow_grpo(&["train", "--preset", "toy-2d", "--out", &run.to_string_lossy()])?;
    for file in ["metrics.jsonl", "curves.svg", "report.html", "policy.safetensors"] {
        let size = std::fs::metadata(run.join(file))
            .with_context(|| format!("the run left no {file}"))?
            .len();
        ensure!(size > 0, "the run left an empty {file}");
    }
    let [figure, page] = ["compared.svg", "compared.html"].map(|name| directory.join(name));
    flow_grpo(&[
        "compare",
        &format!("one={}", run.display()),
        &format!("other={}", run.display()),
        "--number",
        "epoch.reward",
        "--output",
        &figure.to_string_lossy(),
        "--html",
        &page.to_string_lossy(),
    ])?;
    let image = directory.join("samples.png");
    flow_grpo(&[
        "sample",
        "--prompt",
        "a photo of a red circle",
        "--count",
        "2",
        "--steps",
        "4",
        "--output",
        &image.to_string_lossy(),
    ])?;
    flow_grpo(&["eval", "--samples", "2", "--steps", "4"])
}
