//! A model of the published size with random weights, in the layout of diffusers: for measuring
//! speed and memory.

use std::{collections::BTreeMap, path::Path};

use burn::tensor::{DType, bf16};
use files::write_atomically;
use kernels::Kernels;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde_json::json;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::{Transformer, TransformerConfig};
use crate::{
    storage::{
        DIFFUSERS, ModelError, TRANSFORMERS,
        source::{described, random_values},
        streamed::{Place, write_streamed},
    },
    text::{
        clip::{ClipConfig, ClipText},
        t5::{T5Config, T5Encoder},
    },
    vae::{Vae, VaeConfig},
    weights::WeightsError,
};

/// The sizes of all parts of a model.
#[derive(Clone, Debug)]
pub struct Sizes {
    /// The transformer.
    pub transformer: TransformerConfig,
    /// The autoencoder.
    pub vae: VaeConfig,
    /// CLIP-L and CLIP-G.
    pub clip: [ClipConfig; 2],
    /// T5, if the model has one.
    pub t5: Option<T5Config>,
}

impl Sizes {
    /// Stable Diffusion 3.5 Medium.
    pub fn sd35_medium() -> Self {
        let clip = [ClipConfig::clip_l(), ClipConfig::clip_g()];
        Self {
            transformer: TransformerConfig::sd35_medium(),
            vae: VaeConfig::sd3(),
            clip,
            t5: Some(T5Config::xxl()),
        }
    }

    /// Stable Diffusion 3 Medium: no second attention, no normalisation of queries and keys,
    /// smaller images.
    pub fn sd3_medium() -> Self {
        let medium = Self::sd35_medium();
        let transformer = TransformerConfig {
            dual_attention_layers: Vec::new(),
            qk_norm: None,
            pos_embed_max_size: 192,
            ..medium.transformer
        };
        Self { transformer, ..medium }
    }

    /// Stable Diffusion 3.5 Large: 38 layers of 38 heads, no second attention.
    pub fn sd35_large() -> Self {
        let medium = Self::sd35_medium();
        let transformer = TransformerConfig {
            num_layers: 38,
            num_attention_heads: 38,
            caption_projection_dim: 38 * 64,
            dual_attention_layers: Vec::new(),
            pos_embed_max_size: 192,
            ..medium.transformer
        };
        Self { transformer, ..medium }
    }

    /// Every part of Stable Diffusion 3.5 Medium with a few narrow layers, for rehearsals: nothing
    /// that it computes means anything.
    pub fn tiny() -> Self {
        let medium = Self::sd35_medium();
        let clip = |of: ClipConfig| ClipConfig {
            hidden_size: 32,
            intermediate_size: 64,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            projection_dim: 32,
            ..of
        };
        let transformer = TransformerConfig {
            num_layers: 2,
            attention_head_dim: 16,
            num_attention_heads: 2,
            joint_attention_dim: 128,
            caption_projection_dim: 32,
            pooled_projection_dim: 64,
            pos_embed_max_size: 64,
            dual_attention_layers: vec![0],
            ..medium.transformer
        };
        let vae = VaeConfig { block_out_channels: vec![32; 4], ..medium.vae };
        Self { transformer, vae, clip: medium.clip.map(clip), t5: None }
    }

    /// Reduces the transformer and the text encoders to this number of layers, CLIP to two at
    /// least, because its second to last layer is what is read. A part that has fewer keeps its own.
    #[must_use]
    pub fn with_layers(mut self, layers: usize) -> Self {
        let transformer = &mut self.transformer;
        transformer.num_layers = transformer.num_layers.min(layers);
        transformer.dual_attention_layers.retain(|layer| *layer < layers);
        for clip in &mut self.clip {
            clip.num_hidden_layers = clip.num_hidden_layers.min(layers.max(2));
        }
        if let Some(t5) = &mut self.t5 {
            t5.num_layers = t5.num_layers.min(layers);
        }
        self
    }

    /// Number of parameters of all parts together.
    pub fn count<B: Kernels>(&self, device: &B::Device) -> usize {
        self.tensors::<B>(device)
            .iter()
            .flat_map(|(_, tensors)| tensors)
            .map(|(_, shape)| shape.iter().product::<usize>())
            .sum()
    }

    /// Names and shapes of all tensors, by part, under the names of a model directory.
    pub fn tensors<B: Kernels>(&self, device: &B::Device) -> Vec<(&'static str, Tensors)> {
        self.parts::<B>(device).into_iter().map(|part| (part.name, part.tensors)).collect()
    }

    fn parts<B: Kernels>(&self, device: &B::Device) -> Vec<Part> {
        let of_transformer =
            described::<B>(device, |source| drop(Transformer::load(&self.transformer, source)));
        let of_vae = described::<B>(device, |source| drop(Vae::load(&self.vae, source)));
        // Fields that diffusers requires and this crate does not read.
        let levels = self.vae.block_out_channels.len();
        let mut of_diffusers = json!(self.vae);
        of_diffusers["down_block_types"] = json!(vec!["DownEncoderBlock2D"; levels]);
        of_diffusers["up_block_types"] = json!(vec!["UpDecoderBlock2D"; levels]);
        let mut parts = vec![
            Part {
                name: "transformer",
                stem: DIFFUSERS,
                config: json!(self.transformer),
                tensors: of_transformer,
            },
            Part { name: "vae", stem: DIFFUSERS, config: of_diffusers, tensors: of_vae },
        ];
        for (clip, name) in self.clip.iter().zip(["text_encoder", "text_encoder_2"]) {
            let tensors = described::<B>(device, |source| drop(ClipText::load(clip, source)));
            parts.push(Part { name, stem: TRANSFORMERS, config: json!(clip), tensors });
        }
        if let Some(t5) = &self.t5 {
            let tensors = described::<B>(device, |source| drop(T5Encoder::load(t5, source)));
            parts.push(Part {
                name: "text_encoder_3",
                stem: TRANSFORMERS,
                config: json!(t5),
                tensors,
            });
        }
        parts
    }
}

