//! The two kinds of block: double, with separate weights for image and text, and single, on both
//! together.

use burn::{
    module::{Module, Param},
    prelude::*,
    tensor::activation,
};

use super::{FluxConfig, rope::Rope};
use crate::{
    linear::Linear,
    sd3::{
        layers::{attend, gelu_tanh, join_heads, normalized, rms_normalized, split_heads},
        source::Source,
    },
};

/// Added to a variance or a mean square before the square root.
pub(super) const EPSILON: f64 = 1e-6;

/// The tokens of both streams.
#[derive(Clone, Debug)]
pub(super) struct Tokens<B: Backend> {
    /// `[B, P, D]`
    pub image: Tensor<B, 3>,
    /// `[B, T, D]`
    pub text: Tensor<B, 3>,
}

/// A block in which image and text have separate weights and meet in the attention.
///
/// ```text
/// x ← x + gate·attention(norm(image), norm(text))        x ← x + gate·mlp(norm(x))        x: image, text
/// ```
#[derive(Module, Debug)]
pub(super) struct DoubleBlock<B: Backend> {
    image: Stream<B>,
    text: Stream<B>,
    #[module(skip)]
    heads: usize,
}

/// One stream's layers in a double block.
#[derive(Module, Debug)]
struct Stream<B: Backend> {
    modulation: Linear<B>,
    attention: Projections<B>,
    output: Linear<B>,
    mlp_in: Linear<B>,
    mlp_out: Linear<B>,
}

