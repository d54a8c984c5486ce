//! The autoencoder between images and latents (arXiv 2112.10752; diffusers' `AutoencoderKL`).

use burn::{
    module::Module,
    prelude::*,
    tensor::{
        FloatDType,
        module::interpolate,
        ops::{InterpolateMode, InterpolateOptions},
    },
};
use kernels::{Kernels, product::attention};
use serde::{Deserialize, Serialize};

use crate::{
    layers::{Conv, GroupNorm},
    linear::Linear,
    sizes::{out_of_range, wrong_class},
    storage::{
        Source, TensorFiles,
        layout::{Rule, keep, linear, renamed},
    },
};

/// `vae/config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VaeConfig {
    /// `AutoencoderKL`.
    #[serde(rename = "_class_name")]
    pub class_name: String,
    /// Colour channels of an image.
    pub in_channels: usize,
    /// Colour channels of a decoded image, equal to `in_channels`.
    pub out_channels: usize,
    /// Channels of a latent.
    pub latent_channels: usize,
    /// Channels of every resolution, from the image's down; each resolution is half the one before.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks per resolution in the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Groups of the group normalisations.
    pub norm_num_groups: usize,
    /// Factor that scales latents for the transformer.
    pub scaling_factor: f64,
    /// Offset subtracted from latents before scaling.
    #[serde(default)]
    pub shift_factor: Option<f64>,
    /// Whether there is a convolution between encoder and latent; SD3 and FLUX.1 have none.
    #[serde(default = "yes")]
    pub use_quant_conv: bool,
    /// Whether there is a convolution between latent and decoder; SD3 and FLUX.1 have none.
    #[serde(default = "yes")]
    pub use_post_quant_conv: bool,
    /// Whether the lowest resolution has an attention.
    #[serde(default = "yes")]
    pub mid_block_add_attention: bool,
}

fn yes() -> bool {
    true
}

const CLASS: &str = "AutoencoderKL";

impl VaeConfig {
    /// The configuration of SD3 and SD3.5.
    pub fn sd3() -> Self {
        Self {
            class_name: CLASS.to_owned(),
            in_channels: 3,
            out_channels: 3,
            latent_channels: 16,
            block_out_channels: vec![128, 256, 512, 512],
            layers_per_block: 2,
            norm_num_groups: 32,
            scaling_factor: 1.5305,
            shift_factor: Some(0.0609),
            use_quant_conv: false,
            use_post_quant_conv: false,
            mid_block_add_attention: true,
        }
    }

    /// Pixels per latent element along each side.
    pub fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }

    /// Lists everything that is out of range or that this code does not support, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let sizes: Vec<(&str, usize)> = [("latent_channels", self.latent_channels)]
            .into_iter()
            .chain(self.block_out_channels.iter().map(|&channels| ("block_out_channels", channels)))
            .collect();
        let mut problems = out_of_range(&sizes, ("layers_per_block", self.layers_per_block));
        problems.extend(wrong_class(&self.class_name, CLASS));
        if self.use_quant_conv || self.use_post_quant_conv {
            problems.push("use_quant_conv and use_post_quant_conv must be false: this is not the autoencoder of SD3 or FLUX.1".to_owned());
        }
        if !self.mid_block_add_attention {
            problems.push("mid_block_add_attention must be true".to_owned());
        }
        if self.in_channels != 3 || self.out_channels != 3 {
            problems.push("in_channels and out_channels must be 3: images are RGB".to_owned());
        }
        if !(1..=8).contains(&self.block_out_channels.len()) {
            problems.push("block_out_channels must name 1 to 8 resolutions".to_owned());
        }
        let groups = self.norm_num_groups;
        if groups == 0
            || self.block_out_channels.iter().any(|channels| !channels.is_multiple_of(groups))
        {
            problems.push(format!(
                "block_out_channels must be multiples of norm_num_groups ({groups})"
            ));
        }
        if !(self.scaling_factor > 0.0 && self.scaling_factor.is_finite()) {
            problems.push(format!(
                "scaling_factor ({}) must be a positive number",
                self.scaling_factor
            ));
        }
        problems
    }
}

/// The autoencoder of SD3 and FLUX.1.
#[derive(Module, Debug)]
pub struct Vae<B: Backend> {
    encoder: Encoder<B>,
    decoder: Decoder<B>,
    #[module(skip)]
    config: VaeConfig,
    #[module(skip)]
    precision: FloatDType,
}

