//! Runs the unit tests of every crate and the tests across crates, on a chosen backend.

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::app::{self, Backend, Build, cargo};

/// Options of the tests.
#[derive(Args, Debug)]
pub struct TestArgs {
    /// Backend on which the networks run.
    #[arg(long, value_enum, default_value_t = Backend::Ndarray)]
    backend: Backend,
    /// Only tests whose name contains this.
    filter: Option<String>,
}

/// Runs the tests that the options select.
pub fn test(args: &TestArgs) -> Result<()> {
    run(args.backend, args.filter.as_deref())
}

/// The packages that choose no backend: those without tensors, and those that test on ndarray.
const LIBRARIES: [&str; 16] = [
    "files",
    "run",
    "settings",
    "flow",
    "training",
    "models",
    "tasks",
    "grpo",
    "judges",
    "ocr",
    "emoji",
    "hub",
    "pipelines",
    "demos",
    "exercises",
    "xtask",
];

/// Runs the tests on a backend.
///
/// Packages are grouped by the backend they need: cargo unifies the features of the packages of one
/// call, and the application refuses two backends in one build.
pub fn run(backend: Backend, filter: Option<&str>) -> Result<()> {
    let program = under_test(backend)?;
    let on_backend = ["--no-default-features", "--features", backend.feature()];
    let filter: Vec<&str> = filter.into_iter().collect();
    let call = |packages: &[&str], features: &[&str]| -> Result<()> {
        let mut command = cargo();
        command
            .args(["test", "--quiet"])
            .args(packages.iter().flat_map(|package| ["--package", package]))
            .args(features);
        let status = command
            .args(&filter)
            .env("FLOW_GRPO_BIN", &program)
            .status()
            .context("cannot run cargo")?;
        ensure!(status.success(), "tests of {} failed", packages.join(", "));
        Ok(())
    };
    call(&LIBRARIES, &[])?;
    call(&["kernels", "flow-grpo"], &on_backend)?;
    call(&["tests"], &on_backend)
}

/// Builds the application for this backend and copies it to a place where the next build does not
/// replace it.
fn under_test(backend: Backend) -> Result<std::path::PathBuf> {
    let built = app::build(&Build::of(backend))?;
    let directory = std::path::Path::new("target/under-test");
    std::fs::create_dir_all(directory)?;
    let program = directory.join(format!("flow-grpo-{}", backend.feature()));
    std::fs::copy(&built, &program).with_context(|| format!("cannot copy {built}"))?;
    Ok(program.canonicalize()?)
}
