//! A word-level tokenizer for the networks that learn their own text embedding.

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The token ids of one prompt, padded to the network's text length.
pub type TokenIds = Arc<[i32]>;

/// The id of the padding token; a prompt of only padding is the empty condition.
pub const PAD: i32 = 0;

/// The words that a network knows. Word `i` has id `i + 1`; 0 is padding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Vocabulary {
    words: Vec<String>,
}

impl Vocabulary {
    /// Creates a vocabulary of these words, sorted and without duplicates.
    pub fn new(words: impl IntoIterator<Item = String>) -> Self {
        Self { words: words.into_iter().collect::<BTreeSet<_>>().into_iter().collect() }
    }

    /// The number of ids, padding included.
    #[expect(clippy::len_without_is_empty, reason = "padding is always there")]
    pub fn len(&self) -> usize {
        self.words.len() + 1
    }

    /// Encodes a prompt as ids, padded to `length`; ignores case, and commas and full stops around
    /// words.
    ///
    /// # Errors
    /// If a word is unknown, or there are more than `length` words.
    pub fn encode(&self, text: &str, length: usize) -> Result<TokenIds, VocabularyError> {
        let mut ids = text
            .split_whitespace()
            .map(|word| word.trim_matches([',', '.']).to_lowercase())
            .filter(|word| !word.is_empty())
            .map(|word| self.id(&word).ok_or_else(|| self.unknown(word, text)))
            .collect::<Result<Vec<i32>, _>>()?;
        if ids.len() > length {
            return Err(VocabularyError::TooLong {
                text: text.to_owned(),
                words: ids.len(),
                length,
            });
        }
        ids.resize(length, PAD);
        Ok(ids.into())
    }

    fn id(&self, word: &str) -> Option<i32> {
        let index = self.words.binary_search_by(|known| known.as_str().cmp(word)).ok()?;
        i32::try_from(index + 1).ok()
    }

    fn unknown(&self, word: String, text: &str) -> VocabularyError {
        VocabularyError::UnknownWord { word, text: text.to_owned(), known: self.words.join(", ") }
    }
}

/// A prompt could not be encoded.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum VocabularyError {
    /// The prompt has a word that is not in the vocabulary.
    #[error("unknown word `{word}` in prompt \"{text}\"; this checkpoint knows: {known}")]
    UnknownWord {
        /// The word.
        word: String,
        /// The prompt that contains the word.
        text: String,
        /// All known words.
        known: String,
    },
    /// The prompt has more words than the network reads.
    #[error("prompt \"{text}\" has {words} words; this checkpoint reads at most {length}")]
    TooLong {
        /// The prompt.
        text: String,
        /// Number of words in the prompt.
        words: usize,
        /// Largest number of words that the network reads.
        length: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary() -> Vocabulary {
        Vocabulary::new(["a", "red", "circle", "of"].map(String::from))
    }

    #[test]
    fn a_prompt_becomes_padded_ids() {
        assert_eq!(
            vocabulary().encode("A red circle.", 5).expect("known words").as_ref(),
            &[1, 4, 2, 0, 0]
        );
        assert_eq!(vocabulary().encode("", 2).expect("empty").as_ref(), &[PAD, PAD]);
    }

    #[test]
    fn an_unknown_word_is_named() {
        let error = vocabulary().encode("a green circle", 5).expect_err("green is unknown");
        assert!(error.to_string().contains("`green`"), "{error}");
    }

    #[test]
    fn a_prompt_that_does_not_fit_is_refused_not_cut() {
        let error = vocabulary().encode("a a a", 2).expect_err("three words do not fit");
        assert_eq!(error, VocabularyError::TooLong { text: "a a a".into(), words: 3, length: 2 });
    }
}
