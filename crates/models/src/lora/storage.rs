//! The files of adapters: those of PEFT and of diffusers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::prelude::*;
use files::{read_whole, write_atomically};
use serde::{Deserialize, Serialize};

use super::{Adapter, AdapterError, Factors};
use crate::weights::{StoredAs, WeightsError, WeightsFile, write_tensors};

const PEFT_CONFIG: &str = "adapter_config.json";
const PEFT_WEIGHTS: &str = "adapter_model.safetensors";
const PEFT_PREFIX: &str = "base_model.model.";
/// File name that diffusers' `save_lora_weights` uses.
pub const DIFFUSERS_WEIGHTS: &str = "pytorch_lora_weights.safetensors";
const DIFFUSERS_PREFIX: &str = "transformer.";
const DIFFUSERS_METADATA: &str = "lora_adapter_metadata";
const LORA: &str = "LORA";
/// Largest accepted `adapter_config.json`, in bytes.
const LARGEST_CONFIG: u64 = 16 << 20;

impl Adapter {
    /// Reads an adapter in the format of PEFT or diffusers.
    ///
    /// - PEFT: a directory with `adapter_config.json` and `adapter_model.safetensors`.
    /// - diffusers: a safetensors file, or a directory with `pytorch_lora_weights.safetensors` and
    ///   no `adapter_config.json`. `α` is `r` unless the metadata says otherwise.
    ///
    /// # Errors
    /// If a file is missing or damaged, the adapter is not plain LoRA, or its factors do not pair
    /// up.
    pub fn read(path: &Path) -> Result<Self, AdapterError> {
        match diffusers_file(path) {
            Some(file) => Self::read_diffusers(&file),
            None => Self::read_peft(path),
        }
    }

    fn read_peft(directory: &Path) -> Result<Self, AdapterError> {
        let config = PeftConfig::read(directory)?;
        let file = WeightsFile::read(&directory.join(PEFT_WEIGHTS))?;
        let (alpha, layers) = (config.lora_alpha, layers(&file, PEFT_PREFIX)?);
        let other = layers.iter().find(|(_, factors)| factors.rank() != config.r);
        if let Some((path, factors)) = other {
            let reason = format!(
                "r is {}, but the factors of {path} have rank {}",
                config.r,
                factors.rank()
            );
            return Err(AdapterError::BadConfig { path: directory.join(PEFT_CONFIG), reason });
        }
        Ok(Self { alpha, layers })
    }

    fn read_diffusers(path: &Path) -> Result<Self, AdapterError> {
        let file = WeightsFile::read(path)?;
        let layers = layers(&file, DIFFUSERS_PREFIX)?;
        let rank = layers.values().next().map_or(1, Factors::rank);
        if let Some((layer, _)) = layers.iter().find(|(_, factors)| factors.rank() != rank) {
            return Err(bad_factors(
                path,
                format!(
                    "{layer} has another rank than the layers before it, which is not supported"
                ),
            ));
        }
        let alpha = diffusers_alpha(&file)?.unwrap_or(rank as f64);
        if !(alpha > 0.0 && alpha.is_finite()) {
            return Err(bad_factors(
                path,
                format!("lora_alpha ({alpha}) must be a positive number"),
            ));
        }
        Ok(Self { alpha, layers })
    }

    /// Writes PEFT's two files into a directory, each atomically; `base` names the base model of
    /// the adapter.
    pub fn write_peft(&self, directory: &Path, base: &str) -> Result<(), AdapterError> {
        let io = |source| WeightsError::Io { path: directory.into(), source };
        std::fs::create_dir_all(directory).map_err(io)?;
        let config = PeftConfig {
            peft_type: LORA.to_owned(),
            base_model_name_or_path: Some(base.to_owned()),
            r: self.rank(),
            lora_alpha: self.alpha,
            target_modules: self.layers.keys().cloned().collect(),
            init_lora_weights: true.into(),
            bias: "none".to_owned(),
            inference_mode: true,
            ..PeftConfig::default()
        };
        let text =
            serde_json::to_string_pretty(&config).expect("a configuration is plain data") + "\n";
        write_atomically(&directory.join(PEFT_CONFIG), text.as_bytes())
            .map_err(WeightsError::from)?;
        Ok(self.write(PEFT_PREFIX, 1.0, &directory.join(PEFT_WEIGHTS))?)
    }