/// The Gaussian over latents that the encoder predicts for an image.
///
/// # Shapes
/// - both: `[B, C, H/s, W/s]`, `s` being [`VaeConfig::scale`]
#[derive(Clone, Debug)]
pub struct Posterior<B: Backend> {
    /// Mean of the Gaussian, not scaled for the transformer.
    pub mean: Tensor<B, 4>,
    /// Logarithm of the variance, clamped to `[−30, 20]`.
    pub log_variance: Tensor<B, 4>,
}

impl<B: Kernels> Vae<B> {
    /// Loads a network of these sizes from a source.
    pub fn load(config: &VaeConfig, source: &mut Source<'_, B>) -> Self {
        let (encoder, decoder) = (Encoder::load(config, source), Decoder::load(config, source));
        Self { encoder, decoder, config: config.clone(), precision: source.precision() }
    }

    /// The sizes of the network.
    pub fn config(&self) -> &VaeConfig {
        &self.config
    }

    /// Decodes the latents of the transformer to images.
    ///
    /// ```text
    /// decoder(latent / scaling + shift)
    /// ```
    ///
    /// # Shapes
    /// - `latents`: `[B, C, h, w]`; the result: `[B, 3, s·h, s·w]`, about `[−1, 1]`
    pub fn decode(&self, latents: Tensor<B, 4>) -> Tensor<B, 4> {
        let latents =
            latents / self.config.scaling_factor + self.config.shift_factor.unwrap_or(0.0);
        self.decoder.forward(latents.cast(self.precision)).cast(FloatDType::F32)
    }

    /// Encodes images as Gaussians over latents.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, H, W]` in `[−1, 1]`, sides multiples of [`VaeConfig::scale`]
    pub fn encode(&self, images: Tensor<B, 4>) -> Posterior<B> {
        let moments = self.encoder.forward(images.cast(self.precision)).cast(FloatDType::F32);
        let channels = self.config.latent_channels;
        let log_variance = moments.clone().narrow(1, channels, channels).clamp(-30.0, 20.0);
        Posterior { mean: moments.narrow(1, 0, channels), log_variance }
    }

    /// Encodes images as latents for the transformer: `(mean − shift)·scaling`, `[B, C, h, w]`.
    pub fn latents(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        (self.encode(images).mean - self.config.shift_factor.unwrap_or(0.0))
            * self.config.scaling_factor
    }
}

#[derive(Module, Debug)]
struct Encoder<B: Backend> {
    conv_in: Conv<B>,
    levels: Vec<Level<B>>,
    middle: Middle<B>,
    norm_out: GroupNorm<B>,
    conv_out: Conv<B>,
}

impl<B: Kernels> Encoder<B> {
    fn load(config: &VaeConfig, source: &mut Source<'_, B>) -> Self {
        let channels = &config.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let level = |(index, &outputs): (usize, &usize), source: &mut Source<'_, B>| {
            let inputs = channels[index.saturating_sub(1)];
            let resize = (index + 1 < channels.len()).then_some("downsamplers");
            let path = format!("encoder.down_blocks.{index}");
            Level::load(config, &path, [inputs, outputs], config.layers_per_block, resize, source)
        };
        Self {
            conv_in: source.conv("encoder.conv_in", [config.in_channels, first], 3),
            levels: channels.iter().enumerate().map(|of_level| level(of_level, source)).collect(),
            middle: Middle::load(config, "encoder.mid_block", last, source),
            norm_out: source.group_norm("encoder.conv_norm_out", last, config.norm_num_groups),
            conv_out: source.conv("encoder.conv_out", [last, 2 * config.latent_channels], 3),
        }
    }

    fn forward(&self, images: Tensor<B, 4>) -> Tensor<B, 4> {
        let x =
            self.levels.iter().fold(self.conv_in.forward(images), |x, level| match &level.resize {
                Some(conv) => conv.halved(level.forward(x)),
                None => level.forward(x),
            });
        self.conv_out.forward(self.norm_out.silu(self.middle.forward(x)))
    }
}

#[derive(Module, Debug)]
struct Decoder<B: Backend> {
    conv_in: Conv<B>,
    middle: Middle<B>,
    levels: Vec<Level<B>>,
    norm_out: GroupNorm<B>,
    conv_out: Conv<B>,
}

