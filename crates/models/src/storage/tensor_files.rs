//! Tensors in one or several safetensors files, or in a file of PyTorch, read one at a time: loading
//! takes no more memory than the largest tensor.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use burn::tensor::{Bytes, DType, TensorData, bf16, f16};
use files::sha256;
use safetensors::tensor::Metadata;
use serde::Deserialize;

use super::{index::is_plain_name, pytorch};
use crate::weights::WeightsError;

/// The tensors of a network, by name, on disk.
#[derive(Clone, Debug, Default)]
pub struct TensorFiles {
    tensors: BTreeMap<String, Stored>,
}

/// Location of a tensor on disk. The file stays open as long as this value lives.
#[derive(Clone, Debug)]
pub struct Stored {
    file: Arc<OpenFile>,
    dtype: safetensors::Dtype,
    /// Shape of the tensor.
    pub shape: Vec<usize>,
    /// Byte ranges in the file, in the order in which they form the tensor.
    parts: Vec<(u64, u64)>,
    /// Whether the file holds the columns of a matrix where `shape` has its rows.
    transposed: bool,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    /// The position in the file changes with every read, so reads take turns.
    file: Mutex<File>,
}

impl OpenFile {
    fn read(&self, from: u64, bytes: &mut [u8]) -> std::io::Result<()> {
        let mut file = self.file.lock().expect("nothing panics while it reads");
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(bytes)
    }
}

/// Longest accepted header, in bytes: enough for a million tensors.
const LONGEST_HEADER: u64 = 100 << 20;

/// Leading bytes of a tensor that enter a digest.
const LOOKED_AT: u64 = 4096;

impl TensorFiles {
    /// Opens the files of one component in a directory: `STEM.safetensors`, or the shards that
    /// `STEM.safetensors.index.json` names, or the `fp16` variant of either.
    ///
    /// # Errors
    /// If none of these files exists, or one is damaged.
    pub fn open(directory: &Path, stem: &str) -> Result<Self, WeightsError> {
        let of_name = |name: String| Some(directory.join(name)).filter(|path| path.exists());
        if let Some(file) = of_name(format!("{stem}.safetensors")) {
            return Self::open_file(&file);
        }
        if let Some(index) = of_name(format!("{stem}.safetensors.index.json")) {
            return Self::open_shards(&index);
        }
        if let Some(file) = of_name(format!("{stem}.fp16.safetensors")) {
            return Self::open_file(&file);
        }
        if let Some(index) = of_name(format!("{stem}.safetensors.index.fp16.json")) {
            return Self::open_shards(&index);
        }
        Err(WeightsError::Io {
            path: directory.join(format!("{stem}.safetensors")),
            source: std::io::Error::new(
                std::io::ErrorKind::NotFound,
                "neither the file nor an index of its shards is there",
            ),
        })
    }

