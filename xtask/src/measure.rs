//! Measures a machine in one command: the parts, the growth of an epoch, and the main jobs from
//! start to end.
//!
//! Each stage leaves a log and its files in a directory. A finished stage is not run again, so the
//! command can be interrupted and repeated; a stage that fails does not keep the others from
//! running. A rehearsal runs every stage in the smallest sizes, to see on any machine that all of
//! them work.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::app::{self, Build};

/// Options of the measurement.
#[derive(Args, Debug)]
pub struct MeasureArgs {
    #[command(flatten)]
    build: Build,
    /// The directory of the results.
    #[arg(long)]
    out: PathBuf,
    /// A Python with torch, numpy and safetensors, in which the same network is timed beside the
    /// parts. The stages of SD3 also need accelerate, diffusers, peft and transformers.
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// A program built beforehand, for a machine without a toolchain.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Only these stages; may be repeated [default: all but the stages of SD3].
    #[arg(long, value_enum)]
    only: Vec<Stage>,
    /// Adds the stages of Stable Diffusion 3.5 Medium at full size, with random weights: for a GPU
    /// of 24 GB or more, and 8 GB of disk.
    #[arg(long, conflicts_with = "only")]
    sd3: bool,
    /// Peak speed of the machine's matrix products, in TFLOP/s: the table of SD3 then shows the
    /// share that is reached.
    #[arg(long, value_name = "TFLOPS")]
    peak: Option<f64>,
    /// Runs the stages in sizes that mean nothing and take minutes on a CPU; the results go to
    /// OUT/rehearsal.
    #[arg(long)]
    rehearse: bool,
}

/// A stage of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// Compiles and tunes the kernels of the shapes task; nothing on a CPU.
    WarmUp,
    /// Launches and memory of the parts with the network of the shapes task; nothing but on cuda.
    Count,
    /// The parts with the network of the shapes task, beside PyTorch if there is a peer.
    Parts,
    /// The parts with the network for 64 x 64 pixels, beside PyTorch if there is a peer.
    Parts64,
    /// Time and memory of an epoch, by number of groups and of denoising steps.
    Growth,
    /// Flow-GRPO on the shapes task, from start to end.
    Train,
    /// Pre-training of the base model at 64 x 64 pixels.
    Pretrain64,
    /// Flow-GRPO from the base model at 64 x 64 pixels.
    Train64,
    /// Writes Stable Diffusion 3.5 Medium with random weights, without T5.
    Sd3Model,
    /// Compiles and tunes the kernels of SD3.5 Medium; nothing on a CPU.
    Sd3WarmUp,
    /// Launches and memory of the next stage's cases; nothing but on cuda.
    Sd3Count,
    /// Denoising step, trained transition, update and decoder of SD3.5 Medium at 512 x 512 pixels,
    /// beside diffusers and PEFT if there is a peer.
    Sd3,
    /// Two epochs of training SD3.5 Medium, with a reward that needs no other model.
    Sd3Train,
}

impl Stage {
    /// The stages that run by default.
    fn usual(sd3: bool) -> Vec<Self> {
        let of_sd3 = [Self::Sd3Model, Self::Sd3WarmUp, Self::Sd3Count, Self::Sd3, Self::Sd3Train];
        Self::value_variants()
            .iter()
            .copied()
            .filter(|stage| sd3 || !of_sd3.contains(stage))
            .collect()
    }

    fn name(self) -> String {
        self.to_possible_value().expect("no stage is hidden").get_name().to_owned()
    }

    /// The command line of the application; `file` gives the path for a result of a given name.
    fn command(self, args: &MeasureArgs, file: impl Fn(&str) -> String) -> Vec<String> {
        let mut command = self.whole(args, &file);
        let resumes = command.contains(&"--resume".to_owned());
        if args.rehearse && !resumes {
            command.extend(self.smallest().iter().map(|&word| word.to_owned()));
        }
        command
    }

