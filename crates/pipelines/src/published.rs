//! A published model as a pipeline: a model directory with its text encoders and autoencoder, loaded
//! when needed.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use burn::{
    module::AutodiffModule,
    prelude::*,
    tensor::{DType, FloatDType, TensorData, backend::AutodiffBackend},
};
use files::sha256;
use flow::{Checkpointed, GridKind};
use grpo::{
    images::{Decode, Decoder},
    update::{Checkpointing, Differentiate, WholeGraph},
};
use kernels::Kernels;
use models::{
    Adapter, Choices, Family, ModelDirectory, Vae,
    directory::{Kept, TransformerSizes},
    text::{Embedding, Features, PromptEmbedding},
    weights::StoredAs,
};
use tasks::image::Image;

use crate::{
    Cache, Defaults, Footprint, Machine, Network, Pipeline, PipelineError,
    embeddings::{EmbeddingCache, IN_FILE},
    sampled::Sampled,
};

/// How a model directory is used.
#[derive(Clone, Debug, Default)]
pub struct DirectorySettings {
    /// The size of the images.
    pub size: Size,
    /// Tokens of a prompt that T5 reads; `None` for the number of diffusers' pipeline.
    pub max_sequence_length: Option<usize>,
    /// The parts that are used.
    pub choices: Choices,
    /// Activation checkpointing: the backward pass recomputes every block instead of keeping its
    /// activations. Less memory, more time, the same gradients.
    pub recompute: bool,
    /// Where encoded prompts are kept; `None` for memory.
    pub cache: Option<Cache>,
}

/// The size of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// The size that the model was trained on last.
    #[default]
    Usual,
    /// In pixels; a side that is `None` is the usual one.
    Pixels {
        /// Height.
        height: Option<usize>,
        /// Width.
        width: Option<usize>,
    },
    /// Height and width of the latents.
    Latents([usize; 2]),
}

impl Size {
    /// Height and width in pixels.
    fn pixels<F: Family>(self, directory: &ModelDirectory<F>) -> [usize; 2] {
        let (usual, scale) = (directory.usual_side(), directory.vae_config().scale());
        match self {
            Self::Usual => [usual; 2],
            Self::Pixels { height, width } => [height, width].map(|side| side.unwrap_or(usual)),
            Self::Latents(sides) => sides.map(|side| side * scale),
        }
    }
}

/// A model directory as a pipeline. CLIP and T5 are in memory only while they encode, one after the
/// other; the autoencoder stays from its first use on.
pub struct Published<F: Family, B: Backend> {
    directory: ModelDirectory<F>,
    latent_shape: [usize; 3],
    max_sequence_length: usize,
    decoder: Mutex<Option<Arc<VaeDecoder<B>>>>,
    embeddings: Mutex<Embeddings>,
    recompute: bool,
    keeps_conditions: bool,
    machine: Machine<B>,
}

/// The embedding caches of prompts.
struct Embeddings {
    clip: EmbeddingCache<2>,
    t5: Option<EmbeddingCache<1>>,
    /// The joined embeddings of the prompts that were requested.
    joined: BTreeMap<String, Embedding>,
}

impl Embeddings {
    /// Opens the caches of a directory's encoders.
    fn open<F: Family, B: Backend>(
        directory: &ModelDirectory<F>,
        max_sequence_length: usize,
        machine: &Machine<B>,
        cache: Option<&Cache>,
    ) -> Result<Self, PipelineError> {
        let short = |of: &str| {
            let precision = match machine.precision {
                FloatDType::F16 => "fp16",
                FloatDType::BF16 => "bf16",
                _ => "f32",
            };
            sha256(format!("{of} {precision}").as_bytes())[..16].to_owned()
        };
        let open_t5 = |digest: String| {
            let digest = short(&format!("{digest} {max_sequence_length}"));
            EmbeddingCache::open(("t5", ["hidden"]), machine.precision, &digest, cache)
        };
        let digest = short(&directory.clip_digest()?);
        let names = ("clip", ["hidden", "pooled"]);
        Ok(Self {
            clip: EmbeddingCache::open(names, machine.precision, &digest, cache)?,
            t5: directory.t5_digest()?.map(open_t5).transpose()?,
            joined: BTreeMap::new(),
        })
    }
}

/// Advice if T5 is too large.
const WITHOUT_T5: &str = "leave it out: `sample --without-t5`, `train --set model.t5=false`; long prompts are then followed less well";

