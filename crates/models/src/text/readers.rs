//! The text encoders with their tokenizers: prompts in, features on the host out.
//!
//! CLIP and T5 encode prompts independently, so they need not be in memory at the same time.

use burn::prelude::*;
use kernels::Kernels;

use super::{clip::ClipText, t5::T5Encoder, tokenizer::PromptTokenizer};
use crate::storage::ModelError;

/// The CLIP encoders of a model with their tokenizers, one or several.
#[derive(Debug)]
pub struct ClipReader<B: Backend>(pub(crate) Vec<(PromptTokenizer, ClipText<B>)>);

impl<B: Kernels> ClipReader<B> {
    /// Number of tokens of a prompt that CLIP reads.
    pub fn length(&self) -> usize {
        self.0.iter().map(|(tokenizer, _)| tokenizer.length()).min().unwrap_or(0)
    }

    /// Number of prompts that are longer than CLIP reads; the rest of such a prompt is ignored.
    pub fn cuts(&self, prompts: &[&str]) -> usize {
        prompts
            .iter()
            .filter(|prompt| self.0.iter().any(|(tokenizer, _)| tokenizer.cuts(prompt)))
            .count()
    }

    /// Encodes a batch of prompts: token features, `[77, D_l + D_g]`, and pooled features, `[D_l +
    /// D_g]`, of each.
    ///
    /// # Errors
    /// If a tokenizer fails on a prompt.
    // ANCHOR: encode
    pub fn encode(&self, prompts: &[&str]) -> Result<Vec<[TensorData; 2]>, ModelError> {
        let (mut hidden, mut pooled) = (Vec::new(), Vec::new());
        for (tokenizer, clip) in &self.0 {
            let encoded = clip.encode(&tokens(tokenizer, prompts)?);
            hidden.push(encoded.hidden);
            pooled.push(encoded.pooled);
        }
        let hidden = Tensor::cat(hidden, 2); // [B, 77, D_l + D_g]
        let pooled = Tensor::cat(pooled, 1); // [B, D_l + D_g]
        let rows = (0..prompts.len()).map(|row| {
            let hidden: Tensor<B, 2> = hidden.clone().narrow(0, row, 1).squeeze_dim(0);
            let pooled: Tensor<B, 1> = pooled.clone().narrow(0, row, 1).squeeze_dim(0);
            [hidden.into_data(), pooled.into_data()]
        });
        Ok(rows.collect())
    }
    // ANCHOR_END: encode
}

/// T5 with its tokenizer.
#[derive(Debug)]
pub struct T5Reader<B: Backend> {
    pub(crate) tokenizer: PromptTokenizer,
    pub(crate) encoder: T5Encoder<B>,
}

impl<B: Kernels> T5Reader<B> {
    /// Number of prompts that are longer than T5 reads; the rest of such a prompt is ignored.
    pub fn cuts(&self, prompts: &[&str]) -> usize {
        prompts.iter().filter(|prompt| self.tokenizer.cuts(prompt)).count()
    }

    /// Encodes a batch of prompts: token features, `[L, D]`, of each.
    ///
    /// # Errors
    /// If the tokenizer fails on a prompt.
    pub fn encode(&self, prompts: &[&str]) -> Result<Vec<[TensorData; 1]>, ModelError> {
        let hidden = self.encoder.encode(&tokens(&self.tokenizer, prompts)?);
        let rows = (0..prompts.len()).map(|row| {
            let hidden: Tensor<B, 2> = hidden.clone().narrow(0, row, 1).squeeze_dim(0);
            [hidden.into_data()]
        });
        Ok(rows.collect())
    }
}

fn tokens(tokenizer: &PromptTokenizer, prompts: &[&str]) -> Result<Vec<Vec<u32>>, ModelError> {
    prompts.iter().map(|prompt| tokenizer.encode(prompt)).collect()
}
