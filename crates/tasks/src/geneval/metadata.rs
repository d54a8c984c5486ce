//! A prompt's metadata: one line of GenEval's `evaluation_metadata.jsonl`.

use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Class, Color, ScoreError};
use crate::shapes::{Relation, Tag};

/// One line of a GenEval metadata file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The kind of prompt.
    pub tag: Tag,
    /// Objects that the image must show.
    pub include: Vec<Entry>,
    /// Objects that the image must not show. The official rule alone reads them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Excluded>,
    /// The text of the prompt.
    pub prompt: String,
}

/// Objects that an image must show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The class.
    pub class: Class,
    /// Number of objects.
    pub count: NonZeroUsize,
    /// Colour of the objects, if the prompt names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<Color>,
    /// Position relative to an earlier entry of the list, given by its index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<(Relation, usize)>,
}

/// Objects that an image must not show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Excluded {
    /// The class.
    pub class: Class,
    /// Number of objects from which on there are too many.
    pub count: NonZeroUsize,
}

impl Metadata {
    /// Reads the JSON object of one line.
    ///
    /// # Errors
    /// If it is not in GenEval's format, or an entry is placed relative to one that does not come
    /// before it.
    pub fn from_value(value: &Value) -> Result<Self, String> {
        let metadata = Self::deserialize(value).map_err(|error| error.to_string())?;
        metadata.check().map_err(|error| error.to_string())?;
        Ok(metadata)
    }

    /// Checks that entries are placed relative to earlier ones.
    pub(super) fn check(&self) -> Result<(), ScoreError> {
        for (entry, Entry { position, .. }) in self.include.iter().enumerate() {
            if let &Some((_, target)) = position
                && target >= entry
            {
                return Err(ScoreError::Target { entry, target });
            }
        }
        Ok(())
    }
}
