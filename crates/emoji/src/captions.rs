//! The prompts: captions of the emoji, by split. Needs no picture.

use std::collections::BTreeSet;

use tasks::prompts::{Prompt, PromptSet};

use crate::{category::Category, sheet, split::Split};

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
        let [train, validation, test] =
            sets.map(|set| set.prompts.len() as f64 / seen.len() as f64);
        assert!((train - 0.8).abs() < 0.03, "{train}");
        assert!((validation - 0.1).abs() < 0.03 && (test - 0.1).abs() < 0.03);
    }

    #[test]
    fn captions_are_short_and_of_plain_words() {
        for (caption, _) in sheet::captions() {
            let words: Vec<&str> = caption.split(' ').collect();
            assert!((1..=crate::collection::LONGEST_CAPTION).contains(&words.len()), "{caption}");
            let plain = |word: &&str| {
                !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric())
            };
            assert!(words.iter().all(plain), "{caption}");
        }
    }
}
