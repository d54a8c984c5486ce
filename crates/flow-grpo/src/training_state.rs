//! The state of an optimisation on disk: weights, average and moments by parameter name, with counters in the metadata.
//!
//! Shared by pre-training and Flow-GRPO. One safetensors file, f32, written atomically: what is read back is what was written,
//! bit for bit.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context, Result, bail};
use burn::{module::Module, tensor::TensorData};
use grpo::{
    optimizer::AdamWState,
    parameters::{self, Parameters},
};
use models::{WeightsFile, weights};
use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::backend::{Device, Plain};

/// Everything that an optimiser changes.
#[derive(Clone, Debug)]
pub struct TrainingState {
    /// The weights.
    pub weights: Parameters<Plain>,
    /// Their moving average.
    pub average: Parameters<Plain>,
    /// The optimiser's moments and count.
    pub optimizer: AdamWState<Plain>,
}

const PARTS: [&str; 4] = ["weights", "average", "first", "second"];

/// The metadata entry that holds the [`Progress`].
const PROGRESS: &str = "progress";

#[derive(Serialize, Deserialize)]
struct Progress<C> {
    updates: usize,
    counters: C,
}

impl TrainingState {
    /// Writes the state of `network`'s training with `counters` of the caller's.
    pub fn write<M: Module<Plain>>(&self, network: &M, counters: &impl Serialize, path: &Path) -> Result<()> {
        let names = parameters::names(network);
        let parts = [&self.weights, &self.average, &self.optimizer.first, &self.optimizer.second];
        let mut tensors = BTreeMap::new();
        for (part, values) in PARTS.iter().zip(parts) {
            for (id, data) in values.to_data() {
                tensors.insert(format!("{part}.{}", names[&id]), data);
            }
        }
        // TOML, because serde_json reads some numbers back with another last bit.
        let progress =
            toml::to_string(&Progress { updates: self.optimizer.updates, counters }).context("counters are plain data")?;
        Ok(weights::write_tensors(&tensors, (PROGRESS, progress), weights::StoredAs::F32, path)?)
    }

    /// The counters of a state's file.
    pub fn counters<C: DeserializeOwned>(file: &WeightsFile) -> Result<C> {
        Ok(progress::<C>(file)?.counters)
    }

    /// Reads a state back.
    ///
    /// # Errors
    /// If the file is not the training state of these parameters of `network`.
    pub fn read<M: Module<Plain>>(network: &M, trained: &Parameters<Plain>, file: &WeightsFile, device: &Device) -> Result<Self> {
        let Progress::<IgnoredAny> { updates, .. } = progress(file)?;
        let mut tensors = file.tensors()?;
        let names = parameters::names(network);
        let layout = trained.layout();
        let mut problems = Vec::new();
        let mut part = |part: &str| {
            let mut found: BTreeMap<u64, TensorData> = BTreeMap::new();
            for (id, length) in &layout {
                let name = format!("{part}.{}", names[id]);
                match tensors.remove(&name) {
                    Some(data) if data.shape[..] == [*length] => drop(found.insert(*id, data)),
                    Some(data) => problems.push(format!("{name} has shape {:?}, not [{length}]", data.shape)),
                    None => problems.push(format!("{name} is missing")),
                }
            }
            found
        };
        let [weights, average, first, second] = PARTS.map(&mut part);
        problems.extend(tensors.keys().map(|name| format!("{name} belongs to no parameter")));
        if !problems.is_empty() {
            bail!("{} does not continue this training:\n  - {}", file.path().display(), problems.join("\n  - "));
        }
        let load = |data| Parameters::from_data(data, device);
        let optimizer = AdamWState { updates, first: load(first), second: load(second) };
        Ok(Self { weights: load(weights), average: load(average), optimizer })
    }
}

fn progress<C: DeserializeOwned>(file: &WeightsFile) -> Result<Progress<C>> {
    let text = file.metadata(PROGRESS)?;
    toml::from_str(text).with_context(|| format!("{}: metadata entry `{PROGRESS}` does not parse", file.path().display()))
}