    /// The options of a rehearsal, which come last.
    fn smallest(self) -> &'static [&'static str] {
        match self {
            Self::Parts | Self::Parts64 => {
                &["--images", "2", "--repetitions", "1", "--rounds", "1"]
            }
            Self::Count => &["--images", "2"],
            Self::Growth => &["--smallest"],
            Self::WarmUp | Self::Train | Self::Train64 => &SMALLEST_RUN,
            Self::Pretrain64 => &SMALLEST_PRETRAINING,
            Self::Sd3Model => &[],
            Self::Sd3 => &["--resolution", "64", "--batch", "1,2", "--text-length", "80"],
            Self::Sd3Count => &["--resolution", "64", "--batch", "1", "--text-length", "80"],
            Self::Sd3WarmUp | Self::Sd3Train => &SMALLEST_SD3_RUN,
        }
    }

    /// Times the parts of a model.
    fn parts(
        self,
        args: &MeasureArgs,
        file: &impl Fn(&str) -> String,
        more: &[&str],
    ) -> Vec<String> {
        let output = file(&format!("{}.json", self.name()));
        let peer = args
            .peer
            .iter()
            .flat_map(|peer| ["--peer".to_owned(), peer.to_string_lossy().into_owned()]);
        let fixed = ["bench", "--output", &output]
            .into_iter()
            .chain(more.iter().copied())
            .map(str::to_owned);
        fixed.chain(peer).collect()
    }

    /// Starts a run of a preset, or resumes it.
    fn run(
        self,
        file: &impl Fn(&str) -> String,
        verb: &str,
        preset: &str,
        base: Option<String>,
    ) -> Vec<String> {
        let directory = file(&self.name());
        if Path::new(&directory).join("config.toml").exists() {
            return [verb, "--resume", &directory].map(str::to_owned).to_vec();
        }
        let setting =
            base.into_iter().flat_map(|base| ["--set".to_owned(), format!("base={base}")]);
        [verb, "--preset", preset, "--out", &directory]
            .map(str::to_owned)
            .into_iter()
            .chain(setting)
            .collect()
    }

    fn whole(self, args: &MeasureArgs, file: &impl Fn(&str) -> String) -> Vec<String> {
        let parts = |more: &[&str]| self.parts(args, file, more);
        let run = |verb, preset, base| self.run(file, verb, preset, base);
        match self {
            Self::WarmUp => ["warm-up", "--preset", "shapes"].map(str::to_owned).into(),
            Self::Count => count(&[]),
            Self::Parts => parts(&[]),
            Self::Parts64 if args.rehearse => parts(&["--preset", "shapes-64-base"]),
            Self::Parts64 => parts(&["--preset", "shapes-64-base", "--images", "256"]),
            Self::Growth => ["bench".to_owned(), "--scale".to_owned(), file("growth.svg")].into(),
            Self::Train => run("train", "shapes", None),
            Self::Pretrain64 => run("pretrain", "shapes-64-base", None),
            Self::Train64 => {
                let base = file(&format!("{}/base.safetensors", Self::Pretrain64.name()));
                run("train", "shapes-64", Some(base))
            }
            Self::Sd3Model => {
                let like = if args.rehearse { "sd35-tiny" } else { "sd35-medium" };
                let fixed =
                    ["init-random", "--like", like, "--without-t5", "--out"].map(str::to_owned);
                fixed.into_iter().chain([file(&self.name())]).collect()
            }
            Self::Sd3WarmUp => {
                let base = format!("base={}", file(&Self::Sd3Model.name()));
                let fixed = ["warm-up", "--preset", "sd35m-ocr-1gpu", "--set", &base];
                let fixed = fixed.map(str::to_owned).into_iter();
                fixed.chain(sd3_settings(&file("prompts.txt"))).collect()
            }
            Self::Sd3Count => {
                let model = file(&Self::Sd3Model.name());
                let fixed = ["--model", &model, "--recompute", "--batch", "8"];
                count(if args.rehearse { &fixed[..3] } else { &fixed })
            }
            Self::Sd3 => {
                let peak =
                    args.peak.iter().flat_map(|peak| ["--peak".to_owned(), peak.to_string()]);
                let compile = args.peer.iter().map(|_| "--compile".to_owned());
                let model = file(&Self::Sd3Model.name());
                let repetitions = if args.rehearse { "1" } else { "3" };
                let fixed =
                    parts(&["--model", &model, "--recompute", "--repetitions", repetitions]);
                fixed.into_iter().chain(peak).chain(compile).collect()
            }
            Self::Sd3Train => {
                let run = run("train", "sd35m-ocr-1gpu", Some(file(&Self::Sd3Model.name())));
                let resumes = run.contains(&"--resume".to_owned());
                let settings = sd3_settings(&file("prompts.txt"));
                run.into_iter().chain(settings.filter(|_| !resumes)).collect()
            }
        }
    }
}

