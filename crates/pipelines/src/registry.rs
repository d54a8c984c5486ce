//! The registry of models: the only `match` over families and kinds of network.

use std::path::{Path, PathBuf};

use burn::tensor::backend::AutodiffBackend;
use flow::VelocityField;
use kernels::Kernels;
use models::{Dit, Family, MlpField, TokenIds, WeightsFile, directory, flux::Flux, sd3::Sd3};

use crate::{
    Architecture, Card, DirectorySettings, Machine, Own, Pipeline, PipelineError, Published,
    Trainable,
};

/// A backend with automatic differentiation on which every network can compute.
pub trait Computes: AutodiffBackend<InnerBackend: Kernels> + Kernels {}

impl<B: AutodiffBackend<InnerBackend: Kernels> + Kernels> Computes for B {}

/// Work on a model, whatever its pipeline is.
pub trait Visitor<B: Computes> {
    /// The result of the work.
    type Output;
    /// The error of the work.
    type Error: From<PipelineError>;

    /// Does the work.
    ///
    /// # Errors
    /// Whatever goes wrong.
    fn visit<P: Pipeline<B>>(self, pipeline: P) -> Result<Self::Output, Self::Error>;
}

/// Work on one of the program's own networks, which know words.
pub trait OwnVisitor<B: Computes> {
    /// The result of the work.
    type Output;
    /// The error of the work.
    type Error: From<PipelineError>;

    /// Does the work.
    ///
    /// # Errors
    /// Whatever goes wrong.
    fn visit<N>(self, own: Own<B, N>) -> Result<Self::Output, Self::Error>
    where
        N: Trainable<B> + VelocityField<B, Condition = TokenIds>;
}

/// Where a model comes from.
#[derive(Debug)]
pub enum ModelSource {
    /// A checkpoint of one of the program's own networks.
    Checkpoint(WeightsFile),
    /// A model directory in the layout of diffusers.
    Directory {
        /// The directory.
        path: PathBuf,
        /// How it is used.
        settings: DirectorySettings,
    },
}

/// Opens a model and lets the visitor work on its pipeline.
///
/// # Errors
/// If the model cannot be used, or the work fails.
// ANCHOR: registry
pub fn open<B: Computes, V: Visitor<B>>(
    source: ModelSource,
    machine: &Machine<B::InnerBackend>,
    visitor: V,
) -> Result<V::Output, V::Error> {
    match source {
        ModelSource::Checkpoint(file) => {
            let card = Card::of(&file)?;
            open_own(card, &Weights::File(file), machine, AnyVisitor(visitor))
        }
        ModelSource::Directory { path, settings } => {
            match directory::class_of(&path).map_err(PipelineError::from)?.as_str() {
                Sd3::CLASS => visitor.visit(Published::<Sd3, _>::open(&path, &settings, machine)?),
                Flux::CLASS => {
                    visitor.visit(Published::<Flux, _>::open(&path, &settings, machine)?)
                }
                class => Err(unknown_class(&path, class).into()),
            }
        }
    }
}
// ANCHOR_END: registry

fn unknown_class(path: &Path, class: &str) -> PipelineError {
    PipelineError::Refused(format!(
        "{} is a {class}; only {} and {} can be used",
        path.display(),
        Sd3::CLASS,
        Flux::CLASS
    ))
}

/// The weights of one of the program's own networks.
#[derive(Debug)]
pub enum Weights {
    /// Those of a checkpoint.
    File(WeightsFile),
    /// Random ones.
    Random {
        /// The seed.
        seed: u64,
    },
}

/// Makes the network that a card describes and lets the visitor work on it.
///
/// # Errors
/// If the weights do not fit the card, or the work fails.
pub fn open_own<B: Computes, V: OwnVisitor<B>>(
    card: Card,
    weights: &Weights,
    machine: &Machine<B::InnerBackend>,
    visitor: V,
) -> Result<V::Output, V::Error> {
    let device = &machine.device;
    let seed = if let Weights::Random { seed } = weights { *seed } else { 0 };
    let digest = match weights {
        Weights::File(file) => file.digest(),
        Weights::Random { .. } => String::new(),
    };
    match &card.architecture {
        Architecture::Dit(sizes) => {
            let network: Dit<B::InnerBackend> = sizes.init(card.vocabulary.len(), seed, device);
            let mut network = network.computing_in(machine.precision);
            if let Weights::File(file) = weights {
                network = file.load_into(network).map_err(PipelineError::from)?;
            }
            visitor.visit(Own::<B, Dit<B>>::new(card, network, digest, machine))
        }
        Architecture::Mlp(sizes) => {
            let mut network: MlpField<B::InnerBackend> = sizes.init(seed, device);
            if let Weights::File(file) = weights {
                network = file.load_into(network).map_err(PipelineError::from)?;
            }
            visitor.visit(Own::<B, MlpField<B>>::new(card, network, digest, machine))
        }
    }
}

/// A visitor of any pipeline as a visitor of the program's own networks.
struct AnyVisitor<V>(V);

impl<B: Computes, V: Visitor<B>> OwnVisitor<B> for AnyVisitor<V> {
    type Output = V::Output;
    type Error = V::Error;

    fn visit<N>(self, own: Own<B, N>) -> Result<V::Output, V::Error>
    where
        N: Trainable<B> + VelocityField<B, Condition = TokenIds>,
    {
        self.0.visit(own)
    }
}
