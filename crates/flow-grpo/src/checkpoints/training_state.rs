//! The state of an optimisation on disk: weights, average and moments by parameter name, with
//! counters in the metadata.
//!
//! Shared by pre-training and Flow-GRPO; in memory it is an [`OptimisationState`]. The file is
//! safetensors in f32, written atomically, with a digest, so that the values read equal the values
//! written, bit for bit.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use burn::{module::Module, tensor::TensorData};
use models::{
    WeightsFile,
    weights::{self, StoredAs, sha256_of_tensors},
};
use run::RunDir;
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use training::{
    loss_scale::LossScale,
    optimisation::OptimisationState,
    optimizer::OptimizerState,
    parameters::{self, Parameters},
};

use crate::backend::{self, Device, Plain};

/// The parts of every state, and the extra part of algorithms with an old policy.
const PARTS: [&str; 4] = ["weights", "average", "first", "second"];
const OLD: &str = "old";

/// The metadata key of the digest of the whole state and the [`Progress`].
const PROGRESS: &str = "progress";

#[derive(Serialize, Deserialize)]
struct Progress<C> {
    updates: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_scale: Option<LossScale>,
    counters: C,
}

/// Whether a file is a training state, complete or not.
pub fn is_state(file: &WeightsFile) -> bool {
    file.metadata(PROGRESS).is_ok()
}

/// A training state read from a file and verified by its digest.
#[derive(Debug)]
pub struct SavedState {
    path: PathBuf,
    tensors: BTreeMap<String, TensorData>,
    /// The progress as TOML, because `serde_json` changes the last bit of some numbers.
    progress: String,
}

impl SavedState {
    /// Reads a file and verifies its digest.
    ///
    /// # Errors
    /// If the file is not a training state, is damaged, or has a number that is not finite.
    pub fn read(path: &Path) -> Result<Self> {
        Self::of(&WeightsFile::read(path)?)
    }

