//! Growth of an epoch's time and memory with its groups and with its denoising steps, as a table
//! and a plot.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use files::write_atomically;
use flow::VelocityField;
use grpo::{EpochTimes, Policy, Task, Trainer, groups::Mix};
use models::TokenIds;
use pipelines::{Own, Pipeline, Trainable};
use run::curves::{Curve, Panel, curves};
use tasks::shapes::{self, Split};
use training::workers::Workers;

use crate::{
    backend::{self, Device, Training},
    machine::memory,
    rewards::{self, Surroundings},
    terminal::output,
    train::config::TrainConfig,
};

/// Numbers of groups, with the configured number of steps.
const GROUPS: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];
/// Numbers of denoising steps, with [`GROUPS_OF_STEPS`] groups.
const STEPS: [usize; 4] = [5, 10, 20, 40];
const GROUPS_OF_STEPS: usize = 8;

/// Time and memory of an epoch.
struct Cost {
    time: EpochTimes,
    peak_mib: Option<u64>,
}

/// Times one epoch of `config` for each number of groups and of steps, prints a table and draws the
/// plot; `smallest` takes only the first two numbers of each, of one group.
pub fn scale<N>(
    config: &TrainConfig,
    own: &Own<Training, N>,
    plot: &Path,
    smallest: bool,
    device: &Device,
) -> Result<()>
where
    N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
{
    output::print(format!("{} with {} threads\n\n", backend::NAME, backend::workers()))?;
    output::print(format!(
        "{:<12} {:>9} {:>10} {:>15} {:>12}\n",
        "epoch of", "seconds", "images/s", "transitions/s", "peak memory"
    ))?;
    let sweep = |name: &str,
                 values: &[usize],
                 set: &dyn Fn(&mut TrainConfig, usize)|
     -> Result<Vec<Panel>> {
        let mut costs = Vec::new();
        let count = if smallest { 2 } else { values.len() };
        for &value in values.iter().take(count) {
            let mut config = config.clone();
            set(&mut config, value);
            let cost = epoch(&config, own, device)?;
            let peak = cost.peak_mib.map_or("-".to_owned(), |peak| format!("{peak} MiB"));
            let EpochTimes { seconds, images_per_second, transitions_per_second, .. } = cost.time;
            let what = format!("{value} {name}");
            output::print(format!(
                "{what:<12} {seconds:>9.3} {images_per_second:>10.0} {transitions_per_second:>15.0} {peak:>12}\n"
            ))?;
            costs.push((value as f64, cost));
        }
        let curve = |of: &dyn Fn(&Cost) -> Option<f64>| {
            let points =
                costs.iter().filter_map(|(value, cost)| Some((*value, of(cost)?))).collect();
            vec![Curve::new(name, points)]
        };
        Ok(vec![
            Panel::new(
                format!("seconds of an epoch by {name}"),
                curve(&|cost| Some(cost.time.seconds)),
            ),
            Panel::new(
                format!("peak memory in MiB by {name}"),
                curve(&|cost| Some(cost.peak_mib? as f64)),
            ),
        ])
    };
    let mut panels = sweep("steps", &STEPS, &|config, steps| {
        config.grpo.groups = if smallest { 1 } else { GROUPS_OF_STEPS };
        set_steps(config, steps);
    })?;
    panels.extend(sweep("groups", &GROUPS, &|config, groups| config.grpo.groups = groups)?);
    Ok(write_atomically(plot, curves(&panels, "")?.as_bytes())?)
}

/// Sets the number of steps. As many draw noise as are configured, but the last two never do: the KL
/// penalty may be taken at one of them.
fn set_steps(config: &mut TrainConfig, steps: usize) {
    let rollout = &mut config.grpo.rollout;
    (rollout.steps, rollout.random_steps) = (steps, rollout.random_steps.min(steps - 2));
}

/// Measures one epoch, after a warm-up epoch.
fn epoch<N>(config: &TrainConfig, own: &Own<Training, N>, device: &Device) -> Result<Cost>
where
    N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
{
    let prompts = own.encode(&shapes::prompts(Split::Train).prompts)?;
    let task = Task {
        mix: Mix::even(prompts.len()),
        prompts,
        reward: rewards::open(
            "rewards",
            &config.rewards,
            &Surroundings { image_shape: own.image_shape(), device, cache: None },
        )?,
        latent_shape: own.latent_shape(),
        decoder: own.decoder()?,
        unconditional: own.card.condition("")?,
        on_policy_limit: backend::ON_POLICY_LIMIT,
    };
    let workers = Workers::new(backend::workers()).context("cannot start worker threads")?;
    let (grpo, policy) = (config.grpo.clone(), Policy::full(own.network()?));
    let problems = grpo.problems();
    ensure!(problems.is_empty(), "this epoch cannot be timed: {}", problems.join("; "));
    let mut trainer: Trainer<Training, N> =
        Trainer::new(grpo, config.epochs, config.seed, task, policy, workers);
    trainer.iterate()?;
    memory::forget_peak();
    let time = trainer.iterate()?.metrics.time;
    Ok(Cost { time, peak_mib: memory::peak_mib() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, train::presets::TRAIN_PRESETS};

    #[test]
    fn every_epoch_of_a_sweep_can_be_trained() {
        let table = TRAIN_PRESETS[0].table(&TRAIN_PRESETS);
        let preset: TrainConfig = config::resolve(table, None, None, &[]).expect("a valid preset");
        for steps in STEPS {
            let mut config = preset.clone();
            set_steps(&mut config, steps);
            assert_eq!(config.grpo.rollout.steps, steps);
            assert_eq!(config.grpo.problems(), Vec::<String>::new(), "{steps} steps");
        }
    }
}
