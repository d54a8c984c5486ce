//! The sizes of the transformer, and the work and memory that follow from them.

use serde::{Deserialize, Serialize};

use super::TIME_HALF;
use crate::{
    directory::{Kept, TransformerSizes},
    sizes::{out_of_range, unequal, wrong_class},
};

const CLASS: &str = "SD3Transformer2DModel";
const RMS_NORM: &str = "rms_norm";

/// `transformer/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TransformerConfig {
    /// `SD3Transformer2DModel`.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Height and width of the latents in the last stage of training; for information only.
    pub sample_size: usize,
    /// Height and width of a patch of the latent; one patch is one token.
    pub patch_size: usize,
    /// Channels of a latent.
    pub in_channels: usize,
    /// Channels of a velocity, equal to `in_channels`.
    pub out_channels: usize,
    /// Transformer blocks.
    pub num_layers: usize,
    /// Features per head.
    pub attention_head_dim: usize,
    /// Attention heads; the width is heads times features per head.
    pub num_attention_heads: usize,
    /// Features of a text token.
    pub joint_attention_dim: usize,
    /// Features of a text token inside the network, equal to the width.
    pub caption_projection_dim: usize,
    /// Features of the pooled text.
    pub pooled_projection_dim: usize,
    /// Side of the square of position embeddings, in patches; bounds the image size.
    pub pos_embed_max_size: usize,
    /// Blocks with a second attention, over the image alone (SD3.5-Medium: the first 13).
    #[serde(default)]
    pub dual_attention_layers: Vec<usize>,
    /// `rms_norm` if queries and keys are normalised (SD3.5), `None` if they are not (SD3).
    #[serde(default)]
    pub qk_norm: Option<String>,
}

impl TransformerConfig {
    /// The configuration of Stable Diffusion 3.5 Medium.
    pub fn sd35_medium() -> Self {
        Self {
            class_name: CLASS.to_owned(),
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            out_channels: 16,
            num_layers: 24,
            attention_head_dim: 64,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            caption_projection_dim: 1536,
            pooled_projection_dim: 2048,
            pos_embed_max_size: 384,
            dual_attention_layers: (0..13).collect(),
            qk_norm: Some(RMS_NORM.to_owned()),
        }
    }

    /// Features of a token.
    pub fn width(&self) -> usize {
        self.attention_head_dim * self.num_attention_heads
    }

    /// Number of values per row that a block keeps, and number that its second attention keeps, with
    /// the scores of each attention if `scores`.
    fn kept_of_block(&self, image: usize, text: usize, scores: bool) -> [usize; 2] {
        let of_scores = |tokens: usize| {
            if scores { self.num_attention_heads * tokens.pow(2) * 3 } else { 0 }
        };
        // Both norms, q, k, v before and after their norms, the attention output, both projections,
        // two MLPs of four widths, the sums.
        let block = (image + text) * self.width() * 26 + of_scores(image + text);
        [block, image * self.width() * 10 + of_scores(image)]
    }
}

