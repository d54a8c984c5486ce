//! The transformer of FLUX.1: double blocks, then single blocks, with rotary positions and the
//! guidance scale as an input.
//!
//! Layers have the paths of diffusers' `FluxTransformer2DModel`, so that adapters carry over.

use burn::{
    module::Module,
    prelude::*,
    tensor::{FloatDType, activation},
};
use flow::VelocityField;
use kernels::Kernels;

use super::{
    FluxConfig,
    blocks::{DoubleBlock, Embedder, SingleBlock},
    checkpointing::joined,
    rope::Rope,
};
use crate::{
    layers::modulations,
    linear::{Linear, Product},
    lora::{self, Adaptable},
    storage::Source,
    streams::Tokens,
    text::{Embedding, HeldTexts, Texts},
    time_embedding::Sinusoidal,
};

/// Half the number of time features.
pub(super) const TIME_HALF: usize = 128;
/// Times and guidance scales are multiplied by this before their sines are taken.
const TIME_SCALE: f64 = 1000.0;

/// What stays on the device between two velocities.
#[derive(Module, Debug)]
struct Held<B: Backend> {
    texts: HeldTexts<B>,
    rope: Rope<B>,
}

/// The transformer of FLUX.1.
///
/// Source: Black Forest Labs' FLUX.1; diffusers' `FluxTransformer2DModel`.
#[derive(Module, Debug)]
pub struct FluxTransformer<B: Backend> {
    pub(super) tokens: Linear<B>,
    pub(super) context: Linear<B>,
    pub(super) time: Embedder<B>,
    pub(super) guidance: Option<Embedder<B>>,
    pub(super) pooled: Embedder<B>,
    pub(super) double_blocks: Vec<DoubleBlock<B>>,
    pub(super) single_blocks: Vec<SingleBlock<B>>,
    modulation: Linear<B>,
    output: Linear<B>,
    sinusoidal: Sinusoidal<B>,
    held: Option<Held<B>>,
    #[module(skip)]
    config: FluxConfig,
    #[module(skip)]
    guidance_scale: f64,
    #[module(skip)]
    precision: FloatDType,
}

impl<B: Kernels> FluxTransformer<B> {
    /// Loads a network of these sizes from a source; the guidance scale is 3.5.
    pub fn load(config: &FluxConfig, source: &mut Source<'_, B>) -> Self {
        let d = config.width();
        let embedder = |name: &str, inputs: usize, source: &mut Source<'_, B>| {
            Embedder::load(&format!("time_text_embed.{name}"), inputs, d, source)
        };
        Self {
            tokens: source.linear("x_embedder", config.in_channels, d),
            context: source.linear("context_embedder", config.joint_attention_dim, d),
            time: embedder("timestep_embedder", 2 * TIME_HALF, source),
            guidance: config
                .guidance_embeds
                .then(|| embedder("guidance_embedder", 2 * TIME_HALF, source)),
            pooled: embedder("text_embedder", config.pooled_projection_dim, source),
            double_blocks: (0..config.num_layers)
                .map(|index| DoubleBlock::load(config, index, source))
                .collect(),
            single_blocks: (0..config.num_single_layers)
                .map(|index| SingleBlock::load(config, index, source))
                .collect(),
            modulation: source.linear("norm_out.linear", d, 2 * d),
            output: source.linear("proj_out", d, config.in_channels),
            sinusoidal: Sinusoidal::new(TIME_HALF, 1.0, source.device()),
            held: None,
            config: config.clone(),
            guidance_scale: 3.5,
            precision: source.precision(),
        }
    }

    /// Sets the guidance scale that the network reads, if it reads one.
    #[must_use]
    pub fn with_guidance(self, guidance_scale: f64) -> Self {
        Self { guidance_scale, ..self }
    }

    /// The sizes of the network.
    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    /// Tokens of both streams, and the vector that conditions every block, `[B, D]`.
    pub(super) fn embed(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[Embedding],
    ) -> (Tokens<B>, Tensor<B, 2>) {
        let held = self.held.as_ref().map(|held| &held.texts);
        let texts = Texts::new(conditions, held, self.precision, &latent.device());
        let image = self.tokens.forward(packed(latent.cast(self.precision)));
        let text = texts.spread(self.context.forward(texts.text.clone()));
        let pooled = texts.spread(self.pooled.forward(texts.pooled.clone()));
        (Tokens { image, text }, activation::silu(self.conditioning(time, pooled)))
    }

    /// The positions of the text and of the patches of a latent.
    pub(super) fn rope(&self, words: usize, [height, width]: [usize; 2]) -> Rope<B> {
        let patches = [height / 2, width / 2];
        match &self.held {
            Some(Held { rope, .. }) if rope.is_of(words, patches) => rope.clone(),
            _ => Rope::new(&self.config, words, patches, &self.tokens.weight.device()),
        }
    }

    /// The sum of the embeddings of time, guidance scale and pooled text, `[B, D]`.
    fn conditioning(&self, time: Tensor<B, 1>, of_pooled: Tensor<B, 2>) -> Tensor<B, 2> {
        let of_time = self.time.forward(self.features(time.clone()));
        match &self.guidance {
            None => of_time + of_pooled,
            Some(embedder) => {
                let scale = self.features(time.full_like(self.guidance_scale));
                of_time + embedder.forward(scale) + of_pooled
            }
        }
    }

    /// The sinusoidal features of times or guidance scales, `[B, 256]`.
    fn features(&self, time: Tensor<B, 1>) -> Tensor<B, 2> {
        self.sinusoidal.features(time * TIME_SCALE).cast(self.precision)
    }
}

