//! Layers of transformers with two streams, image and text, that meet in the attention: the names
//! are those of diffusers.

use burn::{
    module::{Module, Param},
    prelude::*,
};
use kernels::Kernels;

use crate::{
    layers::{attend, gelu_tanh, join_heads, rms_normalized, split_heads},
    linear::Linear,
    storage::Source,
};

/// Added to a variance or a mean square before the square root.
pub(crate) const EPSILON: f64 = 1e-6;

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

/// One stream's layers around an attention.
#[derive(Module, Debug)]
pub(crate) struct Projections<B: Backend> {
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    pub output: Option<Linear<B>>,
    query_scale: Option<Param<Tensor<B, 1>>>,
    key_scale: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    heads: usize,
}

impl<B: Backend> Projections<B> {
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
        Self {
            query: source.linear(&at(0), d, d),
            key: source.linear(&at(1), d, d),
            value: source.linear(&at(2), d, d),
            output: has_output.then(|| source.linear(&at(3), d, d)),
            query_scale: scale(4, source),
            key_scale: scale(5, source),
            heads,
        }
    }

    /// Query, key and value of every head, `[B, heads, L, w]`.
    pub fn split(&self, tokens: Tensor<B, 3>) -> [Tensor<B, 4>; 3] {
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

    /// Applies the output layer, if there is one.
    pub fn output(&self, mixed: Tensor<B, 3>) -> Tensor<B, 3> {
        match &self.output {
            Some(output) => output.forward(mixed),
            None => mixed,
        }
    }

    pub fn linears(&mut self, path: &str, names: Names) -> Vec<(String, &mut Linear<B>)> {
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

impl<B: Kernels> Projections<B> {
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

impl<B: Backend> FeedForward<B> {
    pub fn load(path: &str, d: usize, source: &mut Source<'_, B>) -> Self {
        let input = source.linear(&format!("{path}.net.0.proj"), d, 4 * d);
        Self { input, output: source.linear(&format!("{path}.net.2"), 4 * d, d) }
    }

    pub fn forward(&self, tokens: Tensor<B, 3>) -> Tensor<B, 3> {
        self.output.forward(gelu_tanh(self.input.forward(tokens)))
    }

    pub fn linears(&mut self, path: &str) -> [(String, &mut Linear<B>); 2] {
        [
            (format!("{path}.net.0.proj"), &mut self.input),
            (format!("{path}.net.2"), &mut self.output),
        ]
    }
}
