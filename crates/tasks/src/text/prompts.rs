//! The prompts of the task, split into training, validation and test prompts.

use std::collections::BTreeSet;

use super::words;
use crate::{
    prompts::{Prompt, PromptSet},
    shapes::Color,
};

/// A split of the task's words; no word is in two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Training words.
    Train,
    /// Held out, to choose checkpoints and settings.
    Validation,
    /// Held out; chooses nothing.
    Test,
}

/// All prompts of a split, always in the same order: every word on a board of every colour.
pub fn prompts(split: Split) -> PromptSet {
    let of_word = |word: &'static str| Color::ALL.map(|color| Prompt::plain(&prompt(word, color)));
    let prompts = words(split).into_iter().flat_map(of_word).collect();
    PromptSet { name: format!("text-{split:?}").to_lowercase(), prompts }
}

/// The prompt for a word on a board of a colour.
pub fn prompt(word: &str, color: Color) -> String {
    format!("a {} sign that says \"{word}\"", color.word())
}

/// Every word of the prompts outside quotes, sorted.
pub fn vocabulary() -> Vec<String> {
    let texts = Color::ALL.map(|color| prompt("", color).replace("\"\"", ""));
    let words: BTreeSet<String> =
        texts.iter().flat_map(|text| text.split_whitespace()).map(str::to_owned).collect();
    words.into_iter().collect()
}
