//! Builds the application for a backend and runs it.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

/// The backend on which the networks run.
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
    /// The application's feature for this backend.
    pub fn feature(self) -> &'static str {
        match self {
            Self::Flex => "flex",
            Self::Ndarray => "ndarray",
            Self::Wgpu => "wgpu",
            Self::Cuda => "cuda",
        }
    }
}

/// The number type in which transformer layers compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32-bit floats, on every backend but cuda.
    F32,
    /// 32-bit floats, of which products on tensor cores read 10 bits of fraction: cuda's form of
    /// f32.
    Tf32,
    /// 16-bit floats with the range of f32, on wgpu and cuda.
    Bf16,
    /// 16-bit floats with three more bits of precision than bf16 and a small range, on wgpu and
    /// cuda; the reference code trains in them.
    Fp16,
}

impl Precision {
    /// The application's feature for this precision; `None` for those that a backend has by default.
    fn feature(self) -> Option<&'static str> {
        match self {
            Self::F32 | Self::Tf32 => None,
            Self::Bf16 => Some("bf16"),
            Self::Fp16 => Some("fp16"),
        }
    }
}

/// An optimisation that a GPU backend makes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Speedup {
    /// Fuses several operations into one kernel.
    Fusion,
    /// Times the variants of a kernel and keeps the fastest.
    Autotune,
}

/// Why exact f32 is refused on cuda.
const NO_F32_ON_CUDA: &str = "on cuda, CubeCL multiplies f32 matrices in tf32 wherever it chooses tensor cores, and cannot be told not to; \
     use --precision tf32, the default on cuda, or compute in f32 with --backend wgpu or flex";

/// Build options of the application.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Backend on which the networks run.
    #[arg(long, value_enum, default_value_t = Backend::Flex)]
    pub backend: Backend,
    /// Number type in which layers compute [default: f32, on cuda tf32].
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// Leaves out an optimisation of the GPU backend, to measure its effect; may be repeated.
    #[arg(long, value_enum)]
    pub without: Vec<Speedup>,
}

impl Build {
    /// A build for a backend, in its own precision and with all optimisations.
    pub fn of(backend: Backend) -> Self {
        Self { backend, precision: None, without: Vec::new() }
    }

    /// The application's features.
    fn features(&self) -> Result<Vec<&'static str>> {
        let on_gpu = matches!(self.backend, Backend::Wgpu | Backend::Cuda);
        let for_gpus = |option: &str| {
            ensure!(
                on_gpu,
                "{option} is for --backend wgpu and cuda, not for {}",
                self.backend.feature()
            );
            Ok(())
        };
        let mut features = vec![self.backend.feature()];
        let on_cuda = self.backend == Backend::Cuda;
        if self.precision == Some(Precision::F32) {
            ensure!(!on_cuda, "--precision f32: {NO_F32_ON_CUDA}");
        }
        if self.precision == Some(Precision::Tf32) {
            let name = self.backend.feature();
            ensure!(on_cuda, "--precision tf32 is for --backend cuda, not for {name}");
        }
        if let Some(precision) = self.precision.and_then(Precision::feature) {
            for_gpus(&format!("--precision {precision}"))?;
            features.push(precision);
        }
        if !self.without.is_empty() {
            for_gpus("--without")?;
        }
        let speedups = [(Speedup::Fusion, "fusion"), (Speedup::Autotune, "autotune")];
        features.extend(
            speedups
                .iter()
                .filter(|(speedup, _)| on_gpu && !self.without.contains(speedup))
                .map(|(_, name)| *name),
        );
        Ok(features)
    }
}

/// Arguments of a verb: the options of [`Build`] are xtask's, everything else is the application's.
#[derive(Args, Debug)]
pub struct AppArgs {
    /// Options of `flow-grpo`, --backend flex|ndarray|wgpu|cuda, --precision f32|tf32|bf16|fp16
    /// and --without fusion|autotune.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

/// Arguments split into xtask's own options and the application's.
#[derive(Debug, PartialEq, Eq)]
struct Split {
    build: Build,
    app: Vec<String>,
}

/// Separates the options of [`Build`], also in their form with `=`, from the arguments up to a
/// `--`, which is dropped.
fn split(args: &[String]) -> Result<Split> {
    let mut split = Split { build: Build::of(Backend::Flex), app: Vec::new() };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let (name, value) =
            arg.split_once('=').map_or((arg.as_str(), None), |(name, value)| (name, Some(value)));
        match name {
            "--" => {
                split.app.extend(rest.cloned());
                break;
            }
            "--backend" | "--precision" | "--without" => {
                let value =
                    value.unwrap_or_else(|| rest.next().map(String::as_str).unwrap_or_default());
                match name {
                    "--backend" => split.build.backend = choose(name, value)?,
                    "--precision" => split.build.precision = Some(choose(name, value)?),
                    _ => split.build.without.push(choose(name, value)?),
                }
            }
            _ => split.app.push(arg.clone()),
        }
    }
    Ok(split)
}

/// Parses a choice by its name; the error lists all choices.
fn choose<T: ValueEnum>(option: &str, value: &str) -> Result<T> {
    let names = || {
        T::value_variants()
            .iter()
            .filter_map(ValueEnum::to_possible_value)
            .map(|choice| choice.get_name().to_owned())
    };
    T::from_str(value, false).map_err(|_| {
        anyhow::anyhow!("{option} {value}: choose {}", names().collect::<Vec<_>>().join(", "))
    })
}

