//! Timing of a model directory in sampling and training: the same cases as `peer/sd3.py`,
//! optionally beside it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Error, Result, ensure};
use burn::tensor::Tensor;
use clap::Args;
use files::write_atomically;
use flow::{FlowSde, Guidance, Reduction, Sampler, Trajectory, sampler::velocity_at};
use grpo::{
    TrainedSteps,
    algorithm::{Clipped, Example},
    objective::ObjectiveConfig,
    trajectories::{KeptOn, Trajectories},
    update::{Batches, Others, Replay},
};
use models::{Adapter, Choices, lora};
use pipelines::{DirectorySettings, ModelSource, Pipeline, Size, Visitor};
use serde::{Deserialize, Serialize};
use training::{
    noise::{Key, Purpose, normal},
    optimisation::Optimisation,
    optimizer::Optimizer,
    parameters::Trained,
    workers::Workers,
};

use crate::{
    backend::{self, Device, Plain, Training},
    bench::{machine, spread},
    config, host, memory,
    output::{log, print},
    train_config::TrainConfig,
    tuning::Tuning,
};

/// Options of `bench` for a model directory.
#[derive(Args, Clone, Debug)]
pub struct DirectoryBenchArgs {
    /// Instead of a checkpoint, times a model directory, e.g. of `init-random`: its denoising step,
    /// trained transition, update and decoder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["checkpoint", "preset", "scale"])]
    pub model: Option<PathBuf>,
    /// Height and width of the images in pixels.
    #[arg(long, requires = "model", default_value_t = 512)]
    resolution: usize,
    /// Images per batch; each size runs in its own process, and a size that does not fit is
    /// reported as such.
    #[arg(long, requires = "model", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16])]
    batch: Vec<usize>,
    /// Tokens per prompt: 77 of CLIP plus those of T5.
    #[arg(long, requires = "model", default_value_t = 205)]
    text_length: usize,
    /// Uses activation checkpointing: recomputes every block in the backward pass.
    #[arg(long, requires = "model")]
    recompute: bool,
    /// The peer measures torch.compile, too.
    #[arg(long, requires = "model")]
    compile: bool,
    /// Peak of the machine in matrix products, in TFLOP/s; adds the share of the peak to the table.
    #[arg(long, requires = "model", value_name = "TFLOPS")]
    peak: Option<f64>,
}

/// The peer, which a Python reads from standard input.
const PEER: &str = include_str!("../peer/sd3.py");
const CASES: [&str; 4] = ["denoise", "transition", "update", "decode"];
const GUIDANCE: f64 = 4.5;
/// Index of the timed step out of ten; all steps cost the same.
const STEP: usize = 3;

/// Measurements of one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    median: f64,
    min: f64,
    max: f64,
    peak_mib: Option<u64>,
}

/// The cases of a batch size; `None` if the size did not fit.
type Cases = BTreeMap<String, Option<Measured>>;

#[derive(Debug, Serialize, Deserialize)]
struct Report {
    version: String,
    backend: String,
    precision: String,
    machine: String,
    resolution: usize,
    text_length: usize,
    recompute: bool,
    /// Floating-point operations of a forward pass of one row.
    flop_per_row: f64,
    cases: BTreeMap<usize, Option<Cases>>,
    /// The output of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<serde_json::Value>,
}

/// Times all batch sizes, prints a table and optionally writes JSON.
pub fn bench(
    args: &DirectoryBenchArgs,
    model: &Path,
    repetitions: u32,
    peer: Option<&Path>,
    output: Option<&Path>,
    device: &Device,
) -> Result<()> {
    let mut report = match args.batch[..] {
        [batch] => of_batch(args, model, batch, repetitions, device)?,
        _ => in_processes(args, model, repetitions)?,
    };
    if let Some(python) = peer {
        // Measured results must not be lost if the peer fails.
        report.write(output)?;
        report.peer = Some(run_peer(python, args, model, repetitions)?);
    }
    print(report.table(args.peak))?;
    report.write(output)
}

/// Times one batch size in this process.
fn of_batch(
    args: &DirectoryBenchArgs,
    model: &Path,
    batch: usize,
    repetitions: u32,
    device: &Device,
) -> Result<Report> {
    let size = Some(args.resolution);
    let settings = DirectorySettings {
        size: Size::Pixels { height: size, width: size },
        max_sequence_length: Some(1),
        // No prompt is read; the model's T5 need not be there, if it can do without.
        choices: Choices::default(),
        recompute: args.recompute,
        cache: None,
    };
    let source = ModelSource::Directory { path: model.to_owned(), settings };
    let timing = Timing { args, batch, repetitions, device };
    pipelines::open::<Training, _>(source, &host::machine(device), timing)
}

