//! Stable Diffusion 3 as a pipeline: a model directory with its text encoders and autoencoder,
//! loaded when needed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, bail, ensure};
use burn::{prelude::*, tensor::FloatDType, tensor::TensorData};
use files::sha256;
use grpo::images::{Decode, Decoder};
use models::{
    Choices, Vae, WeightsFile,
    directory::TransformerSizes,
    sd3::{ModelDirectory, Transformer},
    text::Embedding,
    weights::{self, StoredAs},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasks::{image::Image, prompts::PromptSet};

use crate::{
    backend::{self, Device, ON_CPU, PRECISION, Plain, T5_PRECISION},
    embeddings::{Cache, EmbeddingCache, IN_FILE},
    memory::check_room,
    network::{Network, Pipeline},
    output,
};

/// Settings for a model directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sd3Config {
    /// Height and width of the images, in pixels.
    #[schemars(range(min = 1, max = MOST_PIXELS))]
    pub resolution: usize,
    /// Tokens of a prompt that T5 reads.
    #[schemars(range(min = 1, max = MOST_TOKENS))]
    pub max_sequence_length: usize,
    /// Whether T5 reads prompts; without T5 its features are zeros.
    pub t5: bool,
    /// A file in the layout of Stability and ComfyUI whose transformer (and autoencoder) replace
    /// the directory's; empty for none.
    pub single_file: String,
    /// Activation checkpointing: the backward pass recomputes every block instead of keeping its
    /// activations. Less memory, more time, the same gradients.
    pub recompute: bool,
}

/// Upper bound on the tokens that T5 reads.
const MOST_TOKENS: usize = 512;
/// Upper bound on the height and width of images.
const MOST_PIXELS: usize = 8192;

impl Sd3Config {
    /// The parts of a directory that are used.
    pub fn choices(&self) -> Choices {
        let single_file = (!self.single_file.is_empty()).then(|| PathBuf::from(&self.single_file));
        Choices { single_file, without_t5: !self.t5 }
    }
}

/// A model directory as a pipeline. CLIP and T5 are in memory only while they encode, one after the
/// other; the autoencoder stays from its first use on.
pub struct Sd3 {
    directory: ModelDirectory,
    latent_shape: [usize; 3],
    max_sequence_length: usize,
    decoder: Mutex<Option<Arc<VaeDecoder>>>,
    embeddings: Mutex<Embeddings>,
    recompute: bool,
    made_by: String,
    device: Device,
}

/// The embedding caches of prompts.
struct Embeddings {
    clip: EmbeddingCache<2>,
    t5: Option<EmbeddingCache<1>>,
    /// The joined embeddings of the prompts that were requested.
    joined: BTreeMap<String, Embedding>,
}

impl Sd3 {
    /// Opens a model directory for images of `[height, width]` pixels.
    ///
    /// # Errors
    /// If the directory is not a complete model of the SD3 family, or images of this size do not
    /// fit it.
    pub fn open(
        directory: ModelDirectory,
        [height, width]: [usize; 2],
        max_sequence_length: usize,
        cache: Option<&Cache>,
        device: &Device,
    ) -> Result<Self> {
        let latent_shape = directory.latent_shape([height, width]).map_err(anyhow::Error::msg)?;
        if !directory.has_t5() {
            output::log("note: T5 does not read the prompts; its features are zeros");
        }
        let short = |of: &str| {
            sha256(format!("{of} {}", backend::PRECISION_NAME).as_bytes())[..16].to_owned()
        };
        let t5 = |digest: String| {
            EmbeddingCache::open(
                "t5",
                ["hidden"],
                &short(&format!("{digest} {max_sequence_length}")),
                cache,
            )
        };
        let embeddings = Embeddings {
            clip: EmbeddingCache::open(
                "clip",
                ["hidden", "pooled"],
                &short(&directory.clip_digest()?),
                cache,
            )?,
            t5: directory.t5_digest()?.map(t5).transpose()?,
            joined: BTreeMap::new(),
        };
        let made_by = format!("the model in {}", directory.path().display());
        let (decoder, embeddings) = (Mutex::default(), Mutex::new(embeddings));
        let (recompute, device) = (false, device.clone());
        Ok(Self {
            directory,
            latent_shape,
            max_sequence_length,
            decoder,
            embeddings,
            recompute,
            made_by,
            device,
        })
    }

    /// Sets whether backward passes use activation checkpointing, which the estimate of memory
    /// depends on.
    #[must_use]
    pub fn recomputing(self, recompute: bool) -> Self {
        Self { recompute, ..self }
    }