impl<F: Family, B: Kernels> Published<F, B> {
    /// Opens a model directory.
    ///
    /// # Errors
    /// If the directory is not a complete model of the family, or images of the size do not fit it.
    pub fn open(
        path: &Path,
        settings: &DirectorySettings,
        machine: &Machine<B>,
    ) -> Result<Self, PipelineError> {
        let directory = ModelDirectory::<F>::open::<B>(path, &settings.choices, &machine.device)?;
        let size = settings.size.pixels(&directory);
        let latent_shape = directory.latent_shape(size).map_err(PipelineError::Refused)?;
        if !directory.has_t5() {
            machine.host.note("note: T5 does not read the prompts; its features are zeros");
        }
        let max_sequence_length = settings.max_sequence_length.unwrap_or(F::SEQUENCE_LENGTH);
        let embeddings =
            Embeddings::open(&directory, max_sequence_length, machine, settings.cache.as_ref())?;
        Ok(Self {
            directory,
            latent_shape,
            max_sequence_length,
            decoder: Mutex::default(),
            embeddings: Mutex::new(embeddings),
            recompute: settings.recompute,
            keeps_conditions: settings.cache.is_some(),
            machine: machine.clone(),
        })
    }

    /// The autoencoder, which is loaded on first use.
    fn vae(&self) -> Result<Arc<VaeDecoder<B>>, PipelineError> {
        let mut decoder = self.decoder.lock().expect("nothing panics while it holds the decoder");
        if let Some(decoder) = &*decoder {
            return Ok(decoder.clone());
        }
        // In f32, as in the reference code: the decoder's activations are too large for 16 bits.
        let vae = self.directory.vae(FloatDType::F32, &self.machine.device)?;
        Ok(decoder.insert(Arc::new(VaeDecoder(vae))).clone())
    }

    /// Encodes new prompts: first all of them with CLIP, then with T5, so that only one encoder is
    /// in memory at a time.
    fn learn(
        &self,
        Embeddings { clip, t5, .. }: &mut Embeddings,
        texts: &[&str],
    ) -> Result<(), PipelineError> {
        let Machine { device, precision, host, .. } = &self.machine;
        let unknown = clip.unknown(texts);
        if !unknown.is_empty() {
            let reader = self.directory.clip_reader::<B>(*precision, device)?;
            self.note_cut("CLIP", reader.length(), reader.cuts(&unknown), unknown.len());
            clip.learn(&unknown, &**host, |batch| Ok(reader.encode(batch)?))?;
        }
        let Some(t5) = t5 else { return Ok(()) };
        let unknown = t5.unknown(texts);
        if !unknown.is_empty() {
            self.check_room_for_t5()?;
            let precision = self.machine.t5_precision;
            let reader =
                self.directory.t5_reader::<B>(self.max_sequence_length, precision, device)?;
            let reader = reader.expect("there is a cache only if the directory has a T5");
            let length = self.max_sequence_length;
            self.note_cut("T5", length, reader.cuts(&unknown), unknown.len());
            t5.learn(&unknown, &**host, |batch| Ok(reader.encode(batch)?))?;
        }
        Ok(())
    }

    fn check_room_for_t5(&self) -> Result<(), PipelineError> {
        let Machine { device, t5_precision, on_cpu, host, .. } = &self.machine;
        let width = self.directory.transformer_config().text_features();
        let waiting = if *on_cpu { IN_FILE * self.max_sequence_length * width * 4 } else { 0 };
        let weights = self.directory.t5_bytes::<B>(*t5_precision, device);
        let advice = if F::READS_CLIP_TOKENS {
            WITHOUT_T5
        } else {
            "use a machine with more; the model reads no other text"
        };
        host.check_room("T5", weights + waiting as u64, advice).map_err(PipelineError::Refused)
    }

    /// Notes that an encoder cuts prompts.
    fn note_cut(&self, encoder: &str, tokens: usize, cut: usize, of: usize) {
        if cut > 0 {
            self.machine.host.note(&format!(
                "note: {encoder} reads {tokens} tokens of a prompt; {cut} of {of} prompts are longer, and it does not see their end"
            ));
        }
    }

    /// The embedding of a prompt whose features are in the caches.
    fn join(&self, Embeddings { clip, t5, joined }: &mut Embeddings, text: &str) -> Embedding {
        let embed = || {
            let t5 = t5.as_ref().map(|t5| t5.of(text)).map(|[hidden]| hidden);
            let [hidden, pooled] = clip.of(text);
            let hidden = F::READS_CLIP_TOKENS.then_some(hidden);
            self.directory.embedding(hidden, pooled, t5, self.max_sequence_length)
        };
        joined.entry(text.to_owned()).or_insert_with(embed).clone()
    }

