//! Layers of transformers with two streams, image and text, that meet in the attention: the names
//! are those of diffusers.

use burn::{
    module::{Module, Param},
    prelude::*,
};
use kernels::{Kernels, heads::Stream};

use crate::{
    layers::{attend, join_heads},
    linear::{Joined, Linear, Part, Product},
    storage::Source,
};

/// The tokens of both streams.
#[derive(Clone, Debug)]
pub(crate) struct Tokens<B: Backend> {
    /// `[B, P, D]`
    pub image: Tensor<B, 3>,
    /// `[B, T, D]`
    pub text: Tensor<B, 3>,
}

/// Names of a stream's attention layers: query, key, value, output, and the norms of query and key.
pub(crate) type Names = [&'static str; 6];
pub(crate) const IMAGE: Names = ["to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k"];
pub(crate) const TEXT: Names =
    ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "norm_added_q", "norm_added_k"];

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttentionSizes {
    /// Heads.
    pub heads: usize,
    /// Features per head.
    pub features: usize,
    /// Whether queries and keys are normalised.
    pub normalised: bool,
}

/// The learned scale of normalised queries or keys, `[w]`.
type Scale<B> = Option<Param<Tensor<B, 1>>>;

/// One stream's layers around an attention.
#[derive(Module, Debug)]
pub(crate) struct Projections<B: Backend> {
    joined: Joined<B>,
    query: Part<B>,
    key: Part<B>,
    value: Part<B>,
    pub output: Option<Linear<B>>,
    query_scale: Scale<B>,
    key_scale: Scale<B>,
    #[module(skip)]
    heads: usize,
}

impl<B: Kernels> Projections<B> {
    pub fn load(
        AttentionSizes { heads, features, normalised }: AttentionSizes,
        path: &str,
        names: Names,
        has_output: bool,
        source: &mut Source<'_, B>,
    ) -> Self {
        let d = heads * features;
        let at = |index: usize| format!("{path}.{}", names[index]);
        let scale = |index: usize, source: &mut Source<'_, B>| {
            normalised.then(|| source.tensor(&format!("{}.weight", at(index)), [features]))
        };
        let (joined, [query, key, value]) = source.joined([0, 1, 2].map(|i| (at(i), d)), d);
        Self {
            joined,
            query,
            key,
            value,
            output: has_output.then(|| source.linear(&at(3), d, d)),
            query_scale: scale(4, source),
            key_scale: scale(5, source),
            heads,
        }
    }

    /// The stream before its attention.
    fn project(&self, tokens: Tensor<B, 3>) -> Stream<B> {
        let projected = self.joined.forward(tokens, &[&self.query, &self.key, &self.value]);
        let scales = self.query_scale.as_ref().zip(self.key_scale.as_ref());
        Stream { projected, scales: scales.map(|(query, key)| [query.val(), key.val()]) }
    }

    /// Applies the output layer, if there is one.
    pub fn output(&self, mixed: Tensor<B, 3>) -> Tensor<B, 3> {
        match &self.output {
            Some(output) => output.forward(mixed),
            None => mixed,
        }
    }

    pub fn products(&mut self, path: &str, names: Names) -> Vec<(String, Product<'_, B>)> {
        let parts = names.into_iter().zip([&mut self.query, &mut self.key, &mut self.value]);
        let joined = Product::Joined { joined: &mut self.joined, parts: parts.collect() };
        let output = self.output.as_mut().map(Product::Single);
        let output = output.map(|output| (format!("{path}.{}", names[3]), output));
        [(path.to_owned(), joined)].into_iter().chain(output).collect()
    }
}

impl<B: Kernels> Projections<B> {
    /// Query, key and value of every head, `[B, heads, L, w]`.
    pub fn split(&self, tokens: Tensor<B, 3>) -> [Tensor<B, 4>; 3] {
        B::heads([self.project(tokens)], self.heads)
    }

    /// Query, key and value of two streams, the tokens of the second after those of the first,
    /// `[B, heads, L₁ + L₂, w]`.
    pub fn joint([a, b]: [&Self; 2], [of_a, of_b]: [Tensor<B, 3>; 2]) -> [Tensor<B, 4>; 3] {
        B::heads([a.project(of_a), b.project(of_b)], a.heads)
    }

    /// Joint attention of two streams, before their output layers.
    pub fn attended(layers: [&Self; 2], tokens: [Tensor<B, 3>; 2]) -> [Tensor<B, 3>; 2] {
        let lengths = tokens.each_ref().map(|tokens| tokens.dims()[1]);
        B::split(join_heads(attend(Self::joint(layers, tokens))), 1, lengths)
    }

    /// Self-attention of the stream.
    pub fn attention(&self, tokens: Tensor<B, 3>) -> Tensor<B, 3> {
        self.output(join_heads(attend(self.split(tokens))))
    }
}

/// The MLP of a stream: the tanh form of GELU, and a hidden layer of four times the width.
#[derive(Module, Debug)]
pub(crate) struct FeedForward<B: Backend> {
    input: Linear<B>,
    output: Linear<B>,
}

impl<B: Kernels> FeedForward<B> {
    pub fn load(path: &str, d: usize, source: &mut Source<'_, B>) -> Self {
        let input = source.linear(&format!("{path}.net.0.proj"), d, 4 * d);
        Self { input, output: source.linear(&format!("{path}.net.2"), 4 * d, d) }
    }

    pub fn forward(&self, tokens: Tensor<B, 3>) -> Tensor<B, 3> {
        self.output.forward(B::gelu_tanh(self.input.forward(tokens)))
    }

    pub fn products(&mut self, path: &str) -> [(String, Product<'_, B>); 2] {
        [
            (format!("{path}.net.0.proj"), Product::Single(&mut self.input)),
            (format!("{path}.net.2"), Product::Single(&mut self.output)),
        ]
    }
}
