//! The transformer of SD3: MMDiT, and MMDiT-X where the configuration lists layers with a second
//! attention.
//!
//! The two streams, image and text, have separate weights and meet in the attention
//! (arXiv 2403.03206, figure 2). Layers have the paths of diffusers' `SD3Transformer2DModel`, so
//! that adapters carry over.

use burn::{
    module::{Module, Param},
    prelude::*,
    tensor::{FloatDType, TensorData, activation, backend::AutodiffBackend},
};
use flow::{Checkpointed, Query, VelocityField};

use super::{
    layers::{attend, gelu_tanh, join_heads, normalized, rms_normalized, split_heads},
    prompt::{Embedding, PromptEmbedding},
    source::Source,
};
use crate::{linear::Linear, lora::Adaptable, time_embedding::sinusoidal};

mod config;

pub use config::TransformerConfig;

/// Half the number of time features.
const TIME_HALF: usize = 128;
/// Added to a variance or a mean square before the square root.
const EPSILON: f64 = 1e-6;

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
    #[module(skip)]
    config: TransformerConfig,
    #[module(skip)]
    precision: FloatDType,
}

impl<B: Backend> Transformer<B> {
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
            config: config.clone(),
            precision: source.precision(),
        }
    }

    /// The sizes of the network.
    pub fn config(&self) -> &TransformerConfig {
        &self.config
    }

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
        let Conditions { text, pooled } =
            Conditions::new(conditions, self.precision, &image.device());
        let time = sinusoidal(time, TIME_HALF).cast(self.precision);
        let time = self.time_out.forward(activation::silu(self.time_in.forward(time)));
        let pooled = self.pooled_out.forward(activation::silu(self.pooled_in.forward(pooled)));
        let text = spread(self.context_embedder.forward(text), conditions);
        let conditioning = activation::silu(time + spread(pooled, conditions));
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

    /// Computes the velocity, `[B, C, H, W]`, from the image tokens after the last block.
    fn finish(
        &self,
        image: Tensor<B, 3>,
        conditioning: Tensor<B, 2>,
        [height, width]: [usize; 2],
    ) -> Tensor<B, 4> {
        let rows = image.dims()[0];
        let [scale, shift] = modulation(&self.modulation, conditioning);
        let patches = self.output.forward(modulated(normalized(image, EPSILON), shift, scale));
        let (p, channels) = (self.config.patch_size, self.config.out_channels);
        let split = patches.reshape([rows, height / p, width / p, p, p, channels]);
        split
            .permute([0, 5, 1, 3, 2, 4])
            .reshape([rows, channels, height, width])
            .cast(FloatDType::F32)
    }
}

/// Values that a forward pass keeps for its backward pass: the inputs of every block, and nothing
/// from inside a block.
#[derive(Clone, Debug)]
pub struct Kept<B: Backend> {
    query: Query<B, Embedding>,
    conditioning: Tensor<B, 2>,
    blocks: Vec<Tokens<B>>,
    /// Image tokens after the last block, `[B, P, D]`.
    image: Tensor<B, 3>,
}

// ANCHOR: parts
impl<B: AutodiffBackend> Checkpointed<B> for Transformer<B> {
    type Kept = Kept<B::InnerBackend>;

    fn forward_keeping(
        network: &Transformer<B::InnerBackend>,
        query: Query<B::InnerBackend, Embedding>,
    ) -> (Tensor<B::InnerBackend, 4>, Self::Kept) {
        let [_, _, height, width] = query.latent.dims();
        let (mut tokens, conditioning) =
            network.embed(query.latent.clone(), query.time.clone(), &query.conditions);
        let mut blocks = Vec::with_capacity(network.blocks.len());
        for block in &network.blocks {
            blocks.push(tokens.clone());
            tokens = block.forward(tokens, conditioning.clone());
        }
        let velocity = network.finish(tokens.image.clone(), conditioning.clone(), [height, width]);
        (velocity, Kept { query, conditioning, blocks, image: tokens.image })
    }

