//! Stable Diffusion 3 as a pipeline: a model directory, its text encoders when they are needed, its autoencoder.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, bail, ensure};
use burn::{prelude::*, tensor::FloatDType, tensor::TensorData};
use grpo::images::{Decode, Decoder};
use models::{
    WeightsFile,
    sd3::{Choices, Embedding, ModelDirectory, PromptEmbedding, Transformer, Vae},
    weights::{self, StoredAs, sha256},
};
use serde::{Deserialize, Serialize};
use tasks::{image::Image, prompts::PromptSet};

use crate::{
    backend::{self, Device, Plain},
    network::{Network, Pipeline},
    progress::Progress,
};

/// What a model directory leaves open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sd3Config {
    /// Height and width of the pictures, in pixels.
    pub resolution: usize,
    /// Tokens of a prompt that T5 reads.
    pub max_sequence_length: usize,
    /// Whether T5 reads prompts; without it its features are zeros.
    pub t5: bool,
    /// A file in the layout of Stability and ComfyUI whose transformer (and autoencoder) replace the directory's; empty for none.
    pub single_file: String,
    /// Whether the backward pass computes the inside of every block again instead of keeping it: less memory, more time, the same
    /// gradients.
    pub recompute: bool,
}

/// More tokens than T5 was trained on.
const MOST_TOKENS: usize = 512;
/// Larger pictures than any model makes.
const MOST_PIXELS: usize = 8192;

impl Sd3Config {
    /// All that is out of range, one sentence each, beginning with the key.
    pub fn problems(&self) -> Vec<String> {
        let counts =
            [("resolution", self.resolution, MOST_PIXELS), ("max_sequence_length", self.max_sequence_length, MOST_TOKENS)];
        counts.into_iter().filter_map(|(key, value, most)| grpo::ranges::count(key, value, most)).collect()
    }

    /// What of a directory is used.
    pub fn choices(&self) -> Choices {
        let single_file = (!self.single_file.is_empty()).then(|| PathBuf::from(&self.single_file));
        Choices { single_file, without_t5: !self.t5 }
    }
}

/// A model directory with what surrounds its transformer.
pub struct Sd3 {
    directory: ModelDirectory,
    latent_shape: [usize; 3],
    max_sequence_length: usize,
    decoder: Arc<VaeDecoder>,
    embeddings: Mutex<BTreeMap<String, Embedding>>,
    /// Where embeddings are kept between two programs.
    cache: Option<PathBuf>,
    made_by: String,
    device: Device,
}

impl Sd3 {
    /// The pipeline of a model directory for pictures of `[height, width]` pixels.
    ///
    /// # Errors
    /// If the directory is not a whole model of SD3's kind, or pictures of this size do not fit it.
    pub fn open(
        directory: ModelDirectory,
        [height, width]: [usize; 2],
        max_sequence_length: usize,
        cache: Option<PathBuf>,
        device: &Device,
    ) -> Result<Self> {
        let scale = directory.vae_config().scale();
        ensure!(
            height.is_multiple_of(scale) && width.is_multiple_of(scale),
            "pictures of {height} x {width} pixels do not fit: both must be multiples of {scale}, better of {}",
            scale * directory.transformer_config().patch_size
        );
        let latent_shape = [directory.transformer_config().in_channels, height / scale, width / scale];
        if let Some(problem) = directory.transformer_config().problem_of(latent_shape) {
            bail!("pictures of {height} x {width} pixels do not fit: {problem}");
        }
        // In f32, as in the reference code: the decoder's activations grow beyond what 16 bits hold well.
        let vae = directory.vae(FloatDType::F32, device)?;
        let made_by = format!("the model in {}", directory.path().display());
        let (decoder, embeddings) = (Arc::new(VaeDecoder(vae)), Mutex::default());
        let pipeline =
            Self { directory, latent_shape, max_sequence_length, decoder, embeddings, cache, made_by, device: device.clone() };
        pipeline.read_cache()?;
        Ok(pipeline)
    }

