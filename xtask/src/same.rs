//! Whether two builds of the program compute the same: small runs by both, their metrics
//! and weights compared.
//!
//! For a change that is to change no number: `cargo xtask same OLD NEW` with the program built
//! before and after it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::Value;

/// Two builds to compare.
#[derive(Debug, Args)]
pub struct SameArgs {
    /// The program built before the change.
    before: PathBuf,
    /// The program built after it.
    after: PathBuf,
}

/// A run: its name, its verb and preset, and what is set beside it. Of two settings of one key the
/// later one holds.
struct Run {
    name: &'static str,
    verb: &'static str,
    preset: &'static str,
    size: Settings,
    settings: Settings,
}

type Settings = &'static [&'static str];

/// A training run of the toy task.
const fn toy(name: &'static str, settings: Settings) -> Run {
    Run { name, verb: "train", preset: "toy-2d", size: &[], settings }
}

/// A training run of the shapes task, made [`SMALL`].
const fn shapes(name: &'static str, settings: Settings) -> Run {
    Run { name, verb: "train", preset: "shapes", size: SMALL, settings }
}

const fn pretrain(name: &'static str, preset: &'static str, settings: Settings) -> Run {
    Run { name, verb: "pretrain", preset, size: &[], settings }
}

/// The sizes of a shapes run of seconds, at a constant learning rate.
const SMALL: Settings = &[
    "epochs=2",
    "evaluation_samples=4",
    "grpo.groups=4",
    "grpo.group_size=4",
    "grpo.warm_up=0",
    "grpo.cool_down=0",
];

/// Every part that has a say in the numbers of a run, in seconds each.
const RUNS: [Run; 13] = [
    toy("toy", &["epochs=6"]),
    toy(
        "toy, groups, KL of the paper",
        &[
            "epochs=4",
            "grpo.groups=8",
            "grpo.group_size=24",
            "grpo.updates_per_epoch=3",
            "grpo.objective.kl_weight=0.05",
            "grpo.objective.kl_form=paper",
        ],
    ),
    toy(
        "toy, latents on the host, guided",
        &[
            "epochs=3",
            "grpo.rollout.trajectories=host",
            "grpo.rollout.guidance=2.0",
            "evaluation_guidance=1.5",
        ],
    ),
    shapes("shapes", &[]),
    shapes(
        "shapes, no KL, all steps",
        &[
            "grpo.objective.kl_weight=0.0",
            "grpo.objective.kl_ode_steps=0",
            "grpo.trained_steps={ kind = \"all_but_last\" }",
        ],
    ),
    shapes(
        "shapes, replay in the rollout's batches",
        &["grpo.rollout_batch=6", "grpo.replay_batches=rollout"],
    ),
    shapes(
        "shapes, adapter, adaptive KL, AdamW",
        &[
            "grpo.warm_up=1",
            "grpo.cool_down=1",
            "grpo.muon.learning_rate=0.0",
            "grpo.objective.kl_form=velocity",
            "grpo.objective.kl_controller={ kind = \"adaptive\", target = 1e-4, rate = 0.1 }",
            "tuning={ kind = \"lora\", rank = 4, alpha = 8.0, targets = [\"all-linear\"], init = \"gaussian\" }",
        ],
    ),
    shapes(
        "shapes, spread of a group, sum",
        &[
            "grpo.advantage.spread=group",
            "grpo.rollout.log_prob=sum",
            "grpo.objective.step_weight=equal",
            "grpo.objective.clip_range_high=0.5",
            "grpo.objective.clip_range_low=0.2",
        ],
    ),
    shapes(
        "shapes, gold reward, rules, ema",
        &[
            "evaluate_every=1",
            "grpo.ema.every=2",
            "gold={ shapes_strict = 1 }",
            "rewards={ jpeg_compressibility = 1.0 }",
            "rules=[{ watch = \"overall\", when = { kind = \"below\", value = 2.0 }, action = { kind = \"raise_kl\", factor = 2.0 } }]",
        ],
    ),
    shapes(
        "shapes, 3 micro-batches of other sizes",
        &[
            "epochs=1",
            "grpo.groups=3",
            "grpo.group_size=5",
            "grpo.micro_batch=7",
            "grpo.rollout_batch=4",
        ],
    ),
    toy(
        "toy, DiffusionNFT",
        &["epochs=3", "grpo.updates_per_epoch=2", "grpo.objective={ kind = \"nft\" }"],
    ),
    pretrain("pre-training, plane", "toy-2d-base", &["steps=30", "warm_up=2"]),
    pretrain(
        "pre-training, shapes",
        "shapes-base",
        &["steps=3", "batch_size=16", "evaluation_samples=4", "warm_up=1"],
    ),
];