    fn backward(
        &self,
        kept: Self::Kept,
        gradient: Tensor<B::InnerBackend, 4>,
        mut take: impl FnMut(B::Gradients),
    ) {
        let Kept { query, conditioning: kept_conditioning, blocks, image } = kept;
        let [_, _, height, width] = query.latent.dims();
        let (image, conditioning) = (leaf::<B, 3>(image), leaf::<B, 2>(kept_conditioning.clone()));
        let velocity = self.finish(image.clone(), conditioning.clone(), [height, width]);
        let mut gradients = pulled(velocity, gradient).backward();
        let mut of_image = gradient_of(&image, &mut gradients);
        let mut of_conditioning = gradient_of(&conditioning, &mut gradients);
        let mut of_text = None; // The text is not used after the last block.
        take(gradients);
        for (block, tokens) in self.blocks.iter().zip(blocks).rev() {
            let inputs =
                Tokens { image: leaf::<B, 3>(tokens.image), text: leaf::<B, 3>(tokens.text) };
            let conditioning = leaf::<B, 2>(kept_conditioning.clone());
            let outputs = block.forward(inputs.clone(), conditioning.clone());
            let mut sum = pulled(outputs.image, of_image);
            if let Some(of_text) = of_text {
                sum = sum + pulled(outputs.text, of_text);
            }
            let mut gradients = sum.backward();
            of_image = gradient_of(&inputs.image, &mut gradients);
            of_text = Some(gradient_of(&inputs.text, &mut gradients));
            of_conditioning = of_conditioning + gradient_of(&conditioning, &mut gradients);
            take(gradients);
        }
        let (tokens, conditioning) =
            self.embed(leaf(query.latent), Tensor::from_inner(query.time), &query.conditions);
        let of_text = of_text.expect("there is at least one block");
        let sum = pulled(tokens.image, of_image)
            + pulled(tokens.text, of_text)
            + pulled(conditioning, of_conditioning);
        take(sum.backward());
    }
}

/// `Σ output·gradient`: a scalar whose backward pass carries `gradient` from `output` back to its
/// inputs.
fn pulled<B: AutodiffBackend, const D: usize>(
    output: Tensor<B, D>,
    gradient: Tensor<B::InnerBackend, D>,
) -> Tensor<B, 1> {
    (output * Tensor::from_inner(gradient)).sum()
}
// ANCHOR_END: parts

/// A leaf of the autodiff graph that requires a gradient.
fn leaf<B: AutodiffBackend, const D: usize>(values: Tensor<B::InnerBackend, D>) -> Tensor<B, D> {
    Tensor::from_inner(values).require_grad()
}

fn gradient_of<B: AutodiffBackend, const D: usize>(
    leaf: &Tensor<B, D>,
    gradients: &mut B::Gradients,
) -> Tensor<B::InnerBackend, D> {
    leaf.grad_remove(gradients).expect("every part reads all of its inputs")
}

impl<B: Backend> VelocityField<B> for Transformer<B> {
    type Condition = Embedding;

    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[Embedding],
    ) -> Tensor<B, 4> {
        self.forward(latent, time, conditions)
    }

    fn blocks(&self) -> &'static [&'static str] {
        &["blocks."]
    }
}

/// The distinct prompts of a batch on the device; neighbouring rows that share a prompt are one row
/// here.
struct Conditions<B: Backend> {
    /// `[prompts, T, joint_attention_dim]`
    text: Tensor<B, 3>,
    /// `[prompts, pooled_projection_dim]`
    pooled: Tensor<B, 2>,
}

/// Splits a batch into runs of rows that share a prompt.
fn runs(conditions: &[Embedding]) -> Vec<&[Embedding]> {
    conditions.chunk_by(std::sync::Arc::ptr_eq).collect()
}

impl<B: Backend> Conditions<B> {
    fn new(conditions: &[Embedding], precision: FloatDType, device: &B::Device) -> Self {
        let distinct: Vec<&PromptEmbedding> = runs(conditions).iter().map(|run| &*run[0]).collect();
        let text = distinct.iter().flat_map(|embedding| embedding.text()).collect::<Vec<f32>>();
        let pooled =
            distinct.iter().flat_map(|embedding| embedding.pooled.numbers()).collect::<Vec<f32>>();
        let [length, width] = distinct[0].text_shape;
        let features = distinct[0].pooled.shape()[0];
        let text = TensorData::new(text, [distinct.len(), length, width]);
        let pooled = TensorData::new(pooled, [distinct.len(), features]);
        Self {
            text: Tensor::<B, 3>::from_data(text, device).cast(precision),
            pooled: Tensor::<B, 2>::from_data(pooled, device).cast(precision),
        }
    }
}

