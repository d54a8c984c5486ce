//! Embedding cache: the features of prompts by one text encoder, computed once and kept in memory
//! or in files. With files, a run can have more prompts than memory holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::{FloatDType, TensorData};
use models::{
    storage::TensorFiles,
    text::Features,
    weights::{self, StoredAs, WeightsError},
};

use crate::{Host, PipelineError};

/// Location of an embedding cache on disk.
#[derive(Clone, Debug)]
pub struct Cache {
    /// The directory.
    pub directory: PathBuf,
    /// The command that resumes the run after an interruption.
    pub resume: String,
}

/// The features of prompts by one encoder, `N` tensors per prompt.
#[derive(Debug)]
pub struct EmbeddingCache<const N: usize> {
    encoder: &'static str,
    names: [&'static str; N],
    stored_as: StoredAs,
    cache: Option<Cache>,
    known: BTreeMap<String, [Features; N]>,
    files: usize,
}

/// Prompts per batch of the encoder.
const BATCH: usize = 8;
/// Prompts per file; a killed process loses at most this number of prompts.
pub(crate) const IN_FILE: usize = 256;
/// The metadata key of a file with its prompts as JSON.
const PROMPTS: &str = "prompts";
/// The precision of stored features: exactly that of the encoder's output.
fn stored_as(precision: FloatDType) -> StoredAs {
    match precision {
        FloatDType::BF16 => StoredAs::Bf16,
        _ => StoredAs::F32,
    }
}

impl<const N: usize> EmbeddingCache<N> {
    /// Opens the cached features of one encoder that computes in `precision`; each `digest` has its
    /// own directory.
    ///
    /// # Errors
    /// If a file of the cache cannot be read or is damaged.
    pub fn open(
        (encoder, names): (&'static str, [&'static str; N]),
        precision: FloatDType,
        digest: &str,
        cache: Option<&Cache>,
    ) -> Result<Self, PipelineError> {
        let cache = cache.map(|cache| Cache {
            directory: cache.directory.join(format!("{encoder}-{digest}")),
            ..cache.clone()
        });
        let (stored_as, known) = (stored_as(precision), BTreeMap::new());
        let mut embeddings = Self { encoder, names, stored_as, cache, known, files: 0 };
        for (number, path) in embeddings.numbered_files()? {
            embeddings.read(&path)?;
            embeddings.files = number + 1;
        }
        Ok(embeddings)
    }

    /// The existing files, in the order of their numbers, which may have gaps.
    fn numbered_files(&self) -> Result<BTreeMap<usize, PathBuf>, PipelineError> {
        let Some(directory) = self
            .cache
            .as_ref()
            .map(|cache| &cache.directory)
            .filter(|directory| directory.exists())
        else {
            return Ok(BTreeMap::new());
        };
        let unreadable = |source| PipelineError::Io { path: directory.clone(), source };
        let paths = fs::read_dir(directory)
            .map_err(unreadable)?
            .map(|entry| entry.map(|entry| entry.path()));
        let number =
            |path: &Path| path.file_name()?.to_str()?.strip_suffix(".safetensors")?.parse().ok();
        let paths = paths.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
        Ok(paths.into_iter().filter_map(|path| Some((number(&path)?, path))).collect())
    }

    /// The path of the next file.
    fn file(&self) -> Option<PathBuf> {
        self.cache
            .as_ref()
            .map(|cache| cache.directory.join(format!("{:04}.safetensors", self.files)))
    }

    fn read(&mut self, path: &Path) -> Result<(), PipelineError> {
        let damaged = |reason: String| PipelineError::Cache { path: path.to_owned(), reason };
        let (tensors, prompts) = TensorFiles::open_with_entry(path, PROMPTS)
            .map_err(|error| damaged(error.to_string()))?;
        let missing =
            || WeightsError::NoMetadata { path: path.to_owned(), key: PROMPTS.to_owned() };
        let prompts = prompts.ok_or_else(|| damaged(missing().to_string()))?;
        let prompts: Vec<String> = serde_json::from_str(&prompts)
            .map_err(|error| damaged(format!("its prompts do not parse: {error}")))?;
        for (index, prompt) in prompts.into_iter().enumerate() {
            let mut features = Vec::with_capacity(N);
            for name in self.names.map(|name| tensor_name(index, name)) {
                let stored = tensors.stored(&name);
                let stored = stored.ok_or_else(|| damaged(format!("{name} is missing")))?;
                features.push(Features::Stored(stored));
            }
            let features = features.try_into().expect("one for each name");
            self.known.insert(prompt, features);
        }
        Ok(())
    }

