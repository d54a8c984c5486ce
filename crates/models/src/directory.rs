//! A published model in the directory layout of diffusers: opens it, checks that its parts fit
//! together, and loads them one by one.
//!
//! A [`Family`] says what is particular about its models: the transformer, which text encoders
//! there are and what the transformer reads of them, and the names in single-file weights.

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    sync::Arc,
};

use burn::{prelude::*, tensor::FloatDType};
use flow::GridKind;
use kernels::Kernels;
use serde::de::DeserializeOwned;

use crate::{
    sizes::unequal,
    storage::{
        DIFFUSERS, ModelError, Problems, Source, TRANSFORMERS, TensorFiles,
        index::ModelIndex,
        part::Part,
        scheduler::{self, Shift},
    },
    text::{
        ClipReader, Embedding, Features, PromptEmbedding, T5Reader,
        clip::{ClipConfig, ClipText, published_names},
        t5::{T5Config, T5Encoder},
        tokenizer::PromptTokenizer,
    },
    vae::{Vae, VaeConfig},
};

/// The sizes of a transformer, and the work and memory that follow from them. Latents are
/// `[C, H, W]`.
pub trait TransformerSizes: DeserializeOwned + Clone + Debug + Send + Sync + 'static {
    /// Lists everything that is out of range or that this code does not support, one sentence each.
    fn problems(&self) -> Vec<String>;

    /// Channels of a latent.
    fn latent_channels(&self) -> usize;

    /// Height and width of the part of a latent that is one token.
    fn patch_side(&self) -> usize;

    /// Height and width of the latents that the model was trained on last.
    fn usual_side(&self) -> usize;

    /// Features of a text token.
    fn text_features(&self) -> usize;

    /// Features of the pooled text.
    fn pooled_features(&self) -> usize;

    /// Number of image tokens of a latent.
    fn image_tokens(&self, latent: [usize; 3]) -> usize;

    /// Explains why latents do not fit; `None` if they do.
    fn problem_of(&self, latent: [usize; 3]) -> Option<String>;

    /// Floating-point operations of a forward pass on one row, without adapters. Counts matrix
    /// products and attention, two operations per multiplication and addition; norms and
    /// activations count nothing.
    fn flop_per_row(&self, latent: [usize; 3], text_tokens: usize) -> f64;

    /// Approximate number of values per row that a forward pass keeps for its backward pass.
    fn kept_per_row(&self, latent: [usize; 3], text_tokens: usize, kept: Kept) -> usize;

    /// Number of values per row that are alive in a forward pass without a backward pass: at most
    /// the activations of one block, with the scores of attention if `scores`.
    fn alive_per_row(&self, latent: [usize; 3], text_tokens: usize, scores: bool) -> usize;
}

/// What a forward pass keeps for its backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Whether it keeps no more than the inputs of every block and the activations of one
    /// (activation checkpointing).
    pub in_parts: bool,
    /// Whether the backward pass computes all scores of an attention at once, one for each pair of
    /// tokens. CPU backends do; the kernels for GPUs go tile by tile. None keeps them.
    pub scores: bool,
}

/// A text encoder's place in a model directory.
#[derive(Clone, Copy, Debug)]
pub struct EncoderPlace {
    /// Sub-directory of the network.
    pub network: &'static str,
    /// Sub-directory of the tokenizer.
    pub tokenizer: &'static str,
}

/// A family of published models.
pub trait Family: Clone + Copy + Debug + Default + Send + Sync + 'static {
    /// The configuration of the transformer.
    type Config: TransformerSizes;
    /// The transformer.
    type Transformer<B: Backend>;

    /// Class of the diffusers pipeline in `model_index.json`.
    const CLASS: &'static str;
    /// The family's name in a configuration, one word.
    const NAME: &'static str;
    /// The CLIP encoders.
    const CLIP: &'static [EncoderPlace];
    /// Class of the CLIP encoders.
    const CLIP_CLASS: &'static str;
    /// T5.
    const T5: EncoderPlace;
    /// Whether the transformer reads CLIP's tokens before T5's, and can do without T5's.
    const READS_CLIP_TOKENS: bool;
    /// The shift of the time grid if the model has no scheduler.
    const SHIFT: Shift;
    /// Tokens of a prompt that T5 reads in the pipeline of diffusers.
    const SEQUENCE_LENGTH: usize;

    /// The time grid of the pipeline of diffusers, under this shift.
    fn grid(shift: f64) -> GridKind;

    /// The usual guidance scale of a model.
    fn guidance(config: &Self::Config) -> f64;

    /// Whether a transformer of these sizes reads the guidance scale.
    fn reads_guidance(config: &Self::Config) -> bool;

    /// Gives a transformer the guidance scale, if it reads one.
    fn guided<B: Kernels>(transformer: Self::Transformer<B>, scale: f64) -> Self::Transformer<B>;

    /// Loads a transformer of these sizes from a source.
    fn load<B: Kernels>(config: &Self::Config, source: &mut Source<'_, B>) -> Self::Transformer<B>;

    /// Opens single-file weights and translates their names into those of diffusers; reads only
    /// the header.
    ///
    /// # Errors
    /// If the file cannot be read or holds no transformer of the family.
    fn single_file(path: &Path) -> Result<SingleFile, ModelError>;
}

