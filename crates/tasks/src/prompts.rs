//! Prompts and prompt files.

use std::path::{Path, PathBuf};

use files::{FileError, text_file};
use thiserror::Error;

use crate::shapes::Metadata;

/// One prompt: a text, its kind, and metadata for a verifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The text.
    pub text: String,
    /// The kind of prompt, by which scores are grouped.
    pub tag: String,
    /// Metadata that a verifier needs to judge an image, if there is any.
    pub metadata: Option<Metadata>,
}

impl Prompt {
    /// Creates a prompt without metadata.
    pub fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), tag: "prompt".to_owned(), metadata: None }
    }
}

impl From<Metadata> for Prompt {
    fn from(metadata: Metadata) -> Self {
        Self {
            text: metadata.prompt.clone(),
            tag: metadata.tag.name().to_owned(),
            metadata: Some(metadata),
        }
    }
}

/// A named list of prompts; a prompt's identity is its index.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptSet {
    /// Name of the set.
    pub name: String,
    /// The prompts.
    pub prompts: Vec<Prompt>,
}

impl PromptSet {
    /// Reads a prompt file: GenEval metadata if its name ends in `.jsonl`, otherwise one prompt per
    /// line; empty lines are skipped.
    ///
    /// # Errors
    /// If the file cannot be read, has no prompt, or has malformed lines; all malformed lines are
    /// reported together.
    pub fn read(path: &Path) -> Result<Self, PromptError> {
        Self::read_lines(path, |line| serde_json::from_str::<Metadata>(line).map(Prompt::from))
    }

    fn read_lines(
        path: &Path,
        of_json: fn(&str) -> serde_json::Result<Prompt>,
    ) -> Result<Self, PromptError> {
        let text = text_file::read(path)?;
        let jsonl =
            path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
        let mut prompts = Vec::new();
        let mut problems = Vec::new();
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            if jsonl {
                match of_json(line) {
                    Ok(prompt) => prompts.push(prompt),
                    Err(error) => problems.push(format!("line {}: {error}", index + 1)),
                }
            } else {
                prompts.push(Prompt::plain(line.trim()));
            }
        }
        if !problems.is_empty() {
            return Err(PromptError::BadLines {
                path: path.into(),
                problems: problems.join("\n  - "),
            });
        }
        if prompts.is_empty() {
            return Err(PromptError::Empty { path: path.into() });
        }
        let name =
            path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        Ok(Self { name, prompts })
    }

    /// Reads only texts and kinds of prompt: one prompt per line, or GenEval metadata (`.jsonl`),
    /// of which only `prompt` and `tag` are used. Without the other metadata, images cannot be
    /// verified.
    ///
    /// # Errors
    /// If the file cannot be read, has no prompt, or has malformed lines; all malformed lines are
    /// reported together.
    pub fn read_texts(path: &Path) -> Result<Self, PromptError> {
        #[derive(serde::Deserialize)]
        struct Line {
            prompt: String,
            tag: String,
        }
        Self::read_lines(path, |line| {
            serde_json::from_str(line).map(|Line { prompt, tag }| Prompt {
                text: prompt,
                tag,
                metadata: None,
            })
        })
    }

    /// Formats the set as a GenEval metadata file; prompts without metadata are left out.
    pub fn to_jsonl(&self) -> String {
        let lines = self.prompts.iter().filter_map(|prompt| prompt.metadata.as_ref());
        lines
            .map(|metadata| serde_json::to_string(metadata).expect("metadata is plain data") + "\n")
            .collect()
    }
}

/// A prompt file was refused.
#[derive(Debug, Error)]
pub enum PromptError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Some lines are not GenEval metadata.
    #[error("{} is not a GenEval metadata file that this model can use:\n  - {problems}", path.display())]
    BadLines {
        /// The file.
        path: PathBuf,
        /// One problem per line.
        problems: String,
    },
    /// The file has no prompt.
    #[error("{} holds no prompt", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
}