    /// The prompts that are not in the cache, without repetitions.
    pub fn unknown<'a>(&self, prompts: &[&'a str]) -> Vec<&'a str> {
        let unknown: BTreeSet<&str> =
            prompts.iter().copied().filter(|prompt| !self.known.contains_key(*prompt)).collect();
        unknown.into_iter().collect()
    }

    /// Encodes prompts that are not in the cache, batch by batch, and adds their features.
    ///
    /// # Errors
    /// If a prompt cannot be encoded or a file not written, or the user interrupts; files written
    /// before stay.
    pub fn learn(
        &mut self,
        prompts: &[&str],
        host: &dyn Host,
        encode: impl Fn(&[&str]) -> Result<Vec<[TensorData; N]>, PipelineError>,
    ) -> Result<(), PipelineError> {
        let name = format!("reading ({})", self.encoder);
        let progress = host.progress(&name, prompts.len(), "prompts");
        for prompts in prompts.chunks(IN_FILE) {
            let mut features = Vec::with_capacity(prompts.len());
            for batch in prompts.chunks(BATCH) {
                let of_batch = encode(batch)?;
                self.check_finite(batch, &of_batch)?;
                features.extend(of_batch);
                progress.advance(batch.len());
                if self.cache.is_some() && host.interrupted() {
                    break;
                }
            }
            self.keep(&prompts[..features.len()], features)?;
            if let Some(Cache { resume, .. }) = self.cache.as_ref().filter(|_| host.interrupted()) {
                return Err(PipelineError::Interrupted { resume: resume.clone() });
            }
        }
        progress.finish();
        Ok(())
    }

    /// # Errors
    /// If a feature of a prompt is not a finite number.
    fn check_finite(
        &self,
        prompts: &[&str],
        features: &[[TensorData; N]],
    ) -> Result<(), PipelineError> {
        for (prompt, features) in prompts.iter().zip(features) {
            if !features.iter().all(|features| features.iter::<f32>().all(f32::is_finite)) {
                return Err(PipelineError::Refused(format!(
                    "{} makes numbers that are not finite of the prompt `{prompt}`: its weights are damaged",
                    self.encoder
                )));
            }
        }
        Ok(())
    }

    fn keep(
        &mut self,
        prompts: &[&str],
        features: Vec<[TensorData; N]>,
    ) -> Result<(), PipelineError> {
        let Some(path) = self.file() else {
            let held = features.into_iter().map(|features| features.map(Features::Held));
            self.known.extend(prompts.iter().map(|&prompt| prompt.to_owned()).zip(held));
            return Ok(());
        };
        let directory = path.parent().expect("the file is in the cache");
        fs::create_dir_all(directory)
            .map_err(|source| PipelineError::Io { path: directory.to_owned(), source })?;
        let named = features.into_iter().enumerate().flat_map(|(index, features)| {
            self.names
                .into_iter()
                .zip(features)
                .map(move |(name, features)| (tensor_name(index, name), features))
        });
        let texts = serde_json::to_string(prompts).expect("texts are plain data");
        weights::write_tensors(&named.collect(), (PROMPTS, texts), self.stored_as, &path)?;
        self.read(&path)?;
        self.files += 1;
        Ok(())
    }

    /// The features of a prompt.
    ///
    /// # Panics
    /// If the prompt is not in the cache.
    pub fn of(&self, prompt: &str) -> [Features; N] {
        self.known[prompt].clone()
    }
}