/// Timing of a batch size on a model, whatever its family is.
struct Timing<'a> {
    args: &'a DirectoryBenchArgs,
    batch: usize,
    repetitions: u32,
    device: &'a Device,
}

impl Visitor<Training> for Timing<'_> {
    type Output = Report;
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<Report> {
        let Self { args, batch, repetitions, device } = self;
        let flop_per_row = pipeline.flop_per_row(args.text_length).unwrap_or(0.0);
        let bench = Bench::new(args, pipeline, &preset()?, batch, device)?.cases(repetitions)?;
        let mut report = Report::new(args, flop_per_row);
        report.cases.insert(batch, Some(bench));
        Ok(report)
    }
}

/// Times every batch size in its own process.
fn in_processes(args: &DirectoryBenchArgs, model: &Path, repetitions: u32) -> Result<Report> {
    let mut report = Report::new(args, 0.0);
    for &batch in &args.batch {
        let cases = in_a_process(args, model, batch, repetitions)?.map(|of_batch| {
            report.flop_per_row = of_batch.flop_per_row;
            of_batch.cases.into_values().next().flatten()
        });
        report.cases.insert(batch, cases.flatten());
    }
    Ok(report)
}

/// Times one batch size in its own process, so that running out of memory ends only that process.
fn in_a_process(
    args: &DirectoryBenchArgs,
    model: &Path,
    batch: usize,
    repetitions: u32,
) -> Result<Option<Report>> {
    let output =
        std::env::temp_dir().join(format!("flow-grpo-bench-{}-{batch}.json", std::process::id()));
    let mut command = Command::new(std::env::current_exe().context("cannot find this program")?);
    command.arg("bench").arg("--model").arg(model).arg("--output").arg(&output);
    command.args([
        "--resolution",
        &args.resolution.to_string(),
        "--text-length",
        &args.text_length.to_string(),
    ]);
    command.args(["--batch", &batch.to_string(), "--repetitions", &repetitions.to_string()]);
    command.args(args.recompute.then_some("--recompute"));
    let status = command.stdout(Stdio::null()).status().context("cannot run this program")?;
    if !status.success() {
        log(format!("batch {batch}: {status}; see above"));
        return Ok(None);
    }
    let text = std::fs::read_to_string(&output)
        .with_context(|| format!("cannot read {}", output.display()))?;
    std::fs::remove_file(&output).with_context(|| format!("cannot remove {}", output.display()))?;
    Ok(Some(serde_json::from_str(&text)?))
}

fn run_peer(
    python: &Path,
    args: &DirectoryBenchArgs,
    model: &Path,
    repetitions: u32,
) -> Result<serde_json::Value> {
    let mut command = Command::new(python);
    command.arg("-c").arg(PEER).arg(model);
    command.args([
        "--resolution",
        &args.resolution.to_string(),
        "--text-length",
        &args.text_length.to_string(),
    ]);
    command.args([
        "--precision",
        backend::PRECISION_NAME,
        "--repetitions",
        &repetitions.to_string(),
    ]);
    command.args(["--device", if backend::ON_CPU { "cpu" } else { "cuda" }]);
    if backend::ON_CPU {
        command.args(["--threads", &backend::workers().to_string()]);
    }
    command.args(args.recompute.then_some("--recompute")).args(args.compile.then_some("--compile"));
    command.arg("--batch").args(args.batch.iter().map(ToString::to_string));
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", python.display()))?;
    ensure!(output.status.success(), "the peer failed ({}); its message is above", output.status);
    serde_json::from_slice(&output.stdout).context("the peer did not print what it should")
}

/// The data that the cases share.
struct Bench<'a, P: Pipeline<Training>> {
    pipeline: P,
    base: P::Network,
    policy: P::Network,
    preset: &'a TrainConfig,
    conditions: Vec<P::Condition>,
    /// Classifier-free guidance, unless the network reads its scale.
    guidance: Option<Guidance<P::Condition>>,
    sampler: Sampler,
    latents: Tensor<Plain, 4>,
    noise: Tensor<Plain, 4>,
    workers: Workers,
}