/// Counts launches and copies.
fn count(more: &[&str]) -> Vec<String> {
    ["bench", "--count"].iter().chain(more).map(|&word| word.to_owned()).collect()
}

/// A run of an epoch of four images, of which two are evaluated for each kind of prompt.
const SMALLEST_RUN: [&str; 18] = [
    "--set",
    "epochs=1",
    "--set",
    "evaluation_samples=1",
    "--set",
    "grpo.groups=2",
    "--set",
    "grpo.group_size=2",
    "--set",
    "grpo.micro_batch=2",
    "--set",
    "grpo.rollout_batch=4",
    "--set",
    "grpo.warm_up=0",
    "--set",
    "grpo.cool_down=0",
    "--set",
    "prompts.test=none",
];

/// A pre-training of two updates.
const SMALLEST_PRETRAINING: [&str; 12] = [
    "--set",
    "steps=2",
    "--set",
    "batch_size=2",
    "--set",
    "micro_batch=2",
    "--set",
    "warm_up=0",
    "--set",
    "evaluate_every=2",
    "--set",
    "evaluation_samples=1",
];

/// A run of SD3 of an epoch of four images of 64 x 64 pixels.
const SMALLEST_SD3_RUN: [&str; 12] = [
    "--set",
    "epochs=1",
    "--set",
    "evaluation_samples=1",
    "--set",
    "grpo.group_size=2",
    "--set",
    "model.resolution=64",
    "--set",
    "model.max_sequence_length=4",
    "--set",
    "grpo.rollout.steps=3",
];

/// Two epochs of SD3 training that need no judge, on a file of prompts.
fn sd3_settings(prompts: &str) -> impl Iterator<Item = String> + use<> {
    let settings = [
        "rewards={ jpeg_compressibility = 1 }",
        "best_by=rewards.jpeg_compressibility",
        "epochs=2",
        "evaluate_every=2",
        "evaluation_samples=4",
        "grpo.groups=2",
        "grpo.group_size=8",
        &format!("prompts.train={prompts}"),
        &format!("prompts.validation={prompts}"),
    ]
    .map(str::to_owned);
    settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting])
}

/// Prompts of the SD3 training; their content does not affect the time.
const PROMPTS: &str = "a photo of a cat\na photo of two clocks on a wall\na red bus in front of a bakery\na dog under a green umbrella\n";

/// Runs the stages; fails if one of them fails.
pub fn measure(args: &MeasureArgs) -> Result<ExitCode> {
    let out = if args.rehearse { args.out.join("rehearsal") } else { args.out.clone() };
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let program = match &args.program {
        Some(program) => program.to_string_lossy().into_owned(),
        None => app::build(&args.build)?,
    };
    let stages = if args.only.is_empty() { Stage::usual(args.sd3) } else { args.only.clone() };
    let prompts = out.join("prompts.txt");
    fs::write(&prompts, PROMPTS).with_context(|| format!("cannot write {}", prompts.display()))?;
    let mut failed = false;
    for stage in stages {
        let (name, done) = (stage.name(), out.join(format!("{}.done", stage.name())));
        if done.exists() {
            println!("{name:<12} done before");
            continue;
        }
        let log = out.join(format!("{name}.log"));
        let command = stage.command(args, |file| out.join(file).to_string_lossy().into_owned());
        println!("{name:<12} {} {}; see {}", program, command.join(" "), log.display());
        let started = Instant::now();
        let succeeded = logged(&program, &command, &log)?;
        println!(
            "{name:<12} {} after {:.0} s",
            if succeeded { "done" } else { "FAILED" },
            started.elapsed().as_secs_f64()
        );
        if succeeded {
            fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))?;
        }
        failed |= !succeeded;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Runs the program with its output in a log file; returns whether it succeeded.
