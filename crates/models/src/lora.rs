//! Low-rank adapters: creates, attaches, extracts and merges them.
//!
//! An [`Adapter`] lives on the host and stores its factors under the path of each layer in the
//! network. The trainer decides which parameters are trained; [`is_of_adapter`] recognises adapter
//! parameters by name.

mod storage;

use std::{collections::BTreeMap, path::PathBuf};

use burn::{
    module::{Param, ParamId},
    prelude::*,
    tensor::FloatDType,
};
use kernels::{Kernels, product::matmul};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    linear::{Layer, LowRank, Product},
    weights::WeightsError,
};

pub use storage::{DIFFUSERS_WEIGHTS, base_of};

/// A network whose linear layers can carry adapters.
pub trait Adaptable<B: Backend> {
    /// The linear layers by the products that compute them, in the order of the fields: with the
    /// path of a single layer in the network, or of what holds joined ones.
    fn products(&mut self) -> Vec<(String, Product<'_, B>)>;

    /// The linear layers that can carry an adapter, with their paths in the network. Joined layers
    /// forget the factors that they keep, because their adapters may change.
    fn linears(&mut self) -> Vec<(String, Layer<'_, B>)> {
        self.products().into_iter().flat_map(|(path, product)| product.layers(path)).collect()
    }
}

/// Configuration of a new adapter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// The rank `r`; 32 in the paper.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub rank: usize,
    /// `α`: the adapter's output is scaled by `α/r`; 64 in the paper.
    #[schemars(extend("exclusiveMinimum" = 0))]
    pub alpha: f64,
    /// Initialisation of `A`.
    pub init: LoraInit,
    /// Names of the layers that get an adapter, matched against the end of a layer's path as in
    /// PEFT's `target_modules`; `all-linear` selects every linear layer.
    pub targets: Vec<String>,
}

/// Initialisation of `A`; `B` starts at zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoraInit {
    /// Normal with standard deviation `1/r`: PEFT's `gaussian`, the reference code's choice.
    Gaussian,
    /// Uniform within `±1/√inputs`: PEFT's default (Kaiming-uniform with a = √5).
    Kaiming,
}

impl LoraConfig {
    /// Lists every value that is out of range, one sentence each, beginning with the key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = settings::problems(self);
        if self.targets.is_empty() {
            problems.push(format!("targets must name at least one layer, or `{ALL_LINEAR}`"));
        }
        problems
    }

    /// Whether the layer of this path gets an adapter.
    pub fn adapts(&self, path: &str) -> bool {
        self.targets.iter().any(|target| is_target(path, target))
    }
}

/// The target that stands for every linear layer, as in PEFT.
const ALL_LINEAR: &str = "all-linear";

/// Whether a layer's path ends with a target, at a dot.
fn is_target(path: &str, target: &str) -> bool {
    target == ALL_LINEAR
        || path
            .strip_suffix(target)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// Whether a parameter of this name belongs to an adapter.
pub fn is_of_adapter(name: &str) -> bool {
    name.contains(".adapter.")
}

/// A low-rank adapter for some layers of a network, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapter {
    /// `α`
    pub alpha: f64,
    layers: BTreeMap<String, Factors>,
}

/// The factors `A` and `B` of one layer.
#[derive(Clone, Debug, PartialEq)]
struct Factors {
    /// `[inputs, r]`
    a: TensorData,
    /// `[r, outputs]`
    b: TensorData,
}

impl Factors {
    fn rank(&self) -> usize {
        self.b.shape[0]
    }
}

