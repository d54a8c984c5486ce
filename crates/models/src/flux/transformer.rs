//! The transformer of FLUX.1: double blocks, then single blocks, with rotary positions and the
//! guidance scale as an input.
//!
//! Layers have the paths of diffusers' `FluxTransformer2DModel`, so that adapters carry over.

use std::{path::Path, sync::Arc};

use burn::{
    module::Module,
    prelude::*,
    tensor::{FloatDType, activation},
};
use flow::VelocityField;

use super::{
    FluxConfig,
    blocks::{DoubleBlock, EPSILON, Embedder, SingleBlock, Tokens, modulated, modulation},
    rope::Rope,
};
use crate::{
    linear::Linear,
    lora::Adaptable,
    sd3::{Features, Sd3Error, layers::normalized, source::Source},
    tensor_files::TensorFiles,
    weights::WeightsError,
};

/// Half the number of time features.
const TIME_HALF: usize = 128;
/// Times and guidance scales are multiplied by this before their sines are taken.
const TIME_SCALE: f64 = 1000.0;

/// An encoded prompt, shared by the rows that use it.
pub type FluxCondition = Arc<FluxEmbedding>;

/// An encoded prompt.
#[derive(Clone, Debug)]
pub struct FluxEmbedding {
    /// Token features of T5, `[T, joint_attention_dim]`.
    pub text: Features,
    /// Pooled features of CLIP, `[pooled_projection_dim]`.
    pub pooled: Features,
}

/// The transformer of FLUX.1.
///
/// Source: Black Forest Labs' FLUX.1; diffusers' `FluxTransformer2DModel`.
#[derive(Module, Debug)]
pub struct FluxTransformer<B: Backend> {
    tokens: Linear<B>,
    context: Linear<B>,
    time: Embedder<B>,
    guidance: Option<Embedder<B>>,
    pooled: Embedder<B>,
    double_blocks: Vec<DoubleBlock<B>>,
    single_blocks: Vec<SingleBlock<B>>,
    modulation: Linear<B>,
    output: Linear<B>,
    #[module(skip)]
    config: FluxConfig,
    #[module(skip)]
    guidance_scale: f64,
    #[module(skip)]
    precision: FloatDType,
}

