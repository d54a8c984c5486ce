//! The configuration of a run with named models: each with its commit, so that the run resumes with
//! the same files.

use anyhow::{Context, Result};
use toml::Value;

use crate::{named, rewards::RewardConfig, train::config::TrainConfig};

/// The configuration with the commit of every named model as its revision. The models are downloaded
/// if they are not in the cache.
///
/// # Errors
/// If a model cannot be downloaded, with its key.
pub fn pinned(config: &TrainConfig) -> Result<TrainConfig> {
    let mut config = config.clone();
    let without_t5 = config.model.as_ref().is_some_and(|model| !model.t5);
    config.base = named::pinned(&config.base, named::unused(without_t5)).context("base")?;
    if let Some(file) = config.model.as_mut().and_then(|model| model.single_file.as_mut()) {
        let pinned = named::pinned(&file.to_string_lossy(), &[]);
        *file = pinned.context("model.single_file")?.into();
    }
    if let Some(adapter) = &mut config.adapter {
        *adapter = named::pinned(adapter, &[]).context("adapter")?;
    }
    for (key, rewards) in [("rewards", &mut config.rewards), ("gold", &mut config.gold)] {
        for (name, RewardConfig { settings, .. }) in rewards {
            if let Some(Value::String(model)) = settings.get_mut("model") {
                let pinned = named::pinned(model, &[]);
                *model = pinned.with_context(|| format!("{key}.{name}.model"))?;
            }
        }
    }
    Ok(config)
}