    fn open_shards(index: &Path) -> Result<Self, WeightsError> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let io = |source| WeightsError::Io { path: index.into(), source };
        let text = std::fs::read_to_string(index).map_err(io)?;
        let Index { weight_map } = serde_json::from_str(&text)
            .map_err(|source| WeightsError::BadIndex { path: index.into(), source })?;
        let mut shards: Vec<&String> = weight_map.values().collect();
        shards.sort_unstable();
        shards.dedup();
        if let Some(shard) = shards.iter().find(|shard| !is_plain_name(shard)) {
            let problems = format!("`{shard}` is not the name of a file beside the index");
            return Err(WeightsError::Mismatch { path: index.into(), problems });
        }
        let mut all = Self::default();
        for shard in shards {
            let path = index.parent().unwrap_or(Path::new(".")).join(shard);
            all.tensors.extend(Self::open_file(&path)?.tensors);
        }
        let missing: Vec<String> = weight_map
            .iter()
            .filter(|(name, _)| !all.tensors.contains_key(*name))
            .map(|(name, shard)| format!("{name} is not in {shard}, where the index says it is"))
            .collect();
        if missing.is_empty() {
            return Ok(all);
        }
        Err(WeightsError::Mismatch { path: index.into(), problems: missing.join("\n  - ") })
    }

    /// Opens one file; only its header is read.
    ///
    /// # Errors
    /// If the file cannot be read, is not safetensors, or is truncated or damaged.
    pub fn open_file(path: &Path) -> Result<Self, WeightsError> {
        Ok(Self::open_with_metadata(path)?.0)
    }

    /// Opens the state dict of a file of `torch.save`, without running anything; only the
    /// descriptions of its tensors are read. `.bin`, `.pt` and `.pth` are usual endings.
    ///
    /// # Errors
    /// If the file cannot be read, is not of PyTorch 1.6 or newer, holds a model instead of a state
    /// dict, or is truncated or damaged.
    pub fn open_pytorch(path: &Path) -> Result<Self, WeightsError> {
        let io = |source| WeightsError::Io { path: path.into(), source };
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let described = pytorch::described(&mut file, size)
            .map_err(|reason| WeightsError::PyTorch { path: path.into(), reason })?;
        let file = Arc::new(OpenFile { path: path.to_owned(), file: Mutex::new(file) });
        let stored = |(name, pytorch::Described { dtype, shape, bytes })| {
            let parts = vec![(bytes.start, bytes.end)];
            (name, Stored { file: file.clone(), dtype, shape, parts, transposed: false })
        };
        Ok(Self { tensors: described.into_iter().map(stored).collect() })
    }

    /// Opens one file like [`Self::open_file`], and returns the entry `key` of its metadata if
    /// there is one.
    ///
    /// # Errors
    /// As for [`Self::open_file`].
    pub fn open_with_entry(path: &Path, key: &str) -> Result<(Self, Option<String>), WeightsError> {
        let (files, mut metadata) = Self::open_with_metadata(path)?;
        Ok((files, metadata.remove(key)))
    }

    fn open_with_metadata(path: &Path) -> Result<(Self, HashMap<String, String>), WeightsError> {
        let io = |source| WeightsError::Io { path: path.into(), source };
        let bad = |source| WeightsError::NotSafetensors { path: path.into(), source };
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut length = [0; 8];
        file.read_exact(&mut length)
            .map_err(|_| bad(safetensors::SafeTensorError::HeaderTooSmall))?;
        let length = u64::from_le_bytes(length);
        if length > LONGEST_HEADER || length + 8 > size {
            return Err(bad(safetensors::SafeTensorError::HeaderTooLarge));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
            bad(safetensors::SafeTensorError::InvalidHeaderDeserialization(error))
        })?;
        let begin = length + 8;
        let file = Arc::new(OpenFile { path: path.to_owned(), file: Mutex::new(file) });
        let mut tensors = BTreeMap::new();
        let mut end = begin;
        for (name, info) in metadata.tensors() {
            let (from, to) =
                (begin + info.data_offsets.0 as u64, begin + info.data_offsets.1 as u64);
            end = end.max(to);
            let stored = Stored {
                file: file.clone(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                parts: vec![(from, to)],
                transposed: false,
            };
            tensors.insert(name, stored);
        }
        if end != size {
            return Err(bad(safetensors::SafeTensorError::MetadataIncompleteBuffer));
        }
        Ok((Self { tensors }, metadata.metadata().clone().unwrap_or_default()))
    }

    /// The tensors whose names `keep` accepts.
    pub(crate) fn only(&self, keep: impl Fn(&str) -> bool) -> Self {
        let kept = self.tensors.iter().filter(|(name, _)| keep(name));
        Self { tensors: kept.map(|(name, stored)| (name.clone(), stored.clone())).collect() }
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Memory of all tensors in bytes, where `held_as` maps the stored type to the type in memory;
    /// types other than F32, F16 and BF16 count nothing.
    pub(crate) fn bytes_in_memory(&self, held_as: impl Fn(DType) -> DType) -> u64 {
        let bytes = |stored: &Stored| {
            stored.float().map_or(0, |dtype| {
                (stored.shape.iter().product::<usize>() * held_as(dtype).size()) as u64
            })
        };
        self.tensors.values().map(bytes).sum()
    }

    /// Shape of the tensor of this name, if there is one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|stored| &stored.shape[..])
    }

    /// Takes a tensor out, without reading it.
    pub(crate) fn remove(&mut self, name: &str) -> Option<Stored> {
        self.tensors.remove(name)
    }

    /// Adds a tensor under a name.
    pub(crate) fn insert(&mut self, name: String, stored: Stored) {
        self.tensors.insert(name, stored);
    }

    /// A fingerprint that does not read the tensors whole: the SHA-256 of the names, types, shapes
    /// and first bytes of all tensors.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn digest(&self) -> Result<String, WeightsError> {
        let mut all = String::new();
        for (name, stored) in &self.tensors {
            let first = stored
                .first_bytes()
                .map_err(|source| WeightsError::Io { path: stored.file.path.clone(), source })?;
            all += &format!("{name} {:?} {:?} {}\n", stored.dtype, stored.shape, sha256(&first));
        }
        Ok(sha256(all.as_bytes()))
    }

    /// Location of the tensor of this name, if there is one.
    pub fn stored(&self, name: &str) -> Option<Stored> {
        self.tensors.get(name).cloned()
    }
}