    /// Verifies a file in memory.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of(file: &WeightsFile) -> Result<Self> {
        let path = file.path();
        let (digest, progress) = file.metadata(PROGRESS)?.split_once('\n').unwrap_or_default();
        let tensors = file.tensors()?;
        let found = sha256_of_tensors(&tensors, progress);
        ensure!(
            digest == found,
            "{} is damaged: its digest is another one than that written in it",
            path.display()
        );
        let finite = |data: &TensorData| data.iter::<f32>().all(f32::is_finite);
        if let Some((name, _)) = tensors.iter().find(|(_, data)| !finite(data)) {
            bail!("{}: {name} holds numbers that are not finite", path.display());
        }
        Ok(Self { path: path.to_owned(), tensors, progress: progress.to_owned() })
    }

    /// Reads the newest intact state of a run, if the run has any, with a warning about damaged
    /// newer ones.
    ///
    /// # Errors
    /// If all states are damaged or have vanished.
    pub fn newest(run: &RunDir) -> Result<Option<(Self, Option<String>)>> {
        let mut damaged = Vec::new();
        for path in run.newest_checkpoints()? {
            match Self::read(&path) {
                Ok(saved) => {
                    let warning = || {
                        format!(
                            "warning: {}\nthe run resumes from {}, the newest one that is whole",
                            damaged.join("\n"),
                            path.display()
                        )
                    };
                    return Ok(Some((saved, (!damaged.is_empty()).then(warning))));
                }
                Err(error) => damaged.push(format!("{error:#}")),
            }
        }
        ensure!(damaged.is_empty(), "no checkpoint is whole:\n  - {}", damaged.join("\n  - "));
        Ok(None)
    }

    /// The counters of the caller.
    ///
    /// # Errors
    /// If the counters have another type than `C`.
    pub fn counters<C: DeserializeOwned>(&self) -> Result<C> {
        Ok(self.progress::<C>()?.counters)
    }

    /// Number of updates taken by the optimiser.
    ///
    /// # Errors
    /// If the file has no such number.
    pub fn updates(&self) -> Result<usize> {
        Ok(self.progress::<IgnoredAny>()?.updates)
    }

    /// The loss scale, if the training had one.
    ///
    /// # Errors
    /// If the scale is impossible.
    pub fn loss_scale(&self) -> Result<Option<LossScale>> {
        let scale = self.progress::<IgnoredAny>()?.loss_scale;
        let factor = scale.map_or(1.0, |scale| scale.factor);
        ensure!(factor >= 1.0 && factor.is_finite(), "the checkpoint scales the loss by {factor}");
        Ok(scale)
    }

    /// # Errors
    /// If the name of the file does not match the state after `done` epochs or steps.
    pub fn check_name(&self, done: usize) -> Result<()> {
        let named = self.path.file_stem().and_then(|stem| stem.to_str()?.parse::<usize>().ok());
        ensure!(
            named == Some(done),
            "{} holds the state after {done}: give it back its name",
            self.path.display()
        );
        Ok(())
    }

    /// The state of the optimisation of `network`'s parameters `trained`.
    ///
    /// # Errors
    /// If the state does not fit these parameters, or its loss scale is impossible.
    pub fn state<M: Module<Plain>>(
        self,
        network: &M,
        trained: &Parameters<Plain>,
        device: &Device,
    ) -> Result<OptimisationState<Plain>> {
        let (updates, loss_scale) = (self.updates()?, self.loss_scale()?);
        let Self { mut tensors, path, .. } = self;
        let names = parameters::names(network);
        let layout = trained.layout();
        let mut problems = Vec::new();
        let has_old = tensors.keys().any(|name| name.starts_with(&format!("{OLD}.")));
        let mut part = |part: &str| {
            let mut found: BTreeMap<u64, TensorData> = BTreeMap::new();
            for (id, length) in &layout {
                let name = format!("{part}.{}", names[id]);
                match tensors.remove(&name) {
                    Some(data) if data.shape[..] == [*length] => drop(found.insert(*id, data)),
                    Some(data) => {
                        problems.push(format!("{name} has shape {:?}, not [{length}]", data.shape));
                    }
                    None => problems.push(format!("{name} is missing")),
                }
            }
            found
        };
        let [weights, average, first, second] = PARTS.map(&mut part);
        let old = has_old.then(|| part(OLD));
        problems.extend(tensors.keys().map(|name| format!("{name} belongs to no parameter")));
        if !problems.is_empty() {
            bail!(
                "{} does not continue this training:\n  - {}",
                path.display(),
                problems.join("\n  - ")
            );
        }
        let load = |data| Parameters::from_data(data, device);
        let optimizer = OptimizerState { updates, first: load(first), second: load(second) };
        Ok(OptimisationState {
            weights: load(weights),
            average: load(average),
            old: old.map(load),
            optimizer,
            // A run that started in another precision starts with the initial scale.
            loss_scale: backend::SCALES_LOSS.then(|| loss_scale.unwrap_or_default()),
        })
    }

    fn progress<C: DeserializeOwned>(&self) -> Result<Progress<C>> {
        toml::from_str(&self.progress).with_context(|| {
            format!("{}: metadata entry `{PROGRESS}` does not parse", self.path.display())
        })
    }
}

/// Writes the state of `network`'s optimisation, with the caller's `counters`.
///
/// # Errors
/// If the file cannot be written completely.
pub fn write<M: Module<Plain>>(
    state: &OptimisationState<Plain>,
    network: &M,
    counters: &impl Serialize,
    path: &Path,
) -> Result<()> {
    let OptimisationState { weights, average, old, optimizer, loss_scale } = state;
    let names = parameters::names(network);
    let parts = [weights, average, &optimizer.first, &optimizer.second];
    let mut tensors = BTreeMap::new();
    let old = old.iter().map(|old| (OLD, old));
    for (part, values) in PARTS.into_iter().zip(parts).chain(old) {
        for (id, data) in values.to_data() {
            tensors.insert(format!("{part}.{}", names[&id]), data);
        }
    }
    let progress = Progress { updates: optimizer.updates, loss_scale: *loss_scale, counters };
    let progress = toml::to_string(&progress).context("counters are plain data")?;
    let digest = sha256_of_tensors(&tensors, &progress);
    Ok(weights::write_tensors(
        &tensors,
        (PROGRESS, format!("{digest}\n{progress}")),
        StoredAs::F32,
        path,
    )?)
}
