//! The files of a CLIP model: a directory of transformers or OpenCLIP, or one file of weights with
//! the configuration and the tokenizer beside it.

use std::path::{Path, PathBuf};

use burn::{prelude::*, tensor::FloatDType};
use kernels::Kernels;
use serde_json::Value;

use super::{Clip, ClipModelConfig, ClipVision, Fit, Preprocess};
use crate::{
    storage::{
        ModelError, Problems, Source, TRANSFORMERS, TensorFiles,
        layout::{Rule, keep, renamed, split, transposed},
        read_json,
    },
    text::tokenizer::PromptTokenizer,
};

/// A CLIP model on disk; no weights are loaded.
#[derive(Clone, Debug)]
pub struct ClipFiles {
    /// The directory or the file.
    path: PathBuf,
    /// The directory with the tokenizer.
    directory: PathBuf,
    config: ClipModelConfig,
    preprocess: Preprocess,
    /// The tensors of the towers, under the names of transformers.
    tensors: TensorFiles,
    /// All tensors, under the names of the files.
    all: TensorFiles,
}

/// Files of weights that are looked for in a directory, beside those of transformers.
const OPEN_CLIP: [&str; 2] = ["open_clip_model", "open_clip_pytorch_model"];

impl ClipFiles {
    /// Opens a model: a directory with `config.json` and `model.safetensors`, or with
    /// `open_clip_config.json` and `open_clip_model.safetensors`.
    ///
    /// # Errors
    /// If the path is no CLIP model, a file is missing or damaged, or the configuration has
    /// something that this code does not support.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        Self::open_named(path, &[], None)
    }

    /// Opens a model like [`Self::open`], or a single file of weights. Weights may also be called
    /// `names`, and the sizes of a model without a configuration are `sizes`.
    pub(crate) fn open_named(
        path: &Path,
        names: &[&str],
        sizes: Option<&ClipModelConfig>,
    ) -> Result<Self, ModelError> {
        let directory = directory_of(path)?;
        let (config, preprocess) = match (configured(&directory)?, sizes) {
            (Some(found), _) => found,
            (None, Some(sizes)) => {
                let side = sizes.vision.image_size;
                (sizes.clone(), Preprocess::openai(side, Fit::CropToEven))
            }
            (None, None) => {
                return Err(ModelError::wrong_kind(
                    &directory,
                    "is not a CLIP model: there is neither config.json with model_type `clip` nor \
                     open_clip_config.json",
                ));
            }
        };
        let mut problems = Problems(config.problems());
        if preprocess.size != config.vision.image_size {
            problems.0.push(format!(
                "the preprocessing makes images of {} pixels, the image tower reads {}",
                preprocess.size, config.vision.image_size
            ));
        }
        let stems: Vec<&str> =
            [TRANSFORMERS].into_iter().chain(OPEN_CLIP).chain(names.iter().copied()).collect();
        let all = weights(path, &stems)?;
        let tensors = laid_out(&all).ok_or_else(|| {
            ModelError::wrong_kind(
                path,
                "holds no CLIP model: there is neither vision_model.embeddings.class_embedding nor \
                 visual.class_embedding",
            )
        })?;
        let path = path.to_owned();
        let model = Self { path: path.clone(), directory, config, preprocess, tensors, all };
        problems.none(&path, model)
    }

    /// The sizes of the model.
    pub fn config(&self) -> &ClipModelConfig {
        &self.config
    }

    /// The preprocessing of images.
    pub fn preprocess(&self) -> &Preprocess {
        &self.preprocess
    }

    /// Loads both towers, in f32.
    ///
    /// # Errors
    /// With every tensor that is missing, misshapen or unexpected.
    pub fn model<B: Kernels>(&self, device: &B::Device) -> Result<Clip<B>, ModelError> {
        let load = |source: &mut Source<'_, B>| Clip::load(&self.config, source);
        self.load(self.tensors.clone(), load, device)
    }

    /// Loads the image tower alone, in f32.
    ///
    /// # Errors
    /// With every tensor that is missing, misshapen or unexpected.
    pub fn vision<B: Kernels>(&self, device: &B::Device) -> Result<ClipVision<B>, ModelError> {
        let tensors = self.tensors.only(|name| {
            name.starts_with("vision_model.") || name.starts_with("visual_projection.")
        });
        self.load(tensors, |source| ClipVision::load(&self.config.vision, source), device)
    }

    /// Opens the tokenizer beside the weights.
    ///
    /// # Errors
    /// If its files are missing or damaged.
    pub fn tokenizer(&self) -> Result<PromptTokenizer, ModelError> {
        let text = &self.config.text;
        PromptTokenizer::open(&self.directory, text.max_position_embeddings, text.vocab_size)
    }

    /// The tensors whose names begin with `prefix`, without it; `None` if there are none.
    pub(crate) fn others(&self, prefix: &str) -> Option<TensorFiles> {
        let there = self.all.names().any(|name| name.starts_with(prefix));
        there.then(|| renamed(&self.all, prefix, &[]))
    }

    fn load<B: Backend, N>(
        &self,
        tensors: TensorFiles,
        load: impl FnOnce(&mut Source<'_, B>) -> N,
        device: &B::Device,
    ) -> Result<N, ModelError> {
        let mut source = Source::files(tensors, FloatDType::F32, device);
        let network = load(&mut source);
        Problems(source.problems()).none(&self.path, network)
    }
}

