//! Prompt encoding for the transformer, as in diffusers' `StableDiffusion3Pipeline`.
//!
//! CLIP and T5 encode prompts independently, so they need not be in memory at the same time.

use std::sync::Arc;

use burn::{prelude::*, tensor::DType};

use super::{Sd3Error, clip::ClipText, t5::T5Encoder, tokenizer::PromptTokenizer};
use crate::tensor_files::Stored;

/// An encoded prompt, shared by the rows that use it.
pub type Embedding = Arc<PromptEmbedding>;

/// An encoded prompt, on the host or on disk.
#[derive(Clone, Debug)]
pub struct PromptEmbedding {
    /// Token features of both CLIP encoders, concatenated, `[77, D_l + D_g]`.
    pub clip: Features,
    /// Pooled features of both CLIP encoders, concatenated, `[D_l + D_g]`.
    pub pooled: Features,
    /// Token features of T5, `[L, D]`; `None` stands for zeros.
    pub t5: Option<Features>,
    /// Shape of the text that the transformer reads, `[77 + L, D]`.
    pub text_shape: [usize; 2],
}

/// Features in memory, or in a file from which they are read at every use.
#[derive(Clone, Debug)]
pub enum Features {
    /// In memory.
    Held(TensorData),
    /// In a file.
    Stored(Stored),
}

impl Features {
    /// Shape of the features.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Held(data) => &data.shape,
            Self::Stored(stored) => &stored.shape,
        }
    }

    /// Values as f32, row-major.
    ///
    /// # Panics
    /// If the file cannot be read. It was complete when it was opened, and has been held open
    /// since.
    pub fn numbers(&self) -> Vec<f32> {
        let stored;
        let data = match self {
            Self::Held(data) => data,
            Self::Stored(file) => {
                stored = file.read("an embedding").unwrap_or_else(|problem| panic!("{problem}"));
                &stored
            }
        };
        match data.dtype {
            DType::F32 => data.as_slice::<f32>().expect("f32").to_vec(),
            _ => data.iter::<f32>().collect(),
        }
    }
}

impl PromptEmbedding {
    // ANCHOR: text
    /// Text features for the transformer, row-major, of shape [`Self::text_shape`]: CLIP's tokens,
    /// zero-padded to the width of T5, then T5's tokens.
    pub fn text(&self) -> Vec<f32> {
        let [tokens, width] = self.text_shape;
        let mut text = vec![0.0; tokens * width];
        let clip_width = self.clip.shape()[1];
        for (token, features) in
            text.chunks_exact_mut(width).zip(self.clip.numbers().chunks_exact(clip_width))
        {
            token[..clip_width].copy_from_slice(features);
        }
        if let Some(t5) = &self.t5 {
            text[self.clip.shape()[0] * width..].copy_from_slice(&t5.numbers());
        }
        text
    }
    // ANCHOR_END: text
}

/// CLIP-L and CLIP-G with their tokenizers.
#[derive(Debug)]
pub struct ClipReader<B: Backend>(pub(super) [(PromptTokenizer, ClipText<B>); 2]);

impl<B: Backend> ClipReader<B> {
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
    pub fn encode(&self, prompts: &[&str]) -> Result<Vec<[TensorData; 2]>, Sd3Error> {
        let Self([(tokenizer_l, clip_l), (tokenizer_g, clip_g)]) = self;
        let (l, g) = (
            clip_l.encode(&tokens(tokenizer_l, prompts)?),
            clip_g.encode(&tokens(tokenizer_g, prompts)?),
        );
        let hidden = Tensor::cat(vec![l.hidden, g.hidden], 2); // [B, 77, D_l + D_g]
        let pooled = Tensor::cat(vec![l.pooled, g.pooled], 1); // [B, D_l + D_g]
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
    pub(super) tokenizer: PromptTokenizer,
    pub(super) encoder: T5Encoder<B>,
}

impl<B: Backend> T5Reader<B> {
    /// Number of prompts that are longer than T5 reads; the rest of such a prompt is ignored.
    pub fn cuts(&self, prompts: &[&str]) -> usize {
        prompts.iter().filter(|prompt| self.tokenizer.cuts(prompt)).count()
    }

    /// Encodes a batch of prompts: token features, `[L, D]`, of each.
    ///
    /// # Errors
    /// If the tokenizer fails on a prompt.
    pub fn encode(&self, prompts: &[&str]) -> Result<Vec<[TensorData; 1]>, Sd3Error> {
        let hidden = self.encoder.encode(&tokens(&self.tokenizer, prompts)?);
        let rows = (0..prompts.len()).map(|row| {
            let hidden: Tensor<B, 2> = hidden.clone().narrow(0, row, 1).squeeze_dim(0);
            [hidden.into_data()]
        });
        Ok(rows.collect())
    }
}

fn tokens(tokenizer: &PromptTokenizer, prompts: &[&str]) -> Result<Vec<Vec<u32>>, Sd3Error> {
    prompts.iter().map(|prompt| tokenizer.encode(prompt)).collect()
}
