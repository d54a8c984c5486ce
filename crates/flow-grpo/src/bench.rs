//! Timing of the parts: named cases with median and spread, optionally beside the same network in
//! PyTorch.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Error, Result, bail, ensure};
use burn::prelude::*;
use clap::Args;
use files::write_atomically;
use flow::{Reduction, Sampler, VelocityField, matching::flow_matching_loss};
use grpo::{
    Objective,
    algorithm::{Clipped, Example},
    evaluate::{EncodedPrompt, Row},
    images::Decode,
    rollout::{Rollout, RolloutKeys},
    trajectories::{KeptOn, Trajectories},
    update::{Batches, Others, Replay, WholeGraph},
};
use models::{
    TokenIds, Vocabulary,
    weights::{StoredAs, write_tensors},
};
use pipelines::{Architecture, Card, Own, OwnVisitor, Pipeline, Trainable, Weights, open_own};
use serde::{Deserialize, Serialize};
use tasks::shapes::{self, Split};
use training::{
    ema::EmaConfig,
    noise::{Key, Purpose, normal},
    optimisation::Optimisation,
    optimizer::{AdamWConfig, MuonConfig, Optimizer},
    parameters::{self, Parameters, Trained},
    workers::Workers,
};

use crate::{
    backend::{self, Device, Plain, Training},
    bench_directory::{self, DirectoryBenchArgs},
    checkpoints, host, memory, output,
    scale::scale,
    train_config::TrainConfig,
};

/// Options of `bench`.
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// The network to time: a checkpoint file or a built-in checkpoint.
    #[arg(long, default_value = "shapes-base")]
    checkpoint: String,
    /// Instead of a checkpoint, times a network with random weights and the sizes of a preset of
    /// `pretrain`, e.g. shapes-64-base.
    #[arg(long, conflicts_with = "checkpoint")]
    pub preset: Option<String>,
    /// Images per repetition.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    images: u32,
    /// Timed repetitions of every case in a round, after an untimed one.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: u32,
    /// Rounds; with a peer, its rounds alternate with ours.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// A Python with torch, numpy and safetensors: times the same network there, after checking
    /// that it computes the same.
    #[arg(long, value_name = "PYTHON")]
    peer: Option<PathBuf>,
    /// The JSON file to write.
    #[arg(long)]
    output: Option<PathBuf>,
    /// Instead of timing the parts, measures how the time and memory of an epoch grow with its
    /// groups and steps: prints a table and writes this SVG file.
    #[arg(long, value_name = "SVG", conflicts_with_all = ["peer", "output"])]
    scale: Option<PathBuf>,
    #[command(flatten)]
    directory: DirectoryBenchArgs,
}

/// The network in PyTorch, as a Python script: reads the exchange file and prints seconds by case
/// as JSON.
const PEER: &str = include_str!("../peer/dit.py");

/// Seconds of every repetition, by case.
type Times = BTreeMap<String, Vec<f64>>;

/// The content of `--output`.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    backend: &'static str,
    threads: usize,
    machine: String,
    images: u32,
    peak_memory_mib: Option<u64>,
    seconds: Times,
    peer: Option<PeerTimes>,
}

/// The JSON that the peer prints.
#[derive(Debug, Serialize, Deserialize)]
struct PeerTimes {
    versions: BTreeMap<String, String>,
    /// Largest difference from our numbers, relative to the largest number.
    differences: BTreeMap<String, f64>,
    seconds: Times,
}

/// Times all cases, prints a table and optionally writes JSON. `epoch` configures rollout and loss;
/// `sizes` replaces the network of the checkpoint.
pub fn bench(
    args: &BenchArgs,
    epoch: &TrainConfig,
    sizes: Option<Architecture>,
    device: &Device,
) -> Result<()> {
    if let Some(model) = &args.directory.model {
        let (peer, output) = (args.peer.as_deref(), args.output.as_deref());
        return bench_directory::bench(
            &args.directory,
            model,
            args.repetitions,
            peer,
            output,
            device,
        );
    }
    let (card, weights) = if let Some(architecture) = sizes {
        let card = Card {
            architecture,
            vocabulary: Vocabulary::new(shapes::vocabulary()),
            made_by: String::new(),
        };
        (card, Weights::Random { seed: 1 })
    } else {
        let file = checkpoints::open(&args.checkpoint)?;
        (Card::of(&file)?, Weights::File(file))
    };
    if !matches!(card.architecture, Architecture::Dit(_)) {
        bail!("it is not a transformer, and only that is timed")
    }
    open_own::<Training, _>(card, &weights, &host::machine(device), Timing { args, epoch, device })
}

