//! A model in the directory layout of diffusers: opens it, checks that its parts fit together, and
//! loads them one by one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::{prelude::*, tensor::FloatDType};
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Sd3Error,
    clip::{ClipConfig, ClipText},
    prompt::{ClipReader, Embedding, Features, PromptEmbedding, T5Reader},
    single_file,
    source::{Source, held_as},
    t5::{T5Config, T5Encoder},
    tokenizer::PromptTokenizer,
    transformer::{Transformer, TransformerConfig},
    vae::{Vae, VaeConfig},
};
use crate::tensor_files::TensorFiles;

/// A model on disk, with its configurations read and compared with the headers of its files; no
/// weights are loaded.
#[derive(Clone, Debug)]
pub struct ModelDirectory {
    path: PathBuf,
    transformer: Part<TransformerConfig>,
    vae: Part<VaeConfig>,
    clip: [Part<ClipConfig>; 2],
    t5: Option<Part<T5Config>>,
}

/// One network of a model.
#[derive(Clone, Debug)]
struct Part<C> {
    config: C,
    files: TensorFiles,
}

/// Options for opening a model directory.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// A file in the layout of Stability and ComfyUI. Its transformer, and its autoencoder if it
    /// has one, replace the directory's.
    pub single_file: Option<PathBuf>,
    /// Leaves T5 out: its features are zeros.
    pub without_t5: bool,
}

/// `scheduler/scheduler_config.json`.
#[derive(Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the file's own layout")]
struct Scheduler {
    #[serde(rename = "_class_name")]
    class_name: String,
    shift: Option<f64>,
    num_train_timesteps: Option<f64>,
    shift_terminal: Option<f64>,
    #[serde(default)]
    use_dynamic_shifting: bool,
    #[serde(default)]
    use_karras_sigmas: bool,
    #[serde(default)]
    use_exponential_sigmas: bool,
    #[serde(default)]
    use_beta_sigmas: bool,
    #[serde(default)]
    invert_sigmas: bool,
    #[serde(default)]
    stochastic_sampling: bool,
}

impl Scheduler {
    /// The first setting that this code does not support, if there is one.
    fn unknown(&self) -> Option<String> {
        if self.class_name != SCHEDULER {
            return Some(format!("the scheduler {}", self.class_name));
        }
        if let Some(shift) = self.shift.filter(|shift| !(*shift > 0.0 && shift.is_finite())) {
            return Some(format!("a shift of {shift}"));
        }
        let flags = [
            ("use_dynamic_shifting", self.use_dynamic_shifting),
            ("use_karras_sigmas", self.use_karras_sigmas),
            ("use_exponential_sigmas", self.use_exponential_sigmas),
            ("use_beta_sigmas", self.use_beta_sigmas),
            ("invert_sigmas", self.invert_sigmas),
            ("stochastic_sampling", self.stochastic_sampling),
            ("shift_terminal", self.shift_terminal.is_some()),
            (
                "another num_train_timesteps than 1000",
                self.num_train_timesteps.is_some_and(|steps| steps != 1000.0),
            ),
        ];
        flags.into_iter().find_map(|(name, set)| set.then(|| name.to_owned()))
    }
}

const SCHEDULER: &str = "FlowMatchEulerDiscreteScheduler";
const DEFAULT_SHIFT: f64 = 3.0;
const PIPELINE: &str = "StableDiffusion3Pipeline";
const DIFFUSERS: &str = "diffusion_pytorch_model";
const TRANSFORMERS: &str = "model";