impl<B: Backend> FluxTransformer<B> {
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
            config: config.clone(),
            guidance_scale: 3.5,
            precision: source.precision(),
        }
    }

    /// Opens the directory `transformer` of a model in the layout of diffusers.
    ///
    /// # Errors
    /// If a file is missing or damaged, or with everything that does not fit.
    pub fn open(
        directory: &Path,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<Self, Sd3Error> {
        let path = directory.join("config.json");
        let unreadable = |reason: String| Sd3Error::Unreadable { path: path.clone(), reason };
        let bytes = std::fs::read(&path).map_err(|error| unreadable(error.to_string()))?;
        let config: FluxConfig =
            serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        let refused = |problems: Vec<String>| Sd3Error::Problems {
            path: directory.to_owned(),
            problems: problems.join("\n  - "),
        };
        let problems = config.problems();
        if !problems.is_empty() {
            return Err(refused(problems));
        }
        let files = TensorFiles::open(directory, "diffusion_pytorch_model")
            .map_err(|error: WeightsError| Sd3Error::Weights(error))?;
        let mut source = Source::files(files, precision, device);
        let network = Self::load(&config, &mut source);
        let problems = source.problems();
        if problems.is_empty() { Ok(network) } else { Err(refused(problems)) }
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

    // ANCHOR: forward
    /// Velocity `v(x, t, c)`, computed in the network's precision.
    fn forward(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[FluxCondition],
    ) -> Tensor<B, 4> {
        let [_, channels, height, width] = latent.dims();
        let device = latent.device();
        let image = self.tokens.forward(packed(latent.cast(self.precision)));
        let (text, pooled) = self.texts(conditions, &device);
        let conditioning = activation::silu(self.conditioning(time, pooled));
        let text = self.context.forward(text);
        let rope = Rope::new(&self.config, text.dims()[1], [height / 2, width / 2], &device);

        let tokens = self.double_blocks.iter().fold(Tokens { image, text }, |tokens, block| {
            block.forward(tokens, conditioning.clone(), &rope)
        });
        let words = tokens.text.dims()[1];
        let both = Tensor::cat(vec![tokens.text, tokens.image], 1);
        let both = self
            .single_blocks
            .iter()
            .fold(both, |both, block| block.forward(both, conditioning.clone(), &rope));
        let image = both.narrow(1, words, height * width / 4);

        let [scale, shift] = modulation(&self.modulation, conditioning);
        let patches = self.output.forward(modulated(normalized(image, EPSILON), shift, scale));
        unpacked(patches, [channels, height, width]).cast(FloatDType::F32)
    }
    // ANCHOR_END: forward

    /// The vector that conditions every block, `[B, D]`: time, guidance and pooled text.
    fn conditioning(&self, time: Tensor<B, 1>, pooled: Tensor<B, 2>) -> Tensor<B, 2> {
        let of_time = self.time.forward(sinusoidal(time.clone()).cast(self.precision));
        let of_pooled = self.pooled.forward(pooled);
        match &self.guidance {
            None => of_time + of_pooled,
            Some(embedder) => {
                let scale = sinusoidal(time.full_like(self.guidance_scale));
                of_time + embedder.forward(scale.cast(self.precision)) + of_pooled
            }
        }
    }

    /// The texts of a batch, `[B, T, joint_attention_dim]`, and their pooled features, `[B,
    /// pooled_projection_dim]`.
    fn texts(
        &self,
        conditions: &[FluxCondition],
        device: &B::Device,
    ) -> (Tensor<B, 3>, Tensor<B, 2>) {
        let rows = conditions.len();
        let [length, width] = [conditions[0].text.shape()[0], conditions[0].text.shape()[1]];
        let text: Vec<f32> =
            conditions.iter().flat_map(|condition| condition.text.numbers()).collect();
        let pooled: Vec<f32> =
            conditions.iter().flat_map(|condition| condition.pooled.numbers()).collect();
        let features = pooled.len() / rows;
        let text = Tensor::<B, 3>::from_data(TensorData::new(text, [rows, length, width]), device);
        let pooled = Tensor::<B, 2>::from_data(TensorData::new(pooled, [rows, features]), device);
        (text.cast(self.precision), pooled.cast(self.precision))
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

/// `[cos(1000·t·ω_i), sin(1000·t·ω_i)]_i` with `ω_i = 10000^(−i/128)`, `[B, 256]`.
fn sinusoidal<B: Backend>(time: Tensor<B, 1>) -> Tensor<B, 2> {
    let frequencies: Vec<f32> =
        (0..TIME_HALF).map(|i| (-(i as f32) / TIME_HALF as f32 * 10_000_f32.ln()).exp()).collect();
    let frequencies = Tensor::<B, 1>::from_floats(frequencies.as_slice(), &time.device())
        .reshape([1, TIME_HALF as i32]);
    let angles: Tensor<B, 2> = (time * TIME_SCALE).reshape([-1, 1]) * frequencies;
    Tensor::cat(vec![angles.clone().cos(), angles.sin()], 1)
}

impl<B: Backend> VelocityField<B> for FluxTransformer<B> {
    type Condition = FluxCondition;

    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[FluxCondition],
    ) -> Tensor<B, 4> {
        self.forward(latent, time, conditions)
    }

    fn blocks(&self) -> &'static [&'static str] {
        &["double_blocks.", "single_blocks."]
    }
}

impl<B: Backend> Adaptable<B> for FluxTransformer<B> {
    fn linears(&mut self) -> Vec<(String, &mut Linear<B>)> {
        let mut all = vec![
            ("x_embedder".to_owned(), &mut self.tokens),
            ("context_embedder".to_owned(), &mut self.context),
        ];
        all.extend(self.time.linears("time_text_embed.timestep_embedder"));
        all.extend(
            self.guidance
                .iter_mut()
                .flat_map(|guidance| guidance.linears("time_text_embed.guidance_embedder")),
        );
        all.extend(self.pooled.linears("time_text_embed.text_embedder"));
        for (index, block) in self.double_blocks.iter_mut().enumerate() {
            all.extend(
                block
                    .linears()
                    .into_iter()
                    .map(|(name, layer)| (format!("transformer_blocks.{index}.{name}"), layer)),
            );
        }
        for (index, block) in self.single_blocks.iter_mut().enumerate() {
            let named =
                |(name, layer)| (format!("single_transformer_blocks.{index}.{name}"), layer);
            all.extend(block.linears().into_iter().map(named));
        }
        all.extend([
            ("norm_out.linear".to_owned(), &mut self.modulation),
            ("proj_out".to_owned(), &mut self.output),
        ]);
        all
    }
}