    /// The transformer.
    pub fn transformer(&self) -> Result<Transformer<Plain>> {
        Ok(self.directory.transformer(backend::PRECISION, &self.device)?)
    }

    /// What tells the embeddings of these encoders from those of others.
    fn encoder_digest(&self) -> Result<String> {
        let digest = self.directory.encoder_digest()?;
        Ok(sha256(format!("{digest} {} {}", self.max_sequence_length, backend::PRECISION_NAME).as_bytes()))
    }

    fn read_cache(&self) -> Result<()> {
        let Some(path) = self.cache.as_deref().filter(|path| path.exists()) else { return Ok(()) };
        let file = WeightsFile::read(path)?;
        let Cached { encoders, texts } = file.parsed_metadata(CACHE)?;
        if encoders != self.encoder_digest()? {
            return Ok(()); // Of other encoders: written anew.
        }
        let mut tensors = file.tensors()?;
        let mut embeddings = self.embeddings.lock().expect("nothing panics while it holds the embeddings");
        for (index, prompt) in texts.into_iter().enumerate() {
            let mut take = |part: &str| {
                let name = format!("{index:06}.{part}");
                let tensor: TensorData =
                    tensors.remove(&name).with_context(|| format!("{}: {name} is missing", path.display()))?;
                let shape = tensor.shape.to_vec();
                Ok::<_, anyhow::Error>((shape, tensor.iter::<f32>().collect::<Vec<f32>>()))
            };
            let ((shape, text), (_, pooled)) = (take("text")?, take("pooled")?);
            let [tokens, features] = shape[..] else { bail!("{}: {index:06}.text is no matrix", path.display()) };
            embeddings.insert(prompt, Arc::new(PromptEmbedding { text, text_shape: [tokens, features], pooled }));
        }
        Ok(())
    }

    fn write_cache(&self) -> Result<()> {
        let Some(path) = &self.cache else { return Ok(()) };
        let embeddings = self.embeddings.lock().expect("nothing panics while it holds the embeddings");
        let mut tensors = BTreeMap::new();
        for (index, embedding) in embeddings.values().enumerate() {
            let text = TensorData::new(embedding.text.clone(), embedding.text_shape);
            tensors.insert(format!("{index:06}.text"), text);
            let pooled = TensorData::new(embedding.pooled.clone(), [embedding.pooled.len()]);
            tensors.insert(format!("{index:06}.pooled"), pooled);
        }
        let cached = Cached { encoders: self.encoder_digest()?, texts: embeddings.keys().cloned().collect() };
        let cached = serde_json::to_string(&cached).context("texts are plain data")?;
        Ok(weights::write_tensors(&tensors, (CACHE, cached), StoredAs::F32, path)?)
    }
}

/// The metadata entry of a file of embeddings.
const CACHE: &str = "prompts";

/// What a file of embeddings says of itself.
#[derive(Serialize, Deserialize)]
struct Cached {
    encoders: String,
    texts: Vec<String>,
}

impl Pipeline for Sd3 {
    type Condition = Embedding;

    fn latent_shape(&self) -> [usize; 3] {
        self.latent_shape
    }

    fn picture_shape(&self) -> [usize; 3] {
        let scale = self.directory.vae_config().scale();
        [3, scale * self.latent_shape[1], scale * self.latent_shape[2]]
    }

    fn decoder(&self) -> Arc<dyn Decode<Plain>> {
        self.decoder.clone()
    }

    /// Text encoders are in memory while prompts are encoded that have not been before, and gone afterwards.
    fn conditions(&self, texts: &[&str]) -> Result<Vec<Embedding>> {
        let unknown = {
            let embeddings = self.embeddings.lock().expect("nothing panics while it holds the embeddings");
            let mut unknown: Vec<&str> = texts.iter().copied().filter(|text| !embeddings.contains_key(*text)).collect();
            unknown.sort_unstable();
            unknown.dedup();
            unknown
        };
        if !unknown.is_empty() {
            let encoder = self.directory.prompt_encoder::<Plain>(self.max_sequence_length, backend::PRECISION, &self.device)?;
            let progress = Progress::new("encoding", unknown.len(), "prompts");
            let new = encoder.encode(&unknown, |done| progress.advance(done))?;
            progress.finish();
            let new = unknown.into_iter().map(str::to_owned).zip(new);
            self.embeddings.lock().expect("nothing panics while it holds the embeddings").extend(new);
            self.write_cache()?;
        }
        let embeddings = self.embeddings.lock().expect("nothing panics while it holds the embeddings");
        Ok(texts.iter().map(|text| embeddings[*text].clone()).collect())
    }