/// Expands one row per run of equal prompts to one row per row of the batch.
fn spread<B: Backend, const D: usize>(
    of_prompts: Tensor<B, D>,
    conditions: &[Embedding],
) -> Tensor<B, D> {
    let runs = runs(conditions);
    if runs.len() == conditions.len() {
        return of_prompts;
    }
    let prompts: Vec<i32> =
        runs.iter().enumerate().flat_map(|(prompt, run)| vec![prompt as i32; run.len()]).collect();
    let prompts = Tensor::<B, 1, Int>::from_ints(prompts.as_slice(), &of_prompts.device());
    of_prompts.select(0, prompts)
}

/// The tokens of both streams.
#[derive(Clone, Debug)]
struct Tokens<B: Backend> {
    /// `[B, P, D]`
    image: Tensor<B, 3>,
    /// `[B, T, D]`
    text: Tensor<B, 3>,
}

/// A block of the transformer.
///
/// ```text
/// image, text ← image, text + gate·attention(norm(image), norm(text))
/// image       ← image + gate·attention(norm(image))                     where there is a second attention
/// image       ← image + gate·mlp(norm(image))        likewise for the text, except in the last block
/// ```
///
/// Every norm is followed by a scale and a shift; shift, scale and gate are linear in the
/// conditioning vector (adaLN-zero, arXiv 2212.09748).
#[derive(Module, Debug)]
struct Block<B: Backend> {
    norm1: Linear<B>,
    norm1_context: Linear<B>,
    image: Projections<B>,
    text: Projections<B>,
    second: Option<Projections<B>>,
    ff: FeedForward<B>,
    ff_context: Option<FeedForward<B>>,
}

impl<B: Backend> Block<B> {
    fn load(config: &TransformerConfig, index: usize, source: &mut Source<'_, B>) -> Self {
        let d = config.width();
        let last = index + 1 == config.num_layers;
        let dual = config.dual_attention_layers.contains(&index);
        let at = |name: &str| format!("transformer_blocks.{index}.{name}");
        Self {
            norm1: source.linear(&at("norm1.linear"), d, if dual { 9 * d } else { 6 * d }),
            norm1_context: source.linear(
                &at("norm1_context.linear"),
                d,
                if last { 2 * d } else { 6 * d },
            ),
            image: Projections::load(config, &at("attn"), IMAGE, true, source),
            text: Projections::load(config, &at("attn"), TEXT, !last, source),
            second: dual.then(|| Projections::load(config, &at("attn2"), IMAGE, true, source)),
            ff: FeedForward::load(&at("ff"), d, source),
            ff_context: (!last).then(|| FeedForward::load(&at("ff_context"), d, source)),
        }
    }

    // ANCHOR: block
    /// Runs the block; `conditioning` is the conditioning vector, `[B, D]`.
    fn forward(&self, Tokens { image, text }: Tokens<B>, conditioning: Tensor<B, 2>) -> Tokens<B> {
        let normed = normalized(image.clone(), EPSILON);
        let (first, second) = self.modulations(conditioning.clone());
        let [shift, scale, gate, mlp_shift, mlp_scale, mlp_gate] = first;
        let of_text = self.text_modulations(conditioning);
        let [text_shift, text_scale] = [of_text[0].clone(), of_text[1].clone()];

        let image_in = modulated(normed.clone(), shift, scale);
        let text_in = modulated(normalized(text.clone(), EPSILON), text_shift, text_scale);
        let (image_out, text_out) = joint_attention(&self.image, &self.text, image_in, text_in);
        let mut image = image + gate * image_out;
        if let (Some(attention), Some([shift, scale, gate])) = (&self.second, second) {
            image = image + gate * attention.attention(modulated(normed, shift, scale));
        }
        let hidden = modulated(normalized(image.clone(), EPSILON), mlp_shift, mlp_scale);
        let image = image + mlp_gate * self.ff.forward(hidden);

        let (Some(feed_forward), Some(text_out), [_, _, gate, mlp_shift, mlp_scale, mlp_gate]) =
            (&self.ff_context, text_out, &of_text[..])
        else {
            return Tokens { image, text }; // The text is not used after the last block.
        };
        let text = text + gate.clone() * text_out;
        let hidden =
            modulated(normalized(text.clone(), EPSILON), mlp_shift.clone(), mlp_scale.clone());
        let text = text + mlp_gate.clone() * feed_forward.forward(hidden);
        Tokens { image, text }
    }
    // ANCHOR_END: block