/// Timing of one of the program's own networks.
struct Timing<'a> {
    args: &'a BenchArgs,
    epoch: &'a TrainConfig,
    device: &'a Device,
}

impl OwnVisitor<Training> for Timing<'_> {
    type Output = ();
    type Error = Error;

    fn visit<N>(self, own: Own<Training, N>) -> Result<()>
    where
        N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
    {
        let Self { args, epoch, device } = self;
        match &args.scale {
            Some(plot) => scale(epoch, &own, plot, device),
            None => rounds(args, &Bench::new(own, epoch, args.images as usize, device)?),
        }
    }
}

/// Times all rounds, prints a table and optionally writes JSON.
fn rounds<N>(args: &BenchArgs, bench: &Bench<N>) -> Result<()>
where
    N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
{
    let exchange =
        std::env::temp_dir().join(format!("flow-grpo-bench-{}.safetensors", std::process::id()));
    let (mut ours, mut peer) = (Times::new(), None);
    if args.peer.is_some() {
        bench.write_exchange(&exchange)?;
    }
    for round in 1..=args.rounds {
        output::log(format!("round {round} of {}", args.rounds));
        bench.round(args.repetitions, &mut ours);
        if let Some(python) = &args.peer {
            let times = run_peer(python, &exchange, args.repetitions, bench.workers.count())?;
            peer = Some(match peer.take() {
                None => times,
                Some(before) => merge(before, times),
            });
        }
    }
    if args.peer.is_some() {
        std::fs::remove_file(&exchange)
            .with_context(|| format!("cannot remove {}", exchange.display()))?;
    }
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        backend: backend::NAME,
        threads: bench.workers.count(),
        machine: machine(),
        images: args.images,
        peak_memory_mib: memory::peak_mib(),
        seconds: ours,
        peer,
    };
    output::print(report.table())?;
    if let Some(path) = &args.output {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        write_atomically(path, json.as_bytes())?;
    }
    Ok(())
}

/// The data that all cases share.
struct Bench<N: Trainable<Training>> {
    own: Own<Training, N>,
    network: N::InnerModule,
    trained: Trained,
    workers: Workers,
    device: Device,
    prompts: Vec<EncodedPrompt<TokenIds>>,
    rows: Vec<Row>,
    data: Tensor<Plain, 4>,
    noise: Tensor<Plain, 4>,
    times: Vec<f32>,
    sampler: Sampler,
    algorithm: Clipped,
    kl_weight: f64,
}

/// Images per forward pass, and per forward and backward pass, that are fastest on a CPU. A GPU
/// takes all images at once.
const FORWARD_BATCH: usize = 16;
const TRAIN_BATCH: usize = 8;

