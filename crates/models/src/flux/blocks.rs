//! The two kinds of block: double, with separate weights for image and text, and single, on both
//! together.

use burn::{module::Module, prelude::*, tensor::activation};
use kernels::Kernels;

use super::{FluxConfig, rope::Rope};
use crate::{
    layers::{attend, join_heads, modulations},
    linear::{Joined, Linear, Part, Product},
    storage::{Source, source::Unjoined},
    streams::{AttentionSizes, FeedForward, IMAGE, Names, Projections, TEXT, Tokens},
};

impl FluxConfig {
    fn attention(&self) -> AttentionSizes {
        AttentionSizes {
            heads: self.num_attention_heads,
            features: self.attention_head_dim,
            normalised: true,
        }
    }
}

/// A block in which image and text have separate weights and meet in the attention.
///
/// ```text
/// x ← x + gate·attention(norm(image), norm(text))        x ← x + gate·mlp(norm(x))        x: image, text
/// ```
#[derive(Module, Debug)]
pub(super) struct DoubleBlock<B: Backend> {
    modulation: Joined<B>,
    image: Stream<B>,
    text: Stream<B>,
}

/// One stream's layers in a double block.
#[derive(Module, Debug)]
struct Stream<B: Backend> {
    modulation: Part<B>,
    attention: Projections<B>,
    mlp: FeedForward<B>,
}

/// Names of a stream's layers.
#[derive(Clone, Copy)]
struct StreamNames {
    modulation: &'static str,
    attention: Names,
    mlp: &'static str,
}

const OF_IMAGE: StreamNames =
    StreamNames { modulation: "norm1.linear", attention: IMAGE, mlp: "ff" };
const OF_TEXT: StreamNames =
    StreamNames { modulation: "norm1_context.linear", attention: TEXT, mlp: "ff_context" };

impl<B: Kernels> Stream<B> {
    /// Loads the layers; the modulation's columns begin at `from`.
    fn load(
        config: &FluxConfig,
        path: &str,
        names: StreamNames,
        from: usize,
        source: &mut Source<'_, B>,
    ) -> (Self, Unjoined<B>) {
        let (d, at) = (config.width(), |name: &str| format!("{path}.{name}"));
        let modulation = source.unjoined(&at(names.modulation), d, 6 * d);
        let stream = Self {
            modulation: modulation.part(from),
            attention: Projections::load(
                config.attention(),
                &at("attn"),
                names.attention,
                true,
                source,
            ),
            mlp: FeedForward::load(&at(names.mlp), d, source),
        };
        (stream, modulation)
    }
}

impl<B: Kernels> DoubleBlock<B> {
    pub fn load(config: &FluxConfig, index: usize, source: &mut Source<'_, B>) -> Self {
        let path = format!("transformer_blocks.{index}");
        let (image, of_image) = Stream::load(config, &path, OF_IMAGE, 0, source);
        let (text, of_text) = Stream::load(config, &path, OF_TEXT, 6 * config.width(), source);
        Self { modulation: source.join([of_image, of_text]), image, text }
    }

    pub fn products(&mut self, path: &str) -> Vec<(String, Product<'_, B>)> {
        let at = |name: &str| format!("{path}.{name}");
        let (mut parts, mut others) = (Vec::new(), Vec::new());
        for (stream, names) in [(&mut self.image, OF_IMAGE), (&mut self.text, OF_TEXT)] {
            parts.push((names.modulation, &mut stream.modulation));
            others.extend(stream.attention.products(&at("attn"), names.attention));
            others.extend(stream.mlp.products(&at(names.mlp)));
        }
        let modulation = Product::Joined { joined: &mut self.modulation, parts };
        [(path.to_owned(), modulation)].into_iter().chain(others).collect()
    }
}

