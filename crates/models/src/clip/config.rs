//! The sizes of a CLIP model, from the configuration files of transformers and OpenCLIP.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    sizes::{not_an_epsilon, out_of_range},
    text::clip::{Activation, ClipConfig},
};

/// The sizes of a CLIP model: both towers and the space where they meet.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipModelConfig {
    /// The text tower.
    pub text: ClipConfig,
    /// The image tower.
    pub vision: VisionConfig,
    /// Initial value of the logit scale, before `exp`.
    pub logit_scale: f32,
}

/// The sizes of an image tower, `vision_config` in the `config.json` of transformers; a missing
/// entry has the value of ViT-B/32.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VisionConfig {
    /// Features of a patch.
    pub hidden_size: usize,
    /// Hidden features of the MLPs.
    pub intermediate_size: usize,
    /// Transformer layers.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Colour channels, 3.
    pub num_channels: usize,
    /// Side of the image, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Features of the projected output.
    pub projection_dim: usize,
    /// The activation of the MLPs.
    pub hidden_act: Activation,
    /// Added to a variance before the square root.
    pub layer_norm_eps: f64,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            projection_dim: 512,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: 1e-5,
        }
    }
}

impl VisionConfig {
    /// The image tower of CLIP ViT-L/14.
    pub fn vit_l_14() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            patch_size: 14,
            projection_dim: 768,
            ..Self::default()
        }
    }

    /// Number of patches of an image.
    pub fn patches(&self) -> usize {
        (self.image_size / self.patch_size).pow(2)
    }

    /// Lists everything that is out of range or that this code does not support, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let sizes = [
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("patch_size", self.patch_size),
            ("projection_dim", self.projection_dim),
        ];
        let mut problems = out_of_range(&sizes, ("num_hidden_layers", self.num_hidden_layers));
        problems.extend(not_an_epsilon("layer_norm_eps", self.layer_norm_eps));
        if self.num_channels != 3 {
            problems.push(format!("num_channels is {}, not 3", self.num_channels));
        }
        if !(1..=LARGEST_SIDE).contains(&self.image_size)
            || !self.image_size.is_multiple_of(self.patch_size.max(1))
        {
            problems.push(format!(
                "image_size ({}) must be a multiple of patch_size ({}) and at most {LARGEST_SIDE}",
                self.image_size, self.patch_size
            ));
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads.max(1)) {
            problems.push(format!(
                "hidden_size ({}) must be a multiple of num_attention_heads ({})",
                self.hidden_size, self.num_attention_heads
            ));
        }
        problems
    }
}

/// Upper bound on the side of an image.
const LARGEST_SIDE: usize = 4096;

/// Initial logit scale of CLIP, `ln(1/0.07)` (arXiv 2103.00020, section 2.5).
const LOGIT_SCALE: f32 = 2.6592;

/// End-of-text id of CLIP's vocabulary, the default of transformers.
const EOS: i64 = 49407;

/// The class that gives the text tower a projection.
const TEXT_CLASS: &str = crate::text::clip::WITH_PROJECTION;

impl ClipModelConfig {
    /// OpenAI's CLIP ViT-B/32.
    pub fn vit_b_32() -> Self {
        let text = ClipConfig {
            hidden_size: 512,
            intermediate_size: 2048,
            num_attention_heads: 8,
            projection_dim: 512,
            ..ClipConfig::clip_l()
        };
        Self { text, vision: VisionConfig::default(), logit_scale: LOGIT_SCALE }
    }

    /// OpenAI's CLIP ViT-L/14.
    pub fn vit_l_14() -> Self {
        let text = ClipConfig::clip_l();
        Self { text, vision: VisionConfig::vit_l_14(), logit_scale: LOGIT_SCALE }
    }

    /// OpenCLIP's ViT-H/14, the network of PickScore and HPSv2.
    pub fn vit_h_14() -> Self {
        let text = ClipConfig {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            projection_dim: 1024,
            hidden_act: Activation::Gelu,
            ..ClipConfig::clip_l()
        };
        let vision = VisionConfig {
            hidden_size: 1280,
            intermediate_size: 5120,
            num_hidden_layers: 32,
            projection_dim: 1024,
            hidden_act: Activation::Gelu,
            ..VisionConfig::vit_l_14()
        };
        Self { text, vision, logit_scale: LOGIT_SCALE }
    }