impl<N> Bench<N>
where
    N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
{
    fn new(
        own: Own<Training, N>,
        epoch: &TrainConfig,
        images: usize,
        device: &Device,
    ) -> Result<Self> {
        let network = own.network()?;
        let prompts = own.encode(&shapes::prompts(Split::Train).prompts)?;
        let rows: Vec<Row> =
            (0..images).map(|i| Row { prompt: i * 7 % prompts.len(), sample: i }).collect();
        let keys = |purpose| {
            rows.iter()
                .map(|row| Key::new(1, purpose).row(row.prompt, row.sample))
                .collect::<Vec<Key>>()
        };
        let Objective::Clipped(objective) = epoch.grpo.objective else {
            bail!("bench times the clipped objective")
        };
        let sampler = epoch.grpo.rollout.sampler()?;
        Ok(Self {
            data: normal::<Plain>(&keys(Purpose::Pretraining), own.latent_shape(), device),
            noise: normal::<Plain>(&keys(Purpose::Initial), own.latent_shape(), device),
            times: (0..images).map(|i| (i as f32 + 0.5) / images as f32).collect(),
            workers: Workers::new(backend::workers()).context("cannot start worker threads")?,
            device: device.clone(),
            algorithm: Clipped::new(
                objective,
                epoch.grpo.rollout.log_prob,
                epoch.grpo.trained_steps,
                &sampler,
            ),
            kl_weight: objective.kl_weight,
            sampler,
            own,
            trained: Trained::all(&network),
            network,
            prompts,
            rows,
        })
    }

    /// Times every case `repetitions` times.
    fn round(&self, repetitions: u32, times: &mut Times) {
        let gradient = self.loss_and_gradient().1;
        let weights = Parameters::of(&self.network);
        let optimizer = Optimizer::new(OPTIMIZER, &weights).with_muon(
            MuonConfig { learning_rate: 1e-3, momentum: 0.9 },
            self.trained.matrices(&self.network, self.network.blocks()),
        );
        let optimisation = Optimisation::new(weights, optimizer, EmaConfig::default());
        let images = self.own.card.architecture.decoder().decode(self.data.clone());
        let trajectories = self.rollout();
        let cases: [(&str, &dyn Fn()); 7] = [
            ("forward", &|| drop(read(self.velocity()))),
            ("train step", &|| drop(self.loss_and_gradient())),
            ("rollout", &|| drop(read(self.rollout().final_latents()))),
            ("sampler alone", &|| drop(read(self.sampler_alone()))),
            ("replay of a step", &|| drop(self.replay(&trajectories))),
            ("update", &|| {
                let mut optimisation = optimisation.clone();
                optimisation.take(0.0, &gradient, 1.0).expect("the gradient is finite");
                std::hint::black_box(optimisation.weights().norm());
            }),
            ("verifier", &|| {
                for (image, row) in images.iter().zip(&self.rows) {
                    let metadata = shapes::Metadata::of(&self.prompts[row.prompt].prompt)
                        .expect("training prompts have metadata");
                    std::hint::black_box(shapes::verify(image, &metadata));
                }
            }),
        ];
        for (name, case) in cases {
            case();
            for _ in 0..repetitions {
                let started = Instant::now();
                case();
                times.entry(name.to_owned()).or_default().push(started.elapsed().as_secs_f64());
            }
        }
    }

    /// Images per pass: `on_cpu` on a CPU, all on a GPU.
    fn batch(&self, on_cpu: usize) -> usize {
        if backend::ON_CPU { on_cpu } else { self.rows.len() }
    }

    /// Ranges of images, one per pass.
    fn batches(&self, size: usize) -> Vec<std::ops::Range<usize>> {
        let size = self.batch(size);
        (0..self.rows.len())
            .step_by(size)
            .map(|from| from..(from + size).min(self.rows.len()))
            .collect()
    }

    fn conditions(&self, range: &std::ops::Range<usize>) -> Vec<TokenIds> {
        self.rows[range.clone()]
            .iter()
            .map(|row| self.prompts[row.prompt].condition.clone())
            .collect()
    }

    fn time(&self, range: &std::ops::Range<usize>) -> Tensor<Plain, 1> {
        Tensor::from_floats(&self.times[range.clone()], &self.device)
    }

    /// The velocity of all images, `[B, C, H, W]`.
    fn velocity(&self) -> Tensor<Plain, 4> {
        let jobs = self
            .batches(FORWARD_BATCH)
            .into_iter()
            .map(|range| (self.network.clone(), range))
            .collect();
        let part = |(network, range): (N::InnerModule, std::ops::Range<usize>)| {
            network.velocity(
                self.noise.clone().slice([range.clone()]),
                self.time(&range),
                &self.conditions(&range),
            )
        };
        Tensor::cat(self.workers.map(jobs, part).expect("nobody stops a measurement"), 0)
    }

    /// The mean flow-matching loss of all images and its gradient.
    fn loss_and_gradient(&self) -> (f64, Parameters<Plain>) {
        let jobs = self
            .batches(TRAIN_BATCH)
            .into_iter()
            .map(|range| (self.network.clone(), range))
            .collect();
        let parts = self.workers.map(jobs, |(network, range)| {
            let network: N = self.trained.with_graph(network);
            let [data, noise] = [&self.data, &self.noise]
                .map(|x| Tensor::from_inner(x.clone().slice([range.clone()])));
            let time = Tensor::from_inner(self.time(&range));
            let loss = flow_matching_loss(&network, data, noise, time, &self.conditions(&range))
                .sum()
                / self.rows.len() as f64;
            let gradient = self.trained.gradients(&network, loss.backward());
            (loss.into_scalar().elem::<f64>(), gradient)
        });
        let parts = parts.expect("nobody stops a measurement");
        let sum =
            |a: (f64, Parameters<Plain>), b: (f64, Parameters<Plain>)| (a.0 + b.0, a.1.plus(&b.1));
        parts.into_iter().reduce(sum).expect("there is at least one image")
    }

    /// A training rollout.
    fn rollout(&self) -> Trajectories<Plain> {
        let rollout = Rollout {
            sampler: &self.sampler,
            reduction: Reduction::Mean,
            guidance: None,
            shape: self.own.latent_shape(),
            batch: self.batch(FORWARD_BATCH),
            kept_on: KeptOn::Device,
            workers: &self.workers,
        };
        let keys = RolloutKeys::new(1, 0);
        rollout
            .sample(&self.network, &self.prompts, &self.rows, keys, &self.device)
            .expect("nobody stops a measurement")
    }

    /// A rollout without the network: noise, steps and log-probabilities; returns the final
    /// latents.
    fn sampler_alone(&self) -> Tensor<Plain, 4> {
        let noise = |step: flow::Step| {
            let key = Key::new(1, Purpose::Step).step(step.index);
            let keys: Vec<Key> =
                self.rows.iter().map(|row| key.row(row.prompt, row.sample)).collect();
            normal(&keys, self.own.latent_shape(), &self.device)
        };
        self.sampler
            .trajectory(&Still, &[], self.noise.clone(), noise, Reduction::Mean)
            .final_latent()
    }

    /// Forward and backward passes over the first step of every row, with the loss of Flow-GRPO.
    fn replay(&self, trajectories: &Trajectories<Plain>) -> Parameters<Plain> {
        let replay = Replay {
            sampler: &self.sampler,
            guidance: None,
            trajectories,
            conditions: &self.conditions(&(0..self.rows.len())),
            advantages: &vec![1.0; self.rows.len()],
            kl_weight: self.kl_weight,
            noise: Key::new(1, Purpose::Forward),
            trained: &self.trained,
            batches: Batches::Of(self.batch(TRAIN_BATCH)),
            loss_scale: 1.0,
            workers: &self.workers,
        };
        let examples = (0..self.rows.len()).map(|row| Example { step: 0, row }).collect();
        let others =
            Others { reference: (self.kl_weight > 0.0).then(|| self.network.clone()), old: None };
        let outcome = replay.gradient::<Training, N>(
            &self.algorithm,
            &WholeGraph,
            &self.network,
            &others,
            &[examples],
        );
        outcome.expect("nobody stops a measurement").gradient
    }

    /// Writes weights, inputs and our results, for the peer to check and time.
    fn write_exchange(&self, path: &Path) -> Result<()> {
        let (loss, gradient) = self.loss_and_gradient();
        let names = parameters::names(&self.network);
        let weights = Parameters::of(&self.network).to_data();
        let mut tensors: BTreeMap<String, TensorData> = BTreeMap::new();
        for (id, values) in gradient.to_data() {
            tensors.insert(format!("gradient.{}", names[&id]), values);
        }
        for (id, values) in weights {
            tensors.insert(format!("weight.{}", names[&id]), values);
        }
        let ids: Vec<f32> = self
            .conditions(&(0..self.rows.len()))
            .iter()
            .flat_map(|ids| ids.to_vec())
            .map(|id| id as f32)
            .collect();
        let columns = ids.len() / self.rows.len();
        tensors.insert("ids".to_owned(), TensorData::new(ids, [self.rows.len(), columns]));
        tensors.insert("time".to_owned(), TensorData::from(self.times.as_slice()));
        tensors.insert("data".to_owned(), self.data.to_data());
        tensors.insert("noise".to_owned(), self.noise.to_data());
        tensors.insert("velocity".to_owned(), self.velocity().to_data());
        tensors.insert("loss".to_owned(), TensorData::from([loss as f32]));
        let Architecture::Dit(sizes) = &self.own.card.architecture else {
            bail!("only a transformer is timed")
        };
        write_tensors(&tensors, ("sizes", serde_json::to_string(sizes)?), StoredAs::F32, path)?;
        Ok(())
    }
}