    /// Shift, scale and gate of the joint attention and of the MLP, and of the second attention if
    /// there is one.
    fn modulations(
        &self,
        conditioning: Tensor<B, 2>,
    ) -> ([Tensor<B, 3>; 6], Option<[Tensor<B, 3>; 3]>) {
        if self.second.is_none() {
            return (modulation(&self.norm1, conditioning), None);
        }
        let [a, b, c, d, e, f, g, h, i] = modulation(&self.norm1, conditioning);
        ([a, b, c, d, e, f], Some([g, h, i]))
    }

    /// Shift, scale and gate of the text's attention and MLP. The last block has only shift and
    /// scale of the attention, stored with scale first.
    fn text_modulations(&self, conditioning: Tensor<B, 2>) -> Vec<Tensor<B, 3>> {
        if self.ff_context.is_some() {
            return modulation::<B, 6>(&self.norm1_context, conditioning).into();
        }
        let [scale, shift] = modulation(&self.norm1_context, conditioning);
        vec![shift, scale]
    }

    fn linears(&mut self) -> Vec<(String, &mut Linear<B>)> {
        let mut all = vec![
            ("norm1.linear".to_owned(), &mut self.norm1),
            ("norm1_context.linear".to_owned(), &mut self.norm1_context),
        ];
        all.extend(self.image.linears("attn", IMAGE));
        all.extend(self.text.linears("attn", TEXT));
        all.extend(self.second.iter_mut().flat_map(|second| second.linears("attn2", IMAGE)));
        all.extend(self.ff.linears("ff"));
        all.extend(self.ff_context.iter_mut().flat_map(|ff| ff.linears("ff_context")));
        all
    }
}

/// Names of a stream's attention layers: query, key, value, output, and the norms of query and key.
type Names = [&'static str; 6];
const IMAGE: Names = ["to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k"];
const TEXT: Names =
    ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k"];

/// One stream's layers around an attention.
#[derive(Module, Debug)]
struct Projections<B: Backend> {
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    output: Option<Linear<B>>,
    query_scale: Option<Param<Tensor<B, 1>>>,
    key_scale: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    heads: usize,
}

impl<B: Backend> Projections<B> {
    fn load(
        config: &TransformerConfig,
        path: &str,
        names: Names,
        has_output: bool,
        source: &mut Source<'_, B>,
    ) -> Self {
        let d = config.width();
        let at = |index: usize| format!("{path}.{}", names[index]);
        let normalised = config.qk_norm.is_some();
        let scale = |index: usize, source: &mut Source<'_, B>| {
            normalised.then(|| {
                source.tensor(&format!("{}.weight", at(index)), [config.attention_head_dim])
            })
        };
        Self {
            query: source.linear(&at(0), d, d),
            key: source.linear(&at(1), d, d),
            value: source.linear(&at(2), d, d),
            output: has_output.then(|| source.linear(&at(3), d, d)),
            query_scale: scale(4, source),
            key_scale: scale(5, source),
            heads: config.num_attention_heads,
        }
    }

    /// Query, key and value of every head, `[B, heads, L, w]`.
    fn split(&self, tokens: Tensor<B, 3>) -> [Tensor<B, 4>; 3] {
        let features = |layer: &Linear<B>| split_heads(layer.forward(tokens.clone()), self.heads);
        let scaled = |x: Tensor<B, 4>, scale: &Option<Param<Tensor<B, 1>>>| match scale {
            Some(scale) => rms_normalized(x, scale.val(), EPSILON),
            None => x,
        };
        [
            scaled(features(&self.query), &self.query_scale),
            scaled(features(&self.key), &self.key_scale),
            features(&self.value),
        ]
    }

    /// Self-attention of the stream.
    fn attention(&self, tokens: Tensor<B, 3>) -> Tensor<B, 3> {
        let mixed = join_heads(attend(self.split(tokens)));
        self.output.as_ref().map_or(mixed.clone(), |output| output.forward(mixed))
    }

    fn linears(&mut self, path: &str, names: Names) -> Vec<(String, &mut Linear<B>)> {
        let layers = [
            Some(&mut self.query),
            Some(&mut self.key),
            Some(&mut self.value),
            self.output.as_mut(),
        ];
        layers
            .into_iter()
            .zip(names)
            .filter_map(|(layer, name)| Some((format!("{path}.{name}"), layer?)))
            .collect()
    }
}

