//! Weights in safetensors files. Names, shapes and types are checked, all problems are reported
//! together, and writes are atomic.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use burn::{
    prelude::*,
    tensor::{DType, bf16, f16},
};
use burn_store::{ModuleSnapshot, TensorSnapshot};
use files::{Digest, FileError, read_whole, replace_atomically, sha256};
use safetensors::{SafeTensors, tensor::TensorView};
use thiserror::Error;

/// Number type of stored tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredAs {
    /// 32-bit floats: exact.
    F32,
    /// 16-bit floats: half the size, for shipped checkpoints.
    F16,
    /// 16-bit floats with the range of f32: exact for values computed in bf16.
    Bf16,
}

/// A safetensors file read into memory.
#[derive(Debug)]
pub struct WeightsFile {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: HashMap<String, String>,
}

impl WeightsFile {
    /// Reads a file and checks that it is safetensors.
    pub fn read(path: &Path) -> Result<Self, WeightsError> {
        Self::from_bytes(read_whole(path, LARGEST_WHOLE)?, path)
    }

    /// Checks that bytes in memory are safetensors; errors call them `path`.
    pub fn from_bytes(bytes: Vec<u8>, path: &Path) -> Result<Self, WeightsError> {
        let (_, header) = SafeTensors::read_metadata(&bytes)
            .and_then(|header| SafeTensors::deserialize(&bytes).map(|_| header))
            .map_err(|source| WeightsError::NotSafetensors { path: path.into(), source })?;
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self { path: path.into(), bytes, metadata })
    }

    /// Path of the file, as errors name it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A metadata entry.
    ///
    /// # Errors
    /// If the file has no entry of that name.
    pub fn metadata(&self, key: &str) -> Result<&str, WeightsError> {
        let missing = || WeightsError::NoMetadata { path: self.path.clone(), key: key.to_owned() };
        self.metadata.get(key).map(String::as_str).ok_or_else(missing)
    }

    /// Parses a metadata entry that holds JSON.
    ///
    /// # Errors
    /// If the entry is missing or does not parse.
    pub fn parsed_metadata<T: serde::de::DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<T, WeightsError> {
        let text = self.metadata(key)?;
        serde_json::from_str(text).map_err(|source| WeightsError::BadMetadata {
            path: self.path.clone(),
            key: key.to_owned(),
            source,
        })
    }

    /// SHA-256 of the file's bytes, in hexadecimal.
    pub fn digest(&self) -> String {
        sha256(&self.bytes)
    }

    /// Number of values in the file.
    ///
    /// # Panics
    /// Never: the header was checked when the file was read.
    pub fn count(&self) -> usize {
        let file = SafeTensors::deserialize(&self.bytes).expect("checked when it was read");
        file.iter().map(|(_, view)| view.shape().iter().product::<usize>()).sum()
    }

    /// Every tensor as f32 numbers in row-major order, by name.
    ///
    /// # Errors
    /// If a tensor is stored in a type other than F32, F16 or BF16.
    pub fn tensors(&self) -> Result<BTreeMap<String, TensorData>, WeightsError> {
        let file = SafeTensors::deserialize(&self.bytes)
            .map_err(|source| WeightsError::NotSafetensors { path: self.path.clone(), source })?;
        let mut problems = Vec::new();
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            match numbers(&view) {
                Some(values) => {
                    drop(tensors.insert(name, TensorData::new(values, view.shape().to_vec())));
                }
                None => problems.push(format!(
                    "{name} is stored as {:?}, which is not F32, F16 or BF16",
                    view.dtype()
                )),
            }
        }
        self.unless_problems(problems)?;
        Ok(tensors)
    }

    /// Loads the file's tensors into a module; names and shapes must match exactly.
    ///
    /// # Errors
    /// Lists every missing, unexpected or misshapen tensor, and every number that is not finite.
    pub fn load_into<B: Backend, M: Module<B> + ModuleSnapshot<B>>(
        &self,
        mut module: M,
    ) -> Result<M, WeightsError> {
        let mut tensors = self.tensors()?;
        let mut problems = Vec::new();
        let mut found = Vec::new();
        for wanted in module.collect(None, None, false) {
            let name = wanted.full_path();
            let Some(data) = tensors.remove(&name) else {
                problems.push(format!("{name} is missing"));
                continue;
            };
            if data.shape != wanted.shape {
                problems.push(format!(
                    "{name} has shape {:?}, the network needs {:?}",
                    data.shape, wanted.shape
                ));
            } else if !data.iter::<f32>().all(f32::is_finite) {
                problems.push(format!("{name} holds numbers that are not finite"));
            }
            let path = name.split('.').map(str::to_owned).collect();
            found.push(TensorSnapshot::from_data(
                data,
                path,
                Vec::new(),
                burn::module::ParamId::new(),
            ));
        }
        problems
            .extend(tensors.keys().map(|name| format!("{name} is not a weight of this network")));
        self.unless_problems(problems)?;
        let result = module.apply(found, None, None, false);
        self.unless_problems(result.errors.iter().map(ToString::to_string).collect())?;
        Ok(module)
    }

    fn unless_problems(&self, problems: Vec<String>) -> Result<(), WeightsError> {
        if problems.is_empty() {
            return Ok(());
        }
        Err(WeightsError::Mismatch { path: self.path.clone(), problems: problems.join("\n  - ") })
    }
}