/// A field with velocity 0.
struct Still;

impl VelocityField<Plain> for Still {
    type Condition = TokenIds;

    fn velocity(
        &self,
        latent: Tensor<Plain, 4>,
        _time: Tensor<Plain, 1>,
        _conditions: &[TokenIds],
    ) -> Tensor<Plain, 4> {
        latent.zeros_like()
    }
}

const OPTIMIZER: AdamWConfig = AdamWConfig {
    learning_rate: 1e-3,
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-8,
    weight_decay: 0.0,
    max_gradient_norm: 1.0,
};

/// Reads a result and thereby waits for it: a GPU computes asynchronously.
fn read(tensor: Tensor<Plain, 4>) -> TensorData {
    tensor.into_data()
}

fn run_peer(python: &Path, exchange: &Path, repetitions: u32, threads: usize) -> Result<PeerTimes> {
    let device = if cfg!(any(feature = "cuda", feature = "wgpu")) { "cuda" } else { "cpu" };
    let mut child = Command::new(python)
        .arg("-")
        .arg(exchange)
        .args([repetitions.to_string(), threads.to_string(), device.to_owned()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", python.display()))?;
    child
        .stdin
        .take()
        .context("the peer has an input")?
        .write_all(PEER.as_bytes())
        .context("cannot hand the script to the peer")?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the peer failed ({}); its message is above", output.status);
    serde_json::from_slice(&output.stdout).context("the peer did not print what it should")
}

fn merge(mut before: PeerTimes, after: PeerTimes) -> PeerTimes {
    for (case, seconds) in after.seconds {
        before.seconds.entry(case).or_default().extend(seconds);
    }
    before
}

/// The smallest, median and largest time.
pub fn spread(seconds: &[f64]) -> [f64; 3] {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    [sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]]
}

impl Report {
    fn table(&self) -> String {
        let mut text = format!(
            "{} on {}, {} threads, {} images\n\n",
            self.backend, self.machine, self.threads, self.images
        );
        text += &format!("{:<20} {:>10} {:>21}", "case", "median", "smallest … largest");
        text += if self.peer.is_some() { "   PyTorch   ours / PyTorch\n" } else { "\n" };
        for (case, seconds) in &self.seconds {
            let [least, median, most] = spread(seconds).map(|seconds| seconds * 1e3);
            text += &format!("{case:<20} {median:>7.1} ms {least:>9.1} … {most:>6.1} ms");
            if let Some(peer) = self.peer.as_ref().and_then(|peer| peer.seconds.get(case)) {
                let theirs = spread(peer)[1] * 1e3;
                text += &format!(" {theirs:>6.1} ms   {:>6.2}", median / theirs);
            }
            text.push('\n');
        }
        if let Some(peak) = self.peak_memory_mib {
            text += &format!("\npeak memory {peak} MiB\n");
        }
        if let Some(peer) = &self.peer {
            let list = |(name, value): (&String, String)| format!("{name} {value}");
            let versions: Vec<String> =
                peer.versions.iter().map(|(name, version)| list((name, version.clone()))).collect();
            let differences: Vec<String> =
                peer.differences.iter().map(|(name, d)| list((name, format!("{d:.1e}")))).collect();
            text +=
                &format!("peer: {}; differs by: {}\n", versions.join(", "), differences.join(", "));
        }
        text
    }
}

/// The name of the processor, if known.
pub fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| {
        line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_smallest_median_largest() {
        assert_eq!(spread(&[3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        assert_eq!(spread(&[4.0]), [4.0, 4.0, 4.0]);
    }
}