impl Adapter {
    /// Creates a fresh adapter for a network: `A` is random and `B` zero, so it changes nothing
    /// yet.
    ///
    /// # Errors
    /// If a target names no layer.
    pub fn new<B: Backend>(
        config: &LoraConfig,
        network: &mut impl Adaptable<B>,
        seed: u64,
    ) -> Result<Self, AdapterError> {
        let linears = network.linears();
        for target in &config.targets {
            if !linears.iter().any(|(path, _)| is_target(path, target)) {
                let layers =
                    linears.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>().join(", ");
                return Err(AdapterError::NoSuchLayer { target: target.clone(), layers });
            }
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut layers = BTreeMap::new();
        for (path, linear) in linears {
            if !config.adapts(&path) {
                continue;
            }
            let [inputs, outputs] = linear.size();
            let a: Vec<f32> = match config.init {
                LoraInit::Gaussian => {
                    let normal =
                        Normal::new(0.0, 1.0 / config.rank as f32).expect("the rank is positive");
                    normal.sample_iter(&mut rng).take(inputs * config.rank).collect()
                }
                LoraInit::Kaiming => {
                    let bound = 1.0 / (inputs as f32).sqrt();
                    let uniform = Uniform::new_inclusive(-bound, bound)
                        .expect("the bound is positive and finite");
                    uniform.sample_iter(&mut rng).take(inputs * config.rank).collect()
                }
            };
            let b = TensorData::zeros::<f32, _>([config.rank, outputs]);
            layers.insert(path, Factors { a: TensorData::new(a, [inputs, config.rank]), b });
        }
        Ok(Self { alpha: config.alpha, layers })
    }

    /// Extracts the adapter that a network carries.
    pub fn of<B: Backend>(network: &mut impl Adaptable<B>) -> Self {
        let mut adapter = Self { alpha: 1.0, layers: BTreeMap::new() };
        for (path, linear) in network.linears() {
            if let Some(LowRank { a, b, alpha, .. }) = linear.adapter {
                let factors = Factors { a: a.val().to_data(), b: b.val().to_data() };
                adapter.alpha = *alpha;
                adapter.layers.insert(path, factors);
            }
        }
        adapter
    }

    /// Attaches this adapter to a network, in place of any adapter it carries.
    ///
    /// # Errors
    /// Lists every layer that the network lacks, and every layer of another size.
    pub fn attach<B: Backend, N: Adaptable<B>>(
        &self,
        mut network: N,
        device: &B::Device,
    ) -> Result<N, AdapterError> {
        let mut rest = self.layers.clone();
        let mut problems = Vec::new();
        for (path, linear) in network.linears() {
            *linear.adapter = None;
            let Some(factors) = rest.remove(&path) else { continue };
            let [inputs, outputs] = linear.size();
            if factors.a.shape[0] != inputs || factors.b.shape[1] != outputs {
                let [a, b] = [factors.a.shape[0], factors.b.shape[1]];
                problems.push(format!(
                    "{path} goes from {inputs} to {outputs} features, its adapter from {a} to {b}"
                ));
                continue;
            }
            // Identities derived from the identity of the weights: saved optimiser state fits the
            // network of the next process.
            let id = (1 << 40) + 2 * linear.id.val();
            let param = |id: u64, data| {
                Param::initialized(
                    ParamId::from(id),
                    Tensor::<B, 2>::from_data(data, device).require_grad(),
                )
            };
            let (a, b) = (param(id, factors.a), param(id + 1, factors.b));
            *linear.adapter = Some(LowRank::new(a, b, self.alpha));
        }
        problems.extend(
            rest.keys().map(|path| format!("{path} is not a linear layer of this network")),
        );
        if problems.is_empty() {
            Ok(network)
        } else {
            Err(AdapterError::Misfit { problems: problems.join("\n  - ") })
        }
    }

    /// Inputs and outputs of an adapted layer; `None` if the layer has no adapter.
    pub fn size_of(&self, layer: &str) -> Option<[usize; 2]> {
        let Factors { a, b } = self.layers.get(layer)?;
        Some([a.shape[0], b.shape[1]])
    }

    /// The change of a layer's weight, `(α/r)·A·B`, `[inputs, outputs]`; `None` if the layer has no
    /// adapter.
    pub fn change<B: Backend>(&self, layer: &str, device: &B::Device) -> Option<Tensor<B, 2>> {
        let factors = self.layers.get(layer)?;
        let scale = self.alpha / factors.rank() as f64;
        let [a, b] = [&factors.a, &factors.b]
            .map(|factor| Tensor::<B, 2>::from_data(factor.clone(), device));
        Some(matmul(a, b) * scale)
    }

    /// The rank, equal in all layers; 1 if there are no layers.
    pub fn rank(&self) -> usize {
        self.layers.values().next().map_or(1, Factors::rank)
    }

    /// Paths of the adapted layers.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        self.layers.keys().map(String::as_str)
    }
}

/// Keeps the factors of a network's adapter as products in `precision` need them.
pub(crate) fn prepare<B: Kernels>(network: &mut impl Adaptable<B>, precision: FloatDType) {
    for (_, product) in network.products() {
        product.prepare(precision);
    }
}

/// Merges the adapter of a network into its weights.
#[must_use]
pub fn merged<B: Backend, N: Adaptable<B>>(mut network: N) -> N {
    for (_, product) in network.products() {
        product.merge();
    }
    network
}

/// An adapter could not be created, read, attached or written.
#[derive(Debug, Error)]
pub enum AdapterError {
    /// A target names no layer.
    #[error("targets: no linear layer is called `{target}`; there are: {layers}")]
    NoSuchLayer {
        /// The target.
        target: String,
        /// The linear layers of the network.
        layers: String,
    },
    /// The adapter belongs to another network.
    #[error("the adapter does not fit the network:\n  - {problems}")]
    Misfit {
        /// One problem per line.
        problems: String,
    },
    /// The adapter's configuration cannot be used.
    #[error("{}: {reason}", path.display())]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// Description of the problem.
        reason: String,
    },
    /// The factors in a file do not form an adapter.
    #[error("{} is not a LoRA adapter:\n  - {problems}", path.display())]
    BadFactors {
        /// The file.
        path: PathBuf,
        /// One problem per line.
        problems: String,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_whole_name_at_the_end_of_a_path() {
        assert!(
            is_target("blocks.0.to_q", "to_q")
                && is_target("to_q", "to_q")
                && is_target("blocks.0.to_q", "0.to_q")
        );
        assert!(!is_target("blocks.0.not_to_q", "to_q") && !is_target("blocks.0.to_q", "blocks"));
        assert!(is_target("anything", ALL_LINEAR));
    }
}
