//! The kernels of a run before the run: a batch of every size that it will compute, with the
//! results thrown away.
//!
//! An evaluation in full batches and in the last, smaller one, with two steps; then an epoch with as
//! few groups as fill a rollout batch and the micro-batches of every update. What is left for the
//! run itself are batches that are smaller by chance, if random steps are trained.

use anyhow::{Context, Error, Result};
use pipelines::{Cache, Pipeline, Visitor};
use run::{Program, RunDir};
use tasks::prompts::Prompt;

use crate::{
    backend::{Device, Training},
    machine::host,
    terminal::output,
    train::{
        config::TrainConfig,
        inputs::{PromptSets, Rewards, mix},
        pinned::pinned,
        resolved,
        session::{Session, Setup},
        source,
    },
};

/// Computes a batch of every size of a run.
///
/// # Errors
/// If the run could not start, or its first epoch fails.
pub fn warm_up(config: &TrainConfig, device: &Device) -> Result<()> {
    let config = &small(&pinned(config)?);
    let directory = Scratch::new()?;
    let resume = "warm-up with the same options".to_owned();
    let cache = Cache { directory: directory.0.join("prompts"), resume };
    let work = Work { config, directory: &directory, device };
    pipelines::open::<Training, _>(source(config, cache)?, &host::machine(device), work)
}

/// A run of one epoch, with as many groups as fill its batches.
fn small(config: &TrainConfig) -> TrainConfig {
    let mut small = config.clone();
    let grpo = &mut small.grpo;
    let rows = grpo.rollout_batch.max(grpo.micro_batch * grpo.updates_per_epoch);
    grpo.groups = grpo.groups.min(rows.div_ceil(grpo.group_size)).max(grpo.updates_per_epoch);
    (grpo.warm_up, grpo.cool_down, small.epochs) = (0, 0, 1);
    small
}

/// Prompts of each kind that are encoded.
const PROMPTS: usize = 4;

/// The first prompts of every kind.
fn thinned(prompts: Vec<Prompt>) -> Vec<Prompt> {
    let mut kept: Vec<Prompt> = Vec::new();
    for prompt in prompts {
        if kept.iter().filter(|other| other.tag == prompt.tag).count() < PROMPTS {
            kept.push(prompt);
        }
    }
    kept
}

struct Work<'a> {
    config: &'a TrainConfig,
    directory: &'a Scratch,
    device: &'a Device,
}

impl Visitor<Training> for Work<'_> {
    type Output = ();
    type Error = Error;

    fn visit<P: Pipeline<Training>>(self, pipeline: P) -> Result<()> {
        let Self { config, directory, device } = self;
        let config = &resolved(config, &pipeline)?;
        let sets = PromptSets::read(&config.prompts, &pipeline)?;
        let sets = PromptSets {
            train: thinned(sets.train),
            validation: thinned(sets.validation),
            test: sets.test.map(thinned),
            unseen: sets.unseen.map(thinned),
        };
        mix(&sets.train, &config.prompts.mix)?;
        pipeline.check_room()?;
        let rewards = Rewards::open(config, pipeline.image_shape(), &sets, device)?;
        let run = RunDir::create(&directory.0.join("run"), program())?;
        pipeline.encode(&sets.all())?;
        let setup = Setup { config, pipeline, sets, rewards, live: false, device };
        let updates = Session::start(setup, &run)?.warm_up()?;
        if updates == 0 {
            output::log(
                "note: no group had spread, so no update was computed; its kernels are compiled by the run",
            );
        }
        Ok(())
    }
}

/// A description for the scratch run, which nobody reads.
fn program() -> Program {
    Program {
        version: String::new(),
        revision: String::new(),
        backend: crate::backend::NAME.to_owned(),
        precision: crate::backend::PRECISION_NAME.to_owned(),
        command: Vec::new(),
        machine: String::new(),
        started: None,
        by_xtask: false,
    }
}

/// A directory that is removed in the end.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new() -> Result<Self> {
        let name = format!("flow-grpo-warm-up-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It lies among temporary files: what is left is removed with them.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config, train::presets::TRAIN_PRESETS};

    #[test]
    fn a_warm_up_fills_the_batches_of_a_run_with_few_groups() {
        let of = |name: &str, set: &[&str]| {
            let preset = config::preset(&TRAIN_PRESETS, name).expect("a preset");
            let set: Vec<String> = set.iter().map(|&setting| setting.to_owned()).collect();
            let config: TrainConfig =
                config::resolve(preset.table(&TRAIN_PRESETS), None, None, &set).expect("valid");
            small(&config)
        };
        let shapes = of("shapes", &["grpo.micro_batch=16", "grpo.rollout_batch=64"]);
        assert_eq!((shapes.epochs, shapes.grpo.groups), (1, 4), "four groups of 16 are 64 rows");
        let shapes = of("shapes", &["grpo.micro_batch=256", "grpo.rollout_batch=64"]);
        assert_eq!(shapes.grpo.groups, 32, "two updates of 256 rows");
        let shapes = of("shapes", &["grpo.micro_batch=1024", "grpo.rollout_batch=64"]);
        assert_eq!(shapes.grpo.groups, 32, "never more than the run has");
        let shapes = of("shapes", &["grpo.micro_batch=1", "grpo.rollout_batch=1"]);
        assert_eq!(shapes.grpo.groups, 2, "a group for every update");
    }

    #[test]
    fn every_kind_of_prompt_is_kept() {
        let prompt = |tag: &str| Prompt { tag: tag.to_owned(), ..Prompt::plain("a") };
        let prompts: Vec<Prompt> =
            (0..10).flat_map(|_| ["a", "b"].map(prompt)).chain([prompt("c")]).collect();
        let tags: Vec<String> = thinned(prompts).into_iter().map(|prompt| prompt.tag).collect();
        assert_eq!(tags.iter().filter(|tag| *tag == "a").count(), PROMPTS);
        assert_eq!(tags.len(), 2 * PROMPTS + 1);
    }
}