    /// `[C, H, W]` of an image.
    fn pixels(&self) -> [usize; 3] {
        let scale = self.directory.vae_config().scale();
        [3, scale * self.latent_shape[1], scale * self.latent_shape[2]]
    }
}

/// Pixels that are sampled together: four images of 512 x 512, which keep a GPU busy.
const PIXELS_TOGETHER: usize = 1 << 20;
/// Upper bounds on small images that are sampled together, on a thread of a CPU and on a GPU.
const MOST_TOGETHER_ON_CPU: usize = 16;
const MOST_TOGETHER_ON_GPU: usize = 256;
/// Images that are decoded together.
const DECODED_TOGETHER: usize = 2;
/// Values per pixel that the decoder of SD3 and FLUX.1 needs: about a gigabyte for an image of 512 x
/// 512 pixels.
const DECODED_PER_PIXEL: usize = 1024;

/// The sizes on which the memory of a published model depends, besides those of its transformer.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// `[C, H, W]` of a latent.
    pub latent_shape: [usize; 3],
    /// `[3, H, W]` of an image.
    pub pixels: [usize; 3],
    /// Text tokens that the transformer reads.
    pub text_tokens: usize,
    /// The precision of conditions.
    pub precision: FloatDType,
    /// Whether the network runs on a CPU.
    pub on_cpu: bool,
    /// Bytes of the autoencoder's weights.
    pub decoder_bytes: u64,
}

/// The memory of a published model's activations and decoder; `recompute` is activation
/// checkpointing.
pub fn footprint(transformer: &impl TransformerSizes, sizes: Sizes, recompute: bool) -> Footprint {
    let Sizes { latent_shape, pixels: [_, height, width], text_tokens, decoder_bytes, .. } = sizes;
    let most_together = if sizes.on_cpu { MOST_TOGETHER_ON_CPU } else { MOST_TOGETHER_ON_GPU };
    let kept = Kept { in_parts: recompute, scores: sizes.on_cpu };
    let condition = text_tokens * transformer.text_features() + transformer.pooled_features();
    Footprint {
        kept_per_row: transformer.kept_per_row(latent_shape, text_tokens, kept),
        alive_per_row: transformer.alive_per_row(latent_shape, text_tokens, kept.scores),
        condition_bytes: (condition * DType::from(sizes.precision).size()) as u64,
        rows_together: (PIXELS_TOGETHER / (height * width)).clamp(1, most_together),
        decoder_bytes,
        decoding: DECODED_TOGETHER * height * width * DECODED_PER_PIXEL,
    }
}

