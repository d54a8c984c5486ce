//! Prompts and prompt files.
//!
//! A prompt's metadata is free: a JSON object that rewards read. This file knows none of its keys
//! but `prompt` and `tag`.

use std::path::{Path, PathBuf};

use files::{FileError, text_file};
use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

/// One prompt: a text, its kind, and metadata for a verifier.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    /// The text.
    pub text: String,
    /// The kind of prompt, by which scores are grouped.
    pub tag: String,
    /// The object of the prompt's line in a `.jsonl` file, for rewards to read; null if there is
    /// none.
    pub metadata: Value,
}

impl Prompt {
    /// Creates a prompt without metadata.
    pub fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), tag: PLAIN.to_owned(), metadata: Value::Null }
    }

    /// Reads one line of a `.jsonl` file.
    fn from_json(line: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Known {
            prompt: String,
            #[serde(default)]
            tag: Option<String>,
        }
        let metadata: Value = serde_json::from_str(line)?;
        let Known { prompt, tag } = Known::deserialize(&metadata)?;
        Ok(Self { text: prompt, tag: tag.unwrap_or_else(|| PLAIN.to_owned()), metadata })
    }
}

/// The kind of prompts that name none.
const PLAIN: &str = "prompt";

/// A named list of prompts; a prompt's identity is its index.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptSet {
    /// Name of the set.
    pub name: String,
    /// The prompts.
    pub prompts: Vec<Prompt>,
}

impl PromptSet {
    /// Reads a prompt file: JSON objects, one per line, if its name ends in `.jsonl`, otherwise one
    /// prompt per line; empty lines are skipped. An object has a string `prompt`; its `tag` is the
    /// kind of prompt, and all of it is the prompt's metadata.
    ///
    /// # Errors
    /// If the file cannot be read, has no prompt, or has malformed lines; all malformed lines are
    /// reported together.
    pub fn read(path: &Path) -> Result<Self, PromptError> {
        Self::read_checked(path, |_| Ok(()))
    }

    /// Reads a prompt file whose objects `check` must accept.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_checked(
        path: &Path,
        check: impl Fn(&Prompt) -> Result<(), String>,
    ) -> Result<Self, PromptError> {
        let text = text_file::read(path)?;
        let jsonl =
            path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("jsonl"));
        let read = |line: &str| {
            if !jsonl {
                return Ok(Prompt::plain(line.trim()));
            }
            let prompt = Prompt::from_json(line).map_err(|error| error.to_string())?;
            check(&prompt).map(|()| prompt)
        };
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let (mut prompts, mut problems) = (Vec::new(), Vec::new());
        for (index, line) in lines {
            match read(line) {
                Ok(prompt) => prompts.push(prompt),
                Err(problem) => problems.push(format!("line {}: {problem}", index + 1)),
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

    /// Formats the set as a `.jsonl` file; prompts without metadata are left out.
    pub fn to_jsonl(&self) -> String {
        let lines = self.prompts.iter().filter(|prompt| !prompt.metadata.is_null());
        lines.map(|prompt| format!("{}\n", prompt.metadata)).collect()
    }
}

/// A prompt file was refused.
#[derive(Debug, Error)]
pub enum PromptError {
    /// The file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Some lines are no prompts.
    #[error("{} has lines that this model cannot use:\n  - {problems}", path.display())]
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
