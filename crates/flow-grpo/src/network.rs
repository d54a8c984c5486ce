//! The networks that the application can run, with their pipelines and checkpoints.
//!
//! A checkpoint is one safetensors file: the weights, with sizes, vocabulary and origin in the
//! metadata.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, ensure};
use burn::{module::AutodiffModule, prelude::*, tensor::backend::AutodiffBackend};
use burn_store::ModuleSnapshot;
use flow::VelocityField;
use grpo::{
    evaluate::EncodedPrompt,
    images::{Decode, Decoder},
};
use models::{
    Adaptable, Adapter, Dit, DitConfig, MlpConfig, MlpField, TokenIds, Vocabulary, WeightsFile,
    lora,
    weights::{self, StoredAs},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasks::{
    prompts::{Prompt, PromptSet},
    shapes::Metadata,
};

use crate::{
    backend::{self, Device, Plain},
    training_state,
};

/// The kind and sizes of a network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Architecture {
    /// A diffusion transformer over pixels.
    Dit(DitConfig),
    /// An MLP over points of the plane.
    Mlp(MlpConfig),
}

impl Architecture {
    /// Lists everything that is wrong with the sizes, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Dit(sizes) => sizes.problems(),
            Self::Mlp(sizes) => settings::problems(sizes),
        }
    }

    /// Number of parameters of a network of these sizes, for a vocabulary of `vocabulary` ids.
    pub fn count(&self, vocabulary: usize) -> usize {
        match self {
            Self::Dit(sizes) => sizes.count(vocabulary),
            Self::Mlp(sizes) => sizes.count(),
        }
    }

    /// Number of values per row that a forward pass keeps for its backward pass.
    pub fn kept_per_row(&self) -> usize {
        match self {
            Self::Dit(sizes) => sizes.kept_per_row(),
            Self::Mlp(sizes) => sizes.kept_per_row(),
        }
    }
}

/// The capabilities of every network: a velocity field with conditions `C` that can be trained,
/// saved and adapted.
pub trait Network<B: Backend, C>:
    VelocityField<B, Condition = C> + Module<B> + ModuleSnapshot<B> + Adaptable<B>
{
}

impl<B: Backend, C, N> Network<B, C> for N where
    N: VelocityField<B, Condition = C> + Module<B> + ModuleSnapshot<B> + Adaptable<B>
{
}

/// A network on the autodiff backend whose plain form is a network too.
pub trait Trainable<B: AutodiffBackend, C>:
    Network<B, C> + AutodiffModule<B, InnerModule: Network<B::InnerBackend, C>>
{
}

impl<B: AutodiffBackend, C, N> Trainable<B, C> for N where
    N: Network<B, C> + AutodiffModule<B, InnerModule: Network<B::InnerBackend, C>>
{
}

/// Everything around the network: prompt encoding, latent shape, decoding, saving.
pub trait Pipeline {
    /// The network's input from a prompt.
    type Condition: Clone + Send + Sync;

    /// `[C, H, W]` of a latent.
    fn latent_shape(&self) -> [usize; 3];

    /// `[C, H, W]` of an image.
    fn image_shape(&self) -> [usize; 3];

    /// The decoder of final latents.
    ///
    /// # Errors
    /// If the decoder cannot be loaded.
    fn decoder(&self) -> Result<Arc<dyn Decode<Plain>>>;

    /// The conditions of prompts, in their order.
    ///
    /// # Errors
    /// If a prompt cannot be encoded.
    fn conditions(&self, texts: &[&str]) -> Result<Vec<Self::Condition>>;

    /// Reads a file of prompts.
    fn read_prompts(&self, path: &Path) -> Result<PromptSet>;

    /// The origin of the network, for people.
    fn made_by(&self) -> &str;

    /// Number of values per row that a forward pass keeps for its backward pass.
    fn kept_per_row(&self) -> usize;

    /// Number of values per row that are alive in a forward pass without a backward pass; 0 if
    /// negligible.
    fn alive_per_row(&self) -> usize {
        0
    }

    /// Rows that a worker samples together in inference.
    fn batch(&self) -> usize {
        16
    }

    /// Memory of the decoder's weights for the whole run, in bytes.
    fn decoder_bytes(&self) -> u64 {
        0
    }

    /// Number of values that are alive while a worker decodes latents.
    fn decoding(&self) -> usize {
        0
    }

    /// Writes all weights of a network to a file.
    ///
    /// # Errors
    /// If the file cannot be written completely.
    fn write<N: Network<Plain, Self::Condition>>(
        &self,
        network: &N,
        stored_as: StoredAs,
        path: &Path,
    ) -> Result<()>;

    /// Encodes prompts: each prompt with its condition.
    fn encode(&self, prompts: &[Prompt]) -> Result<Vec<EncodedPrompt<Self::Condition>>> {
        let texts: Vec<&str> = prompts.iter().map(|prompt| prompt.text.as_str()).collect();
        let encoded = prompts.iter().zip(self.conditions(&texts)?);
        Ok(encoded
            .map(|(prompt, condition)| EncodedPrompt { condition, prompt: prompt.clone() })
            .collect())
    }
}

/// The description of a checkpoint, enough to use its weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Kind and sizes.
    pub architecture: Architecture,
    /// The words that the network knows.
    pub vocabulary: Vocabulary,
    /// The origin of the network, for people: command, seed, steps, version.
    pub made_by: String,
}

/// The metadata key of the card.
const CARD: &str = "flow_grpo";