impl<B: Kernels> Decoder<B> {
    fn load(config: &VaeConfig, source: &mut Source<'_, B>) -> Self {
        let channels: Vec<usize> = config.block_out_channels.iter().rev().copied().collect();
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let level = |(index, &outputs): (usize, &usize), source: &mut Source<'_, B>| {
            let inputs = channels[index.saturating_sub(1)];
            let resize = (index + 1 < channels.len()).then_some("upsamplers");
            let path = format!("decoder.up_blocks.{index}");
            Level::load(
                config,
                &path,
                [inputs, outputs],
                config.layers_per_block + 1,
                resize,
                source,
            )
        };
        Self {
            conv_in: source.conv("decoder.conv_in", [config.latent_channels, first], 3),
            middle: Middle::load(config, "decoder.mid_block", first, source),
            levels: channels.iter().enumerate().map(|of_level| level(of_level, source)).collect(),
            norm_out: source.group_norm("decoder.conv_norm_out", last, config.norm_num_groups),
            conv_out: source.conv("decoder.conv_out", [last, config.out_channels], 3),
        }
    }

    fn forward(&self, latents: Tensor<B, 4>) -> Tensor<B, 4> {
        let x = self.middle.forward(self.conv_in.forward(latents));
        let x = self.levels.iter().fold(x, |x, level| match &level.resize {
            Some(conv) => conv.forward(doubled(level.forward(x))),
            None => level.forward(x),
        });
        self.conv_out.forward(self.norm_out.silu(x))
    }
}

/// Doubles both sides by repeating pixels, `[B, C, H, W]` to `[B, C, 2H, 2W]`.
fn doubled<B: Backend>(x: Tensor<B, 4>) -> Tensor<B, 4> {
    let [.., height, width] = x.dims();
    let options = InterpolateOptions::new(InterpolateMode::Nearest);
    interpolate(x, [2 * height, 2 * width], options)
}

/// The residual blocks of one resolution, and the convolution that leads to the next.
#[derive(Module, Debug)]
struct Level<B: Backend> {
    residuals: Vec<Residual<B>>,
    resize: Option<Conv<B>>,
}

impl<B: Kernels> Level<B> {
    fn load(
        config: &VaeConfig,
        path: &str,
        [inputs, outputs]: [usize; 2],
        count: usize,
        resize: Option<&str>,
        source: &mut Source<'_, B>,
    ) -> Self {
        let residual = |index: usize, source: &mut Source<'_, B>| {
            let inputs = if index == 0 { inputs } else { outputs };
            Residual::load(config, &format!("{path}.resnets.{index}"), [inputs, outputs], source)
        };
        Self {
            residuals: (0..count).map(|index| residual(index, source)).collect(),
            resize: resize
                .map(|kind| source.conv(&format!("{path}.{kind}.0.conv"), [outputs, outputs], 3)),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        self.residuals.iter().fold(x, |x, residual| residual.forward(x))
    }
}

/// Two residual blocks with an attention between them, at the lowest resolution.
#[derive(Module, Debug)]
struct Middle<B: Backend> {
    before: Residual<B>,
    attention: PixelAttention<B>,
    after: Residual<B>,
}

impl<B: Kernels> Middle<B> {
    fn load(config: &VaeConfig, path: &str, channels: usize, source: &mut Source<'_, B>) -> Self {
        Self {
            before: Residual::load(config, &format!("{path}.resnets.0"), [channels; 2], source),
            attention: PixelAttention::load(
                config,
                &format!("{path}.attentions.0"),
                channels,
                source,
            ),
            after: Residual::load(config, &format!("{path}.resnets.1"), [channels; 2], source),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        self.after.forward(self.attention.forward(self.before.forward(x)))
    }
}

/// Residual block `x + conv(silu(norm(conv(silu(norm(x))))))`; a 1x1 convolution adapts `x` if the
/// channels differ.
#[derive(Module, Debug)]
struct Residual<B: Backend> {
    norm1: GroupNorm<B>,
    conv1: Conv<B>,
    norm2: GroupNorm<B>,
    conv2: Conv<B>,
    shortcut: Option<Conv<B>>,
}

impl<B: Kernels> Residual<B> {
    fn load(
        config: &VaeConfig,
        path: &str,
        [inputs, outputs]: [usize; 2],
        source: &mut Source<'_, B>,
    ) -> Self {
        let groups = config.norm_num_groups;
        Self {
            norm1: source.group_norm(&format!("{path}.norm1"), inputs, groups),
            conv1: source.conv(&format!("{path}.conv1"), [inputs, outputs], 3),
            norm2: source.group_norm(&format!("{path}.norm2"), outputs, groups),
            conv2: source.conv(&format!("{path}.conv2"), [outputs, outputs], 3),
            shortcut: (inputs != outputs)
                .then(|| source.conv(&format!("{path}.conv_shortcut"), [inputs, outputs], 1)),
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let hidden = self.conv1.forward(self.norm1.silu(x.clone()));
        let hidden = self.conv2.forward(self.norm2.silu(hidden));
        self.shortcut.as_ref().map_or(x.clone(), |shortcut| shortcut.forward(x)) + hidden
    }
}

/// Self-attention over all pixels, with one head.
#[derive(Module, Debug)]
struct PixelAttention<B: Backend> {
    norm: GroupNorm<B>,
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    output: Linear<B>,
}

impl<B: Kernels> PixelAttention<B> {
    fn load(config: &VaeConfig, path: &str, channels: usize, source: &mut Source<'_, B>) -> Self {
        let mut linear = |name: &str| source.linear(&format!("{path}.{name}"), channels, channels);
        let [query, key, value, output] = ["to_q", "to_k", "to_v", "to_out.0"].map(&mut linear);
        Self {
            norm: source.group_norm(
                &format!("{path}.group_norm"),
                channels,
                config.norm_num_groups,
            ),
            query,
            key,
            value,
            output,
        }
    }