impl ModelDirectory {
    /// Opens a directory and compares the names and shapes of all its tensors with its
    /// configurations.
    ///
    /// # Errors
    /// If the directory is not a model of the SD3 family; otherwise lists everything that is
    /// missing, misshapen or unexpected in any part.
    pub fn open<B: Backend>(
        path: &Path,
        choices: &Choices,
        device: &B::Device,
    ) -> Result<Self, Sd3Error> {
        let index = read_index(path)?;
        let mut problems = Problems::default();
        let single = choices.single_file.as_deref().map(single_file::open).transpose()?;
        let (single_transformer, single_vae) =
            single.map_or((None, None), |single| (Some(single.transformer), single.vae));
        let transformer =
            Part::open(path, "transformer", DIFFUSERS, single_transformer, &mut problems);
        let vae = Part::open(path, "vae", DIFFUSERS, single_vae, &mut problems);
        let clip = ["text_encoder", "text_encoder_2"]
            .map(|name| Part::open(path, name, TRANSFORMERS, None, &mut problems));
        let has_t5 = !choices.without_t5 && index.contains("text_encoder_3");
        let t5 =
            has_t5.then(|| Part::open(path, "text_encoder_3", TRANSFORMERS, None, &mut problems));
        if let Some(None) = t5 {
            problems.0.push(
                "text_encoder_3: without T5, pass --without-t5: it is then read as zeros"
                    .to_owned(),
            );
        }
        let [clip_l, clip_g] = clip;
        let (Some(transformer), Some(vae), Some(clip_l), Some(clip_g), Some(t5)) =
            (transformer, vae, clip_l, clip_g, t5.map_or(Some(None), |t5| t5.map(Some)))
        else {
            return Err(problems.of(path));
        };
        let model = Self { path: path.to_owned(), transformer, vae, clip: [clip_l, clip_g], t5 };
        problems.0.extend(model.problems());
        if problems.0.is_empty() {
            problems.0.extend(model.tensor_problems::<B>(device));
        }
        if problems.0.is_empty() { Ok(model) } else { Err(problems.of(path)) }
    }

    /// Path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The sizes of the transformer.
    pub fn transformer_config(&self) -> &TransformerConfig {
        &self.transformer.config
    }

    /// The sizes of the autoencoder.
    pub fn vae_config(&self) -> &VaeConfig {
        &self.vae.config
    }

    /// Number of text tokens that the transformer reads: CLIP's, and `max_sequence_length` of T5.
    pub fn text_tokens(&self, max_sequence_length: usize) -> usize {
        self.clip[0].config.max_position_embeddings + max_sequence_length
    }

    /// Shift of the time grid according to the model's scheduler; 3 if none is given.
    ///
    /// # Errors
    /// If the class or a setting of the scheduler is not supported.
    pub fn grid_shift(&self) -> Result<f64, Sd3Error> {
        let path = self.path.join("scheduler").join("scheduler_config.json");
        if !path.exists() {
            return Ok(DEFAULT_SHIFT);
        }
        let scheduler: Scheduler =
            read_json(&path).map_err(|reason| Sd3Error::unreadable(&path, reason))?;
        match scheduler.unknown() {
            Some(unknown) => Err(Sd3Error::unreadable(
                &path,
                format!("{unknown} is not known here; only a static shift is"),
            )),
            None => Ok(scheduler.shift.unwrap_or(DEFAULT_SHIFT)),
        }
    }