impl<'a, P: Pipeline<Training>> Bench<'a, P> {
    fn new(
        args: &DirectoryBenchArgs,
        pipeline: P,
        preset: &'a TrainConfig,
        batch: usize,
        device: &Device,
    ) -> Result<Self> {
        let prompt = |seed: usize| {
            let prompt = pipeline.made_up(seed, args.text_length);
            prompt.context("this model has no conditions for measurements")
        };
        let mut base = pipeline.network()?;
        let Tuning::Lora(lora) = &preset.tuning else {
            unreachable!("the presets of a model directory train adapters")
        };
        let policy = Adapter::new(lora, &mut base, 1)?.attach(base.clone(), device)?;
        let shape = pipeline.latent_shape();
        let keys =
            |purpose| (0..batch).map(|row| Key::new(1, purpose).row(row, 0)).collect::<Vec<Key>>();
        Ok(Self {
            base,
            policy,
            preset,
            conditions: (1..=batch).map(prompt).collect::<Result<_>>()?,
            guidance: (!pipeline.reads_guidance())
                .then(|| Ok::<_, Error>(Guidance { unconditional: prompt(0)?, scale: GUIDANCE }))
                .transpose()?,
            sampler: Sampler::new(pipeline.grid()?.grid(10)?, FlowSde::default()),
            latents: normal::<Plain>(&keys(Purpose::Initial), shape, device),
            noise: normal::<Plain>(&keys(Purpose::Step), shape, device),
            workers: Workers::new(1)?,
            pipeline,
        })
    }

    /// A step with guidance: the next latents and the log-probabilities.
    fn denoise(&self) -> (Tensor<Plain, 4>, Tensor<Plain, 1>) {
        let (step, transition) = self.sampler.step(STEP);
        let latents = self.latents.clone();
        let velocity = match &self.guidance {
            Some(guidance) => {
                let field = guidance.around(self.policy.clone());
                velocity_at(&field, latents.clone(), step, &self.conditions)
            }
            None => velocity_at(&self.policy, latents.clone(), step, &self.conditions),
        };
        let policy = transition.gaussian(latents, velocity, step);
        let next = policy.sample(self.noise.clone());
        let log_prob = policy.log_prob(next.clone(), Reduction::Mean);
        (next, log_prob)
    }

    fn cases(&self, repetitions: u32) -> Result<Cases> {
        let trained = Trained::named(&self.policy, lora::is_of_adapter);
        let (next, log_prob) = self.denoise();
        let mut trajectory = Trajectory { latents: vec![None; 11], log_probs: vec![None; 10] };
        trajectory.latents[STEP] = Some(self.latents.clone());
        trajectory.latents[STEP + 1] = Some(next.clone());
        trajectory.latents[10] = Some(next);
        trajectory.log_probs[STEP] = Some(log_prob);
        let objective = ObjectiveConfig::default();
        let algorithm =
            Clipped::new(objective, Reduction::Mean, TrainedSteps::AllButLast {}, &self.sampler);
        let batch = self.conditions.len();
        let replay = Replay {
            sampler: &self.sampler,
            guidance: self.guidance.as_ref(),
            trajectories: &Trajectories::keep(trajectory, KeptOn::Device),
            conditions: &self.conditions,
            advantages: &vec![1.0; batch],
            kl_weight: objective.kl_weight,
            noise: Key::new(1, Purpose::Forward),
            trained: &trained,
            batches: Batches::Of(batch),
            loss_scale: 1.0,
            workers: &self.workers,
        };
        let examples: Vec<Example> = (0..batch).map(|row| Example { step: STEP, row }).collect();
        let others = Others { reference: Some(self.base.clone()), old: None };
        let differentiate = self.pipeline.differentiate();
        let outcome = || {
            let outcome = replay.gradient(
                &algorithm,
                &*differentiate,
                &self.policy,
                &others,
                std::slice::from_ref(&examples),
            );
            outcome.expect("nobody stops a measurement")
        };
        let gradient = outcome().gradient;
        let weights = trained.of(&self.policy);
        let optimizer = Optimizer::new(self.preset.grpo.optimizer, &weights);
        let optimisation = Optimisation::new(weights, optimizer, self.preset.grpo.ema);
        let decoder = self.pipeline.decoder()?;
        let run: [(&str, &dyn Fn()); CASES.len()] = [
            (CASES[0], &|| drop(self.denoise().1.into_data())),
            (CASES[1], &|| drop(outcome())),
            (CASES[2], &|| {
                let mut optimisation = optimisation.clone();
                optimisation.take(0.0, &gradient, 1.0).expect("the gradient is finite");
                std::hint::black_box(optimisation.weights().norm());
            }),
            (CASES[3], &|| drop(decoder.decode(self.latents.clone()))),
        ];
        let mut cases = Cases::new();
        for (name, case) in run {
            case();
            memory::forget_peak();
            let seconds: Vec<f64> = (0..repetitions)
                .map(|_| {
                    let started = Instant::now();
                    case();
                    started.elapsed().as_secs_f64()
                })
                .collect();
            let [min, median, max] = spread(&seconds);
            log(format!("batch {batch}: {name} {median:.3} s"));
            let peak_mib =
                if backend::ON_CPU { memory::peak_mib() } else { memory::gpu_used_mib() };
            cases.insert(name.to_owned(), Some(Measured { median, min, max, peak_mib }));
        }
        Ok(cases)
    }
}