/// Atomically writes a module's parameters, under their paths in the module, with one metadata
/// entry.
pub fn write_module<B: Backend, M: ModuleSnapshot<B>>(
    module: &M,
    metadata: (&str, String),
    stored_as: StoredAs,
    path: &Path,
) -> Result<(), WeightsError> {
    let mut tensors = BTreeMap::new();
    for snapshot in module.collect(None, None, false) {
        let data = snapshot.to_data().expect("a parameter in memory can be read");
        tensors.insert(snapshot.full_path(), data);
    }
    write_tensors(&tensors, metadata, stored_as, path)
}

/// Atomically writes named tensors and one metadata entry to a file.
///
/// There is only one entry, because the format does not fix the order of several, and equal states
/// must give equal bytes.
pub fn write_tensors(
    tensors: &BTreeMap<String, TensorData>,
    metadata: (&str, String),
    stored_as: StoredAs,
    path: &Path,
) -> Result<(), WeightsError> {
    let views = tensors.iter().map(|(name, data)| (name, Encoded { data, stored_as }));
    let metadata = HashMap::from([(metadata.0.to_owned(), metadata.1)]);
    let write = |unfinished: &Path| {
        safetensors::serialize_to_file(views, Some(metadata), unfinished).map_err(|error| {
            match error {
                safetensors::SafeTensorError::IoError(error) => error,
                error => std::io::Error::other(error),
            }
        })
    };
    Ok(replace_atomically(path, write)?)
}

/// A tensor that is encoded only when it is written, so that one encoded tensor is in memory at a
/// time.
struct Encoded<'a> {
    data: &'a TensorData,
    stored_as: StoredAs,
}

impl safetensors::View for Encoded<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.stored_as {
            StoredAs::F32 => safetensors::Dtype::F32,
            StoredAs::F16 => safetensors::Dtype::F16,
            StoredAs::Bf16 => safetensors::Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.data.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        encode(self.data, self.stored_as).into()
    }

    fn data_len(&self) -> usize {
        self.data.num_elements() * self.dtype().bitsize() / 8
    }
}

/// Largest weights file that is read into memory, in bytes.
const LARGEST_WHOLE: u64 = 16 << 30;

/// SHA-256 of named tensors (names, shapes and f32 values) and an accompanying text, in
/// hexadecimal.
pub fn sha256_of_tensors(tensors: &BTreeMap<String, TensorData>, text: &str) -> String {
    let mut digest = Digest::default();
    for (name, data) in tensors {
        digest.update(format!("{name} {:?}\n", data.shape));
        digest.update(encode(data, StoredAs::F32));
    }
    digest.update(text);
    digest.hexadecimal()
}

fn encode(data: &TensorData, stored_as: StoredAs) -> Vec<u8> {
    match stored_as {
        StoredAs::F32 => data.iter::<f32>().flat_map(f32::to_le_bytes).collect(),
        StoredAs::F16 => data.iter::<f32>().flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
        StoredAs::Bf16 => {
            data.iter::<f32>().flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect()
        }
    }
}

fn numbers(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let dtype = match view.dtype() {
        safetensors::Dtype::F32 => DType::F32,
        safetensors::Dtype::F16 => DType::F16,
        safetensors::Dtype::BF16 => DType::BF16,
        _ => return None,
    };
    let bytes = burn::tensor::Bytes::from_bytes_vec(view.data().to_vec());
    Some(TensorData::from_bytes(bytes, view.shape().to_vec(), dtype).iter::<f32>().collect())
}

/// A weights file could not be read, written or used.
#[derive(Debug, Error)]
pub enum WeightsError {
    /// The file could not be read or written.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not safetensors, or it is truncated or damaged.
    #[error("{} is not a complete safetensors file", path.display())]
    NotSafetensors {
        /// The file.
        path: PathBuf,
        /// The error of the safetensors parser.
        source: safetensors::SafeTensorError,
    },
    /// The file is not a state dict of PyTorch that can be read.
    #[error("{} {reason}", path.display())]
    PyTorch {
        /// The file.
        path: PathBuf,
        /// Description of the problem, and advice.
        reason: String,
    },
    /// The index of a sharded network does not parse.
    #[error("{} is not an index of safetensors files", path.display())]
    BadIndex {
        /// The file.
        path: PathBuf,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// A metadata entry is missing.
    #[error("{} has no metadata entry `{key}`: it was not written by this program", path.display())]
    NoMetadata {
        /// The file.
        path: PathBuf,
        /// Key of the entry.
        key: String,
    },
    /// A metadata entry does not parse.
    #[error("{}: metadata entry `{key}` does not parse", path.display())]
    BadMetadata {
        /// The file.
        path: PathBuf,
        /// Key of the entry.
        key: String,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// The tensors do not match the network.
    #[error("{} does not fit the network:\n  - {problems}", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// One problem per line.
        problems: String,
    },
}

impl From<FileError> for WeightsError {
    fn from(FileError { path, source, .. }: FileError) -> Self {
        Self::Io { path, source }
    }
}
