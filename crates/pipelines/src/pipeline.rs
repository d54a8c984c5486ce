//! The interface of everything around a network.

use std::{path::Path, sync::Arc};

use burn::{
    module::{AutodiffModule, Module},
    prelude::*,
    tensor::backend::AutodiffBackend,
};
use burn_store::ModuleSnapshot;
use flow::{GridKind, VelocityField};
use grpo::{evaluate::EncodedPrompt, images::Decode, update::Differentiate};
use models::{Adaptable, Adapter, weights::StoredAs};
use tasks::prompts::Prompt;

use crate::{PipelineError, sampled::Sampled};

/// The capabilities of every network: a velocity field that can be saved and adapted.
pub trait Network<B: Backend>:
    VelocityField<B> + Module<B> + ModuleSnapshot<B> + Adaptable<B> + Sync
{
}

impl<B: Backend, N> Network<B> for N where
    N: VelocityField<B> + Module<B> + ModuleSnapshot<B> + Adaptable<B> + Sync
{
}

/// A network on the autodiff backend whose plain form is a network with the same conditions.
pub trait Trainable<B: AutodiffBackend>:
    Network<B>
    + AutodiffModule<
        B,
        InnerModule: Network<B::InnerBackend, Condition = <Self as VelocityField<B>>::Condition>,
    >
{
}

impl<B: AutodiffBackend, N> Trainable<B> for N
where
    N: Network<B> + AutodiffModule<B>,
    N::InnerModule: Network<B::InnerBackend, Condition = <N as VelocityField<B>>::Condition>,
{
}

/// Everything around a network: prompt encoding, latent shape, decoding, memory, saving. `B` is the
/// backend with automatic differentiation; sampling computes on its inner backend.
pub trait Pipeline<B: AutodiffBackend>: Sized {
    /// The network's input from a prompt.
    type Condition: Clone + Send + Sync;
    /// The network.
    type Network: Network<B::InnerBackend, Condition = Self::Condition>;
    /// The network on the autodiff backend.
    type Trained: Network<B, Condition = Self::Condition>
        + AutodiffModule<B, InnerModule = Self::Network>;

    /// `[C, H, W]` of a latent.
    fn latent_shape(&self) -> [usize; 3];

    /// `[C, H, W]` of an image.
    fn image_shape(&self) -> [usize; 3];

    /// The decoder of final latents.
    ///
    /// # Errors
    /// If the decoder cannot be loaded.
    fn decoder(&self) -> Result<Arc<dyn Decode<B::InnerBackend>>, PipelineError>;

    /// Decodes final latents and returns the images with the decoder's output before clamping.
    ///
    /// # Errors
    /// If the decoder cannot be loaded.
    fn finish(&self, latents: Tensor<B::InnerBackend, 4>) -> Result<Sampled, PipelineError>;

    /// The conditions of prompts, in their order.
    ///
    /// # Errors
    /// If a prompt cannot be encoded.
    fn conditions(&self, texts: &[&str]) -> Result<Vec<Self::Condition>, PipelineError>;

    /// The base network. A model directory loads it at every call.
    ///
    /// # Errors
    /// If the network cannot be loaded.
    fn network(&self) -> Result<Self::Network, PipelineError>;

    /// # Errors
    /// If the network alone needs more than the available memory.
    fn check_room(&self) -> Result<(), PipelineError> {
        Ok(())
    }

    /// Whether the network reads the guidance scale itself, so that there is no classifier-free
    /// guidance around it.
    fn reads_guidance(&self) -> bool {
        false
    }

    /// Gives a network the guidance scale, if it reads one.
    fn guide(&self, network: Self::Network, _scale: f64) -> Self::Network {
        network
    }

    /// The scale of classifier-free guidance that remains around a guided network; 1 is none.
    fn classifier_free(&self, scale: f64) -> f64 {
        if self.reads_guidance() { 1.0 } else { scale }
    }

    /// How gradients are computed.
    fn differentiate(&self) -> Box<dyn Differentiate<B, Self::Trained>>;

    /// The memory that the network and its decoder take.
    fn footprint(&self) -> Footprint;

    /// The model's own time grid.
    ///
    /// # Errors
    /// If the settings of the model cannot be read.
    fn grid(&self) -> Result<GridKind, PipelineError>;

    /// The shift of the model's own time grid; `None` if it has none.
    ///
    /// # Errors
    /// If the settings of the model cannot be read.
    fn shift(&self) -> Result<Option<f64>, PipelineError>;

    /// Settings of sampling that suit the model.
    fn defaults(&self) -> Defaults;

    /// # Errors
    /// If the network cannot be trained on a prompt of a file; the error says why.
    fn check_prompt(&self, _prompt: &Prompt) -> Result<(), String> {
        Ok(())
    }

    /// Floating-point operations of a forward pass on one row with a text of this length; `None` if
    /// they are not counted.
    fn flop_per_row(&self, _text_tokens: usize) -> Option<f64> {
        None
    }

    /// A condition with made-up values for measurements, which needs no text encoder; `None` if the
    /// pipeline has none.
    fn made_up(&self, _seed: usize, _text_tokens: usize) -> Option<Self::Condition> {
        None
    }

    /// Whether encoded prompts are kept in files, because encoding takes long.
    fn keeps_conditions(&self) -> bool {
        false
    }

    /// The origin of the network, for people.
    fn made_by(&self) -> String;

    /// A fingerprint of the network.
    ///
    /// # Errors
    /// If a file cannot be read.
    fn digest(&self) -> Result<String, PipelineError>;

    /// Writes all weights of a network to a file.
    ///
    /// # Errors
    /// If the file cannot be written completely, or the pipeline's networks are too large for that.
    fn write(
        &self,
        network: &Self::Network,
        stored_as: StoredAs,
        path: &Path,
    ) -> Result<(), PipelineError>;

    /// Writes the network with an adapter merged into its weights; `made_by` names its origin.
    ///
    /// # Errors
    /// If the adapter does not fit, or the file cannot be written completely.
    fn write_merged(
        &self,
        adapter: &Adapter,
        made_by: &str,
        path: &Path,
    ) -> Result<(), PipelineError>;

    /// Encodes prompts: each prompt with its condition.
    ///
    /// # Errors
    /// If a prompt cannot be encoded.
    fn encode(
        &self,
        prompts: &[Prompt],
    ) -> Result<Vec<EncodedPrompt<Self::Condition>>, PipelineError> {
        let texts: Vec<&str> = prompts.iter().map(|prompt| prompt.text.as_str()).collect();
        let encoded = prompts.iter().zip(self.conditions(&texts)?);
        Ok(encoded
            .map(|(prompt, condition)| EncodedPrompt { condition, prompt: prompt.clone() })
            .collect())
    }
}

/// The memory that a network and its decoder take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Values per row that a forward pass keeps for its backward pass.
    pub kept_per_row: usize,
    /// Values per row that are alive in a forward pass without a backward pass; 0 if negligible.
    pub alive_per_row: usize,
    /// Bytes of a prompt's condition on the device, where it stays during a rollout batch and an
    /// update; 0 if negligible.
    pub condition_bytes: u64,
    /// Rows that a worker samples together in inference.
    pub rows_together: usize,
    /// Bytes of the decoder's weights, for the whole run.
    pub decoder_bytes: u64,
    /// Values that are alive while a worker decodes latents.
    pub decoding: usize,
}

/// Settings of sampling that suit a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defaults {
    /// The guidance scale.
    pub guidance: f64,
    /// Images per prompt.
    pub images: usize,
}
