//! The sizes of the transformer.

use serde::{Deserialize, Serialize};

use crate::sd3::out_of_range;

const CLASS: &str = "FluxTransformer2DModel";

/// `transformer/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FluxConfig {
    /// `FluxTransformer2DModel`.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Channels of a token: four times the channels of a latent, since a token is a patch of 2 × 2.
    pub in_channels: usize,
    /// Double blocks, in which image and text have separate weights.
    pub num_layers: usize,
    /// Single blocks, in which they share weights.
    pub num_single_layers: usize,
    /// Features per head.
    pub attention_head_dim: usize,
    /// Attention heads; the width is heads times features per head.
    pub num_attention_heads: usize,
    /// Features of a text token.
    pub joint_attention_dim: usize,
    /// Features of the pooled text.
    pub pooled_projection_dim: usize,
    /// Whether the guidance scale is an input (FLUX.1-dev).
    #[serde(default)]
    pub guidance_embeds: bool,
    /// Features of a head that rotate with the index, the row and the column of a token.
    #[serde(default = "published_axes")]
    pub axes_dims_rope: [usize; 3],
}

fn published_axes() -> [usize; 3] {
    [16, 56, 56]
}

impl FluxConfig {
    /// The configuration of FLUX.1-dev.
    pub fn flux1_dev() -> Self {
        Self {
            class_name: CLASS.to_owned(),
            in_channels: 64,
            num_layers: 19,
            num_single_layers: 38,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 768,
            guidance_embeds: true,
            axes_dims_rope: published_axes(),
        }
    }

    /// Features of a token inside the network.
    pub fn width(&self) -> usize {
        self.attention_head_dim * self.num_attention_heads
    }

    /// Lists everything that is out of range or that this code does not support, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let sizes = [
            ("in_channels", self.in_channels),
            ("num_single_layers", self.num_single_layers),
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
        ];
        let mut problems = out_of_range(&sizes, ("num_layers", self.num_layers));
        if self.class_name != CLASS {
            problems.push(format!(
                "_class_name is {}, which is not the transformer of FLUX.1 ({CLASS})",
                self.class_name
            ));
        }
        if !self.in_channels.is_multiple_of(4) {
            problems.push(format!(
                "in_channels ({}) must be a multiple of 4: a token is a patch of 2 x 2",
                self.in_channels
            ));
        }
        if self.axes_dims_rope.iter().any(|axis| *axis == 0 || axis % 2 == 1) {
            problems.push(format!(
                "axes_dims_rope ({:?}) must be even: features rotate in pairs",
                self.axes_dims_rope
            ));
        }
        let axes = self.axes_dims_rope.iter().fold(0_usize, |sum, axis| sum.saturating_add(*axis));
        if axes != self.attention_head_dim {
            problems.push(format!(
                "axes_dims_rope has {axes} features, attention_head_dim {}",
                self.attention_head_dim
            ));
        }
        problems
    }
}