/// The networks of a single file, under the tensor names of diffusers.
#[derive(Debug)]
pub struct SingleFile {
    /// The transformer.
    pub transformer: TensorFiles,
    /// The autoencoder, if the file has one.
    pub vae: Option<TensorFiles>,
}

/// Options for opening a model directory.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// A file in the publisher's own layout, as ComfyUI reads it. Its transformer, and its
    /// autoencoder if it has one, replace the directory's.
    pub single_file: Option<PathBuf>,
    /// Leaves T5 out: its features are zeros.
    pub without_t5: bool,
}

/// A model on disk, with its configurations read and compared with the headers of its files; no
/// weights are loaded.
#[derive(Clone, Debug)]
pub struct ModelDirectory<F: Family> {
    path: PathBuf,
    transformer: Part<F::Config>,
    vae: Part<VaeConfig>,
    clip: Vec<Part<ClipConfig>>,
    t5: Option<Part<T5Config>>,
}

mod merge;

/// Class of the diffusers pipeline that a model directory names.
///
/// # Errors
/// If the path is not a model directory in the layout of diffusers.
pub fn class_of(path: &Path) -> Result<String, ModelError> {
    Ok(ModelIndex::read(path)?.class)
}

impl<F: Family> ModelDirectory<F> {
    /// Opens a directory and compares the names and shapes of all its tensors with its
    /// configurations.
    ///
    /// # Errors
    /// If the directory is not a model of the family; otherwise lists everything that is missing,
    /// misshapen or unexpected in any part.
    pub fn open<B: Kernels>(
        path: &Path,
        choices: &Choices,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let index = ModelIndex::read(path)?;
        if index.class != F::CLASS {
            let reason = format!("is a {}; only {} can be used here", index.class, F::CLASS);
            return Err(ModelError::wrong_kind(path, reason));
        }
        if choices.without_t5 && !F::READS_CLIP_TOKENS {
            let reason = format!("cannot be used without T5: {} reads no other text", F::CLASS);
            return Err(ModelError::wrong_kind(path, reason));
        }
        let model = Self::parts(path, choices, &index)?;
        let mut problems = Problems(model.problems());
        if problems.0.is_empty() {
            model.tensor_problems::<B>(device, &mut problems);
        }
        problems.none(path, model)
    }