/// What says when, where and how fast, and so differs between runs that compute the same.
const NO_NUMBER_OF_THE_RUN: [&str; 2] = ["time", "event"];

/// Runs everything twice and compares.
///
/// # Errors
/// If a run fails, or with the list of runs that differ.
pub fn same(args: &SameArgs) -> Result<()> {
    let programs = [&args.before, &args.after]
        .map(|path| path.canonicalize().with_context(|| path.display().to_string()));
    let [before, after] = programs;
    let (before, after) = (before?, after?);
    let directory = std::env::temp_dir().join(format!("flow-grpo-same-{}", std::process::id()));
    let mut different = Vec::new();
    for (index, run) in RUNS.iter().enumerate() {
        let [old, new] = ["before", "after"].map(|side| directory.join(format!("{index}-{side}")));
        run.by(&before, &old)?;
        run.by(&after, &new)?;
        match compare(&old, &new)? {
            None => println!("{}: the same", run.name),
            Some(difference) => {
                println!("{}: {difference}", run.name);
                different.push(run.name);
            }
        }
    }
    ensure!(
        different.is_empty(),
        "{} of {} runs differ; they are in {}",
        different.len(),
        RUNS.len(),
        directory.display()
    );
    std::fs::remove_dir_all(&directory)
        .with_context(|| format!("cannot remove {}", directory.display()))
}

impl Run {
    fn by(&self, program: &Path, out: &Path) -> Result<()> {
        let mut command = Command::new(program);
        command.args([self.verb, "--preset", self.preset]).arg("--out").arg(out);
        let settings = self.size.iter().chain(self.settings);
        command.args(settings.flat_map(|setting| ["--set", setting]));
        let output =
            command.output().with_context(|| format!("cannot run {}", program.display()))?;
        if !output.status.success() {
            bail!(
                "{}: {} fails:\n{}",
                self.name,
                program.display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

/// The first thing in which two run directories differ.
fn compare(before: &Path, after: &Path) -> Result<Option<String>> {
    let [old, new] = [metrics(before)?, metrics(after)?];
    if old.len() != new.len() {
        return Ok(Some(format!("{} lines of metrics and {}", old.len(), new.len())));
    }
    for (number, (old, new)) in old.iter().zip(&new).enumerate() {
        if let Some(key) = first_difference(old, new) {
            return Ok(Some(format!("line {} of metrics.jsonl: {key} differs", number + 1)));
        }
    }
    let [old, new] = [weights(before)?, weights(after)?];
    Ok((old != new).then(|| "the weights differ".to_owned()))
}

/// The lines of `metrics.jsonl` that hold numbers of the run.
fn metrics(run: &Path) -> Result<Vec<Value>> {
    let path = run.join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lines = text.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>()?;
    let numbers = lines
        .into_iter()
        .filter(|line| line["event"] != "start" && line["event"] != "end")
        .map(|mut line| {
            if let Some(line) = line.as_object_mut() {
                for key in NO_NUMBER_OF_THE_RUN {
                    line.remove(key);
                }
            }
            line
        });
    Ok(numbers.collect())
}

/// The first key at which two lines differ.
fn first_difference(old: &Value, new: &Value) -> Option<String> {
    let (Value::Object(old_map), Value::Object(new_map)) = (old, new) else {
        return (old != new).then(|| "the line".to_owned());
    };
    let keys = old_map.keys().chain(new_map.keys());
    keys.into_iter().find(|key| old_map.get(*key) != new_map.get(*key)).cloned()
}

/// The tensors of the trained weights as bytes, without the metadata that names versions.
fn weights(run: &Path) -> Result<Vec<u8>> {
    let path = ["policy.safetensors", "base.safetensors", "adapter/adapter_model.safetensors"]
        .map(|name| run.join(name))
        .into_iter()
        .find(|path| path.exists())
        .with_context(|| format!("{} has no weights", run.display()))?;
    let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
    let header = bytes.first_chunk::<8>().map(|length| u64::from_le_bytes(*length) as usize);
    let data = header.and_then(|length| bytes.get(8 + length..));
    Ok(data.with_context(|| format!("{} is no safetensors file", path.display()))?.to_vec())
}