    fn forward(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let [rows, channels, height, width] = x.dims();
        let pixels: Tensor<B, 3> =
            self.norm.forward(x.clone()).reshape([rows, channels, height * width]).swap_dims(1, 2);
        let [query, key, value] = [&self.query, &self.key, &self.value]
            .map(|layer| layer.forward(pixels.clone()).unsqueeze_dim::<4>(1));
        let mixed = attention(query, key, value, None, None); // [B, 1, H·W, C]
        let mixed = self.output.forward(mixed.squeeze_dim::<3>(1));
        x + mixed.swap_dims(1, 2).reshape([rows, channels, height, width])
    }
}

/// The autoencoder of a single file in which its tensors have this prefix; `None` if there is none.
pub(crate) fn in_single_file(files: &TensorFiles, prefix: &str) -> Option<TensorFiles> {
    let is_there = files.names().any(|name| {
        name.strip_prefix(prefix).is_some_and(|own| own.starts_with("decoder.conv_in"))
    });
    is_there.then(|| renamed(files, prefix, SINGLE_FILE))
}

/// The layout of the latent diffusion code (arXiv 2112.10752), in which the decoder's levels are
/// numbered in the opposite order.
#[rustfmt::skip]
const SINGLE_FILE: &[Rule] = &[
    keep("*.norm_out.*", "*.conv_norm_out.*"),
    keep("*.mid.attn_1.norm.*", "*.mid_block.attentions.0.group_norm.*"),
    linear("*.mid.attn_1.q.*", "*.mid_block.attentions.0.to_q.*"),
    linear("*.mid.attn_1.k.*", "*.mid_block.attentions.0.to_k.*"),
    linear("*.mid.attn_1.v.*", "*.mid_block.attentions.0.to_v.*"),
    linear("*.mid.attn_1.proj_out.*", "*.mid_block.attentions.0.to_out.0.*"),
    keep("*.mid.block_1.nin_shortcut.*", "*.mid_block.resnets.0.conv_shortcut.*"),
    keep("*.mid.block_2.nin_shortcut.*", "*.mid_block.resnets.1.conv_shortcut.*"),
    keep("*.mid.block_1.*.*", "*.mid_block.resnets.0.*.*"),
    keep("*.mid.block_2.*.*", "*.mid_block.resnets.1.*.*"),
    keep("encoder.down.*.downsample.conv.*", "encoder.down_blocks.*.downsamplers.0.conv.*"),
    keep("encoder.down.*.block.*.nin_shortcut.*", "encoder.down_blocks.*.resnets.*.conv_shortcut.*"),
    keep("encoder.down.*.block.*.*.*", "encoder.down_blocks.*.resnets.*.*.*"),
    keep("decoder.up.*.upsample.conv.*", "decoder.up_blocks.~.upsamplers.0.conv.*"),
    keep("decoder.up.*.block.*.nin_shortcut.*", "decoder.up_blocks.~.resnets.*.conv_shortcut.*"),
    keep("decoder.up.*.block.*.*.*", "decoder.up_blocks.~.resnets.*.*.*"),
];
