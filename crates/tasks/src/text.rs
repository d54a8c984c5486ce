//! Text rendering with a reader: a small version of the OCR task of Flow-GRPO (arXiv 2505.05470,
//! section 5.1).
//!
//! A prompt such as `a red sign that says "CAT"` asks for a word on a board of a colour. The images
//! are judged elsewhere, by a reader of text.

mod prompts;
mod render;
mod sign;
mod words;

pub use prompts::{Split, prompt, prompts, vocabulary};
pub use render::render;
pub use sign::{Sign, Typeface};
pub use words::{LETTERS, LONGEST, is_held_out, misspelt, random_word, strings, words};
