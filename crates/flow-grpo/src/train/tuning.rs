//! Trained parameters of a run: all weights, those of some layers, or a low-rank adapter.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use grpo::Policy;
use models::{Adapter, LoraConfig, lora, weights::StoredAs};
use pipelines::{Network, Pipeline};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use training::parameters::Trained;

use crate::{
    backend::{Device, Plain, Training},
    named,
    train::config::TrainConfig,
};

/// The parameters that are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Tuning {
    /// The weights themselves; the reference is a frozen copy of the base.
    Full {
        /// The layers whose weights are trained, by their paths in the network, as `output` or
        /// `blocks.0`; all, if none is named.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        layers: Option<Vec<String>>,
    },
    /// A low-rank adapter on some layers; the reference is the base without the adapter.
    Lora(LoraConfig),
}

/// The initial policy of a run: the base, with weights that are trained, or with an adapter.
pub fn policy<N: Network<Plain>>(
    config: &TrainConfig,
    mut base: N,
    device: &Device,
) -> Result<Policy<N>> {
    let lora = match &config.tuning {
        Tuning::Lora(lora) => lora,
        Tuning::Full { layers } => {
            let trained = Trained::in_layers(&base, layers.as_deref().unwrap_or_default())
                .context("tuning.layers")?;
            return Ok(Policy { trained, network: base.clone(), reference: base });
        }
    };
    let adapter = if let Some(path) = &config.adapter {
        let place = named::place(Path::new(path)).context("adapter")?;
        let adapter = Adapter::read(&place).context("adapter")?;
        ensure!(
            (adapter.rank(), adapter.alpha) == (lora.rank, lora.alpha),
            "adapter: {} has rank {} and alpha {}, tuning asks for {} and {}",
            path,
            adapter.rank(),
            adapter.alpha,
            lora.rank,
            lora.alpha
        );
        let layers = Adapter::new(lora, &mut base, config.seed).context("tuning")?;
        ensure!(
            adapter.layers().eq(layers.layers()),
            "adapter: {} adapts {}, tuning.targets means {}",
            path,
            adapter.layers().collect::<Vec<_>>().join(", "),
            layers.layers().collect::<Vec<_>>().join(", ")
        );
        adapter
    } else {
        Adapter::new(lora, &mut base, config.seed).context("tuning")?
    };
    let network = adapter.attach(base.clone(), device).context("adapter")?;
    Ok(Policy { trained: Trained::named(&network, lora::is_of_adapter), network, reference: base })
}

/// Writes a policy for use: all weights to a file, or the adapter to a directory, in the files of
/// PEFT and diffusers.
pub fn write_policy<P: Pipeline<Training>>(
    config: &TrainConfig,
    pipeline: &P,
    mut policy: P::Network,
    file: &Path,
    directory: &Path,
) -> Result<()> {
    match config.tuning {
        Tuning::Full { .. } => Ok(pipeline.write(&policy, StoredAs::F32, file)?),
        Tuning::Lora(_) => {
            let adapter = Adapter::of(&mut policy);
            adapter.write_peft(directory, &config.base)?;
            Ok(adapter.write_diffusers(&directory.join(lora::DIFFUSERS_WEIGHTS))?)
        }
    }
}