impl Stored {
    /// Reads the values in their stored type, row-major.
    ///
    /// # Errors
    /// If the values cannot be read, are stored in a type other than F32, F16 or BF16, or one is
    /// not finite.
    pub fn read(&self, name: &str) -> Result<TensorData, String> {
        let unknown =
            || format!("{name} is stored as {:?}, which is not F32, F16 or BF16", self.dtype);
        let dtype = self.float().ok_or_else(unknown)?;
        let bytes = self.bytes().map_err(|error| {
            format!("{name} cannot be read from {}: {error}", self.file.path.display())
        })?;
        let bytes = if self.transposed { self.rows_first(&bytes, dtype.size()) } else { bytes };
        let data = TensorData::from_bytes(Bytes::from_bytes_vec(bytes), self.shape.clone(), dtype);
        let finite = match dtype {
            DType::F16 => data
                .as_slice::<f16>()
                .is_ok_and(|values| values.iter().all(|value| value.is_finite())),
            DType::BF16 => data
                .as_slice::<bf16>()
                .is_ok_and(|values| values.iter().all(|value| value.is_finite())),
            _ => data
                .as_slice::<f32>()
                .is_ok_and(|values| values.iter().all(|value| value.is_finite())),
        };
        if finite { Ok(data) } else { Err(format!("{name} holds numbers that are not finite")) }
    }

    /// The bytes of a matrix that the file holds column by column, row by row.
    fn rows_first(&self, bytes: &[u8], size: usize) -> Vec<u8> {
        let [rows, columns] = [self.shape[0], self.shape[1]];
        let places = (0..rows).flat_map(|row| (0..columns).map(move |column| column * rows + row));
        places.flat_map(|place| &bytes[place * size..][..size]).copied().collect()
    }

    /// The stored type, if it is F32, F16 or BF16.
    pub(crate) fn dtype(&self) -> Option<DType> {
        self.float()
    }

    fn float(&self) -> Option<DType> {
        match self.dtype {
            safetensors::Dtype::F32 => Some(DType::F32),
            safetensors::Dtype::F16 => Some(DType::F16),
            safetensors::Dtype::BF16 => Some(DType::BF16),
            _ => None,
        }
    }

    fn first_bytes(&self) -> std::io::Result<Vec<u8>> {
        let (from, to) = self.parts[0];
        let mut bytes = vec![0; (to - from).min(LOOKED_AT) as usize];
        self.file.read(from, &mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.parts.iter().map(|(from, to)| (to - from) as usize).sum()];
        let mut rest = &mut bytes[..];
        for (from, to) in &self.parts {
            let (part, after) = rest.split_at_mut((to - from) as usize);
            self.file.read(*from, part)?;
            rest = after;
        }
        Ok(bytes)
    }

    /// The shares `range` of `all` equal shares of the first dimension.
    pub(crate) fn rows(&self, range: Range<usize>, all: usize) -> Self {
        let (from, to) = self.parts[0];
        let share = (to - from) / all as u64;
        let [begin, end] = [range.start, range.end].map(|index| from + share * index as u64);
        let mut shape = self.shape.clone();
        if let Some(first) = shape.first_mut() {
            *first = *first / all * range.len();
        }
        Self { shape, parts: vec![(begin, end)], ..self.clone() }
    }

    /// Swaps the two halves of the first dimension.
    pub(crate) fn halves_swapped(&self) -> Self {
        let parts = [1..2, 0..1].into_iter().flat_map(|half| self.rows(half, 2).parts).collect();
        Self { parts, ..self.clone() }
    }

    /// Makes the columns of a matrix its rows; leaves a tensor of another rank as it is.
    pub(crate) fn transposed(mut self) -> Self {
        if self.shape.len() == 2 {
            self.shape.reverse();
            self.transposed = !self.transposed;
        }
        self
    }

    /// Changes the shape; leaves the tensor as it is if the new shape has another number of
    /// elements.
    pub(crate) fn reshaped(self, shape: Vec<usize>) -> Self {
        if shape.iter().product::<usize>() == self.shape.iter().product::<usize>() {
            Self { shape, ..self }
        } else {
            self
        }
    }
}