/// The directory of a path: itself, or that of a file.
pub(crate) fn directory_of(path: &Path) -> Result<PathBuf, ModelError> {
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if !path.exists() {
        return Err(ModelError::unreadable(path, "there is no such file or directory"));
    }
    // The parent of a bare name is an empty path, which is no directory.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(parent.unwrap_or(Path::new(".")).to_owned())
}

/// The tensors of a path: the file itself, or the first of the files called `stems` in a directory.
/// Files of PyTorch are read where there are no safetensors.
///
/// # Errors
/// If there is none, or it is damaged.
pub(crate) fn weights(path: &Path, stems: &[&str]) -> Result<TensorFiles, ModelError> {
    if path.is_file() {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let pickle = PICKLES.contains(&ending);
        let open = if pickle { TensorFiles::open_pytorch } else { TensorFiles::open_file };
        return Ok(open(path)?);
    }
    let is_there =
        |stem: &&&str| ENDINGS.iter().any(|ending| path.join(format!("{stem}.{ending}")).exists());
    if let Some(stem) = stems.iter().find(is_there) {
        return Ok(TensorFiles::open(path, stem)?);
    }
    let pickles =
        stems.iter().flat_map(|stem| PICKLES.map(|end| path.join(format!("{stem}.{end}"))));
    // The name that transformers gives to `model`.
    let usual = stems.contains(&TRANSFORMERS).then(|| path.join("pytorch_model.bin"));
    if let Some(pickle) = usual.into_iter().chain(pickles).find(|pickle| pickle.exists()) {
        return Ok(TensorFiles::open_pytorch(&pickle)?);
    }
    let names: Vec<String> = stems.iter().map(|stem| format!("{stem}.safetensors")).collect();
    Err(ModelError::wrong_kind(path, format!("has no weights: none of {}", names.join(", "))))
}

/// Endings of files of weights, of their index, and of the variants in 16 bits.
const ENDINGS: [&str; 4] =
    ["safetensors", "safetensors.index.json", "fp16.safetensors", "safetensors.index.fp16.json"];

/// Endings of PyTorch's files.
const PICKLES: [&str; 4] = ["pt", "pth", "bin", "ckpt"];

/// The sizes and the preprocessing that the configurations of a directory describe; `None` if it
/// has no configuration.
fn configured(directory: &Path) -> Result<Option<(ClipModelConfig, Preprocess)>, ModelError> {
    let open_clip = directory.join("open_clip_config.json");
    if open_clip.exists() {
        let file: Value = read_json(&open_clip)?;
        let bad = |reason: String| ModelError::unreadable(&open_clip, reason);
        let config = ClipModelConfig::open_clip(&file["model_cfg"]).map_err(bad)?;
        let preprocess = Preprocess::open_clip(&file["preprocess_cfg"], config.vision.image_size)
            .map_err(bad)?;
        return Ok(Some((config, preprocess)));
    }
    let transformers = directory.join("config.json");
    if !transformers.exists() {
        return Ok(None);
    }
    let file: Value = read_json(&transformers)?;
    match file["model_type"].as_str() {
        Some("clip") => {}
        Some(other) => {
            let reason = format!("is not a CLIP model: its model_type is `{other}`");
            return Err(ModelError::wrong_kind(&transformers, reason));
        }
        None => return Ok(None),
    }
    let config = ClipModelConfig::transformers(&file)
        .map_err(|reason| ModelError::unreadable(&transformers, reason))?;
    let preprocess = Preprocess::open(&directory.join("preprocessor_config.json"))?;
    Ok(Some((config, preprocess)))
}

