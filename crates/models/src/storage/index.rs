//! `model_index.json`: the class of a model, and which parts it has.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{ModelError, read_json};

/// The index of a model directory.
#[derive(Clone, Debug)]
pub(crate) struct ModelIndex {
    /// Class of the diffusers pipeline, as `StableDiffusion3Pipeline`.
    pub class: String,
    /// Names of the parts that the model has; each is a sub-directory.
    parts: BTreeSet<String>,
}

impl ModelIndex {
    /// Reads the index of a directory.
    ///
    /// # Errors
    /// If `path` is an adapter, a file or no model directory, or names a part outside of it.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let is_adapter = path.join("adapter_config.json").exists()
            || path.join("pytorch_lora_weights.safetensors").exists();
        if is_adapter {
            return Err(ModelError::wrong_kind(
                path,
                "is a LoRA adapter; pass it with --adapter, beside the --model it belongs to",
            ));
        }
        if path.is_file() {
            return Err(ModelError::wrong_kind(
                path,
                "is a file; pass the model's directory, and the file with --single-file",
            ));
        }
        let file = path.join("model_index.json");
        if !file.exists() {
            let reason = "has no model_index.json: it is not a model in the layout of diffusers";
            return Err(ModelError::wrong_kind(path, reason));
        }
        let index: BTreeMap<String, serde_json::Value> = read_json(&file)?;
        if let Some(name) = index.keys().find(|name| !is_plain_name(name)) {
            let reason = format!(
                "names a part `{name}`: parts are sub-directories of the model, without a path"
            );
            return Err(ModelError::unreadable(&file, reason));
        }
        let class = index.get("_class_name").and_then(serde_json::Value::as_str);
        let class = class.unwrap_or("model without a _class_name").to_owned();
        let there = |value: &serde_json::Value| {
            value.as_array().is_some_and(|parts| parts.iter().any(|part| !part.is_null()))
        };
        let parts = index.into_iter().filter(|(_, value)| there(value)).map(|(name, _)| name);
        Ok(Self { class, parts: parts.collect() })
    }

    /// Whether the model has a part of this name.
    pub fn has(&self, part: &str) -> bool {
        self.parts.contains(part)
    }
}

/// Whether a name is that of a file or directory, without a path that could lead elsewhere.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', ':', '\0'])
}
