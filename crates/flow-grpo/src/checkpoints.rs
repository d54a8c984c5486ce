//! Where models come from: built-in checkpoints, checkpoint files, and model directories.

pub mod training_state;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use models::WeightsFile;
use pipelines::{DirectorySettings, ModelSource};

use crate::named;

/// The built-in checkpoints, by name.
const BUILT_IN: [(&str, &[u8]); 5] = [
    ("shapes-base", include_bytes!("../../../assets/checkpoints/shapes-base.safetensors")),
    ("emoji-base", include_bytes!("../../../assets/checkpoints/emoji-base.safetensors")),
    ("emoji-clean", include_bytes!("../../../assets/checkpoints/emoji-clean.safetensors")),
    ("text-base", include_bytes!("../../../assets/checkpoints/text-base.safetensors")),
    ("toy-2d-base", include_bytes!("../../../assets/checkpoints/toy-2d-base.safetensors")),
];

/// The default checkpoint.
pub const DEFAULT: &str = "shapes-base";

/// Whether a path is a model directory, and not a checkpoint; the name of a model is that of one.
pub fn is_directory(path: &Path) -> bool {
    path.join("model_index.json").exists() || named::is_name(&path.to_string_lossy())
}

/// A model by the name of a built-in checkpoint, the path of a checkpoint, or a model directory,
/// by its path or its name.
///
/// # Errors
/// If there is no such model.
pub fn source(name: &str, settings: DirectorySettings) -> Result<ModelSource> {
    if named::is_name(name) || Path::new(name).is_dir() {
        return directory(name, settings);
    }
    Ok(ModelSource::Checkpoint(open(name)?))
}

/// A model directory by its path, or by its name, which is downloaded.
///
/// # Errors
/// If it cannot be downloaded.
pub fn directory(name: &str, settings: DirectorySettings) -> Result<ModelSource> {
    let path = named::path(name, named::unused(settings.choices.without_t5))?;
    let choices = named::choices(settings.choices)?;
    Ok(ModelSource::Directory { path, settings: DirectorySettings { choices, ..settings } })
}

/// Opens a built-in checkpoint by name, or a checkpoint file by path.
///
/// # Errors
/// If there is no such file, or it is a training state.
pub fn open(name: &str) -> Result<WeightsFile> {
    if let Some((_, bytes)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
        return Ok(WeightsFile::from_bytes(bytes.to_vec(), Path::new(name))?);
    }
    let names: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
    let file = WeightsFile::read(Path::new(name)).with_context(|| {
        format!("`{name}` is neither a built-in checkpoint ({}) nor one on disk", names.join(", "))
    })?;
    ensure!(
        !training_state::is_state(&file),
        "{} is a training state, for `--resume RUN`; the weights for use are in RUN/policy.safetensors and \
         RUN/best.safetensors (training with LoRA: the base model with --adapter RUN/adapter; pre-training: RUN/base.safetensors)",
        file.path().display()
    );
    Ok(file)
}

/// Whether a name is that of a built-in checkpoint.
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.iter().any(|(built_in, _)| *built_in == name)
}