    /// Opens every part.
    fn parts(path: &Path, choices: &Choices, index: &ModelIndex) -> Result<Self, ModelError> {
        let mut problems = Problems::default();
        let single = choices.single_file.as_deref().map(F::single_file).transpose()?;
        let (single_transformer, single_vae) =
            single.map_or((None, None), |single| (Some(single.transformer), single.vae));
        let transformer =
            Part::open(path, "transformer", DIFFUSERS, single_transformer, &mut problems);
        let vae = Part::open(path, "vae", DIFFUSERS, single_vae, &mut problems);
        let mut clip = Vec::new();
        for place in F::CLIP {
            let part = Part::open(path, place.network, TRANSFORMERS, None, &mut problems);
            clip.extend(part.map(|part| part.renamed(published_names)));
        }
        let has_t5 = !choices.without_t5 && (index.has(F::T5.network) || !F::READS_CLIP_TOKENS);
        let t5 = has_t5.then(|| Part::open(path, F::T5.network, TRANSFORMERS, None, &mut problems));
        if matches!(t5, Some(None)) && F::READS_CLIP_TOKENS {
            problems.0.push(format!(
                "{}: without T5, pass --without-t5: it is then read as zeros",
                F::T5.network
            ));
        }
        let (Some(transformer), Some(vae), true, Some(t5)) = (
            transformer,
            vae,
            clip.len() == F::CLIP.len(),
            t5.map_or(Some(None), |t5| t5.map(Some)),
        ) else {
            return Err(problems.of(path));
        };
        problems.none(path, Self { path: path.to_owned(), transformer, vae, clip, t5 })
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sizes of the transformer.
    pub fn transformer_config(&self) -> &F::Config {
        &self.transformer.config
    }

    /// The sizes of the autoencoder.
    pub fn vae_config(&self) -> &VaeConfig {
        &self.vae.config
    }

    /// Number of text tokens that the transformer reads: `max_sequence_length` of T5, and CLIP's if
    /// it reads them.
    pub fn text_tokens(&self, max_sequence_length: usize) -> usize {
        let of_clip = self.clip[0].config.max_position_embeddings;
        if F::READS_CLIP_TOKENS { of_clip + max_sequence_length } else { max_sequence_length }
    }

    /// Shift of the time grid for latents `[C, H, W]`, according to the model's scheduler.
    ///
    /// # Errors
    /// If the class or a setting of the scheduler is not supported.
    pub fn grid_shift(&self, latent: [usize; 3]) -> Result<f64, ModelError> {
        Ok(match scheduler::read(&self.path, F::SHIFT)? {
            Shift::Static(shift) => shift,
            Shift::ByTokens(shift) => shift.at(self.transformer.config.image_tokens(latent)),
        })
    }

    /// Shape of the latents of images of `[height, width]` pixels, `[C, H, W]`.
    ///
    /// # Errors
    /// With a sentence that explains why such images do not fit the model.
    pub fn latent_shape(&self, [height, width]: [usize; 2]) -> Result<[usize; 3], String> {
        let scale = self.vae.config.scale();
        let config = &self.transformer.config;
        let says =
            |problem: String| format!("images of {height} x {width} pixels do not fit: {problem}");
        if !height.is_multiple_of(scale) || !width.is_multiple_of(scale) {
            let better = scale * config.patch_side();
            return Err(says(format!("both must be multiples of {scale}, better of {better}")));
        }
        let shape = [config.latent_channels(), height / scale, width / scale];
        config.problem_of(shape).map_or(Ok(shape), |problem| Err(says(problem)))
    }

    /// Height and width of the images that the model was trained on last, in pixels.
    pub fn usual_side(&self) -> usize {
        self.transformer.config.usual_side() * self.vae.config.scale()
    }

    /// A fingerprint of the CLIP encoders.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn clip_digest(&self) -> Result<String, ModelError> {
        let digests = self.clip.iter().map(Part::digest).collect::<Result<Vec<_>, _>>()?;
        Ok(digests.join(" "))
    }

