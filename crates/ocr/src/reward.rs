//! The text-rendering reward: the text that a prompt asks for against the text that was read.

use thiserror::Error;

/// A prompt does not name the text to render.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PromptError {
    /// The prompt has fewer than two double quotes.
    #[error("the prompt `{0}` has no text in double quotes; write the text to render as \"text\"")]
    NoQuotes(String),
    /// Nothing but spaces stands between the first two double quotes.
    #[error("the prompt `{0}` has no text between its double quotes")]
    Empty(String),
}

/// The text that a prompt asks for: what stands between its first two double quotes.
///
/// Source: `flow_grpo/prompts.py` and `flow_grpo/ocr.py` of the public Flow-GRPO code. There a
/// single quote at the end is enough, and an empty text divides by zero.
///
/// # Errors
/// If the prompt has fewer than two double quotes, or nothing but spaces between them.
pub fn target(prompt: &str) -> Result<&str, PromptError> {
    let mut parts = prompt.split('"');
    let (_, Some(target), Some(_)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(PromptError::NoQuotes(prompt.to_owned()));
    };
    if normal(target).is_empty() {
        return Err(PromptError::Empty(prompt.to_owned()));
    }
    Ok(target)
}

/// The reward of a text that was read, in `[0, 1]`.
///
/// ```text
/// reward = 1                       if the recognised text contains the target
/// reward = 1 − min(d, n) / n       otherwise; d = Levenshtein distance, n = length of the target
/// ```
///
/// Spaces are removed from both texts and letters are lower-cased before; other white space and
/// punctuation count. Lengths and distances are in characters (Unicode scalar values). No
/// recognised text gives 0; an empty target, which [`target`] refuses, is contained in every text.
///
/// Source: arXiv 2505.05470, section 5.1; `flow_grpo/ocr.py` of the public code.
pub fn reward(recognised: &str, target: &str) -> f32 {
    let (recognised, target) = (normal(recognised), normal(target));
    if recognised.contains(&target) {
        return 1.0;
    }
    let length = target.chars().count();
    let distance = strsim::levenshtein(&recognised, &target).min(length);
    (1.0 - distance as f64 / length as f64) as f32
}

/// A text without spaces in lower case.
fn normal(text: &str) -> String {
    text.replace(' ', "").to_lowercase()
}