impl<B: Kernels> FluxTransformer<B> {
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
        let rope = self.rope(tokens.text.dims()[1], [height, width]);
        let tokens = self
            .double_blocks
            .iter()
            .fold(tokens, |tokens, block| block.forward(tokens, conditioning.clone(), &rope));
        let both = self
            .single_blocks
            .iter()
            .fold(joined(tokens), |both, block| block.forward(both, conditioning.clone(), &rope));
        self.finish(both, conditioning, [height, width])
    }
    // ANCHOR_END: forward

    /// Computes the velocity, `[B, C, H, W]`, from the tokens after the last block.
    pub(super) fn finish(
        &self,
        both: Tensor<B, 3>,
        conditioning: Tensor<B, 2>,
        [height, width]: [usize; 2],
    ) -> Tensor<B, 4> {
        let [_, tokens, _] = both.dims();
        let patches = height * width / 4;
        let image = both.narrow(1, tokens - patches, patches);
        let [scale, shift] = modulations(self.modulation.forward(conditioning));
        let patches = self.output.forward(B::modulated_layer_norm(image, shift, scale));
        let channels = self.config.in_channels / 4;
        unpacked(patches, [channels, height, width]).cast(FloatDType::F32)
    }
}

/// `[B, C, H, W]` to `[B, H/2·W/2, 4C]`: in a token the channel is outermost, then row and column
/// of the patch.
fn packed<B: Backend>(latent: Tensor<B, 4>) -> Tensor<B, 3> {
    let [rows, channels, height, width] = latent.dims();
    let split = latent.reshape([rows, channels, height / 2, 2, width / 2, 2]);
    split.permute([0, 2, 4, 1, 3, 5]).reshape([rows, height * width / 4, 4 * channels])
}

/// The reverse of [`packed`].
fn unpacked<B: Backend>(
    tokens: Tensor<B, 3>,
    [channels, height, width]: [usize; 3],
) -> Tensor<B, 4> {
    let rows = tokens.dims()[0];
    let split = tokens.reshape([rows, height / 2, width / 2, channels, 2, 2]);
    split.permute([0, 3, 1, 4, 2, 5]).reshape([rows, channels, height, width])
}

impl<B: Kernels> VelocityField<B> for FluxTransformer<B> {
    type Condition = Embedding;

    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[Embedding],
    ) -> Tensor<B, 4> {
        self.forward(latent, time, conditions)
    }

    fn prepare(&mut self, conditions: &[Embedding], [_, height, width]: [usize; 3]) {
        lora::prepare(self, self.precision);
        let device = self.tokens.weight.val().device();
        self.held = conditions.first().map(|first| Held {
            texts: HeldTexts::new(conditions, self.precision, &device),
            rope: Rope::new(&self.config, first.text_shape[0], [height / 2, width / 2], &device),
        });
    }

    fn prepare_like(&mut self, other: &Self) {
        self.held.clone_from(&other.held);
    }

    fn blocks(&self) -> &'static [&'static str] {
        &["double_blocks.", "single_blocks."]
    }
}

impl<B: Kernels> Adaptable<B> for FluxTransformer<B> {
    fn products(&mut self) -> Vec<(String, Product<'_, B>)> {
        let mut all = vec![
            ("x_embedder".to_owned(), Product::Single(&mut self.tokens)),
            ("context_embedder".to_owned(), Product::Single(&mut self.context)),
        ];
        all.extend(self.time.products("time_text_embed.timestep_embedder"));
        all.extend(
            self.guidance
                .iter_mut()
                .flat_map(|guidance| guidance.products("time_text_embed.guidance_embedder")),
        );
        all.extend(self.pooled.products("time_text_embed.text_embedder"));
        for (index, block) in self.double_blocks.iter_mut().enumerate() {
            all.extend(block.products(&format!("transformer_blocks.{index}")));
        }
        for (index, block) in self.single_blocks.iter_mut().enumerate() {
            all.extend(block.products(&format!("single_transformer_blocks.{index}")));
        }
        all.extend([
            ("norm_out.linear".to_owned(), Product::Single(&mut self.modulation)),
            ("proj_out".to_owned(), Product::Single(&mut self.output)),
        ]);
        all
    }
}
