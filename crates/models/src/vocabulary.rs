//! A word-level tokenizer for the networks that learn their own text embedding.
//!
//! A word in double quotes is spelled: one token for every letter, which knows its place in the word.
//! A network then learns to draw words that it has never read.

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

    /// Adds the letters of quoted words of up to `longest` letters, every letter at every place.
    #[must_use]
    pub fn spelling(self, letters: &str, longest: usize) -> Self {
        let spelled =
            (1..=longest).flat_map(|place| letters.chars().map(move |l| spelled(place, l)));
        Self::new(self.words.into_iter().chain(spelled.collect::<Vec<_>>()))
    }

    /// The number of ids, padding included.
    #[expect(clippy::len_without_is_empty, reason = "padding is always there")]
    pub fn len(&self) -> usize {
        self.words.len() + 1
    }

    /// Encodes a prompt as ids, padded to `length`; ignores case, and commas and full stops around
    /// words. A word in double quotes has an id for every letter.
    ///
    /// # Errors
    /// If a word or a letter of a quoted word is unknown, or there are more than `length` ids.
    pub fn encode(&self, text: &str, length: usize) -> Result<TokenIds, VocabularyError> {
        let mut ids = text
            .split_whitespace()
            .map(|word| word.trim_matches([',', '.']).to_lowercase())
            .filter(|word| !word.is_empty())
            .flat_map(tokens)
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
        let (letters, words): (Vec<&str>, Vec<&str>) =
            self.words.iter().map(String::as_str).partition(|word| word.starts_with(QUOTE));
        let mut known = words.join(", ");
        if !letters.is_empty() {
            let letters: BTreeSet<char> = letters.iter().filter_map(|l| l.chars().last()).collect();
            known += &format!(", and in quotes the letters {}", String::from_iter(letters));
        }
        VocabularyError::UnknownWord { word, text: text.to_owned(), known }
    }
}

/// The mark of quoted words.
const QUOTE: char = '"';

/// The token of a letter at a place of a quoted word, counted from 1: the quote keeps it apart from
/// words.
fn spelled(place: usize, letter: char) -> String {
    format!("{QUOTE}{place}{}", letter.to_lowercase())
}

/// A word, or the letters of a quoted one.
fn tokens(word: String) -> Vec<String> {
    match word.strip_prefix(QUOTE).and_then(|rest| rest.strip_suffix(QUOTE)) {
        Some(quoted) => quoted.chars().zip(1..).map(|(l, place)| spelled(place, l)).collect(),
        None => vec![word],
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
    fn a_quoted_word_is_spelled_in_order() {
        let vocabulary = vocabulary().spelling("ACT", 3);
        let encode = |text: &str| vocabulary.encode(text, 5).expect("known").to_vec();
        let cat = encode("a red \"CAT\".");
        assert_eq!(cat, encode("a red \"cat\""));
        assert!(cat[2..].iter().all(|id| *id > 0));
        assert_ne!(cat[2..], encode("a red \"ACT\"")[2..]);
        let mut of_places: Vec<i32> = ["\"AAA\"", "\"CCC\"", "\"TTT\""].map(encode).concat();
        of_places.retain(|id| *id != PAD);
        of_places.sort_unstable();
        of_places.dedup();
        assert_eq!(of_places.len(), 9, "every letter at every place has an id of its own");
        for text in ["\"DOG\"", "\"CATS\"", "\"CAT", "cat"] {
            let error = vocabulary.encode(text, 5).expect_err("unknown").to_string();
            assert!(error.contains("in quotes the letters act"), "{error}");
        }
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
