//! Where training with a KL penalty leads, beside the tilted density: the toy model, trained by the
//! trainer.

use std::path::Path;

use anyhow::{Context, Result};
use burn::tensor::Tensor;
use files::write_atomically;
use flow::{
    FlowSde, GridKind, KlForm, NoiseLevel, Sampler,
    analytic::{Component, MixtureField},
};
use grpo::{
    EncodedPrompt, GrpoConfig, Objective, Policy, RolloutConfig, Task, Trainer,
    advantage::AdvantageConfig, images::Decoder, objective::ObjectiveConfig,
};
use models::{MlpField, TokenIds};
use pipelines::{Architecture, Card};
use run::curves::{Curve, Panel, curves};
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, Unjudged},
    toy,
};
use training::{
    ema::EmaConfig,
    noise::{Key, Purpose, normal},
    optimizer::AdamWConfig,
    workers::Workers,
};

use super::{density, histogram};
use crate::{
    backend::{Device, Plain, Training},
    checkpoints,
};

/// The weight of the KL penalty, in units of the reward.
const BETA: f64 = 2.0;
/// Epochs of training.
const EPOCHS: usize = 400;
/// Points of an epoch.
const GROUP: usize = 512;
/// Steps of a trajectory; the last draws no noise.
const STEPS: usize = 10;
/// Steps of a finer ODE.
const FINE_STEPS: usize = 40;
/// Points of a histogram.
const POINTS: usize = 20_000;
/// What rewards are divided by: nearly a constant, though training changes their standard deviation,
/// which is a part of it.
const SPREAD: f64 = 100.0;
/// The standard deviation of `x` in the data.
const OF_DATA: f64 = 1.43;

/// The reward `x` of a point.
struct East;

impl Reward for East {
    fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        Ok(images.iter().map(|image| image.pixels[0]).collect())
    }
}

/// Draws the density of `x` after training with two noise levels: of the SDE as in training, of the
/// ODE in as many steps and in more, and of the tilted data.
pub fn trained(path: &Path) -> Result<()> {
    let base = base()?;
    let mut panels = Vec::new();
    for (name, level) in [("0.7", 0.7), ("√2", 2.0_f64.sqrt())] {
        let transition = FlowSde { noise_level: NoiseLevel::new(level).context("a noise level")? };
        let policy = train(&base, transition)?;
        let sde =
            Sampler::new((GridKind::Linear {}).grid(STEPS)?, transition).with_ode_after(STEPS - 1);
        let ode = |steps: usize| -> Result<Sampler> {
            Ok(Sampler::ode((GridKind::Linear {}).grid(steps)?))
        };
        let sampled = |name: &str, sampler: &Sampler| {
            let points = east(sampler, &policy);
            let mean = points.iter().sum::<f64>() / points.len() as f64;
            Curve::new(format!("{name}: mean {mean:.2}"), histogram(&points))
        };
        panels.push(Panel::new(
            format!("x after training with a = {name}, β = {BETA}"),
            vec![
                sampled("SDE, 10 steps", &sde),
                sampled("ODE, 10", &ode(STEPS)?),
                sampled("ODE, 40", &ode(FINE_STEPS)?),
                tilted(),
            ],
        ));
    }
    Ok(write_atomically(path, curves(&panels, "x")?.as_bytes())?)
}

/// The built-in toy model.
fn base() -> Result<MlpField<Plain>> {
    let file = checkpoints::open("toy-2d-base")?;
    let Architecture::Mlp(sizes) = Card::of(&file)?.architecture else {
        unreachable!("the toy model is an MLP");
    };
    Ok(file.load_into(sizes.init(0, &Device::default()))?)
}

/// Trains with the reward `x` and the penalty `β·KL` of every step, at stored latents.
fn train(base: &MlpField<Plain>, transition: FlowSde) -> Result<MlpField<Plain>> {
    let config = GrpoConfig {
        groups: 1,
        group_size: GROUP,
        updates_per_epoch: 1,
        micro_batch: GROUP,
        rollout_batch: GROUP,
        rollout: RolloutConfig {
            steps: STEPS,
            transition: transition.into(),
            random_steps: STEPS - 1,
            ..RolloutConfig::default()
        },
        advantage: AdvantageConfig { epsilon: SPREAD - OF_DATA, ..AdvantageConfig::default() },
        objective: Objective::Clipped(ObjectiveConfig {
            kl_weight: BETA / SPREAD,
            kl_form: KlForm::PaperMean,
            ..ObjectiveConfig::default()
        }),
        optimizer: AdamWConfig { learning_rate: 1e-3, weight_decay: 0.0, ..AdamWConfig::default() },
        ema: EmaConfig { decay: 0.97, every: 1, repeat: 1 },
        warm_up: 10,
        ..GrpoConfig::default()
    };
    let prompt = |prompt| EncodedPrompt { prompt, condition: TokenIds::from([]) };
    let task = Task::new(
        toy::prompts().prompts.into_iter().map(prompt).collect(),
        TokenIds::from([]),
        East,
        [2, 1, 1],
        Decoder::Points,
    );
    let workers = Workers::on_the_calling_thread();
    let policy = Policy::full(base.clone());
    let mut trainer: Trainer<Training, MlpField<Training>> =
        Trainer::new(config, EPOCHS, 1, task, policy, workers);
    for _ in 0..EPOCHS {
        trainer.iterate()?;
    }
    Ok(trainer.averaged_policy())
}

/// The first coordinate of points.
fn east(sampler: &Sampler, policy: &MlpField<Plain>) -> Vec<f64> {
    let noise = |step: usize| -> Tensor<Plain, 4> {
        let key = |row: usize| Key::new(1, Purpose::Evaluation).row(row, 0).step(step);
        normal(&(0..POINTS).map(key).collect::<Vec<_>>(), [2, 1, 1], &Device::default())
    };
    let prompts = vec![TokenIds::from([]); POINTS];
    let points = sampler.sample(policy, &prompts, noise(0), |step| noise(step.index + 1));
    points.slice([0..POINTS, 0..1]).into_data().iter::<f64>().collect()
}

/// The density of `x` of the eight clusters, tilted by `e^{x/β}`.
fn tilted() -> Curve {
    let variance = f64::from(toy::STD).powi(2);
    let component = |mode: usize| {
        let center = f64::from(toy::center(mode)[0]);
        Component {
            weight: (center / BETA).exp(),
            mean: vec![(center + variance / BETA) as f32],
            std: f64::from(toy::STD),
        }
    };
    let field = MixtureField::new((0..toy::MODES).map(component).collect());
    let x = |i: i32| 3.5 * (f64::from(i) / 200.0 - 1.0);
    Curve::new("tilted", (0..=400).map(|i| (x(i), density(&field, x(i), 0.0))).collect())
}