fn tensor_name(index: usize, name: &str) -> String {
    format!("{index:03}.{name}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Quiet;

    const PRECISION: FloatDType = FloatDType::F32;

    fn cache(directory: &Path) -> Cache {
        Cache { directory: directory.to_owned(), resume: "again".to_owned() }
    }

    /// Features that identify the prompt, exact in 16 bits.
    fn encode(prompts: &[&str]) -> Vec<[TensorData; 2]> {
        assert!(prompts.len() <= BATCH);
        let of = |prompt: &&str| {
            let number = prompt.len() as f32;
            [TensorData::new(vec![number; 6], [2, 3]), TensorData::new(vec![-number], [1])]
        };
        prompts.iter().map(of).collect()
    }

    #[test]
    fn what_is_read_back_is_what_was_learnt_and_nothing_is_learnt_twice() {
        let directory = tempfile::tempdir().expect("a directory");
        let texts: Vec<String> = (0..2 * IN_FILE + 5).map(|length| "x".repeat(length)).collect();
        let prompts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let open = |digest, cache: Option<&Cache>| {
            EmbeddingCache::open(("clip", ["hidden", "pooled"]), PRECISION, digest, cache)
                .expect("a cache")
        };
        for cache in [None, Some(cache(directory.path()))] {
            let mut embeddings = open("a", cache.as_ref());
            assert_eq!(
                embeddings.unknown(&[prompts[3], prompts[1], prompts[3]]),
                [prompts[1], prompts[3]]
            );
            embeddings.learn(&prompts[..7], &Quiet, |batch| Ok(encode(batch))).expect("learnt");
            embeddings.learn(&prompts[7..], &Quiet, |batch| Ok(encode(batch))).expect("learnt");
            let again = if cache.is_some() { open("a", cache.as_ref()) } else { embeddings };
            assert!(again.unknown(&prompts).is_empty());
            for prompt in prompts.iter().copied() {
                let [hidden, pooled] = again.of(prompt);
                let number = prompt.len() as f32;
                assert_eq!((hidden.shape(), hidden.numbers()), (&[2, 3][..], vec![number; 6]));
                assert_eq!((pooled.shape(), pooled.numbers()), (&[1][..], vec![-number]));
            }
        }
        assert_eq!(
            open("b", Some(&cache(directory.path()))).unknown(&prompts).len(),
            prompts.len(),
            "of another encoder"
        );
    }

    #[test]
    fn a_file_that_was_removed_leaves_the_others_as_they_are() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        let open = || {
            EmbeddingCache::open(("t5", ["hidden", "pooled"]), PRECISION, "a", Some(&cache))
                .expect("a cache")
        };
        let mut embeddings = open();
        for prompt in ["one", "three", "seven more"] {
            embeddings.learn(&[prompt], &Quiet, |batch| Ok(encode(batch))).expect("learnt");
        }
        let path = |number: usize| directory.path().join(format!("t5-a/{number:04}.safetensors"));
        fs::remove_file(path(1)).expect("removed");
        let mut embeddings = open();
        assert_eq!(embeddings.unknown(&["one", "three", "seven more"]), ["three"]);
        embeddings.learn(&["three"], &Quiet, |batch| Ok(encode(batch))).expect("learnt");
        assert!(path(3).exists() && !path(1).exists());
        assert!(open().unknown(&["one", "three", "seven more"]).is_empty());
    }

    #[test]
    fn numbers_that_are_none_are_refused_and_not_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut embeddings = EmbeddingCache::open(
            ("t5", ["hidden"]),
            PRECISION,
            "a",
            Some(&cache(directory.path())),
        )
        .expect("a cache");
        let nan = |_: &[&str]| Ok(vec![[TensorData::new(vec![1.0, f32::NAN], [2])]]);
        let refused =
            embeddings.learn(&["a cat"], &Quiet, nan).expect_err("not a number").to_string();
        assert!(
            refused.starts_with("t5 makes numbers that are not finite of the prompt `a cat`"),
            "{refused}"
        );
        assert_eq!(embeddings.unknown(&["a cat"]), ["a cat"]);
        assert!(!directory.path().join("t5-a").exists());
    }

    #[test]
    fn files_that_vanish_are_still_read_and_damaged_ones_are_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let cache = cache(directory.path());
        let mut embeddings =
            EmbeddingCache::open(("t5", ["hidden", "pooled"]), PRECISION, "a", Some(&cache))
                .expect("a cache");
        embeddings.learn(&["one", "three"], &Quiet, |batch| Ok(encode(batch))).expect("learnt");
        let path = directory.path().join("t5-a/0000.safetensors");
        let bytes = fs::read(&path).expect("a file");
        fs::remove_file(&path).expect("removed");
        assert_eq!(embeddings.of("three")[1].numbers(), [-5.0]);
        fs::write(&path, &bytes[..bytes.len() - 1]).expect("written");
        let refused =
            EmbeddingCache::open(("t5", ["hidden", "pooled"]), PRECISION, "a", Some(&cache))
                .expect_err("cut short");
        assert!(
            refused
                .to_string()
                .contains("0000.safetensors cannot be used; if it is damaged, remove it"),
            "{refused}"
        );
        fs::write(&path, &bytes).expect("written");
        let refused =
            EmbeddingCache::open(("t5", ["hidden", "other"]), PRECISION, "a", Some(&cache))
                .expect_err("other names");
        assert!(refused.to_string().contains("000.other is missing"), "{refused}");
    }
}