impl TransformerSizes for TransformerConfig {
    fn problems(&self) -> Vec<String> {
        let sizes = [
            ("sample_size", self.sample_size),
            ("patch_size", self.patch_size),
            ("in_channels", self.in_channels),
            ("attention_head_dim", self.attention_head_dim),
            ("num_attention_heads", self.num_attention_heads),
            ("joint_attention_dim", self.joint_attention_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
            ("pos_embed_max_size", self.pos_embed_max_size),
        ];
        let mut problems = out_of_range(&sizes, ("num_layers", self.num_layers));
        if !problems.is_empty() {
            return problems; // The checks below multiply them.
        }
        problems.extend(wrong_class(&self.class_name, CLASS));
        problems.extend(unequal(
            ("out_channels", self.out_channels),
            ("in_channels", self.in_channels),
        ));
        problems.extend(unequal(
            ("caption_projection_dim", self.caption_projection_dim),
            ("num_attention_heads x attention_head_dim", self.width()),
        ));
        if let Some(norm) = self.qk_norm.as_deref().filter(|norm| *norm != RMS_NORM) {
            problems.push(format!("qk_norm is {norm}; only {RMS_NORM} and none are known"));
        }
        problems
    }

    fn latent_channels(&self) -> usize {
        self.in_channels
    }

    fn patch_side(&self) -> usize {
        self.patch_size
    }

    fn usual_side(&self) -> usize {
        self.sample_size
    }

    fn text_features(&self) -> usize {
        self.joint_attention_dim
    }

    fn pooled_features(&self) -> usize {
        self.pooled_projection_dim
    }

    fn image_tokens(&self, [_, height, width]: [usize; 3]) -> usize {
        height * width / (self.patch_size * self.patch_size)
    }

    fn problem_of(&self, [channels, height, width]: [usize; 3]) -> Option<String> {
        let Self { patch_size, in_channels, pos_embed_max_size, .. } = *self;
        let largest = patch_size * pos_embed_max_size;
        if channels != in_channels {
            return Some(format!(
                "latents have {channels} channels, the transformer takes {in_channels}"
            ));
        }
        let fits = |side: usize| side > 0 && side.is_multiple_of(patch_size) && side <= largest;
        (!(fits(height) && fits(width))).then(|| {
            format!("latents of {height} x {width} do not fit: both must be multiples of {patch_size}, at most {largest}")
        })
    }

    fn flop_per_row(&self, [channels, height, width]: [usize; 3], text_tokens: usize) -> f64 {
        let (patch, d, text) = (self.patch_size as f64, self.width() as f64, text_tokens as f64);
        let [channels, height, width] = [channels, height, width].map(|size| size as f64);
        let image = height * width / (patch * patch);
        let patches = 2.0 * image * patch * patch * channels * d;
        let embeddings = patches
            + 2.0 * text * self.joint_attention_dim as f64 * d
            + 2.0 * (2.0 * TIME_HALF as f64 * d + d * d)
            + 2.0 * (self.pooled_projection_dim as f64 * d + d * d);
        let block = |index: usize| {
            let last = index + 1 == self.num_layers;
            let modulations = 2.0 * 12.0 * d * d;
            let attention = 2.0 * 3.0 * (image + text) * d * d
                + 4.0 * (image + text).powi(2) * d
                + 2.0 * image * d * d;
            let of_text = if last { -2.0 * 4.0 * d * d } else { 2.0 * 9.0 * text * d * d };
            let second = if self.dual_attention_layers.contains(&index) {
                2.0 * 3.0 * d * d + 2.0 * 4.0 * image * d * d + 4.0 * image * image * d
            } else {
                0.0
            };
            modulations + attention + 2.0 * 8.0 * image * d * d + of_text + second
        };
        embeddings + (0..self.num_layers).map(block).sum::<f64>() + 2.0 * 2.0 * d * d + patches
    }

    fn kept_per_row(&self, latent: [usize; 3], text_tokens: usize, kept: Kept) -> usize {
        let image = self.image_tokens(latent);
        let tokens = (image + text_tokens) * self.width();
        if kept.in_parts {
            let (inputs, gradients) = (self.num_layers * tokens, tokens * 8);
            return inputs + self.alive_per_row(latent, text_tokens, kept.scores) + gradients;
        }
        let [block, second] = self.kept_of_block(image, text_tokens, false);
        let scores = self.kept_of_block(image, text_tokens, kept.scores)[0] - block;
        self.num_layers * block + self.dual_attention_layers.len() * second + scores
    }

    fn alive_per_row(&self, latent: [usize; 3], text_tokens: usize, scores: bool) -> usize {
        let image = self.image_tokens(latent);
        let [block, second] = self.kept_of_block(image, text_tokens, scores);
        if self.dual_attention_layers.is_empty() { block } else { block + second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn computing_blocks_again_keeps_an_eleventh() {
        // The numbers of the chapter about SD3's inside.
        let millions = |in_parts, scores| {
            let kept = Kept { in_parts, scores };
            TransformerConfig::sd35_medium().kept_per_row([16, 64, 64], 205, kept) / 1_000_000
        };
        assert_eq!([millions(true, true), millions(false, true)], [309, 1491]);
        assert_eq!([millions(true, false), millions(false, false)], [125, 1382]);
    }

    #[test]
    fn the_work_of_a_row_is_what_pytorch_counts() {
        // torch.utils.flop_counter on diffusers' SD3Transformer2DModel, 512 x 512 pixels, 205
        // tokens of text.
        assert_eq!(
            TransformerConfig::sd35_medium().flop_per_row([16, 64, 64], 205),
            2_223_712_518_144.0
        );
    }
}