    /// Writes a file for diffusers' `load_lora_weights`. The scale `α/r` is folded into `B`, so
    /// versions that do not read `α` apply the same adapter.
    pub fn write_diffusers(&self, path: &Path) -> Result<(), AdapterError> {
        Ok(self.write(DIFFUSERS_PREFIX, (self.alpha / self.rank() as f64) as f32, path)?)
    }

    fn write(&self, prefix: &str, scale: f32, path: &Path) -> Result<(), WeightsError> {
        let mut tensors = BTreeMap::new();
        for (layer, Factors { a, b }) in &self.layers {
            tensors.insert(format!("{prefix}{layer}.lora_A.weight"), transposed(a, 1.0));
            tensors.insert(format!("{prefix}{layer}.lora_B.weight"), transposed(b, scale));
        }
        write_tensors(&tensors, ("format", "pt".to_owned()), StoredAs::F32, path)
    }
}

/// Reads the base model that a PEFT directory names; `None` for a diffusers file.
pub fn base_of(path: &Path) -> Result<Option<String>, AdapterError> {
    if diffusers_file(path).is_some() {
        Ok(None)
    } else {
        Ok(PeftConfig::read(path)?.base_model_name_or_path)
    }
}

/// Finds the diffusers file at a path: the path itself, or the file in a directory without a PEFT
/// configuration.
fn diffusers_file(path: &Path) -> Option<PathBuf> {
    let inside = path.join(DIFFUSERS_WEIGHTS);
    match path.is_dir() {
        false => Some(path.to_owned()),
        true if inside.exists() && !path.join(PEFT_CONFIG).exists() => Some(inside),
        true => None,
    }
}

/// The fields of `adapter_config.json` that are read and written; variants that change what an
/// adapter computes are refused.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, reason = "the file's own layout")]
struct PeftConfig {
    peft_type: String,
    base_model_name_or_path: Option<String>,
    r: usize,
    lora_alpha: f64,
    target_modules: serde_json::Value,
    init_lora_weights: serde_json::Value,
    bias: String,
    inference_mode: bool,
    use_rslora: bool,
    use_dora: bool,
    fan_in_fan_out: bool,
    rank_pattern: BTreeMap<String, serde_json::Value>,
    alpha_pattern: BTreeMap<String, serde_json::Value>,
}

impl PeftConfig {
    fn read(directory: &Path) -> Result<Self, AdapterError> {
        let path = directory.join(PEFT_CONFIG);
        let text = read_whole(&path, LARGEST_CONFIG).map_err(WeightsError::from)?;
        let bad = |reason: String| AdapterError::BadConfig { path: path.clone(), reason };
        let config: Self = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        let unsupported = [
            (config.peft_type != LORA, "peft_type is not LORA"),
            (
                changes_the_base(&config.init_lora_weights),
                "init_lora_weights changes the base model, which is not supported",
            ),
            (config.use_rslora, "use_rslora is not supported"),
            (config.use_dora, "use_dora is not supported"),
            (config.fan_in_fan_out, "fan_in_fan_out is not supported"),
            (!config.rank_pattern.is_empty(), "rank_pattern is not supported"),
            (!config.alpha_pattern.is_empty(), "alpha_pattern is not supported"),
            (!config.bias.is_empty() && config.bias != "none", "trained biases are not supported"),
            (
                !(config.lora_alpha > 0.0 && config.lora_alpha.is_finite()),
                "lora_alpha must be a positive number",
            ),
        ];
        match unsupported.iter().find(|(is_so, _)| *is_so) {
            Some((_, reason)) => Err(bad((*reason).to_owned())),
            None => Ok(config),
        }
    }
}