    /// A fingerprint of T5; `None` if T5 is not used.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn t5_digest(&self) -> Result<Option<String>, ModelError> {
        self.t5.as_ref().map(|t5| Ok(t5.digest()?)).transpose()
    }

    /// A fingerprint of the transformer and the autoencoder.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn network_digest(&self) -> Result<String, ModelError> {
        Ok(format!("{} {}", self.transformer.digest()?, self.vae.digest()?))
    }

    /// Whether T5 encodes prompts.
    pub fn has_t5(&self) -> bool {
        self.t5.is_some()
    }

    /// Loads the transformer, which computes in `precision`.
    pub fn transformer<B: Kernels>(
        &self,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<F::Transformer<B>, ModelError> {
        self.transformer.load(&self.path, F::load::<B>, precision, device)
    }

    /// Loads the autoencoder, which computes in `precision`.
    pub fn vae<B: Kernels>(
        &self,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<Vae<B>, ModelError> {
        self.vae.load(&self.path, Vae::load, precision, device)
    }

    /// Loads the CLIP encoders with their tokenizers.
    pub fn clip_reader<B: Kernels>(
        &self,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<ClipReader<B>, ModelError> {
        let clip = |(place, part): (&EncoderPlace, &Part<ClipConfig>)| {
            let tokenizer = PromptTokenizer::open(
                &self.path.join(place.tokenizer),
                part.config.max_position_embeddings,
                part.config.vocab_size,
            )?;
            Ok((tokenizer, part.load(&self.path, ClipText::load, precision, device)?))
        };
        Ok(ClipReader(F::CLIP.iter().zip(&self.clip).map(clip).collect::<Result<_, ModelError>>()?))
    }

    /// Loads T5 and its tokenizer, for prompts of `max_sequence_length` tokens; `None` if T5 is not
    /// used.
    pub fn t5_reader<B: Kernels>(
        &self,
        max_sequence_length: usize,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<Option<T5Reader<B>>, ModelError> {
        let Some(part) = &self.t5 else { return Ok(None) };
        let tokenizer = PromptTokenizer::open(
            &self.path.join(F::T5.tokenizer),
            max_sequence_length,
            part.config.vocab_size,
        )?;
        let encoder = part.load(&self.path, T5Encoder::load, precision, device)?;
        Ok(Some(T5Reader { tokenizer, encoder }))
    }

    /// Memory of the transformer's weights, in bytes.
    pub fn transformer_bytes<B: Backend>(&self, precision: FloatDType, device: &B::Device) -> u64 {
        self.transformer.bytes::<B>(precision, device)
    }

    /// Memory of the autoencoder's weights, in bytes.
    pub fn vae_bytes<B: Backend>(&self, precision: FloatDType, device: &B::Device) -> u64 {
        self.vae.bytes::<B>(precision, device)
    }

    /// Memory of T5's weights, in bytes; 0 if T5 is not used.
    pub fn t5_bytes<B: Backend>(&self, precision: FloatDType, device: &B::Device) -> u64 {
        self.t5.as_ref().map_or(0, |t5| t5.bytes::<B>(precision, device))
    }

    /// Combines the features of a prompt into an embedding for the transformer: CLIP's token
    /// features (`None` if the transformer does not read them) and pooled features, and T5's
    /// features of `max_sequence_length` tokens.
    pub fn embedding(
        &self,
        clip: Option<Features>,
        pooled: Features,
        t5: Option<Features>,
        max_sequence_length: usize,
    ) -> Embedding {
        let width = self.transformer.config.text_features();
        let text_shape = [self.text_tokens(max_sequence_length), width];
        Arc::new(PromptEmbedding { clip, pooled, t5, text_shape })
    }

    /// Lists everything in the configurations that is wrong or does not fit together.
    fn problems(&self) -> Vec<String> {
        let mut all = Problems::default();
        all.add("transformer/config.json", self.transformer.config.problems());
        all.add("vae/config.json", self.vae.config.problems());
        for clip in &self.clip {
            let path = format!("{}/config.json", clip.name);
            all.add(&path, clip.config.problems());
            if !clip.config.is(F::CLIP_CLASS) {
                let found = &clip.config.architectures;
                all.0.push(format!("{path}: architectures is {found:?}, not {}", F::CLIP_CLASS));
            }
        }
        if let Some(t5) = &self.t5 {
            all.add(&format!("{}/config.json", t5.name), t5.config.problems());
        }
        if !all.0.is_empty() {
            return all.0; // The checks below add sizes, which must be in range.
        }
        self.misfits()
    }

    /// Lists the sizes in the configurations that do not fit together.
    fn misfits(&self) -> Vec<String> {
        let mut all = Problems::default();
        let transformer = &self.transformer.config;
        let of_clip =
            |size: fn(&ClipConfig) -> usize| self.clip.iter().map(|clip| size(&clip.config)).sum();
        all.note(unequal(
            ("the channels of vae's latents", self.vae.config.latent_channels),
            ("the channels that transformer takes", transformer.latent_channels()),
        ));
        all.note(unequal(
            ("the pooled output of the text encoders", of_clip(ClipConfig::pooled_features)),
            ("the pooled text that transformer takes", transformer.pooled_features()),
        ));
        let takes = transformer.text_features();
        let width: usize = of_clip(|clip| clip.hidden_size);
        if F::READS_CLIP_TOKENS && width > takes {
            all.0.push(format!(
                "the text encoders' output has {width} features, transformer takes at most {takes}"
            ));
        }
        if let Some(t5) = &self.t5 {
            all.note(unequal(
                (&format!("the output of {}", t5.name), t5.config.d_model),
                ("the text that transformer takes", takes),
            ));
        }
        let length = |clip: &Part<ClipConfig>| clip.config.max_position_embeddings;
        for other in self.clip.iter().skip(1) {
            all.note(unequal(
                (&format!("the prompt length of {}", self.clip[0].name), length(&self.clip[0])),
                (&format!("the prompt length of {}", other.name), length(other)),
            ));
        }
        all.0
    }

    /// Lists missing, misshapen and unexpected tensors of all parts, reading only headers.
    fn tensor_problems<B: Kernels>(&self, device: &B::Device, all: &mut Problems) {
        self.transformer.compare::<B, _>(F::load::<B>, device, all);
        self.vae.compare::<B, _>(Vae::load, device, all);
        for clip in &self.clip {
            clip.compare::<B, _>(ClipText::load, device, all);
        }
        if let Some(t5) = &self.t5 {
            t5.compare::<B, _>(T5Encoder::load, device, all);
        }
    }
}
