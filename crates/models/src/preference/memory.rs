//! Memory of a preference model: its weights, and the activations of a batch.

use burn::{
    module::{Module, ModuleVisitor, Param},
    prelude::*,
};

use super::BATCH;
use crate::{clip::VisionConfig, text::clip::ClipConfig};

/// Bytes of a number of an activation: towers compute in f32.
const NUMBER: usize = 4;

/// Bytes of the weights of a network, in the types in which it holds them.
pub(super) fn weights<B: Backend>(network: &impl Module<B>) -> u64 {
    let mut sum = Sum(0);
    network.visit(&mut sum);
    sum.0
}

struct Sum(u64);

impl<B: Backend> ModuleVisitor<B> for Sum {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let values = param.val();
        self.0 += (values.shape().num_elements() * values.dtype().size()) as u64;
    }
}

/// A transformer by its sizes.
struct Tower {
    tokens: usize,
    width: usize,
    inner: usize,
    heads: usize,
}

impl Tower {
    /// Approximate bytes that are alive at once while a batch passes a block: the residual, its
    /// normalised form, queries, keys, values and the output of attention; the attention weights
    /// before and after the softmax; the MLP's inner features before and after the activation.
    fn alive(&self) -> u64 {
        let Self { tokens, width, inner, heads } = *self;
        let per_row = tokens * (6 * width + 2 * inner) + 2 * heads * tokens * tokens;
        (BATCH * per_row * NUMBER) as u64
    }
}

/// Approximate bytes that are alive while a batch passes the image tower, with its pixels.
pub(super) fn of_images(config: &VisionConfig) -> u64 {
    let tower = Tower {
        tokens: config.patches() + 1,
        width: config.hidden_size,
        inner: config.intermediate_size,
        heads: config.num_attention_heads,
    };
    let pixels = BATCH * config.num_channels * config.image_size.pow(2) * NUMBER;
    tower.alive() + pixels as u64
}

/// Approximate bytes that are alive while a batch passes the text tower.
pub(super) fn of_texts(config: &ClipConfig) -> u64 {
    let tower = Tower {
        tokens: config.max_position_embeddings,
        width: config.hidden_size,
        inner: config.intermediate_size,
        heads: config.num_attention_heads,
    };
    tower.alive()
}