impl Report {
    /// A report without measurements.
    fn new(args: &DirectoryBenchArgs, flop_per_row: f64) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            backend: backend::NAME.to_owned(),
            precision: backend::PRECISION_NAME.to_owned(),
            machine: memory::gpu_name().unwrap_or_else(machine),
            resolution: args.resolution,
            text_length: args.text_length,
            recompute: args.recompute,
            flop_per_row,
            cases: BTreeMap::new(),
            peer: None,
        }
    }

    fn write(&self, output: Option<&Path>) -> Result<()> {
        let Some(path) = output else { return Ok(()) };
        let json = serde_json::to_string_pretty(self)? + "\n";
        Ok(write_atomically(path, json.as_bytes())?)
    }

    fn table(&self, peak: Option<f64>) -> String {
        let side = self.resolution;
        let mut text = format!(
            "{} {} on {}, {side} x {side} pixels, {} tokens of text, guidance {GUIDANCE}{}\n\n",
            self.backend,
            self.precision,
            self.machine,
            self.text_length,
            if self.recompute { ", blocks computed again" } else { "" },
        );
        text += "batch  case           median     smallest … largest   peak MiB  TFLOP/s";
        text += if peak.is_some() { "  of peak" } else { "" };
        text += if self.peer.is_some() {
            "   eager  ours/eager  compiled  ours/compiled\n"
        } else {
            "\n"
        };
        for (batch, cases) in &self.cases {
            let Some(cases) = cases else {
                text += &format!("{batch:>5}  does not fit\n");
                continue;
            };
            for name in CASES {
                let Some(Some(case)) = cases.get(name) else { continue };
                text += &self.line(*batch, name, case, peak);
            }
        }
        text
    }

    fn line(&self, batch: usize, name: &str, case: &Measured, peak: Option<f64>) -> String {
        // Guidance doubles the rows. A transition is a forward pass, a backward pass of about twice
        // the work, and the reference's forward pass.
        let passes = match name {
            "denoise" => 2.0,
            "transition" => 2.0 * 3.0,
            _ => 0.0,
        };
        let rate = passes * batch as f64 * self.flop_per_row / case.median / 1e12;
        let mut line = format!(
            "{batch:>5}  {name:<12} {:>7.3} s  {:>8.3} … {:>7.3}",
            case.median, case.min, case.max
        );
        line += &case.peak_mib.map_or_else(|| format!("{:>11}", "-"), |peak| format!("{peak:>11}"));
        line += &if rate > 0.0 { format!("  {rate:>7.2}") } else { format!("  {:>7}", "-") };
        if let Some(peak) = peak {
            line += &if rate > 0.0 {
                format!("  {:>5.1} %", 100.0 * rate / peak)
            } else {
                format!("  {:>7}", "-")
            };
        }
        for kind in ["eager", "compiled"] {
            let pointer = format!("/cases/{kind}/{batch}/{name}/median");
            if let Some(theirs) =
                self.peer.as_ref().and_then(|peer| peer.pointer(&pointer)?.as_f64())
            {
                line += &format!("  {theirs:>7.3} s  {:>7.2}", case.median / theirs);
            }
        }
        line + "\n"
    }
}

/// The preset whose adapter and optimiser are timed; its reward is not used.
fn preset() -> Result<TrainConfig> {
    let text = include_str!("../../../assets/presets/sd35m-ocr.toml");
    config::resolve(
        config::parse(text)?,
        None,
        None,
        &["rewards={ jpeg_compressibility = 1 }".to_owned()],
    )
}