    fn read_prompts(&self, path: &Path) -> Result<PromptSet> {
        Ok(PromptSet::read_texts(path)?)
    }

    fn made_by(&self) -> &str {
        &self.made_by
    }

    fn kept_per_row(&self) -> usize {
        let config = self.directory.transformer_config();
        config.kept_per_row(self.latent_shape, self.directory.clip_tokens() + self.max_sequence_length)
    }

    fn write<N: Network<Plain, Embedding>>(&self, _network: &N, _stored_as: StoredAs, path: &Path) -> Result<()> {
        bail!("{}: all weights of SD3 are not written; train with tuning.kind = \"lora\"", path.display())
    }
}

/// The autoencoder as what makes pictures of latents, a few at a time.
struct VaeDecoder(Vae<Plain>);

/// Pictures that are decoded together: the decoder needs about a gigabyte for each of 512 x 512 pixels.
const DECODED_TOGETHER: usize = 2;

impl VaeDecoder {
    /// The decoder's output before it is clamped, `[B, 3, H, W]`.
    fn raw(&self, latents: Tensor<Plain, 4>) -> Tensor<Plain, 4> {
        let rows = latents.dims()[0];
        let batches = (0..rows).step_by(DECODED_TOGETHER).map(|from| (from, DECODED_TOGETHER.min(rows - from)));
        let decoded = batches.map(|(from, count)| self.0.decode(latents.clone().narrow(0, from, count)));
        Tensor::cat(decoded.collect(), 0)
    }
}

impl Decode<Plain> for VaeDecoder {
    fn decode(&self, latents: Tensor<Plain, 4>) -> Vec<Image> {
        Decoder::Pixels.decode(self.raw(latents))
    }
}

/// What sampling leaves behind beside pictures.
pub struct Sampled {
    /// The pictures, in the order of the latents.
    pub images: Vec<Image>,
    /// The latents at t = 0, `[B, C, h, w]`.
    pub final_latents: Tensor<Plain, 4>,
    /// What the autoencoder makes of them, before clamping, `[B, 3, H, W]`.
    pub decoded: Tensor<Plain, 4>,
}

impl Sd3 {
    /// Pictures of latents, with what they are made of.
    pub fn finish(&self, final_latents: Tensor<Plain, 4>) -> Sampled {
        let decoded = self.decoder.raw(final_latents.clone());
        Sampled { images: Decoder::Pixels.decode(decoded.clone()), final_latents, decoded }
    }
}

/// Reads initial latents, `[B, C, H, W]` under the name `latents`.
pub fn read_latents(path: &Path, device: &Device) -> Result<Tensor<Plain, 4>> {
    let data = WeightsFile::read(path)?.tensors()?.remove("latents");
    let data = data.with_context(|| format!("{} has no tensor `latents`", path.display()))?;
    let shape = data.shape.to_vec();
    ensure!(shape.len() == 4, "{}: latents must be [B, C, H, W], they are {shape:?}", path.display());
    ensure!(data.iter::<f32>().all(f32::is_finite), "{}: latents must be finite numbers", path.display());
    Ok(Tensor::from_data(data, device))
}

/// Writes what sampling left behind, beside the pictures.
pub fn write_tensors(sampled: &Sampled, path: &Path) -> Result<()> {
    let tensors = [("final_latents", &sampled.final_latents), ("decoded", &sampled.decoded)];
    let tensors = tensors.into_iter().map(|(name, tensor)| (name.to_owned(), tensor.to_data())).collect();
    Ok(weights::write_tensors(&tensors, ("format", "pt".to_owned()), StoredAs::F32, path)?)
}