impl<F, B> Pipeline<B> for Published<F, B::InnerBackend>
where
    F: Family,
    B: AutodiffBackend<InnerBackend: Kernels>,
    F::Transformer<B::InnerBackend>: Network<B::InnerBackend, Condition = Embedding>,
    F::Transformer<B>: Network<B, Condition = Embedding>
        + AutodiffModule<B, InnerModule = F::Transformer<B::InnerBackend>>
        + Checkpointed<B>,
{
    type Condition = Embedding;
    type Network = F::Transformer<B::InnerBackend>;
    type Trained = F::Transformer<B>;

    fn latent_shape(&self) -> [usize; 3] {
        self.latent_shape
    }

    fn image_shape(&self) -> [usize; 3] {
        self.pixels()
    }

    fn decoder(&self) -> Result<Arc<dyn Decode<B::InnerBackend>>, PipelineError> {
        Ok(self.vae()?)
    }

    fn finish(&self, latents: Tensor<B::InnerBackend, 4>) -> Result<Sampled, PipelineError> {
        let (mut images, mut decoded) = (Vec::new(), Vec::new());
        for batch in self.vae()?.batches(&latents) {
            images.extend(Decoder::Pixels.decode(batch.clone()));
            decoded.extend(batch.into_data().iter::<f32>());
        }
        let [channels, height, width] = self.pixels();
        let decoded = TensorData::new(decoded, [images.len(), channels, height, width]);
        Ok(Sampled { images, final_latents: latents.into_data(), decoded })
    }

    fn conditions(&self, texts: &[&str]) -> Result<Vec<Embedding>, PipelineError> {
        let mut embeddings =
            self.embeddings.lock().expect("nothing panics while it holds the embeddings");
        self.learn(&mut embeddings, texts)?;
        Ok(texts.iter().map(|text| self.join(&mut embeddings, text)).collect())
    }

    fn network(&self) -> Result<Self::Network, PipelineError> {
        Ok(self.directory.transformer(self.machine.precision, &self.machine.device)?)
    }

    fn check_room(&self) -> Result<(), PipelineError> {
        let Machine { device, precision, host, .. } = &self.machine;
        let bytes = self.directory.transformer_bytes::<B::InnerBackend>(*precision, device);
        let advice = "use a smaller model or a machine with more";
        host.check_room("the transformer", bytes, advice).map_err(PipelineError::Refused)
    }

    fn reads_guidance(&self) -> bool {
        F::reads_guidance(self.directory.transformer_config())
    }

    fn guide(&self, network: Self::Network, scale: f64) -> Self::Network {
        F::guided(network, scale)
    }

    fn differentiate(&self) -> Box<dyn Differentiate<B, Self::Trained>> {
        if self.recompute { Box::new(Checkpointing) } else { Box::new(WholeGraph) }
    }

    fn footprint(&self) -> Footprint {
        let sizes = Sizes {
            latent_shape: self.latent_shape,
            pixels: self.pixels(),
            text_tokens: self.directory.text_tokens(self.max_sequence_length),
            precision: self.machine.precision,
            on_cpu: self.machine.on_cpu,
            decoder_bytes: self
                .directory
                .vae_bytes::<B::InnerBackend>(FloatDType::F32, &self.machine.device),
        };
        footprint(self.directory.transformer_config(), sizes, self.recompute)
    }

    fn grid(&self) -> Result<GridKind, PipelineError> {
        Ok(F::grid(self.directory.grid_shift(self.latent_shape)?))
    }

    fn shift(&self) -> Result<Option<f64>, PipelineError> {
        Ok(Some(self.directory.grid_shift(self.latent_shape)?))
    }

    fn defaults(&self) -> Defaults {
        Defaults { guidance: F::guidance(self.directory.transformer_config()), images: 1 }
    }

    fn flop_per_row(&self, text_tokens: usize) -> Option<f64> {
        Some(self.directory.transformer_config().flop_per_row(self.latent_shape, text_tokens))
    }

    fn made_up(&self, seed: usize, text_tokens: usize) -> Option<Embedding> {
        let features = |shape: &[usize]| {
            let numbers = (0..shape.iter().product())
                .map(|i: usize| ((i * 31 + seed * 17) % 101) as f32 / 50.0 - 1.0);
            Features::Held(TensorData::new(numbers.collect::<Vec<f32>>(), shape))
        };
        let config = self.directory.transformer_config();
        let text_shape = [text_tokens, config.text_features()];
        let (text, pooled) = (features(&text_shape), features(&[config.pooled_features()]));
        Some(Arc::new(PromptEmbedding { clip: None, pooled, t5: Some(text), text_shape }))
    }

    fn keeps_conditions(&self) -> bool {
        self.keeps_conditions
    }

    fn made_by(&self) -> String {
        format!("the model in {}", self.directory.path().display())
    }

    fn digest(&self) -> Result<String, PipelineError> {
        Ok(self.directory.network_digest()?)
    }

    fn write(
        &self,
        _network: &Self::Network,
        _stored_as: StoredAs,
        path: &Path,
    ) -> Result<(), PipelineError> {
        Err(PipelineError::Refused(format!(
            "{}: all weights of a model directory are not written; train with tuning.kind = \"lora\"",
            path.display()
        )))
    }

    fn write_merged(
        &self,
        adapter: &Adapter,
        _made_by: &str,
        path: &Path,
    ) -> Result<(), PipelineError> {
        let (device, host) = (&self.machine.device, &self.machine.host);
        let progress = host.progress("merging", self.directory.transformer_tensors(), "tensors");
        self.directory.write_merged::<B::InnerBackend>(adapter, path, device, || {
            progress.advance(1);
        })?;
        progress.finish();
        Ok(())
    }
}

/// The autoencoder as a decoder of latents, a few at a time.
struct VaeDecoder<B: Backend>(Vae<B>);

impl<B: Kernels> VaeDecoder<B> {
    /// The decoder's output before clamping, `[b, 3, H, W]` for a few images at a time.
    fn batches(&self, latents: &Tensor<B, 4>) -> impl Iterator<Item = Tensor<B, 4>> {
        let rows = latents.dims()[0];
        let batch = move |from: usize| {
            self.0.decode(latents.clone().narrow(0, from, DECODED_TOGETHER.min(rows - from)))
        };
        (0..rows).step_by(DECODED_TOGETHER).map(batch)
    }
}

impl<B: Kernels> Decode<B> for VaeDecoder<B> {
    fn decode(&self, latents: Tensor<B, 4>) -> Vec<Image> {
        self.batches(&latents).flat_map(|decoded| Decoder::Pixels.decode(decoded)).collect()
    }
}
