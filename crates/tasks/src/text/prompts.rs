//! The prompts of the task, split into training, validation and test prompts.

use std::{collections::BTreeSet, iter::repeat_n};

use super::words::{strings, words};
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

/// All prompts of a split, always in the same order: every word on a board of every colour. The
/// training split continues with random strings, each on a board of one colour.
pub fn prompts(split: Split) -> PromptSet {
    let words = words(split).into_iter().flat_map(|word| repeat_n(word, Color::ALL.len()));
    let mut texts: Vec<String> = words.map(str::to_owned).collect();
    if split == Split::Train {
        texts.extend(strings());
    }
    let of_text = |(index, text): (usize, &String)| Prompt::plain(&prompt(text, color(index)));
    let prompts = texts.iter().enumerate().map(of_text).collect();
    PromptSet { name: format!("text-{split:?}").to_lowercase(), prompts }
}

/// The colour of a prompt: all six in turn, and every six prompts begin with the next colour, so that
/// every sixth prompt has all colours, too. Evaluations take every n-th prompt.
fn color(index: usize) -> Color {
    let colors = Color::ALL.len();
    Color::ALL[(index + index / colors) % colors]
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
