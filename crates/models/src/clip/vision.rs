//! CLIP's image tower: a vision transformer with a projection (arXiv 2103.00020, section 2.4).

use burn::{
    module::{Module, Param},
    prelude::*,
    tensor::FloatDType,
};
use kernels::{Kernels, product::linear};

use super::VisionConfig;
use crate::{
    layers::LayerNorm,
    linear::Linear,
    storage::Source,
    text::clip::{Layer, LayerSizes},
};

/// An image tower with its projection.
#[derive(Module, Debug)]
pub struct ClipVision<B: Backend> {
    class: Param<Tensor<B, 1>>,
    patches: Param<Tensor<B, 4>>,
    positions: Param<Tensor<B, 2>>,
    first_norm: LayerNorm<B>,
    layers: Vec<Layer<B>>,
    final_norm: LayerNorm<B>,
    projection: Linear<B>,
    #[module(skip)]
    precision: FloatDType,
}

impl<B: Kernels> ClipVision<B> {
    /// Loads a network of these sizes from a source, under the names of transformers.
    pub fn load(config: &VisionConfig, source: &mut Source<'_, B>) -> Self {
        let (d, patch) = (config.hidden_size, config.patch_size);
        let at = |name: &str| format!("vision_model.{name}");
        let sizes = LayerSizes {
            width: d,
            inner: config.intermediate_size,
            heads: config.num_attention_heads,
            activation: config.hidden_act,
            epsilon: config.layer_norm_eps,
        };
        let layer = |index: usize, source: &mut Source<'_, B>| {
            Layer::load(&at(&format!("encoder.layers.{index}")), sizes, source)
        };
        Self {
            class: source.tensor(&at("embeddings.class_embedding"), [d]),
            patches: source.tensor(
                &at("embeddings.patch_embedding.weight"),
                [d, config.num_channels, patch, patch],
            ),
            positions: source
                .tensor(&at("embeddings.position_embedding.weight"), [config.patches() + 1, d]),
            // Spelt so in the published files.
            first_norm: source.layer_norm(&at("pre_layrnorm"), d, config.layer_norm_eps),
            layers: (0..config.num_hidden_layers).map(|index| layer(index, source)).collect(),
            final_norm: source.layer_norm(&at("post_layernorm"), d, config.layer_norm_eps),
            projection: source.linear_without_bias("visual_projection", d, config.projection_dim),
            precision: source.precision(),
        }
    }

    /// Embeds images: the class token after the last layer, normalised and projected.
    ///
    /// # Shapes
    /// `pixels`: `[B, 3, image_size, image_size]`, as [`super::Preprocess`] makes them; the result:
    /// `[B, projection_dim]`, of any length
    ///
    /// # Panics
    /// If the images have another size.
    pub fn embed(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        let [rows, ..] = pixels.dims();
        let patches = self.patch_embeddings(pixels.cast(self.precision)); // [B, L, D]
        let [_, _, d] = patches.dims();
        let class = self.class.val().reshape([1, 1, d]).repeat_dim(0, rows);
        let tokens = Tensor::cat(vec![class, patches], 1) + self.positions.val().unsqueeze_dim(0);
        let tokens = self
            .layers
            .iter()
            .fold(self.first_norm.forward(tokens), |tokens, layer| layer.forward(tokens, false));
        let class = tokens.narrow(1, 0, 1).squeeze_dim::<2>(1);
        self.projection.forward(self.final_norm.forward(class))
    }

    /// A convolution whose stride is the side of a patch: a linear layer over each patch's pixels.
    fn patch_embeddings(&self, pixels: Tensor<B, 4>) -> Tensor<B, 3> {
        let [rows, channels, height, width] = pixels.dims();
        let [d, _, patch, _] = self.patches.dims();
        let [down, across] = [height / patch, width / patch];
        let inputs = channels * patch * patch;
        let split = pixels.reshape([rows, channels, down, patch, across, patch]);
        let each = split.permute([0, 2, 4, 1, 3, 5]).reshape([rows, down * across, inputs]);
        linear(each, self.patches.val().reshape([d, inputs]).transpose(), None)
    }
}