    /// # Errors
    /// If the transformer's weights alone need more than the available memory.
    pub fn check_room_for_transformer(&self) -> Result<()> {
        let bytes = self.directory.transformer_bytes::<Plain>(PRECISION, &self.device);
        check_room("the transformer", bytes, "use a smaller model or a machine with more")
    }

    /// Loads the transformer.
    pub fn transformer(&self) -> Result<Transformer<Plain>> {
        Ok(self.directory.transformer(PRECISION, &self.device)?)
    }

    /// The autoencoder, which is loaded on first use.
    fn vae(&self) -> Result<Arc<VaeDecoder>> {
        let mut decoder = self.decoder.lock().expect("nothing panics while it holds the decoder");
        if let Some(decoder) = &*decoder {
            return Ok(decoder.clone());
        }
        // In f32, as in the reference code: the decoder's activations are too large for 16 bits.
        let loaded = Arc::new(VaeDecoder(self.directory.vae(FloatDType::F32, &self.device)?));
        Ok(decoder.insert(loaded).clone())
    }

    /// Encodes new prompts: first all of them with CLIP, then with T5, so that only one encoder is
    /// in memory at a time.
    fn learn(&self, Embeddings { clip, t5, .. }: &mut Embeddings, texts: &[&str]) -> Result<()> {
        let unknown = clip.unknown(texts);
        if !unknown.is_empty() {
            let reader = self.directory.clip_reader::<Plain>(PRECISION, &self.device)?;
            note_cut("CLIP", self.directory.text_tokens(0), reader.cuts(&unknown), unknown.len());
            clip.learn(&unknown, |batch| Ok(reader.encode(batch)?))?;
        }
        let Some(t5) = t5 else { return Ok(()) };
        let unknown = t5.unknown(texts);
        if !unknown.is_empty() {
            let waiting = IN_FILE
                * self.max_sequence_length
                * self.directory.transformer_config().joint_attention_dim
                * 4;
            let weights = self.directory.t5_bytes::<Plain>(T5_PRECISION, &self.device);
            check_room("T5", weights + if ON_CPU { waiting as u64 } else { 0 }, WITHOUT_T5)?;
            let reader = self.directory.t5_reader::<Plain>(
                self.max_sequence_length,
                T5_PRECISION,
                &self.device,
            )?;
            let reader = reader.context("the directory has a T5")?;
            note_cut("T5", self.max_sequence_length, reader.cuts(&unknown), unknown.len());
            t5.learn(&unknown, |batch| Ok(reader.encode(batch)?))?;
        }
        Ok(())
    }

    /// The embedding of a prompt whose features are in the caches.
    fn join(&self, Embeddings { clip, t5, joined }: &mut Embeddings, text: &str) -> Embedding {
        let embed = || {
            let t5 = t5.as_ref().map(|t5| t5.of(text)).map(|[hidden]| hidden);
            let [hidden, pooled] = clip.of(text);
            self.directory.embedding(Some(hidden), pooled, t5, self.max_sequence_length)
        };
        joined.entry(text.to_owned()).or_insert_with(embed).clone()
    }
}

/// Logs that an encoder cuts prompts.
fn note_cut(encoder: &str, tokens: usize, cut: usize, of: usize) {
    if cut > 0 {
        output::log(format!(
            "note: {encoder} reads {tokens} tokens of a prompt; {cut} of {of} prompts are longer, and it does not see their end"
        ));
    }
}

/// Advice if T5 is too large.
const WITHOUT_T5: &str = "leave it out: `sample --without-t5`, `train --set sd3.t5=false`; long prompts are then followed less well";

impl Pipeline for Sd3 {
    type Condition = Embedding;

    fn latent_shape(&self) -> [usize; 3] {
        self.latent_shape
    }

    fn image_shape(&self) -> [usize; 3] {
        let scale = self.directory.vae_config().scale();
        [3, scale * self.latent_shape[1], scale * self.latent_shape[2]]
    }

    fn decoder(&self) -> Result<Arc<dyn Decode<Plain>>> {
        Ok(self.vae()?)
    }

    fn conditions(&self, texts: &[&str]) -> Result<Vec<Embedding>> {
        let mut embeddings =
            self.embeddings.lock().expect("nothing panics while it holds the embeddings");
        self.learn(&mut embeddings, texts)?;
        Ok(texts.iter().map(|text| self.join(&mut embeddings, text)).collect())
    }

    fn read_prompts(&self, path: &Path) -> Result<PromptSet> {
        Ok(PromptSet::read(path)?)
    }

    fn made_by(&self) -> &str {
        &self.made_by
    }

    fn kept_per_row(&self) -> usize {
        let text_tokens = self.directory.text_tokens(self.max_sequence_length);
        self.directory.transformer_config().kept_per_row(
            self.latent_shape,
            text_tokens,
            self.recompute,
        )
    }

