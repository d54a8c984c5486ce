//! The sizes of the transformer.

use serde::{Deserialize, Serialize};

use super::transformer::TIME_HALF;
use crate::{
    directory::{Kept, TransformerSizes},
    sizes::{out_of_range, unequal, wrong_class},
};

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

    /// Elements of a latent's channel in a token: a patch of 2 × 2.
    const PATCH: usize = 4;
    /// Height and width of the published model's latents: 1024 pixels.
    const USUAL_SIDE: usize = 128;

    /// Number of values per row that a double block keeps, and number that a single block keeps, with
    /// the scores of each attention if `scores`.
    fn kept_of_blocks(&self, tokens: usize, scores: bool) -> [usize; 2] {
        let attention = if scores { self.num_attention_heads * tokens.pow(2) * 3 } else { 0 };
        // Both norms, q, k, v before and after their norms and rotations, the attention output, both
        // projections, two MLPs of four widths, the sums.
        let double = tokens * self.width() * 30 + attention;
        // One norm; the MLP has one layer of four widths, and its output joins the attention's.
        let single = tokens * self.width() * 28 + attention;
        [double, single]
    }
}

impl TransformerSizes for FluxConfig {
    fn problems(&self) -> Vec<String> {
        let sizes = [
            ("in_channels", self.in_channels),
            ("num_single_layers", self.num_single_layers),
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
        ];
        let mut problems = out_of_range(&sizes, ("num_layers", self.num_layers));
        if !problems.is_empty() {
            return problems; // The checks below multiply them.
        }
        problems.extend(wrong_class(&self.class_name, CLASS));
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
        problems.extend(unequal(
            ("the sum of axes_dims_rope", axes),
            ("attention_head_dim", self.attention_head_dim),
        ));
        problems
    }

    fn latent_channels(&self) -> usize {
        self.in_channels / Self::PATCH
    }

    fn patch_side(&self) -> usize {
        2
    }

    fn usual_side(&self) -> usize {
        Self::USUAL_SIDE
    }

    fn text_features(&self) -> usize {
        self.joint_attention_dim
    }

    fn pooled_features(&self) -> usize {
        self.pooled_projection_dim
    }

    fn image_tokens(&self, [_, height, width]: [usize; 3]) -> usize {
        height * width / Self::PATCH
    }

    fn problem_of(&self, [channels, height, width]: [usize; 3]) -> Option<String> {
        let takes = self.latent_channels();
        if channels != takes {
            return Some(format!(
                "latents have {channels} channels, the transformer takes {takes}"
            ));
        }
        let fits = |side: usize| side > 0 && side.is_multiple_of(2);
        (!(fits(height) && fits(width))).then(|| {
            format!("latents of {height} x {width} do not fit: both must be multiples of 2")
        })
    }

    fn flop_per_row(&self, latent: [usize; 3], text_tokens: usize) -> f64 {
        let (d, text) = (self.width() as f64, text_tokens as f64);
        let image = self.image_tokens(latent) as f64;
        let (channels, tokens) = (self.in_channels as f64, image + text);
        let times = if self.guidance_embeds { 2.0 } else { 1.0 };
        let embeddings = 2.0 * image * channels * d
            + 2.0 * text * self.joint_attention_dim as f64 * d
            + times * 2.0 * (2.0 * TIME_HALF as f64 * d + d * d)
            + 2.0 * (self.pooled_projection_dim as f64 * d + d * d);
        let attention = 4.0 * tokens * tokens * d;
        // Query, key, value and output: 4 matrices of d × d; the MLP: 8.
        let double = 2.0 * 12.0 * d * d + 2.0 * 12.0 * tokens * d * d + attention;
        // Query, key, value: 3; the MLP's input: 4; the output: 5.
        let single = 2.0 * 3.0 * d * d + 2.0 * 12.0 * tokens * d * d + attention;
        let output = 2.0 * 2.0 * d * d + 2.0 * image * channels * d;
        let blocks = self.num_layers as f64 * double + self.num_single_layers as f64 * single;
        embeddings + blocks + output
    }

    fn kept_per_row(&self, latent: [usize; 3], text_tokens: usize, kept: Kept) -> usize {
        let tokens = self.image_tokens(latent) + text_tokens;
        if kept.in_parts {
            let (inputs, gradients) = (tokens * self.width(), tokens * self.width() * 8);
            let inputs = (self.num_layers + self.num_single_layers) * inputs;
            return inputs + self.alive_per_row(latent, text_tokens, kept.scores) + gradients;
        }
        let [double, single] = self.kept_of_blocks(tokens, false);
        let scores = self.kept_of_blocks(tokens, kept.scores)[0] - double;
        self.num_layers * double + self.num_single_layers * single + scores
    }

    fn alive_per_row(&self, latent: [usize; 3], text_tokens: usize, scores: bool) -> usize {
        let [double, single] = self.kept_of_blocks(self.image_tokens(latent) + text_tokens, scores);
        double.max(single)
    }
}
