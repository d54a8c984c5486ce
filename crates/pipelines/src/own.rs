//! The pipeline of the program's own networks, which draw pixels or points and know words.

use std::{path::Path, sync::Arc};

use burn::{prelude::*, tensor::backend::AutodiffBackend};
use flow::{GridKind, VelocityField};
use grpo::{
    images::Decode,
    update::{Differentiate, WholeGraph},
};
use models::{
    Adapter, TokenIds, lora,
    weights::{self, StoredAs},
};
use tasks::{prompts::Prompt, shapes::Metadata};

use crate::{
    Card, Defaults, Footprint, Machine, Network, Pipeline, PipelineError, Trainable, card::CARD,
    sampled::Sampled,
};

/// A network of the program's own: `N` is its type on the autodiff backend.
pub struct Own<B: AutodiffBackend, N: Trainable<B>> {
    /// The description of the network.
    pub card: Card,
    network: N::InnerModule,
    digest: String,
    machine: Machine<B::InnerBackend>,
}

/// Rows that are sampled together, on each thread of a CPU and on a GPU, which has more to do.
const TOGETHER_ON_CPU: usize = 16;
const TOGETHER_ON_GPU: usize = 256;

impl<B: AutodiffBackend, N: Trainable<B>> Own<B, N> {
    /// Surrounds a network; `digest` is the fingerprint of its file.
    pub fn new(
        card: Card,
        network: N::InnerModule,
        digest: String,
        machine: &Machine<B::InnerBackend>,
    ) -> Self {
        Self { card, network, digest, machine: machine.clone() }
    }

    /// The network.
    pub fn into_network(self) -> N::InnerModule {
        self.network
    }
}

impl<B, N> Pipeline<B> for Own<B, N>
where
    B: AutodiffBackend,
    N: Trainable<B> + VelocityField<B, Condition = TokenIds>,
{
    type Condition = TokenIds;
    type Network = N::InnerModule;
    type Trained = N;

    fn latent_shape(&self) -> [usize; 3] {
        self.card.architecture.latent_shape()
    }

    fn image_shape(&self) -> [usize; 3] {
        self.latent_shape()
    }

    fn decoder(&self) -> Result<Arc<dyn Decode<B::InnerBackend>>, PipelineError> {
        Ok(Arc::new(self.card.architecture.decoder()))
    }

    fn finish(&self, latents: Tensor<B::InnerBackend, 4>) -> Result<Sampled, PipelineError> {
        let images = self.card.architecture.decoder().decode(latents.clone());
        let final_latents = latents.into_data();
        Ok(Sampled { images, decoded: final_latents.clone(), final_latents })
    }

    fn conditions(&self, texts: &[&str]) -> Result<Vec<TokenIds>, PipelineError> {
        texts.iter().map(|text| self.card.condition(text)).collect()
    }

    fn network(&self) -> Result<Self::Network, PipelineError> {
        Ok(self.network.clone())
    }

    fn differentiate(&self) -> Box<dyn Differentiate<B, N>> {
        Box::new(WholeGraph)
    }

    fn footprint(&self) -> Footprint {
        Footprint {
            kept_per_row: self.card.architecture.kept_per_row(),
            alive_per_row: 0,
            condition_bytes: 0,
            rows_together: if self.machine.on_cpu { TOGETHER_ON_CPU } else { TOGETHER_ON_GPU },
            decoder_bytes: 0,
            decoding: 0,
        }
    }

    fn grid(&self) -> Result<GridKind, PipelineError> {
        Ok(GridKind::Linear {})
    }

    fn shift(&self) -> Result<Option<f64>, PipelineError> {
        Ok(None)
    }

    fn defaults(&self) -> Defaults {
        Defaults { guidance: 1.0, images: 6 }
    }

    fn check_prompt(&self, prompt: &Prompt) -> Result<(), String> {
        Metadata::required(prompt).map(drop)
    }

    fn made_by(&self) -> String {
        self.card.made_by.clone()
    }

    fn digest(&self) -> Result<String, PipelineError> {
        Ok(self.digest.clone())
    }

    fn write(
        &self,
        network: &Self::Network,
        stored_as: StoredAs,
        path: &Path,
    ) -> Result<(), PipelineError> {
        write(&self.card, network, stored_as, path)
    }

    fn write_merged(
        &self,
        adapter: &Adapter,
        made_by: &str,
        path: &Path,
    ) -> Result<(), PipelineError> {
        let network = adapter.clone().attach(self.network.clone(), &self.machine.device)?;
        let card = Card { made_by: made_by.to_owned(), ..self.card.clone() };
        write(&card, &lora::merged(network), StoredAs::F32, path)
    }
}

/// Writes a checkpoint.
fn write<B: Backend>(
    card: &Card,
    network: &impl Network<B>,
    stored_as: StoredAs,
    path: &Path,
) -> Result<(), PipelineError> {
    let card = serde_json::to_string(card)
        .map_err(|error| PipelineError::Refused(format!("the card cannot be written: {error}")))?;
    Ok(weights::write_module(network, (CARD, card), stored_as, path)?)
}
