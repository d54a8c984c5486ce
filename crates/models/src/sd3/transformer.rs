//! The transformer of SD3: MMDiT, and MMDiT-X where the configuration lists layers with a second
//! attention.
//!
//! The two streams, image and text, have separate weights and meet in the attention
//! (arXiv 2403.03206, figure 2). Layers have the paths of diffusers' `SD3Transformer2DModel`, so
//! that adapters carry over.

use burn::{
    module::{Module, Param},
    prelude::*,
    tensor::{FloatDType, activation},
};
use flow::VelocityField;
use kernels::Kernels;

use crate::{
    layers::modulations,
    linear::{Linear, Product},
    lora::{self, Adaptable},
    storage::Source,
    streams::Tokens,
    text::{Embedding, HeldTexts, Texts},
    time_embedding::Sinusoidal,
};

mod block;
mod checkpointing;
mod config;

use block::Block;
pub use config::TransformerConfig;

/// Half the number of time features.
const TIME_HALF: usize = 128;

/// The transformer of SD3.
#[derive(Module, Debug)]
pub struct Transformer<B: Backend> {
    patches: Linear<B>,
    positions: Param<Tensor<B, 3>>,
    time_in: Linear<B>,
    time_out: Linear<B>,
    pooled_in: Linear<B>,
    pooled_out: Linear<B>,
    context_embedder: Linear<B>,
    blocks: Vec<Block<B>>,
    modulation: Linear<B>,
    output: Linear<B>,
    time: Sinusoidal<B>,
    held: Option<HeldTexts<B>>,
    #[module(skip)]
    config: TransformerConfig,
    #[module(skip)]
    precision: FloatDType,
}

impl<B: Kernels> Transformer<B> {
    /// Loads a network of these sizes from a source.
    pub fn load(config: &TransformerConfig, source: &mut Source<'_, B>) -> Self {
        let (d, side) = (config.width(), config.pos_embed_max_size);
        let patch = config.patch_size * config.patch_size;
        Self {
            patches: source.patches("pos_embed.proj", [config.in_channels, config.patch_size], d),
            positions: source.table("pos_embed.pos_embed", [1, side * side, d]),
            time_in: source.linear("time_text_embed.timestep_embedder.linear_1", 2 * TIME_HALF, d),
            time_out: source.linear("time_text_embed.timestep_embedder.linear_2", d, d),
            pooled_in: source.linear(
                "time_text_embed.text_embedder.linear_1",
                config.pooled_projection_dim,
                d,
            ),
            pooled_out: source.linear("time_text_embed.text_embedder.linear_2", d, d),
            context_embedder: source.linear("context_embedder", config.joint_attention_dim, d),
            blocks: (0..config.num_layers)
                .map(|index| Block::load(config, index, source))
                .collect(),
            modulation: source.linear("norm_out.linear", d, 2 * d),
            output: source.linear("proj_out", d, patch * config.out_channels),
            time: Sinusoidal::new(TIME_HALF, 1000.0, source.device()),
            held: None,
            config: config.clone(),
            precision: source.precision(),
        }
    }

    /// The sizes of the network.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

    /// Tokens of both streams, and the conditioning vector of time and pooled text, `[B, D]`.
    fn embed(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[Embedding],
    ) -> (Tokens<B>, Tensor<B, 2>) {
        let [_, _, height, width] = latent.dims();
        let p = self.config.patch_size;
        let image = self.patches.forward(self.patchify(latent.cast(self.precision)));
        let image = image + self.positions([height / p, width / p]);
        let texts = Texts::new(conditions, self.held.as_ref(), self.precision, &image.device());
        let time = self.time.features(time).cast(self.precision);
        let time = self.time_out.forward(activation::silu(self.time_in.forward(time)));
        let pooled = activation::silu(self.pooled_in.forward(texts.pooled.clone()));
        let pooled = self.pooled_out.forward(pooled);
        let text = texts.spread(self.context_embedder.forward(texts.text.clone()));
        let conditioning = activation::silu(time + texts.spread(pooled));
        (Tokens { image, text }, conditioning)
    }