/// Builds the application and runs one of its verbs; returns its exit code.
pub fn run(verb: &str, args: &[String]) -> Result<ExitCode> {
    let Split { build: how, app } = split(args)?;
    if app.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!(
            "cargo xtask {verb} [--backend flex|ndarray|wgpu|cuda] [--precision f32|tf32|bf16|fp16] [--without fusion|autotune]"
        );
        println!("    [OPTIONS OF THE APPLICATION]\n");
        println!(
            "Builds the application for the backend (flex, the fast CPU backend, by default), then runs it:\n"
        );
    }
    let program = build(&how)?;
    let mut command = Command::new(&program);
    // Tells the application that it runs under xtask, for the command that it prints to resume a
    // run.
    command.arg(verb).args(app).env("FLOW_GRPO_XTASK", "1");
    replaced_by(&mut command).with_context(|| format!("cannot run {program}"))
}

/// Replaces this process with a command, so that signals reach the command.
#[cfg(unix)]
fn replaced_by(command: &mut Command) -> std::io::Result<ExitCode> {
    Err(std::os::unix::process::CommandExt::exec(command))
}

/// Runs a command; returns its exit code.
#[cfg(not(unix))]
fn replaced_by(command: &mut Command) -> std::io::Result<ExitCode> {
    // No exit code means a signal, which reached xtask too; 130 is the application's code for it.
    Ok(ExitCode::from(u8::try_from(command.status()?.code().unwrap_or(130)).unwrap_or(1)))
}

/// Builds the application; returns its path.
pub fn build(how: &Build) -> Result<String> {
    let mut command = cargo();
    let features = how.features()?.join(",");
    command.args([
        "build",
        "--quiet",
        "--package",
        "flow-grpo",
        "--no-default-features",
        "--features",
        &features,
    ]);
    if how.backend == Backend::Cuda && std::env::var_os("CUDARC_CUDA_VERSION").is_none() {
        // A build machine that is told the CUDA version of the run needs no CUDA toolkit.
        command.env("CUDARC_CUDA_VERSION", "13000");
    }
    let status = command.status().context("cannot run cargo")?;
    ensure!(status.success(), "the application does not build for {}", how.backend.feature());
    let directory = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    Ok(format!("{directory}/debug/flow-grpo"))
}

/// The cargo that runs xtask.
pub fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command, otherwise: &str) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().to_string_lossy()))?;
    ensure!(status.success(), "{otherwise} ({status})");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(args: &[&str]) -> Split {
        split(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
            .expect("a known backend")
    }

    #[test]
    fn backend_and_precision_are_ours_and_the_rest_is_the_applications() {
        let Split { build, app } =
            of(&["--set", "a=b", "--backend", "ndarray", "--resume", "runs/x"]);
        assert_eq!(build, Build::of(Backend::Ndarray));
        assert_eq!(app, ["--set", "a=b", "--resume", "runs/x"]);
        let split = of(&["--backend=cuda", "--precision=bf16", "--without", "fusion"]);
        assert_eq!(
            split.build,
            Build {
                backend: Backend::Cuda,
                precision: Some(Precision::Bf16),
                without: vec![Speedup::Fusion]
            }
        );
        assert!(split.app.is_empty());
    }

    #[test]
    fn a_gpu_backend_has_every_speedup_but_those_left_out() {
        let features = |build: &Build| build.features().expect("a build that exists").join(" ");
        let cuda = Build::of(Backend::Cuda);
        assert_eq!(features(&cuda), "cuda fusion autotune");
        assert_eq!(
            features(&Build { without: vec![Speedup::Fusion], ..cuda.clone() }),
            "cuda autotune"
        );
        assert_eq!(features(&Build::of(Backend::Flex)), "flex");
        assert_eq!(
            features(&Build { precision: Some(Precision::Fp16), ..cuda.clone() }),
            "cuda fp16 fusion autotune"
        );
        assert!(
            Build { precision: Some(Precision::Fp16), ..Build::of(Backend::Flex) }
                .features()
                .is_err()
        );
        assert!(
            Build { backend: Backend::Flex, ..Build { without: vec![Speedup::Fusion], ..cuda } }
                .features()
                .is_err()
        );
    }

    #[test]
    fn f32_on_cuda_is_refused_and_tf32_is_only_there() {
        let build = |backend, precision| {
            Build { precision: Some(precision), ..Build::of(backend) }.features()
        };
        let refused = build(Backend::Cuda, Precision::F32).expect_err("no exact products");
        assert!(refused.to_string().contains("--precision tf32"), "{refused}");
        let tf32 = build(Backend::Cuda, Precision::Tf32).expect("cuda's own");
        assert_eq!(tf32, Build::of(Backend::Cuda).features().expect("the default"));
        for backend in [Backend::Flex, Backend::Ndarray, Backend::Wgpu] {
            assert!(build(backend, Precision::Tf32).is_err());
            assert!(build(backend, Precision::F32).is_ok());
        }
    }

    #[test]
    fn everything_after_two_dashes_is_the_applications() {
        let Split { build, app } = of(&["--", "--backend", "cuda"]);
        assert_eq!((build.backend, app), (Backend::Flex, vec!["--backend".into(), "cuda".into()]));
    }

    #[test]
    fn an_unknown_or_missing_choice_is_refused_with_the_choices() {
        let refused = |args: &[&str]| {
            split(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
                .expect_err("no such choice")
        };
        assert_eq!(
            refused(&["--backend", "tpu"]).to_string(),
            "--backend tpu: choose flex, ndarray, wgpu, cuda"
        );
        assert!(refused(&["--backend"]).to_string().contains("choose flex"));
        assert_eq!(
            refused(&["--precision=f16"]).to_string(),
            "--precision f16: choose f32, tf32, bf16, fp16"
        );
    }
}