impl Card {
    /// Reads the card of a checkpoint.
    pub fn of(file: &WeightsFile) -> Result<Self> {
        ensure!(
            file.metadata(CARD).is_ok() || !training_state::is_state(file),
            "{} is a training state, for `--resume RUN`; the weights for use are in RUN/policy.safetensors and \
             RUN/best.safetensors (training with LoRA: the base model with --adapter RUN/adapter; pre-training: RUN/base.safetensors)",
            file.path().display()
        );
        let card: Self = file.parsed_metadata(CARD)?;
        let problems = card.architecture.problems();
        ensure!(
            problems.is_empty(),
            "the checkpoint's network sizes are invalid: {}",
            problems.join("; ")
        );
        // Check before anything of these sizes is allocated; reading the weights reports which
        // tensors are missing.
        let (asked, held) = (card.architecture.count(card.vocabulary.len()), file.count());
        ensure!(
            asked <= 2 * held,
            "{}: the network's sizes ask for {asked} numbers, the file holds {held}: they do not belong together",
            file.path().display()
        );
        Ok(card)
    }

    /// The decoder of final latents.
    pub fn pixels(&self) -> Decoder {
        match self.architecture {
            Architecture::Dit(_) => Decoder::Pixels,
            Architecture::Mlp(_) => Decoder::Points,
        }
    }

    /// Encodes a prompt's text as the network's condition.
    ///
    /// # Errors
    /// If the network does not know a word, or the text is too long for it.
    pub fn condition(&self, text: &str) -> Result<TokenIds> {
        match &self.architecture {
            Architecture::Dit(config) => Ok(self.vocabulary.encode(text, config.text_length)?),
            Architecture::Mlp(_) => Ok(TokenIds::from([])),
        }
    }
}

impl Pipeline for Card {
    type Condition = TokenIds;

    fn latent_shape(&self) -> [usize; 3] {
        match &self.architecture {
            Architecture::Dit(config) => [config.channels, config.image_size, config.image_size],
            Architecture::Mlp(config) => [config.elements, 1, 1],
        }
    }

    fn image_shape(&self) -> [usize; 3] {
        self.latent_shape()
    }

    fn decoder(&self) -> Result<Arc<dyn Decode<Plain>>> {
        Ok(Arc::new(self.pixels()))
    }

    fn conditions(&self, texts: &[&str]) -> Result<Vec<TokenIds>> {
        texts.iter().map(|text| self.condition(text)).collect()
    }

    fn read_prompts(&self, path: &Path) -> Result<PromptSet> {
        Ok(PromptSet::read_checked(path, |prompt| Metadata::required(prompt).map(drop))?)
    }

    fn made_by(&self) -> &str {
        &self.made_by
    }

    fn kept_per_row(&self) -> usize {
        self.architecture.kept_per_row()
    }

    fn write<N: Network<Plain, Self::Condition>>(
        &self,
        network: &N,
        stored_as: StoredAs,
        path: &Path,
    ) -> Result<()> {
        let card = serde_json::to_string(self).context("a card is plain data")?;
        weights::write_module::<Plain, N>(network, (CARD, card), stored_as, path)?;
        Ok(())
    }
}

/// The built-in checkpoints, by name.
const BUILT_IN: [(&str, &[u8]); 2] = [
    ("shapes-base", include_bytes!("../../../assets/checkpoints/shapes-base.safetensors")),
    ("toy-2d-base", include_bytes!("../../../assets/checkpoints/toy-2d-base.safetensors")),
];

/// The default checkpoint.
const DEFAULT: &str = "shapes-base";

/// Opens a built-in checkpoint by name, or a checkpoint file by path.
pub fn open_checkpoint(name: &str) -> Result<WeightsFile> {
    if let Some((_, bytes)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return Ok(WeightsFile::from_bytes(bytes.to_vec(), Path::new(name))?);
    }
    let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    WeightsFile::read(Path::new(name)).with_context(|| {
        format!("`{name}` is neither a built-in checkpoint ({}) nor one on disk", names.join(", "))
    })
}

/// A network from a checkpoint, of either kind.
pub enum AnyNetwork {
    /// A diffusion transformer.
    Dit(Box<Dit<Plain>>),
    /// An MLP.
    Mlp(Box<MlpField<Plain>>),
}

impl AnyNetwork {
    /// Loads the card and the network of a checkpoint.
    pub fn load(file: &WeightsFile, device: &Device) -> Result<(Card, Self)> {
        let card = Card::of(file)?;
        let network = match Self::init(&card, 0, device) {
            Self::Dit(network) => Self::Dit(Box::new(file.load_into(*network)?)),
            Self::Mlp(network) => Self::Mlp(Box::new(file.load_into(*network)?)),
        };
        Ok((card, network))
    }

    /// Opens a checkpoint's network, optionally with an adapter. The default checkpoint is the base
    /// that the adapter names, or else the base of the shapes task.
    pub fn open(
        checkpoint: Option<&str>,
        adapter: Option<&Path>,
        device: &Device,
    ) -> Result<(Card, Self)> {
        let named = adapter.map(lora::base_of).transpose()?.flatten();
        let (card, network) = Self::load(
            &open_checkpoint(checkpoint.or(named.as_deref()).unwrap_or(DEFAULT))?,
            device,
        )?;
        let Some(path) = adapter else { return Ok((card, network)) };
        let adapter = Adapter::read(path)?;
        let network = match network {
            Self::Dit(network) => Self::Dit(Box::new(adapter.attach(*network, device)?)),
            Self::Mlp(network) => Self::Mlp(Box::new(adapter.attach(*network, device)?)),
        };
        Ok((card, network))
    }

    /// A network with random weights.
    pub fn init(card: &Card, seed: u64, device: &Device) -> Self {
        match &card.architecture {
            Architecture::Dit(sizes) => Self::Dit(Box::new(
                sizes.init(card.vocabulary.len(), seed, device).computing_in(backend::PRECISION),
            )),
            Architecture::Mlp(sizes) => Self::Mlp(Box::new(sizes.init(seed, device))),
        }
    }
}
