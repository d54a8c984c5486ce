//! One network of a model directory: its configuration and its files.

use std::path::Path;

use burn::{prelude::*, tensor::FloatDType};
use serde::de::DeserializeOwned;

use super::{ModelError, Problems, Source, TensorFiles, read_json, source::held_as, with_source};
use crate::weights::WeightsError;

/// One network of a model; no weights are loaded.
#[derive(Clone, Debug)]
pub(crate) struct Part<C> {
    /// The directory's name in the model.
    pub name: &'static str,
    /// `config.json`
    pub config: C,
    files: TensorFiles,
}

impl<C: DeserializeOwned> Part<C> {
    /// Opens the configuration and the files of a part; if one cannot be read, adds it to
    /// `problems` and returns `None`. The tensors of `replaced` stand for the directory's.
    pub fn open(
        root: &Path,
        name: &'static str,
        stem: &str,
        replaced: Option<TensorFiles>,
        problems: &mut Problems,
    ) -> Option<Self> {
        let directory = root.join(name);
        let config = read_json(&directory.join("config.json"))
            .map_err(|error| problems.0.push(error.to_string()))
            .ok();
        let files = match replaced {
            Some(files) => Some(files),
            None => TensorFiles::open(&directory, stem)
                .map_err(|error| problems.0.push(with_source(&error)))
                .ok(),
        };
        Some(Self { name, config: config?, files: files? })
    }
}

impl<C> Part<C> {
    /// Loads the network, which computes in `precision`.
    ///
    /// # Errors
    /// With every tensor that is missing, misshapen or unexpected.
    pub fn load<B: Backend, N>(
        &self,
        root: &Path,
        load: impl FnOnce(&C, &mut Source<'_, B>) -> N,
        precision: FloatDType,
        device: &B::Device,
    ) -> Result<N, ModelError> {
        let mut source = Source::files(self.files.clone(), precision, device);
        let network = load(&self.config, &mut source);
        let mut problems = Problems::default();
        problems.add(self.name, source.problems());
        problems.none(root, network)
    }

    /// Adds every missing, misshapen and unexpected tensor to `problems`, reading only headers.
    pub fn compare<B: Backend, N>(
        &self,
        load: impl FnOnce(&C, &mut Source<'_, B>) -> N,
        device: &B::Device,
        problems: &mut Problems,
    ) {
        let mut source = Source::headers(self.files.clone(), device);
        load(&self.config, &mut source);
        problems.add(self.name, source.problems());
    }

    /// Memory of the weights in bytes, in a network that computes in `precision`.
    pub fn bytes<B: Backend>(&self, precision: FloatDType, device: &B::Device) -> u64 {
        self.files.bytes_in_memory(|stored| held_as::<B>(stored, precision, device))
    }

    /// A fingerprint of the weights.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn digest(&self) -> Result<String, WeightsError> {
        self.files.digest()
    }

    /// The tensors.
    pub fn files(&self) -> &TensorFiles {
        &self.files
    }

    /// The part with its tensors under other names.
    pub fn renamed(self, rename: impl FnOnce(TensorFiles) -> TensorFiles) -> Self {
        Self { files: rename(self.files), ..self }
    }
}
