//! Captions: the names of the emoji, their categories and their splits. Needs no picture.

use std::collections::BTreeSet;

use tasks::prompts::{Prompt, PromptSet};

use crate::sheet;

/// The category of an emoji, the kind of its prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// Activities.
    Activities,
    /// Animals and nature.
    Animals,
    /// Food and drink.
    Food,
    /// Objects.
    Objects,
    /// Smileys and emotion.
    Smileys,
    /// Travel and places.
    Travel,
}

impl Category {
    /// All categories.
    pub const ALL: [Self; 6] = [
        Self::Activities,
        Self::Animals,
        Self::Food,
        Self::Objects,
        Self::Smileys,
        Self::Travel,
    ];

    /// The name in prompts and in the file of captions.
    pub fn name(self) -> &'static str {
        match self {
            Self::Activities => "activities",
            Self::Animals => "animals",
            Self::Food => "food",
            Self::Objects => "objects",
            Self::Smileys => "smileys",
            Self::Travel => "travel",
        }
    }

    /// The category of a name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|category| category.name() == name)
    }
}

/// Which prompts are for what: reinforcement learning sees the captions of `Train` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Four fifths of the captions.
    Train,
    /// A tenth, which chooses checkpoints.
    Validation,
    /// A tenth, which chooses nothing.
    Test,
}

impl Split {
    /// The split of a caption, decided by the caption alone, so that it does not depend on the
    /// other captions.
    pub fn of(caption: &str) -> Self {
        match hash(caption) % 10 {
            0 => Self::Validation,
            1 => Self::Test,
            _ => Self::Train,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Train => "emoji:train",
            Self::Validation => "emoji:validation",
            Self::Test => "emoji:test",
        }
    }
}

/// The prompts of a split; the kind of a prompt is its category.
pub fn prompts(split: Split) -> PromptSet {
    let of_split = sheet::captions().iter().filter(|(caption, _)| Split::of(caption) == split);
    let prompt = |(caption, category): &(String, Category)| Prompt {
        tag: category.name().to_owned(),
        ..Prompt::plain(caption)
    };
    PromptSet { name: split.name().to_owned(), prompts: of_split.map(prompt).collect() }
}

/// The words of all captions, sorted.
pub fn words() -> BTreeSet<String> {
    let words = sheet::captions().iter().flat_map(|(caption, _)| caption.split(' '));
    words.map(str::to_owned).collect()
}

/// FNV-1a over the bytes, folded to 32 bits.
pub(crate) fn hash(text: &str) -> u32 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    (hash ^ (hash >> 32)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_are_disjoint_and_every_kind_is_in_each() {
        let sets = [Split::Train, Split::Validation, Split::Test].map(prompts);
        let mut seen = BTreeSet::new();
        for set in &sets {
            for prompt in &set.prompts {
                assert!(seen.insert(prompt.text.clone()), "{} is in two splits", prompt.text);
            }
            for category in Category::ALL {
                let of_kind = set.prompts.iter().filter(|prompt| prompt.tag == category.name());
                assert!(of_kind.count() >= 4, "{}: {}", set.name, category.name());
            }
        }
        assert_eq!(seen.len(), sheet::captions().len());
        let [train, validation, test] = sets.map(|set| set.prompts.len() as f64 / seen.len() as f64);
        assert!((train - 0.8).abs() < 0.03, "{train}");
        assert!((validation - 0.1).abs() < 0.03 && (test - 0.1).abs() < 0.03);
    }

    #[test]
    fn captions_are_short_and_of_plain_words() {
        for (caption, _) in sheet::captions() {
            let words: Vec<&str> = caption.split(' ').collect();
            assert!((1..=crate::LONGEST_CAPTION).contains(&words.len()), "{caption}");
            let plain = |word: &&str| {
                !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
            };
            assert!(words.iter().all(plain), "{caption}");
        }
    }
}