fn logged(program: &str, args: &[String], log: &Path) -> Result<bool> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let errors = file.try_clone().context("cannot write the log twice")?;
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(file).stderr(errors);
    Ok(command.status().with_context(|| format!("cannot run {program}"))?.success())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        measure: MeasureArgs,
    }

    #[test]
    fn training_at_64_pixels_starts_from_the_base_that_was_trained_before_it() {
        let args = Line::parse_from(["measure", "--out", "d", "--peer", "py"]).measure;
        let command = |stage: Stage| stage.command(&args, |file| format!("d/{file}")).join(" ");
        assert_eq!(
            command(Stage::Pretrain64),
            "pretrain --preset shapes-64-base --out d/pretrain64"
        );
        let train =
            "train --preset shapes-64 --out d/train64 --set base=d/pretrain64/base.safetensors";
        assert_eq!(command(Stage::Train64), train);
        assert_eq!(command(Stage::Parts), "bench --output d/parts.json --peer py");
    }

    #[test]
    fn the_stages_of_sd3_are_for_who_asks() {
        assert!(!Stage::usual(false).contains(&Stage::Sd3));
        assert_eq!(Stage::usual(true), Stage::value_variants());
        let args =
            Line::parse_from(["measure", "--out", "d", "--peer", "py", "--sd3", "--peak", "989"])
                .measure;
        let command = |stage: Stage| stage.command(&args, |file| format!("d/{file}")).join(" ");
        let bench = "bench --output d/sd3.json --model d/sd3-model --recompute --repetitions 3 --peer py --peak 989 --compile";
        assert_eq!(command(Stage::Sd3), bench);
        let train = command(Stage::Sd3Train);
        assert!(train.starts_with(
            "train --preset sd35m-ocr-1gpu --out d/sd3-train --set base=d/sd3-model --set rewards="
        ));
        assert!(train.ends_with("--set prompts.validation=d/prompts.txt"));
    }

    #[test]
    fn a_rehearsal_runs_every_stage_in_the_smallest_sizes() {
        let line = ["measure", "--out", "d", "--sd3"];
        let whole = Line::parse_from(line).measure;
        let args = Line::parse_from(line.iter().chain(&["--rehearse"])).measure;
        for stage in Stage::usual(true) {
            let [whole, command] =
                [&whole, &args].map(|args| stage.command(args, |file| format!("d/{file}")));
            assert_eq!(command[0], whole[0], "{stage:?}");
            assert_ne!(command, whole, "{stage:?} is as large as in earnest");
            let twice: Vec<&String> = command
                .iter()
                .filter(|word| word.starts_with("--") && *word != "--set")
                .filter(|word| command.iter().filter(|other| other == word).count() > 1)
                .collect();
            assert!(twice.is_empty(), "{stage:?} has an option twice: {twice:?}");
        }
    }

    #[test]
    fn a_run_that_was_interrupted_goes_on() {
        let args = Line::parse_from(["measure", "--out", "d"]).measure;
        let directory = std::env::temp_dir().join(format!("measure-{}", std::process::id()));
        fs::create_dir_all(directory.join("train")).expect("a directory");
        fs::write(directory.join("train/config.toml"), "").expect("a file");
        let command =
            Stage::Train.command(&args, |file| directory.join(file).to_string_lossy().into_owned());
        assert_eq!(command, ["train", "--resume", &directory.join("train").to_string_lossy()]);
        fs::remove_dir_all(directory).expect("removed");
    }
}