/// Joint attention over both streams; the text's output is `None` if it has no output layer.
fn joint_attention<B: Backend>(
    image: &Projections<B>,
    text: &Projections<B>,
    image_tokens: Tensor<B, 3>,
    text_tokens: Tensor<B, 3>,
) -> (Tensor<B, 3>, Option<Tensor<B, 3>>) {
    let [patches, words] = [image_tokens.dims()[1], text_tokens.dims()[1]];
    let [of_image, of_text] = [image.split(image_tokens), text.split(text_tokens)];
    let [image_q, image_k, image_v] = of_image;
    let [text_q, text_k, text_v] = of_text;
    let both = [(image_q, text_q), (image_k, text_k), (image_v, text_v)]
        .map(|(a, b)| Tensor::cat(vec![a, b], 2));
    let mixed = join_heads(attend(both)); // [B, P + T, D]
    let part = |layer: &Linear<B>, from: usize, length: usize| {
        layer.forward(mixed.clone().narrow(1, from, length))
    };
    let output = image.output.as_ref().expect("the image's stream continues after every block");
    (part(output, 0, patches), text.output.as_ref().map(|output| part(output, patches, words)))
}

/// The MLP of a stream: the tanh form of GELU, and a hidden layer of four times the width.
#[derive(Module, Debug)]
struct FeedForward<B: Backend> {
    input: Linear<B>,
    output: Linear<B>,
}

impl<B: Backend> FeedForward<B> {
    fn load(path: &str, d: usize, source: &mut Source<'_, B>) -> Self {
        let input = source.linear(&format!("{path}.net.0.proj"), d, 4 * d);
        Self { input, output: source.linear(&format!("{path}.net.2"), 4 * d, d) }
    }

    fn forward(&self, tokens: Tensor<B, 3>) -> Tensor<B, 3> {
        self.output.forward(gelu_tanh(self.input.forward(tokens)))
    }

    fn linears(&mut self, path: &str) -> [(String, &mut Linear<B>); 2] {
        [
            (format!("{path}.net.0.proj"), &mut self.input),
            (format!("{path}.net.2"), &mut self.output),
        ]
    }
}

/// Applies scale and shift: `x·(1 + scale) + shift`.
fn modulated<B: Backend>(
    x: Tensor<B, 3>,
    shift: Tensor<B, 3>,
    scale: Tensor<B, 3>,
) -> Tensor<B, 3> {
    x * (scale + 1.0) + shift
}

/// Computes the `N` modulations (shifts, scales, gates) of a layer, each `[B, 1, D]`.
fn modulation<B: Backend, const N: usize>(
    layer: &Linear<B>,
    conditioning: Tensor<B, 2>,
) -> [Tensor<B, 3>; N] {
    let [rows, d] = conditioning.dims();
    let all = layer.forward(conditioning).reshape([rows, N, d]);
    std::array::from_fn(|i| all.clone().narrow(1, i, 1))
}

impl<B: Backend> Adaptable<B> for Transformer<B> {
    fn linears(&mut self) -> Vec<(String, &mut Linear<B>)> {
        let named = |(name, layer): (&str, _)| (name.to_owned(), layer);
        let input = [
            ("time_text_embed.timestep_embedder.linear_1", &mut self.time_in),
            ("time_text_embed.timestep_embedder.linear_2", &mut self.time_out),
            ("time_text_embed.text_embedder.linear_1", &mut self.pooled_in),
            ("time_text_embed.text_embedder.linear_2", &mut self.pooled_out),
            ("context_embedder", &mut self.context_embedder),
        ];
        let output = [("norm_out.linear", &mut self.modulation), ("proj_out", &mut self.output)];
        let blocks = self.blocks.iter_mut().enumerate().flat_map(|(index, block)| {
            block
                .linears()
                .into_iter()
                .map(move |(name, layer)| (format!("transformer_blocks.{index}.{name}"), layer))
        });
        input.map(named).into_iter().chain(blocks).chain(output.map(named)).collect()
    }
}
