//! `proxy`: trains the classifier of the reward `shapes_proxy` on clean scenes only.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use burn::{prelude::*, tensor::activation};
use clap::Args;
use models::{
    Classifier,
    weights::{StoredAs, write_module},
};
use rand::{Rng, seq::IndexedRandom};
use run::png;
use tasks::{
    image::Image,
    prompts::PromptSet,
    shapes::{self, Metadata, Scene, Split},
};
use training::{
    ema::EmaConfig,
    noise::{Key, Purpose},
    optimisation::Optimisation,
    optimizer::{AdamWConfig, Optimizer},
    parameters::Trained,
    schedule,
};

use crate::{
    backend::{Device, Plain, Training},
    rewards::shapes_proxy::{CARD, IMAGE_SIZE, SIZES, pixels},
    terminal::{interrupt, output, progress::Progress},
};

/// Options of `proxy`.
#[derive(Args, Debug)]
pub struct ProxyArgs {
    /// Number of updates.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Number of scenes per update.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Seed of the weights and the scenes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The checkpoint to write.
    #[arg(long, default_value = "shapes-proxy.safetensors")]
    output: PathBuf,
}

const OPTIMIZER: AdamWConfig = AdamWConfig {
    learning_rate: 2e-3,
    beta1: 0.9,
    beta2: 0.99,
    epsilon: 1e-8,
    weight_decay: 1e-2,
    max_gradient_norm: 1.0,
};

/// Trains the classifier and reports its accuracy on held-out prompts.
pub fn run(args: &ProxyArgs) -> Result<()> {
    interrupt::listen()?;
    let device = &Device::default();
    png::check_directory_of(&args.output)?;
    let prompts = metadata(shapes::captions());
    let mut network = SIZES.init::<Plain>(args.seed, device);
    let trained = Trained::all(&network);
    let weights = trained.of(&network);
    let optimizer = Optimizer::new(OPTIMIZER, &weights);
    let mut optimisation = Optimisation::new(weights, optimizer, EmaConfig::OFF);
    let progress = Progress::new("classifier", args.steps as usize, "steps");
    let steps = args.steps as usize;
    let mut mean_loss = 0.0;
    for step in 0..steps {
        let mut rng = Key::new(args.seed, Purpose::Pretraining).epoch(step).rng();
        let (images, labels) = batch(&prompts, args.batch as usize, &mut rng);
        let graph: Classifier<Training> = trained.with_graph(network.clone());
        let loss = loss(&graph, &images, &labels, device);
        let gradient = trained.gradients(&graph, loss.backward());
        let value: f64 = loss.into_scalar().elem();
        let rate = schedule::rate(step, steps, steps / 50, steps / 2);
        optimisation.take(value, &gradient, rate).with_context(|| format!("step {step}"))?;
        network = optimisation.weights().put_into(network);
        mean_loss += (value - mean_loss) / (step % 200 + 1) as f64;
        if (step + 1).is_multiple_of(200) {
            progress.say(&format!("step {:>5}  loss {mean_loss:.4}", step + 1));
            mean_loss = 0.0;
        }
        progress.advance(1);
        if interrupt::requested() {
            bail!("interrupted: a classifier takes minutes and keeps no checkpoints");
        }
    }
    progress.finish();
    write_module::<Plain, _>(
        &network,
        (CARD, serde_json::to_string(&SIZES)?),
        StoredAs::F16,
        &args.output,
    )?;
    let right = 100.0 * accuracy(&network, device);
    output::print(format!(
        "{}: right on {right:.1} % of the facts of held-out scenes\n",
        args.output.display()
    ))
}

fn metadata(set: PromptSet) -> Vec<Metadata> {
    set.prompts.into_iter().filter_map(|prompt| Metadata::of(&prompt)).collect()
}

/// Draws scenes with their labels.
fn batch(
    prompts: &[Metadata],
    size: usize,
    rng: &mut impl Rng,
) -> (Vec<Image>, Vec<Vec<Option<bool>>>) {
    let scenes: Vec<Scene> = (0..size)
        .map(|_| {
            let asked = prompts.choose(rng).expect("there are prompts");
            let shown = if rng.random_bool(0.5) { asked.similar(rng) } else { asked.clone() };
            Scene::sample(&shown, IMAGE_SIZE, rng)
        })
        .collect();
    (
        scenes.iter().map(|scene| shapes::render(scene, IMAGE_SIZE)).collect(),
        scenes.iter().map(shapes::facts).collect(),
    )
}

/// The mean cross-entropy over the facts that have a label.
///
/// ```text
/// max(z, 0) − y·z + log(1 + exp(−|z|))
/// ```
fn loss(
    network: &Classifier<Training>,
    images: &[Image],
    labels: &[Vec<Option<bool>>],
    device: &Device,
) -> Tensor<Training, 1> {
    let tensor = |of: fn(Option<bool>) -> f32| {
        let values: Vec<f32> = labels.iter().flatten().map(|&label| of(label)).collect();
        Tensor::<Training, 2>::from_data(
            TensorData::new(values, [labels.len(), shapes::FACTS]),
            device,
        )
    };
    let said = tensor(|label| if label.is_some() { 1.0 } else { 0.0 });
    let yes = tensor(|label| if label == Some(true) { 1.0 } else { 0.0 });
    let logits = network.logits(Tensor::from_inner(pixels(images, device)));
    let entropy =
        activation::relu(logits.clone()) - logits.clone() * yes + logits.abs().neg().exp().log1p();
    (entropy * said.clone()).sum() / said.sum()
}

/// The share of facts of held-out scenes on which the classifier is right, with threshold ½.
fn accuracy(network: &Classifier<Plain>, device: &Device) -> f64 {
    let mut rng = Key::new(0, Purpose::Evaluation).rng();
    let (images, labels) = batch(&metadata(shapes::prompts(Split::Test)), 1000, &mut rng);
    let logits: Vec<f32> = network.logits(pixels(&images, device)).into_data().iter().collect();
    let said = labels
        .iter()
        .flatten()
        .zip(logits)
        .filter_map(|(label, logit)| label.map(|label| label == (logit > 0.0)));
    let right: Vec<f64> = said.map(|right| if right { 1.0 } else { 0.0 }).collect();
    grpo::advantage::mean(&right)
}