impl<B: Kernels> DoubleBlock<B> {
    /// Runs the block; `conditioning` is `[B, D]`, after its activation.
    pub fn forward(
        &self,
        Tokens { image, text }: Tokens<B>,
        conditioning: Tensor<B, 2>,
        rope: &Rope<B>,
    ) -> Tokens<B> {
        let words = text.dims()[1];
        let patches = image.dims()[1];
        let parts = [&self.image.modulation, &self.text.modulation];
        let modulation = self.modulation.forward(conditioning, &parts);
        let [shift, scale, gate, mlp_shift, mlp_scale, mlp_gate, of_text @ ..] =
            modulations::<B, 12>(modulation);
        let image_norm = [image.clone(), shift, scale];
        let image_rest = [gate, mlp_shift, mlp_scale, mlp_gate];
        let [shift, scale, text_rest @ ..] = of_text;
        let [of_text, of_image] =
            B::modulated_layer_norms([[text.clone(), shift, scale], image_norm]);

        let layers = [&self.text.attention, &self.image.attention];
        let [query, key, value] = Projections::joint(layers, [of_text, of_image]);
        let mixed = join_heads(attend([rope.rotate(query), rope.rotate(key), value])); // [B, T + P, D]
        let [of_text, of_image] = B::split(mixed, 1, [words, patches]);

        let [gate, shift, scale, mlp_gate] = image_rest;
        let image = B::add_gated(image, self.image.attention.output(of_image), gate);
        let image_norm = [image.clone(), shift, scale];
        let [gate, shift, scale, text_mlp_gate] = text_rest;
        let text = B::add_gated(text, self.text.attention.output(of_text), gate);
        let text_norm = [text.clone(), shift, scale];
        let [hidden, text_hidden] = B::modulated_layer_norms([image_norm, text_norm]);
        Tokens {
            image: B::add_gated(image, self.image.mlp.forward(hidden), mlp_gate),
            text: B::add_gated(text, self.text.mlp.forward(text_hidden), text_mlp_gate),
        }
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
}

impl<B: Kernels> SingleBlock<B> {
    pub fn load(config: &FluxConfig, index: usize, source: &mut Source<'_, B>) -> Self {
        let (path, d) = (format!("single_transformer_blocks.{index}"), config.width());
        let at = |name: &str| format!("{path}.{name}");
        Self {
            modulation: source.linear(&at("norm.linear"), d, 3 * d),
            attention: Projections::load(config.attention(), &at("attn"), IMAGE, false, source),
            mlp: source.linear(&at("proj_mlp"), d, 4 * d),
            output: source.linear(&at("proj_out"), 5 * d, d),
        }
    }

    pub fn products(&mut self, path: &str) -> Vec<(String, Product<'_, B>)> {
        let at = |name: &str| format!("{path}.{name}");
        let mut all = vec![(at("norm.linear"), Product::Single(&mut self.modulation))];
        all.extend(self.attention.products(&at("attn"), IMAGE));
        all.push((at("proj_mlp"), Product::Single(&mut self.mlp)));
        all.push((at("proj_out"), Product::Single(&mut self.output)));
        all
    }
}

impl<B: Kernels> SingleBlock<B> {
    /// Runs the block on `[text, image]`, `[B, T + P, D]`.
    pub fn forward(
        &self,
        tokens: Tensor<B, 3>,
        conditioning: Tensor<B, 2>,
        rope: &Rope<B>,
    ) -> Tensor<B, 3> {
        let [shift, scale, gate] = modulations(self.modulation.forward(conditioning));
        let normed = B::modulated_layer_norm(tokens.clone(), shift, scale);
        let [query, key, value] = self.attention.split(normed.clone());
        let mixed = join_heads(attend([rope.rotate(query), rope.rotate(key), value]));
        let hidden = B::gelu_tanh(self.mlp.forward(normed));
        let branch = self.output.forward(Tensor::cat(vec![mixed, hidden], 2));
        B::add_gated(tokens, branch, gate)
    }
}

/// Two linear layers with SiLU between them.
#[derive(Module, Debug)]
pub(super) struct Embedder<B: Backend> {
    input: Linear<B>,
    output: Linear<B>,
}

impl<B: Kernels> Embedder<B> {
    pub fn load(path: &str, inputs: usize, d: usize, source: &mut Source<'_, B>) -> Self {
        let input = source.linear(&format!("{path}.linear_1"), inputs, d);
        Self { input, output: source.linear(&format!("{path}.linear_2"), d, d) }
    }

    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.output.forward(activation::silu(self.input.forward(x)))
    }

    pub fn products(&mut self, path: &str) -> [(String, Product<'_, B>); 2] {
        [
            (format!("{path}.linear_1"), Product::Single(&mut self.input)),
            (format!("{path}.linear_2"), Product::Single(&mut self.output)),
        ]
    }
}
