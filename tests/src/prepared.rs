//! Conditions that stay on the device: the same velocities, and no prompt is read twice.

use std::{
    collections::BTreeMap,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use burn::{
    module::{Module, Param, ParamId},
    tensor::{Distribution, FloatDType, Tensor, TensorData, backend::Backend},
};
use flow::{Guidance, Sampler, VelocityField};
use grpo::{
    GrpoConfig, Policy, RolloutConfig, Task, Trainer,
    evaluate::{EncodedPrompt, Generator, Row, Start},
    images::Decoder,
};
use models::{
    Adaptable, Choices, LowRank,
    sd3::ModelDirectory,
    storage::TensorFiles,
    text::{Embedding, Features, PromptEmbedding},
    weights::{StoredAs, write_tensors},
};
use tasks::{prompts::Prompt, reward::Darkness};
use training::{
    noise::{Key, Purpose, normal},
    workers::Workers,
};

use crate::{
    backend::{Device, Plain, Training, numbers},
    flux,
    training::{config, with_objective},
};

/// Prompts whose features lie in a file.
fn stored(count: usize, text: [usize; 2], pooled: usize, path: &Path) -> Vec<Embedding> {
    let values = |seed: usize, shape: &[usize]| {
        let values =
            (0..shape.iter().product()).map(|i: usize| ((i * 31 + seed * 17) % 101) as f32);
        TensorData::new(values.map(|x| x / 50.0 - 1.0).collect::<Vec<_>>(), shape.to_vec())
    };
    let tensors: BTreeMap<String, TensorData> = (0..count)
        .flat_map(|prompt| {
            [
                (format!("text {prompt}"), values(prompt, &text)),
                (format!("pooled {prompt}"), values(prompt + 50, &[pooled])),
            ]
        })
        .collect();
    write_tensors(&tensors, ("key", "value".to_owned()), StoredAs::F32, path).expect("written");
    let (files, _) = TensorFiles::open_with_entry(path, "key").expect("a file");
    let features = |name: String| Features::Stored(files.stored(&name).expect("in the file"));
    (0..count)
        .map(|prompt| {
            Arc::new(PromptEmbedding {
                clip: None,
                pooled: features(format!("pooled {prompt}")),
                t5: Some(features(format!("text {prompt}"))),
                text_shape: text,
            })
        })
        .collect()
}

/// Asserts that a prepared network computes the same numbers, and reads its prompts no more.
fn check<N>(mut network: N, text: [usize; 2], pooled: usize, latent: [usize; 3])
where
    N: VelocityField<Plain, Condition = Embedding> + Adaptable<Plain> + Clone,
{
    let device = Device::default();
    for (_, layer) in network.linears() {
        let [inputs, outputs] = layer.size();
        let factor = |size| {
            let values = Tensor::random(size, Distribution::Normal(0.0, 0.1), &device);
            Param::initialized(ParamId::new(), values)
        };
        *layer.adapter = Some(LowRank::new(factor([inputs, 4]), factor([4, outputs]), 8.0));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("prompts.safetensors");
    let prompts = stored(4, text, pooled, &path);
    let rows: Vec<Embedding> = [2, 2, 1, 2].map(|prompt: usize| prompts[prompt].clone()).into();
    let keys: Vec<Key> = (0..4).map(|row| Key::new(1, Purpose::Initial).row(row, 0)).collect();
    let latents = normal::<Plain>(&keys, latent, &Device::default());
    let time = Tensor::<Plain, 1>::from_floats([0.9, 0.5, 0.2, 0.6], &Device::default());
    let velocity = |network: &N, rows: &[Embedding]| {
        let guidance = Guidance { unconditional: prompts[0].clone(), scale: 3.0 };
        let guided = guidance.around(network.clone());
        numbers(guided.velocity(latents.clone(), time.clone(), rows))
    };
    let (wanted, others) = (velocity(&network, &rows), velocity(&network, &prompts));
    let mut prepared = network.clone();
    prepared.prepare(&[&prompts[..1], &rows].concat(), latent);
    assert_eq!(velocity(&prepared, &prompts), others, "prompts that are not kept");
    let mut like = network.clone();
    like.prepare_like(&prepared);
    File::options().write(true).open(&path).and_then(|file| file.set_len(0)).expect("emptied");
    assert_eq!(velocity(&prepared, &rows), wanted, "prompts that are kept");
    assert_eq!(velocity(&like, &rows), wanted, "prompts that another network keeps");
    let again = catch_unwind(AssertUnwindSafe(|| velocity(&network, &rows)));
    assert!(again.is_err(), "a network that keeps nothing reads its prompts again");
}

#[test]
fn a_prepared_network_computes_the_same_and_reads_no_prompt_again() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/sd3-tiny");
    let device = Device::default();
    let sd3 = ModelDirectory::open::<Plain>(&path, &Choices::default(), &device).expect("a model");
    let config = sd3.transformer_config();
    let (text, pooled) = ([5, config.joint_attention_dim], config.pooled_projection_dim);
    let network = sd3.transformer::<Plain>(FloatDType::F32, &device).expect("a transformer");
    check(network, text, pooled, [config.in_channels, 8, 12]);
    let network = flux::transformer::<Plain>(&device);
    let config = network.config();
    let sizes = ([7, config.joint_attention_dim], config.pooled_projection_dim);
    let channels = config.in_channels / 4;
    check(network, sizes.0, sizes.1, [channels, 12, 8]);
}

/// A field that knows only the conditions that it was prepared for.
#[derive(Module, Debug)]
struct Wary<B: Backend> {
    weight: Param<Tensor<B, 1>>,
    #[module(skip)]
    kept: Vec<u8>,
}

impl<B: Backend> VelocityField<B> for Wary<B> {
    type Condition = u8;

    fn velocity(&self, latent: Tensor<B, 4>, _: Tensor<B, 1>, conditions: &[u8]) -> Tensor<B, 4> {
        for condition in conditions {
            assert!(self.kept.contains(condition), "{condition} is not among {:?}", self.kept);
        }
        latent * self.weight.val().reshape([1, 1, 1, 1])
    }

    fn prepare(&mut self, conditions: &[u8], latent: [usize; 3]) {
        assert_eq!(latent, SHAPE);
        self.kept = conditions.to_vec();
    }

    fn prepare_like(&mut self, other: &Self) {
        self.kept.clone_from(&other.kept);
    }
}

const SHAPE: [usize; 3] = [3, 4, 4];

fn wary() -> Wary<Plain> {
    let weight = Param::from_tensor(Tensor::full([1], 0.5, &Device::default()));
    Wary { weight, kept: Vec::new() }
}

fn prompts() -> Vec<EncodedPrompt<u8>> {
    let prompt = |condition: u8| EncodedPrompt { prompt: Prompt::plain("a"), condition };
    (1..=9).map(prompt).collect()
}

#[test]
fn every_rollout_and_update_prepares_the_networks_that_it_asks() {
    let objective = |kl_weight| {
        with_objective(config(), |objective| {
            objective.kl_weight = kl_weight;
        })
        .objective
    };
    let nft = grpo::Objective::Nft(grpo::algorithm::nft::NftConfig::default());
    for (objective, guidance) in [(objective(0.0), 1.0), (objective(0.1), 3.0), (nft, 1.0)] {
        for replay_batches in [grpo::ReplayBatches::MicroBatch, grpo::ReplayBatches::Rollout] {
            let rollout = RolloutConfig { guidance, ..config().rollout };
            let config = GrpoConfig { rollout, objective, replay_batches, ..config() };
            let task = Task::new(prompts(), 0, Darkness, SHAPE, Decoder::Pixels);
            let workers = Workers::new(2).expect("threads");
            let policy = Policy::full(wary());
            let mut trainer =
                Trainer::<Training, Wary<Training>>::new(config, 2, 1, task, policy, workers);
            for _ in 0..2 {
                assert!(trainer.iterate().expect("an epoch").metrics.transitions > 0);
            }
        }
    }
}

#[test]
fn every_batch_of_an_evaluation_prepares_its_own_conditions() {
    let workers = Workers::new(2).expect("threads");
    let sampler = Sampler::ode(config().rollout.grid.grid(3).expect("a grid"));
    let generator = Generator { sampler, shape: SHAPE, batch: 4, workers: &workers };
    let start = || Start { key: Key::new(1, Purpose::Evaluation), initial: None };
    let (prompts, rows, device) = (prompts(), Row::all(9, 2), Device::default());
    let rows_of = |latents: Tensor<Plain, 4>| latents.dims()[0];
    let alone = generator.generate(&wary(), &prompts, &rows, start(), &device, rows_of);
    assert_eq!(alone.expect("not stopped"), [4, 4, 4, 4, 2]);
    let guided = Guidance { unconditional: 0, scale: 2.0 }.around(wary());
    let guided = generator.generate(&guided, &prompts, &rows, start(), &device, rows_of);
    assert_eq!(guided.expect("not stopped"), [4, 4, 4, 4, 2]);
}