    fn alive_per_row(&self) -> usize {
        let text_tokens = self.directory.text_tokens(self.max_sequence_length);
        self.directory.transformer_config().alive_per_row(self.latent_shape, text_tokens)
    }

    fn batch(&self) -> usize {
        let [_, height, width] = self.image_shape();
        (PIXELS_TOGETHER / (height * width)).clamp(1, MOST_TOGETHER)
    }

    fn decoder_bytes(&self) -> u64 {
        self.directory.vae_bytes::<Plain>(FloatDType::F32, &self.device)
    }

    fn decoding(&self) -> usize {
        let [_, height, width] = self.image_shape();
        DECODED_TOGETHER * height * width * DECODED_PER_PIXEL
    }

    fn write<N: Network<Plain, Embedding>>(
        &self,
        _network: &N,
        _stored_as: StoredAs,
        path: &Path,
    ) -> Result<()> {
        bail!(
            "{}: all weights of SD3 are not written; train with tuning.kind = \"lora\"",
            path.display()
        )
    }
}

/// The autoencoder as a decoder of latents, a few at a time.
struct VaeDecoder(Vae<Plain>);

/// Pixels that are sampled together: four images of 512 x 512, which keep a GPU busy.
const PIXELS_TOGETHER: usize = 1 << 20;
/// Upper bound on small images that are sampled together.
const MOST_TOGETHER: usize = 16;
/// Images that are decoded together.
const DECODED_TOGETHER: usize = 2;
/// Values per pixel that the decoder of SD3 needs: about a gigabyte for an image of 512 x 512
/// pixels.
const DECODED_PER_PIXEL: usize = 1024;

impl VaeDecoder {
    /// The decoder's output before clamping, `[b, 3, H, W]` for a few images at a time.
    fn batches(&self, latents: &Tensor<Plain, 4>) -> impl Iterator<Item = Tensor<Plain, 4>> {
        let rows = latents.dims()[0];
        let batch = move |from: usize| {
            self.0.decode(latents.clone().narrow(0, from, DECODED_TOGETHER.min(rows - from)))
        };
        (0..rows).step_by(DECODED_TOGETHER).map(batch)
    }
}

impl Decode<Plain> for VaeDecoder {
    fn decode(&self, latents: Tensor<Plain, 4>) -> Vec<Image> {
        self.batches(&latents).flat_map(|decoded| Decoder::Pixels.decode(decoded)).collect()
    }
}

/// Results of sampling, on the host.
pub struct Sampled {
    /// The images, in the order of the latents.
    pub images: Vec<Image>,
    /// The latents at t = 0, `[B, C, h, w]`.
    pub final_latents: TensorData,
    /// The autoencoder's output before clamping, `[B, 3, H, W]`.
    pub decoded: TensorData,
}

impl Sd3 {
    /// Decodes latents to images and returns both, with the output before clamping.
    pub fn finish(&self, final_latents: Tensor<Plain, 4>) -> Result<Sampled> {
        let (mut images, mut decoded) = (Vec::new(), Vec::new());
        for batch in self.vae()?.batches(&final_latents) {
            images.extend(Decoder::Pixels.decode(batch.clone()));
            decoded.extend(batch.into_data().iter::<f32>());
        }
        let [channels, height, width] = self.image_shape();
        let decoded = TensorData::new(decoded, [images.len(), channels, height, width]);
        Ok(Sampled { images, final_latents: final_latents.into_data(), decoded })
    }
}

/// Reads initial latents, `[B, C, H, W]` under the name `latents`.
pub fn read_latents(path: &Path, device: &Device) -> Result<Tensor<Plain, 4>> {
    let data = WeightsFile::read(path)?.tensors()?.remove("latents");
    let data = data.with_context(|| format!("{} has no tensor `latents`", path.display()))?;
    let shape = data.shape.to_vec();
    ensure!(
        shape.len() == 4,
        "{}: latents must be [B, C, H, W], they are {shape:?}",
        path.display()
    );
    ensure!(
        data.iter::<f32>().all(f32::is_finite),
        "{}: latents must be finite numbers",
        path.display()
    );
    Ok(Tensor::from_data(data, device))
}

/// Writes latents and decoder output of sampling to a safetensors file.
pub fn write_tensors(sampled: Sampled, path: &Path) -> Result<()> {
    let tensors = [("final_latents", sampled.final_latents), ("decoded", sampled.decoded)];
    let tensors = tensors.into_iter().map(|(name, data)| (name.to_owned(), data)).collect();
    Ok(weights::write_tensors(&tensors, ("format", "pt".to_owned()), StoredAs::F32, path)?)
}