/// Wrappers that savers put before every name.
const WRAPPERS: [&str; 4] = ["", "model.", "module.", "clip."];

/// The tensors of the towers under the names of transformers; `None` if there are none.
fn laid_out(files: &TensorFiles) -> Option<TensorFiles> {
    let wrapper = |name: &str| {
        WRAPPERS.iter().find(|wrapper| files.shape(&format!("{wrapper}{name}")).is_some())
    };
    let mut tensors = match wrapper("visual.class_embedding") {
        Some(prefix) => renamed(files, prefix, &RULES),
        None => renamed(files, wrapper("vision_model.embeddings.class_embedding")?, &[]),
    };
    // A constant that older versions of OpenCLIP save.
    tensors.remove("attn_mask");
    // A number is a vector of one number here.
    if let Some(scale) = tensors.remove("logit_scale") {
        tensors.insert("logit_scale".to_owned(), scale.reshaped(vec![1]));
    }
    Some(tensors)
}

/// Attention's three matrices, one below the other.
const PROJECTIONS: &[(&str, usize)] = &[("q_proj", 1), ("k_proj", 1), ("v_proj", 1)];

/// From the names of OpenCLIP to those of transformers.
const RULES: [Rule; 24] = [
    keep("visual.class_embedding", "vision_model.embeddings.class_embedding"),
    keep("visual.conv1.weight", "vision_model.embeddings.patch_embedding.weight"),
    keep("visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
    keep("visual.ln_pre.*", "vision_model.pre_layrnorm.*"),
    keep("visual.ln_post.*", "vision_model.post_layernorm.*"),
    transposed("visual.proj", "visual_projection.weight"),
    keep("token_embedding.weight", "text_model.embeddings.token_embedding.weight"),
    keep("positional_embedding", "text_model.embeddings.position_embedding.weight"),
    keep("ln_final.*", "text_model.final_layer_norm.*"),
    transposed("text_projection", "text_projection.weight"),
    split(
        "visual.transformer.resblocks.*.attn.in_proj_weight",
        "vision_model.encoder.layers.*.self_attn.@.weight",
        PROJECTIONS,
    ),
    split(
        "visual.transformer.resblocks.*.attn.in_proj_bias",
        "vision_model.encoder.layers.*.self_attn.@.bias",
        PROJECTIONS,
    ),
    keep(
        "visual.transformer.resblocks.*.attn.out_proj.*",
        "vision_model.encoder.layers.*.self_attn.out_proj.*",
    ),
    keep("visual.transformer.resblocks.*.ln_1.*", "vision_model.encoder.layers.*.layer_norm1.*"),
    keep("visual.transformer.resblocks.*.ln_2.*", "vision_model.encoder.layers.*.layer_norm2.*"),
    keep("visual.transformer.resblocks.*.mlp.c_fc.*", "vision_model.encoder.layers.*.mlp.fc1.*"),
    keep("visual.transformer.resblocks.*.mlp.c_proj.*", "vision_model.encoder.layers.*.mlp.fc2.*"),
    split(
        "transformer.resblocks.*.attn.in_proj_weight",
        "text_model.encoder.layers.*.self_attn.@.weight",
        PROJECTIONS,
    ),
    split(
        "transformer.resblocks.*.attn.in_proj_bias",
        "text_model.encoder.layers.*.self_attn.@.bias",
        PROJECTIONS,
    ),
    keep(
        "transformer.resblocks.*.attn.out_proj.*",
        "text_model.encoder.layers.*.self_attn.out_proj.*",
    ),
    keep("transformer.resblocks.*.ln_1.*", "text_model.encoder.layers.*.layer_norm1.*"),
    keep("transformer.resblocks.*.ln_2.*", "text_model.encoder.layers.*.layer_norm2.*"),
    keep("transformer.resblocks.*.mlp.c_fc.*", "text_model.encoder.layers.*.mlp.fc1.*"),
    keep("transformer.resblocks.*.mlp.c_proj.*", "text_model.encoder.layers.*.mlp.fc2.*"),
];
