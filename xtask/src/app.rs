//! Builds the application for a backend and runs it.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

/// Where the network runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// Burn's fast CPU backend.
    Flex,
    /// The CPU backend that the tests run on.
    Ndarray,
    /// Vulkan, Metal or DirectX 12.
    Wgpu,
    /// NVIDIA.
    Cuda,
}

impl Backend {
    /// The application's feature of this name.
    pub fn feature(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Ndarray => "ndarray",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
        }
    }
}

/// `--backend` is ours; everything else is the application's.
#[derive(Args, Debug)]
pub struct AppArgs {
    /// Options of `flow-grpo`, and --backend flex|ndarray|wgpu|cuda.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

/// What is left to the application once our own option is taken out.
#[derive(Debug, PartialEq, Eq)]
struct Split {
    backend: Backend,
    app: Vec<String>,
}

/// Takes `--backend X` or `--backend=X` out of the arguments, up to a `--`, which goes too.
fn split(args: &[String]) -> Result<Split> {
    let mut backend = Backend::Flex;
    let mut app = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let value = match arg.as_str() {
            "--" => {
                app.extend(rest.cloned());
                break;
            }
            "--backend" => rest.next().map(String::as_str).unwrap_or_default(),
            other => {
                let Some(value) = other.strip_prefix("--backend=") else {
                    app.push(arg.clone());
                    continue;
                };
                value
            }
        };
        backend = Backend::from_str(value, false)
            .map_err(|_| anyhow::anyhow!("--backend {value}: choose flex, ndarray, wgpu or cuda"))?;
    }
    Ok(Split { backend, app })
}

/// Builds and runs a verb of the application; its exit code is ours.
pub fn run(verb: &str, args: &AppArgs) -> Result<ExitCode> {
    let Split { backend, app } = split(&args.args)?;
    if app.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("cargo xtask {verb} [--backend flex|ndarray|wgpu|cuda] [OPTIONS OF THE APPLICATION]\n");
        println!("Builds the application for the backend (flex, the fast CPU backend, by default), then runs it:\n");
    }
    let program = build(backend)?;
    let status = Command::new(&program).arg(verb).args(app).status().with_context(|| format!("cannot run {program}"))?;
    // A signal that reached the application reached us too; 130 is what it would have said.
    Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(130)).unwrap_or(1)))
}

/// Builds the application for a backend; returns its path.
pub fn build(backend: Backend) -> Result<String> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--package", "flow-grpo", "--no-default-features", "--features", backend.feature()]);
    if backend == Backend::Cuda && std::env::var_os("CUDARC_CUDA_VERSION").is_none() {
        // The build machine needs no CUDA toolkit if it is told which version the run will have.
        command.env("CUDARC_CUDA_VERSION", "13000");
    }
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "the application does not build for {}", backend.feature());
    let directory = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    Ok(format!("{directory}/debug/flow-grpo"))
}

/// The cargo that runs us.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Split {
        split(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>()).expect("a known backend")
    }

    #[test]
    fn the_backend_is_ours_and_the_rest_is_the_applications() {
        let Split { backend, app } = of(&["--set", "a=b", "--backend", "ndarray", "--resume", "runs/x"]);
        assert_eq!((backend, app), (Backend::Ndarray, vec!["--set".into(), "a=b".into(), "--resume".into(), "runs/x".into()]));
        assert_eq!(of(&["--backend=cuda"]), Split { backend: Backend::Cuda, app: vec![] });
    }

    #[test]
    fn everything_after_two_dashes_is_the_applications() {
        let Split { backend, app } = of(&["--", "--backend", "cuda"]);
        assert_eq!((backend, app), (Backend::Flex, vec!["--backend".into(), "cuda".into()]));
    }

    #[test]
    fn an_unknown_or_missing_backend_is_refused() {
        assert!(split(&["--backend".into(), "tpu".into()]).is_err());
        assert!(split(&["--backend".into()]).is_err());
    }
}