    /// Lists everything that is out of range or that this code does not support, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let text = self.text.problems().into_iter().map(|problem| format!("text: {problem}"));
        let vision = self.vision.problems().into_iter().map(|problem| format!("vision: {problem}"));
        text.chain(vision).collect()
    }

    /// Reads the `config.json` of a `CLIPModel` of transformers.
    ///
    /// # Errors
    /// If a tower's entry does not parse.
    pub(crate) fn transformers(file: &Value) -> Result<Self, String> {
        let projection_dim = file.get("projection_dim").and_then(Value::as_u64).unwrap_or(512);
        let mut text = ClipConfig { eos_token_id: EOS, ..Self::vit_b_32().text };
        text.architectures = vec![TEXT_CLASS.to_owned()];
        let tower = |defaults: Value, name: &str| {
            let mut all = defaults;
            for (key, value) in entries(file, name).into_iter().flatten() {
                // The class and the projection are those of the whole model.
                if key != "architectures" && !value.is_null() {
                    all[key] = value.clone();
                }
            }
            all["projection_dim"] = projection_dim.into();
            all
        };
        let json = |value| serde_json::to_value(value).expect("plain data");
        let text = tower(json(&text), "text_config");
        let vision = tower(
            serde_json::to_value(VisionConfig::default()).expect("plain data"),
            "vision_config",
        );
        let bad = |name: &str, error: serde_json::Error| format!("{name}: {error}");
        Ok(Self {
            text: serde_json::from_value(text).map_err(|error| bad("text_config", error))?,
            vision: serde_json::from_value(vision).map_err(|error| bad("vision_config", error))?,
            logit_scale: LOGIT_SCALE,
        })
    }

    /// Reads the `model_cfg` of an `open_clip_config.json`.
    ///
    /// # Errors
    /// If it does not parse, or has an entry that this code does not know.
    pub(crate) fn open_clip(model: &Value) -> Result<Self, String> {
        let model: OpenClip =
            Deserialize::deserialize(model).map_err(|error| format!("model_cfg: {error}"))?;
        Ok(model.config())
    }
}

/// The entries of a tower. Older files have them under `NAME_dict` too, and transformers then reads
/// these alone.
fn entries<'a>(file: &'a Value, name: &str) -> Option<&'a Map<String, Value>> {
    let older = file.get(format!("{name}_dict")).and_then(Value::as_object);
    older.or_else(|| file.get(name).and_then(Value::as_object))
}

/// `model_cfg` of an `open_clip_config.json`. Entries of other architectures are unknown here, so
/// that they are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenClip {
    embed_dim: usize,
    vision_cfg: OpenClipVision,
    text_cfg: OpenClipText,
    #[serde(default)]
    quick_gelu: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenClipVision {
    image_size: usize,
    patch_size: usize,
    width: usize,
    layers: usize,
    #[serde(default = "head_width")]
    head_width: usize,
    #[serde(default = "mlp_ratio")]
    mlp_ratio: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenClipText {
    #[serde(default = "context_length")]
    context_length: usize,
    vocab_size: usize,
    width: usize,
    heads: usize,
    layers: usize,
    #[serde(default = "mlp_ratio")]
    mlp_ratio: f64,
}

fn head_width() -> usize {
    64
}

fn mlp_ratio() -> f64 {
    4.0
}

fn context_length() -> usize {
    77
}

impl OpenClip {
    fn config(&self) -> ClipModelConfig {
        let (text, vision) = (&self.text_cfg, &self.vision_cfg);
        let hidden_act = if self.quick_gelu { Activation::QuickGelu } else { Activation::Gelu };
        let inner = |width: usize, ratio: f64| (width as f64 * ratio) as usize;
        let text = ClipConfig {
            vocab_size: text.vocab_size,
            hidden_size: text.width,
            intermediate_size: inner(text.width, text.mlp_ratio),
            num_hidden_layers: text.layers,
            num_attention_heads: text.heads,
            max_position_embeddings: text.context_length,
            projection_dim: self.embed_dim,
            hidden_act,
            // OpenCLIP, too, reads the token with the highest id.
            ..ClipConfig::clip_l()
        };
        let vision = VisionConfig {
            hidden_size: vision.width,
            intermediate_size: inner(vision.width, vision.mlp_ratio),
            num_hidden_layers: vision.layers,
            num_attention_heads: vision.width / vision.head_width.max(1),
            image_size: vision.image_size,
            patch_size: vision.patch_size,
            projection_dim: self.embed_dim,
            hidden_act,
            ..VisionConfig::default()
        };
        ClipModelConfig { text, vision, logit_scale: LOGIT_SCALE }
    }
}