    /// A fingerprint of the two CLIP encoders.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn clip_digest(&self) -> Result<String, Sd3Error> {
        let [l, g] = &self.clip;
        Ok(format!("{} {}", l.files.digest()?, g.files.digest()?))
    }

    /// A fingerprint of T5; `None` if T5 is not used.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn t5_digest(&self) -> Result<Option<String>, Sd3Error> {
        self.t5.as_ref().map(|t5| Ok(t5.files.digest()?)).transpose()
    }

    /// A fingerprint of the transformer and the autoencoder.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn network_digest(&self) -> Result<String, Sd3Error> {
        Ok(format!("{} {}", self.transformer.files.digest()?, self.vae.files.digest()?))
    }

    /// Whether T5 encodes prompts.
    pub fn has_t5(&self) -> bool {
        self.t5.is_some()
    }

    /// Loads the transformer, which computes in `precision`.
    pub fn transformer<B: Backend>(
        &self,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<Transformer<B>, Sd3Error> {
        self.load("transformer", &self.transformer, Transformer::load, precision, device)
    }

    /// Loads the autoencoder, which computes in `precision`.
    pub fn vae<B: Backend>(
        &self,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<Vae<B>, Sd3Error> {
        self.load("vae", &self.vae, Vae::load, precision, device)
    }

    /// Loads CLIP-L and CLIP-G with their tokenizers.
    pub fn clip_reader<B: Backend>(
        &self,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<ClipReader<B>, Sd3Error> {
        let clip = |index: usize, name: &str, tokenizer: &str| -> Result<_, Sd3Error> {
            let part = &self.clip[index];
            let tokenizer = PromptTokenizer::open(
                &self.path.join(tokenizer),
                part.config.max_position_embeddings,
                part.config.vocab_size,
            )?;
            Ok((tokenizer, self.load(name, part, ClipText::load, precision, device)?))
        };
        Ok(ClipReader([
            clip(0, "text_encoder", "tokenizer")?,
            clip(1, "text_encoder_2", "tokenizer_2")?,
        ]))
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

    /// Loads T5 and its tokenizer, for prompts of `max_sequence_length` tokens; `None` if T5 is not
    /// used.
    pub fn t5_reader<B: Backend>(
        &self,
        max_sequence_length: usize,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<Option<T5Reader<B>>, Sd3Error> {
        let Some(part) = &self.t5 else { return Ok(None) };
        let tokenizer = PromptTokenizer::open(
            &self.path.join("tokenizer_3"),
            max_sequence_length,
            part.config.vocab_size,
        )?;
        let encoder = self.load("text_encoder_3", part, T5Encoder::load, precision, device)?;
        Ok(Some(T5Reader { tokenizer, encoder }))
    }

    /// Combines the features of a prompt into an embedding for the transformer: CLIP's token
    /// features and pooled features, and T5's features of `max_sequence_length` tokens.
    pub fn embedding(
        &self,
        [clip, pooled]: [Features; 2],
        t5: Option<Features>,
        max_sequence_length: usize,
    ) -> Embedding {
        let text_shape =
            [self.text_tokens(max_sequence_length), self.transformer.config.joint_attention_dim];
        Embedding::new(PromptEmbedding { clip, pooled, t5, text_shape })
    }

    fn load<B: Backend, C, N>(
        &self,
        name: &str,
        part: &Part<C>,
        load: impl FnOnce(&C, &mut Source<'_, B>) -> N,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<N, Sd3Error> {
        let mut source = Source::files(part.files.clone(), precision, device);
        let network = load(&part.config, &mut source);
        let problems = source.problems();
        if problems.is_empty() {
            Ok(network)
        } else {
            Err(Problems::in_part(name, problems).of(&self.path))
        }
    }

    /// Lists everything in the configurations that is wrong or does not fit together.
    fn problems(&self) -> Vec<String> {
        let mut all = Problems::default();
        all.add("transformer/config.json", self.transformer.config.problems());
        all.add("vae/config.json", self.vae.config.problems());
        all.add("text_encoder/config.json", self.clip[0].config.problems());
        all.add("text_encoder_2/config.json", self.clip[1].config.problems());
        all.add(
            "text_encoder_3/config.json",
            self.t5.iter().flat_map(|t5| t5.config.problems()).collect(),
        );
        if !all.0.is_empty() {
            return all.0; // The checks below add sizes, which must be in range.
        }
        let transformer = &self.transformer.config;
        if self.vae.config.latent_channels != transformer.in_channels {
            let (of_vae, of_transformer) =
                (self.vae.config.latent_channels, transformer.in_channels);
            all.0.push(format!(
                "vae makes latents of {of_vae} channels, transformer takes {of_transformer}"
            ));
        }
        let pooled: usize = self.clip.iter().map(|clip| clip.config.projection_dim).sum();
        if pooled != transformer.pooled_projection_dim {
            let takes = transformer.pooled_projection_dim;
            all.0.push(format!(
                "the text encoders' pooled output has {pooled} features, transformer takes {takes}"
            ));
        }
        let width: usize = self.clip.iter().map(|clip| clip.config.hidden_size).sum();
        if width > transformer.joint_attention_dim {
            let takes = transformer.joint_attention_dim;
            all.0.push(format!(
                "the text encoders' output has {width} features, transformer takes at most {takes}"
            ));
        }
        if let Some(t5) =
            self.t5.as_ref().filter(|t5| t5.config.d_model != transformer.joint_attention_dim)
        {
            let (d, takes) = (t5.config.d_model, transformer.joint_attention_dim);
            all.0.push(format!(
                "text_encoder_3's output has {d} features, transformer takes {takes}"
            ));
        }
        if self.clip[0].config.max_position_embeddings
            != self.clip[1].config.max_position_embeddings
        {
            all.0.push(
                "text_encoder and text_encoder_2 read prompts of different lengths".to_owned(),
            );
        }
        all.0
    }

    /// Lists missing, misshapen and unexpected tensors of all parts, reading only headers.
    fn tensor_problems<B: Backend>(&self, device: &B::Device) -> Vec<String> {
        let mut all = Problems::default();
        all.add("transformer", self.transformer.compare::<B, _>(Transformer::load, device));
        all.add("vae", self.vae.compare::<B, _>(Vae::load, device));
        all.add("text_encoder", self.clip[0].compare::<B, _>(ClipText::load, device));
        all.add("text_encoder_2", self.clip[1].compare::<B, _>(ClipText::load, device));
        all.add(
            "text_encoder_3",
            self.t5.iter().flat_map(|t5| t5.compare::<B, _>(T5Encoder::load, device)).collect(),
        );
        all.0
    }
}

impl<C: DeserializeOwned> Part<C> {
    /// Opens the configuration and the files of a part; if one cannot be read, adds it to
    /// `problems` and returns `None`.
    fn open(
        root: &Path,
        name: &str,
        stem: &str,
        replaced: Option<TensorFiles>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let directory = root.join(name);
        let config =
            read_json(&directory.join("config.json")).map_err(|error| problems.0.push(error)).ok();
        let files = match replaced {
            Some(files) => Some(files),
            None => TensorFiles::open(&directory, stem)
                .map_err(|error| problems.0.push(with_source(&error)))
                .ok(),
        };
        Some(Self { config: config?, files: files? })
    }
}

impl<C> Part<C> {
    fn bytes<B: Backend>(&self, precision: FloatDType, device: &B::Device) -> u64 {
        self.files.bytes_in_memory(|stored| held_as::<B>(stored, precision, device))
    }

    fn compare<B: Backend, N>(
        &self,
        load: impl FnOnce(&C, &mut Source<'_, B>) -> N,
        device: &B::Device,
    ) -> Vec<String> {
        let mut source = Source::headers(self.files.clone(), device);
        load(&self.config, &mut source);
        source.problems()
    }
}

/// Reads the names of the parts that the model has.
fn read_index(path: &Path) -> Result<std::collections::BTreeSet<String>, Sd3Error> {
    if path.join("adapter_config.json").exists()
        || path.join("pytorch_lora_weights.safetensors").exists()
    {
        return Err(Sd3Error::wrong_kind(
            path,
            "is a LoRA adapter; pass it with --adapter, beside the --model it belongs to",
        ));
    }
    if path.is_file() {
        return Err(Sd3Error::wrong_kind(
            path,
            "is a file; pass the model's directory, and the file with --single-file",
        ));
    }
    let file = path.join("model_index.json");
    if !file.exists() {
        let reason = "has no model_index.json: it is not a model in the layout of diffusers";
        return Err(Sd3Error::wrong_kind(path, reason));
    }
    let index: BTreeMap<String, serde_json::Value> =
        read_json(&file).map_err(|reason| Sd3Error::unreadable(&file, reason))?;
    let class = index.get("_class_name").and_then(serde_json::Value::as_str).unwrap_or("unknown");
    if class != PIPELINE {
        return Err(Sd3Error::wrong_kind(
            path,
            &format!("is a {class}; only {PIPELINE} (SD3, SD3.5) can be used"),
        ));
    }
    let there = |value: &serde_json::Value| {
        value.as_array().is_some_and(|parts| parts.iter().any(|part| !part.is_null()))
    };
    Ok(index.into_iter().filter(|(_, value)| there(value)).map(|(name, _)| name).collect())
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn with_source(error: &dyn std::error::Error) -> String {
    error.source().map_or(error.to_string(), |source| format!("{error}: {source}"))
}

#[derive(Debug, Default)]
struct Problems(Vec<String>);

impl Problems {
    fn in_part(name: &str, problems: Vec<String>) -> Self {
        let mut all = Self::default();
        all.add(name, problems);
        all
    }

    fn add(&mut self, part: &str, problems: Vec<String>) {
        self.0.extend(problems.into_iter().map(|problem| format!("{part}: {problem}")));
    }

    fn of(self, path: &Path) -> Sd3Error {
        Sd3Error::Problems { path: path.to_owned(), problems: self.0.join("\n  - ") }
    }
}