/// Names of a stream's layers: modulation, query, key, value, output, the norms of query and key,
/// MLP.
type Names = [&'static str; 9];
const IMAGE: Names = [
    "norm1.linear",
    "attn.to_q",
    "attn.to_k",
    "attn.to_v",
    "attn.to_out.0",
    "attn.norm_q",
    "attn.norm_k",
    "ff.net.0.proj",
    "ff.net.2",
];
const TEXT: Names = [
    "norm1_context.linear",
    "attn.add_q_proj",
    "attn.add_k_proj",
    "attn.add_v_proj",
    "attn.to_add_out",
    "attn.norm_added_q",
    "attn.norm_added_k",
    "ff_context.net.0.proj",
    "ff_context.net.2",
];

impl<B: Backend> Stream<B> {
    fn load(config: &FluxConfig, path: &str, names: Names, source: &mut Source<'_, B>) -> Self {
        let d = config.width();
        let at = |name: &str| format!("{path}.{name}");
        Self {
            modulation: source.linear(&at(names[0]), d, 6 * d),
            attention: Projections::load(
                config,
                path,
                [names[1], names[2], names[3], names[5], names[6]],
                source,
            ),
            output: source.linear(&at(names[4]), d, d),
            mlp_in: source.linear(&at(names[7]), d, 4 * d),
            mlp_out: source.linear(&at(names[8]), 4 * d, d),
        }
    }

    /// The tokens after the attention's output is added and the MLP has run.
    fn finish(
        &self,
        x: Tensor<B, 3>,
        mixed: Tensor<B, 3>,
        modulations: [Tensor<B, 3>; 4],
    ) -> Tensor<B, 3> {
        let [gate, mlp_shift, mlp_scale, mlp_gate] = modulations;
        let x = x + gate * self.output.forward(mixed);
        let hidden = modulated(normalized(x.clone(), EPSILON), mlp_shift, mlp_scale);
        x + mlp_gate * self.mlp_out.forward(gelu_tanh(self.mlp_in.forward(hidden)))
    }

    fn linears(&mut self, names: Names) -> Vec<(&'static str, &mut Linear<B>)> {
        let Projections { query, key, value, .. } = &mut self.attention;
        let layers = [
            &mut self.modulation,
            query,
            key,
            value,
            &mut self.output,
            &mut self.mlp_in,
            &mut self.mlp_out,
        ];
        let [modulation, to_q, to_k, to_v, output, _, _, mlp_in, mlp_out] = names;
        [modulation, to_q, to_k, to_v, output, mlp_in, mlp_out].into_iter().zip(layers).collect()
    }
}

impl<B: Backend> DoubleBlock<B> {
    pub fn load(config: &FluxConfig, index: usize, source: &mut Source<'_, B>) -> Self {
        let path = format!("transformer_blocks.{index}");
        Self {
            image: Stream::load(config, &path, IMAGE, source),
            text: Stream::load(config, &path, TEXT, source),
            heads: config.num_attention_heads,
        }
    }

    /// Runs the block; `conditioning` is `[B, D]`, after its activation.
    pub fn forward(
        &self,
        Tokens { image, text }: Tokens<B>,
        conditioning: Tensor<B, 2>,
        rope: &Rope<B>,
    ) -> Tokens<B> {
        let words = text.dims()[1];
        let patches = image.dims()[1];
        let [shift, scale, gate, mlp_shift, mlp_scale, mlp_gate] =
            modulation(&self.image.modulation, conditioning.clone());
        let of_image = modulated(normalized(image.clone(), EPSILON), shift, scale);
        let image_rest = [gate, mlp_shift, mlp_scale, mlp_gate];
        let [shift, scale, gate, mlp_shift, mlp_scale, mlp_gate] =
            modulation(&self.text.modulation, conditioning);
        let of_text = modulated(normalized(text.clone(), EPSILON), shift, scale);
        let text_rest = [gate, mlp_shift, mlp_scale, mlp_gate];

        let [image_q, image_k, image_v] = self.image.attention.split(of_image, self.heads);
        let [text_q, text_k, text_v] = self.text.attention.split(of_text, self.heads);
        let both = [(text_q, image_q), (text_k, image_k), (text_v, image_v)]
            .map(|(a, b)| Tensor::cat(vec![a, b], 2));
        let [query, key, value] = both;
        let mixed = join_heads(attend([rope.rotate(query), rope.rotate(key), value])); // [B, T + P, D]
        Tokens {
            image: self.image.finish(image, mixed.clone().narrow(1, words, patches), image_rest),
            text: self.text.finish(text, mixed.narrow(1, 0, words), text_rest),
        }
    }

    pub fn linears(&mut self) -> Vec<(&'static str, &mut Linear<B>)> {
        let mut all = self.image.linears(IMAGE);
        all.extend(self.text.linears(TEXT));
        all
    }
}

/// Query, key and value, with norms of query and key.
#[derive(Module, Debug)]
struct Projections<B: Backend> {
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    query_scale: Param<Tensor<B, 1>>,
    key_scale: Param<Tensor<B, 1>>,
}

impl<B: Backend> Projections<B> {
    fn load(config: &FluxConfig, path: &str, names: [&str; 5], source: &mut Source<'_, B>) -> Self {
        let d = config.width();
        let [query, key, value, query_scale, key_scale] =
            names.map(|name| format!("{path}.{name}"));
        Self {
            query: source.linear(&query, d, d),
            key: source.linear(&key, d, d),
            value: source.linear(&value, d, d),
            query_scale: source
                .tensor(&format!("{query_scale}.weight"), [config.attention_head_dim]),
            key_scale: source.tensor(&format!("{key_scale}.weight"), [config.attention_head_dim]),
        }
    }

    /// Query, key and value of every head, `[B, heads, L, w]`.
    fn split(&self, tokens: Tensor<B, 3>, heads: usize) -> [Tensor<B, 4>; 3] {
        let features = |layer: &Linear<B>| split_heads(layer.forward(tokens.clone()), heads);
        [
            rms_normalized(features(&self.query), self.query_scale.val(), EPSILON),
            rms_normalized(features(&self.key), self.key_scale.val(), EPSILON),
            features(&self.value),
        ]
    }
}

/// A block on text and image together, with attention and MLP side by side.
///
/// ```text
/// h ← h + gate·W·[attention(norm(h)), gelu(V·norm(h))]
/// ```
#[derive(Module, Debug)]
pub(super) struct SingleBlock<B: Backend> {
    modulation: Linear<B>,
    attention: Projections<B>,
    mlp: Linear<B>,
    output: Linear<B>,
    #[module(skip)]
    heads: usize,
}

impl<B: Backend> SingleBlock<B> {
    pub fn load(config: &FluxConfig, index: usize, source: &mut Source<'_, B>) -> Self {
        let (path, d) = (format!("single_transformer_blocks.{index}"), config.width());
        let names = ["attn.to_q", "attn.to_k", "attn.to_v", "attn.norm_q", "attn.norm_k"];
        Self {
            modulation: source.linear(&format!("{path}.norm.linear"), d, 3 * d),
            attention: Projections::load(config, &path, names, source),
            mlp: source.linear(&format!("{path}.proj_mlp"), d, 4 * d),
            output: source.linear(&format!("{path}.proj_out"), 5 * d, d),
            heads: config.num_attention_heads,
        }
    }

    /// Runs the block on `[text, image]`, `[B, T + P, D]`.
    pub fn forward(
        &self,
        tokens: Tensor<B, 3>,
        conditioning: Tensor<B, 2>,
        rope: &Rope<B>,
    ) -> Tensor<B, 3> {
        let [shift, scale, gate] = modulation(&self.modulation, conditioning);
        let normed = modulated(normalized(tokens.clone(), EPSILON), shift, scale);
        let [query, key, value] = self.attention.split(normed.clone(), self.heads);
        let mixed = join_heads(attend([rope.rotate(query), rope.rotate(key), value]));
        let hidden = gelu_tanh(self.mlp.forward(normed));
        tokens + gate * self.output.forward(Tensor::cat(vec![mixed, hidden], 2))
    }

    pub fn linears(&mut self) -> Vec<(&'static str, &mut Linear<B>)> {
        let Projections { query, key, value, .. } = &mut self.attention;
        vec![
            ("norm.linear", &mut self.modulation),
            ("attn.to_q", query),
            ("attn.to_k", key),
            ("attn.to_v", value),
            ("proj_mlp", &mut self.mlp),
            ("proj_out", &mut self.output),
        ]
    }
}

/// Two linear layers with SiLU between them.
#[derive(Module, Debug)]
pub(super) struct Embedder<B: Backend> {
    input: Linear<B>,
    output: Linear<B>,
}

impl<B: Backend> Embedder<B> {
    pub fn load(path: &str, inputs: usize, d: usize, source: &mut Source<'_, B>) -> Self {
        let input = source.linear(&format!("{path}.linear_1"), inputs, d);
        Self { input, output: source.linear(&format!("{path}.linear_2"), d, d) }
    }

    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.output.forward(activation::silu(self.input.forward(x)))
    }

    pub fn linears(&mut self, path: &str) -> [(String, &mut Linear<B>); 2] {
        [
            (format!("{path}.linear_1"), &mut self.input),
            (format!("{path}.linear_2"), &mut self.output),
        ]
    }
}

/// Applies scale and shift: `x·(1 + scale) + shift`.
pub(super) fn modulated<B: Backend>(
    x: Tensor<B, 3>,
    shift: Tensor<B, 3>,
    scale: Tensor<B, 3>,
) -> Tensor<B, 3> {
    x * (scale + 1.0) + shift
}

/// Computes the `N` modulations (shifts, scales, gates) of a layer, each `[B, 1, D]`.
pub(super) fn modulation<B: Backend, const N: usize>(
    layer: &Linear<B>,
    conditioning: Tensor<B, 2>,
) -> [Tensor<B, 3>; N] {
    let [rows, d] = conditioning.dims();
    let all = layer.forward(conditioning).reshape([rows, N, d]);
    std::array::from_fn(|i| all.clone().narrow(1, i, 1))
}