    /// `[B, C, H, W]` to `[B, P, C·p·p]`
    fn patchify(&self, latent: Tensor<B, 4>) -> Tensor<B, 3> {
        let [rows, channels, height, width] = latent.dims();
        let p = self.config.patch_size;
        let split = latent.reshape([rows, channels, height / p, p, width / p, p]);
        split.permute([0, 2, 4, 1, 3, 5]).reshape([
            rows,
            height / p * (width / p),
            channels * p * p,
        ])
    }

    /// Position embeddings of an image, `[1, P, D]`: the middle of their square.
    fn positions(&self, [height, width]: [usize; 2]) -> Tensor<B, 3> {
        let (side, d) = (self.config.pos_embed_max_size, self.config.width());
        let square: Tensor<B, 3> = self.positions.val().reshape([side, side, d]);
        let middle =
            square.narrow(0, (side - height) / 2, height).narrow(1, (side - width) / 2, width);
        middle.reshape([1, height * width, d]).cast(self.precision)
    }
}

impl<B: Kernels> Transformer<B> {
    // ANCHOR: forward
    /// Velocity `v(x, t, c)`, computed in the network's precision.
    fn forward(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[Embedding],
    ) -> Tensor<B, 4> {
        let [_, _, height, width] = latent.dims();
        let (tokens, conditioning) = self.embed(latent, time, conditions);
        let tokens = self
            .blocks
            .iter()
            .fold(tokens, |tokens, block| block.forward(tokens, conditioning.clone()));
        self.finish(tokens.image, conditioning, [height, width])
    }
    // ANCHOR_END: forward

    /// Computes the velocity, `[B, C, H, W]`, from the image tokens after the last block.
    fn finish(
        &self,
        image: Tensor<B, 3>,
        conditioning: Tensor<B, 2>,
        [height, width]: [usize; 2],
    ) -> Tensor<B, 4> {
        let rows = image.dims()[0];
        let [scale, shift] = modulations(self.modulation.forward(conditioning));
        let patches = self.output.forward(B::modulated_layer_norm(image, shift, scale));
        let (p, channels) = (self.config.patch_size, self.config.out_channels);
        let split = patches.reshape([rows, height / p, width / p, p, p, channels]);
        split
            .permute([0, 5, 1, 3, 2, 4])
            .reshape([rows, channels, height, width])
            .cast(FloatDType::F32)
    }
}

impl<B: Kernels> VelocityField<B> for Transformer<B> {
    type Condition = Embedding;

    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[Embedding],
    ) -> Tensor<B, 4> {
        self.forward(latent, time, conditions)
    }

    fn prepare(&mut self, conditions: &[Embedding], _latent: [usize; 3]) {
        lora::prepare(self, self.precision);
        let device = self.positions.val().device();
        self.held = Some(HeldTexts::new(conditions, self.precision, &device));
    }

    fn prepare_like(&mut self, other: &Self) {
        self.held.clone_from(&other.held);
    }

    fn blocks(&self) -> &'static [&'static str] {
        &["blocks."]
    }
}

impl<B: Kernels> Adaptable<B> for Transformer<B> {
    fn products(&mut self) -> Vec<(String, Product<'_, B>)> {
        let named = |(name, layer): (&str, _)| (name.to_owned(), Product::Single(layer));
        let input = [
            ("time_text_embed.timestep_embedder.linear_1", &mut self.time_in),
            ("time_text_embed.timestep_embedder.linear_2", &mut self.time_out),
            ("time_text_embed.text_embedder.linear_1", &mut self.pooled_in),
            ("time_text_embed.text_embedder.linear_2", &mut self.pooled_out),
            ("context_embedder", &mut self.context_embedder),
        ];
        let output = [("norm_out.linear", &mut self.modulation), ("proj_out", &mut self.output)];
        let blocks = self.blocks.iter_mut().enumerate();
        let blocks = blocks
            .flat_map(|(index, block)| block.products(&format!("transformer_blocks.{index}")));
        input.map(named).into_iter().chain(blocks).chain(output.map(named)).collect()
    }
}
