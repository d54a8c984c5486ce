//! Text encoders, their tokenizers, and the encoded prompts that transformers read.

pub mod clip;
mod prompt;
mod readers;
pub mod t5;
pub mod tokenizer;

pub use prompt::{Embedding, Features, PromptEmbedding};
pub(crate) use prompt::{HeldTexts, Texts};
pub use readers::{ClipReader, T5Reader};