/// Names and shapes of tensors.
pub type Tensors = Vec<(String, Vec<usize>)>;

struct Part {
    name: &'static str,
    stem: &'static str,
    config: serde_json::Value,
    tensors: Tensors,
}

/// Writes a model of these sizes in bf16, with weights drawn from `seed`; after each tensor, `done`
/// gets its number of values. The tokenizers know only single bytes: they read any prompt, but not
/// as the published model reads it.
///
/// # Errors
/// If the directory cannot be written.
pub fn write<B: Kernels>(
    sizes: &Sizes,
    seed: u64,
    directory: &Path,
    device: &B::Device,
    mut done: impl FnMut(usize),
) -> Result<(), ModelError> {
    let parts = sizes.parts::<B>(device);
    for part in &parts {
        let place = directory.join(part.name);
        std::fs::create_dir_all(&place)
            .map_err(|source| WeightsError::Io { path: place.clone(), source })?;
        write_json(&place.join("config.json"), &part.config)?;
        let file = place.join(format!("{}.safetensors", part.stem));
        write_weights(part, seed, &file, &mut done)?;
    }
    write_clip_tokenizer(&directory.join("tokenizer"), sizes.clip[0].vocab_size, END)?;
    write_clip_tokenizer(&directory.join("tokenizer_2"), sizes.clip[1].vocab_size, "!")?;
    if let Some(t5) = &sizes.t5 {
        write_t5_tokenizer(&directory.join("tokenizer_3"), t5.vocab_size)?;
    }
    let scheduler = json!({ "_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 3.0 });
    write_json(&directory.join("scheduler").join("scheduler_config.json"), &scheduler)?;
    let t5 = |class: &str| {
        if sizes.t5.is_some() { json!(["transformers", class]) } else { json!([null, null]) }
    };
    // Written last, so that an unfinished directory does not count as a model.
    write_json(
        &directory.join("model_index.json"),
        &json!({
            "_class_name": "StableDiffusion3Pipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_3": t5("T5EncoderModel"),
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "tokenizer_2": ["transformers", "CLIPTokenizer"],
            "tokenizer_3": t5("T5TokenizerFast"),
            "transformer": ["diffusers", "SD3Transformer2DModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        }),
    )
}

/// Writes one tensor after the other, so that only one is in memory at a time.
fn write_weights(
    part: &Part,
    seed: u64,
    path: &Path,
    done: &mut impl FnMut(usize),
) -> Result<(), ModelError> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layout = part.tensors.iter().map(|(name, shape)| Place {
        name: name.clone(),
        shape: shape.clone(),
        dtype: DType::BF16,
    });
    write_streamed(&layout.collect::<Vec<_>>(), path, |place| {
        let values = random_values(&mut rng, &place.name, &place.shape);
        done(values.len());
        Ok(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect())
    })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ModelError> {
    let io = |source| WeightsError::Io { path: path.to_owned(), source };
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
    let text = serde_json::to_string_pretty(value).expect("plain data") + "\n";
    Ok(write_atomically(path, text.as_bytes()).map_err(WeightsError::from)?)
}

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

/// The characters that stand for the 256 bytes.
fn bytes() -> Vec<String> {
    let mut bytes: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    bytes.sort_unstable();
    bytes
}

fn write_clip_tokenizer(directory: &Path, vocabulary: usize, pad: &str) -> Result<(), ModelError> {
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    for (index, byte) in bytes().into_iter().enumerate() {
        ids.insert(format!("{byte}</w>"), index + 256);
        ids.insert(byte, index);
    }
    ids.insert(START.to_owned(), vocabulary - 2);
    ids.insert(END.to_owned(), vocabulary - 1);
    write_json(&directory.join("vocab.json"), &ids)?;
    let merges = directory.join("merges.txt");
    write_atomically(&merges, b"#version: 0.2\n").map_err(WeightsError::from)?;
    let config = json!({
        "tokenizer_class": "CLIPTokenizer", "model_max_length": 77,
        "bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad,
    });
    write_json(&directory.join("tokenizer_config.json"), &config)
}

fn write_t5_tokenizer(directory: &Path, vocabulary: usize) -> Result<(), ModelError> {
    let specials = ["<pad>", "</s>", "<unk>"];
    let ids: BTreeMap<String, usize> = specials
        .map(str::to_owned)
        .into_iter()
        .chain(bytes())
        .enumerate()
        .map(|(id, word)| (word, id))
        .collect();
    assert!(ids.len() <= vocabulary, "a vocabulary of {vocabulary} has no room for all bytes");
    let added = specials.map(|content| {
        let flags = json!({ "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true });
        let serde_json::Value::Object(mut token) = flags else { unreachable!("an object") };
        token.insert("id".to_owned(), json!(ids[content]));
        token.insert("content".to_owned(), json!(content));
        token
    });
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let end = json!({ "SpecialToken": { "id": "</s>", "type_id": 0 } });
    let tokenizer = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [text, end],
            "pair": [text, end],
            "special_tokens": { "</s>": { "id": "</s>", "ids": [1], "tokens": ["</s>"] } },
        },
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": ids, "merges": [],
        },
    });
    write_json(&directory.join("tokenizer.json"), &tokenizer)?;
    let config = json!({ "tokenizer_class": "T5TokenizerFast", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>" });
    write_json(&directory.join("tokenizer_config.json"), &config)
}
