//! The timed parts.

use std::{collections::BTreeMap, path::Path, time::Instant};

use anyhow::{Context, Result, bail};
use burn::prelude::*;
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
    TokenIds,
    weights::{StoredAs, write_tensors},
};
use pipelines::{Architecture, Own, Pipeline, Trainable};
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
    bench::{count::Case, parts::Times},
    train::config::TrainConfig,
};

/// The data that all cases share.
pub struct Bench<N: Trainable<Training>> {
    own: Own<Training, N>,
    network: N::InnerModule,
    trained: Trained,
    pub workers: Workers,
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
    pub fn new(
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
    pub fn round(&self, repetitions: u32, times: &mut Times) {
        self.with_cases(|cases| {
            for (name, case) in cases {
                case();
                for _ in 0..repetitions {
                    let started = Instant::now();
                    case();
                    let seconds = started.elapsed().as_secs_f64();
                    times.entry((*name).to_owned()).or_default().push(seconds);
                }
            }
        });
    }

    /// Makes the cases and hands them on.
    pub fn with_cases<T>(&self, work: impl FnOnce(&[Case<'_>]) -> T) -> T {
        let gradient = self.loss_and_gradient().1;
        let weights = Parameters::of(&self.network);
        let optimizer = Optimizer::new(OPTIMIZER, &weights).with_muon(
            MuonConfig { learning_rate: 1e-3, momentum: 0.9 },
            self.trained.matrices(&self.network, self.network.blocks()),
        );
        let optimisation = Optimisation::new(weights, optimizer, EmaConfig::default());
        let images = self.own.card.architecture.decoder().decode(self.data.clone());
        let trajectories = self.rollout();
        let cases: [Case<'_>; 7] = [
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
        work(&cases)
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
    pub fn write_exchange(&self, path: &Path) -> Result<()> {
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