/// Reads `α` from the metadata of a diffusers file; `None` if the metadata does not name it.
///
/// # Errors
/// If the metadata names a LoRA variant that computes something else.
fn diffusers_alpha(file: &WeightsFile) -> Result<Option<f64>, AdapterError> {
    if file.metadata(DIFFUSERS_METADATA).is_err() {
        return Ok(None);
    }
    let metadata: BTreeMap<String, serde_json::Value> = file.parsed_metadata(DIFFUSERS_METADATA)?;
    let said = |key: &str| metadata.get(&format!("{DIFFUSERS_PREFIX}{key}"));
    let unusual = |value: &serde_json::Value| match value {
        serde_json::Value::Object(fields) => !fields.is_empty(),
        value => value.as_bool() == Some(true),
    };
    let variants = ["use_rslora", "use_dora", "fan_in_fan_out", "rank_pattern", "alpha_pattern"];
    match variants.into_iter().find(|key| said(key).is_some_and(unusual)) {
        Some(key) => Err(bad_factors(file.path(), format!("{key} is not supported"))),
        None => Ok(said("lora_alpha").and_then(serde_json::Value::as_f64)),
    }
}

/// Whether a PEFT initialisation changes the weights of the base model.
fn changes_the_base(init: &serde_json::Value) -> bool {
    init.as_str().is_some_and(|init| {
        ["pissa", "olora", "corda", "loftq"].iter().any(|name| init.starts_with(name))
    })
}

/// Reads the factors of a file, by layer.
fn layers(file: &WeightsFile, prefix: &str) -> Result<BTreeMap<String, Factors>, AdapterError> {
    let mut halves: BTreeMap<String, [Option<TensorData>; 2]> = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, data) in file.tensors()? {
        let layer = name.strip_prefix(prefix).and_then(|name| {
            let half = |suffix: &str, half: usize| {
                name.strip_suffix(suffix).map(|layer| (layer.to_owned(), half))
            };
            half(".lora_A.weight", 0).or_else(|| half(".lora_B.weight", 1))
        });
        match layer {
            None => problems
                .push(format!("{name} is not named {prefix}LAYER.lora_A.weight or .lora_B.weight")),
            Some(_) if data.shape.num_dims() != 2 => {
                problems.push(format!("{name} has shape {:?}: not a matrix", data.shape));
            }
            Some((layer, half)) => {
                if !data.iter::<f32>().all(f32::is_finite) {
                    problems.push(format!("{name} holds numbers that are not finite"));
                }
                halves.entry(layer).or_default()[half] = Some(transposed(&data, 1.0));
            }
        }
    }
    let mut layers = BTreeMap::new();
    for (layer, halves) in halves {
        match halves {
            [Some(a), Some(b)] if a.shape[1] == b.shape[0] && b.shape[0] > 0 => {
                layers.insert(layer, Factors { a, b });
            }
            [Some(a), Some(b)] => problems
                .push(format!("{layer}: lora_A has rank {}, lora_B {}", a.shape[1], b.shape[0])),
            _ => problems.push(format!("{layer} has only one of lora_A and lora_B")),
        }
    }
    if layers.is_empty() && problems.is_empty() {
        problems.push("it holds no layer".to_owned());
    }
    if problems.is_empty() {
        Ok(layers)
    } else {
        Err(bad_factors(file.path(), problems.join("\n  - ")))
    }
}

fn bad_factors(path: &Path, problems: String) -> AdapterError {
    AdapterError::BadFactors { path: path.into(), problems }
}

/// Transposes a matrix and multiplies it by `scale`: PyTorch stores `[outputs, inputs]`, Burn
/// `[inputs, outputs]`.
fn transposed(data: &TensorData, scale: f32) -> TensorData {
    let [rows, columns] = [data.shape[0], data.shape[1]];
    let values: Vec<f32> = data.iter::<f32>().collect();
    let turned =
        (0..rows * columns).map(|i| values[i % rows * columns + i / rows] * scale).collect();
    TensorData::new(turned, [columns, rows])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_turns_rows_into_columns() {
        let data = TensorData::new(vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0], [2, 3]);
        assert_eq!(
            transposed(&data, 2.0),
            TensorData::new(vec![2.0_f32, 8.0, 4.0, 10.0, 6.0, 12.0], [3, 2])
        );
    }
}
