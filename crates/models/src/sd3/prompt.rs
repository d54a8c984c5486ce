//! From a prompt to what the transformer reads of it, as diffusers' `StableDiffusion3Pipeline` does it.
//!
//! CLIP and T5 read prompts one after the other and independently, so that no two of them need be in memory together.

use std::sync::Arc;

use burn::{prelude::*, tensor::DType};

use super::{Sd3Error, clip::ClipText, t5::T5Encoder, tokenizer::PromptTokenizer};
use crate::tensor_files::Stored;

/// What the transformer reads of a prompt, shared between the rows that have it.
pub type Embedding = Arc<PromptEmbedding>;

/// A prompt for the transformer, on the host or on disk.
#[derive(Clone, Debug)]
pub struct PromptEmbedding {
    /// The features of its tokens by both CLIP encoders beside each other, `[77, D_l + D_g]`.
    pub clip: Features,
    /// Their pooled features, `[D_l + D_g]`.
    pub pooled: Features,
    /// The features of its tokens by T5, `[L, D]`; without T5 they are zeros.
    pub t5: Option<Features>,
    /// `[77 + L, D]`
    pub text_shape: [usize; 2],
}

/// Numbers that are in memory, or in a file of which they are read whenever they are needed.
#[derive(Clone, Debug)]
pub enum Features {
    /// In memory.
    Held(TensorData),
    /// In a file.
    Stored(Stored),
}

impl Features {
    /// Their shape.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Held(data) => &data.shape,
            Self::Stored(stored) => &stored.shape,
        }
    }

    /// The numbers, row-major.
    ///
    /// # Panics
    /// If the file, which was whole when it was opened and is held open since, cannot be read.
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
    /// The text that the transformer reads, row-major, of [`Self::text_shape`]: the tokens of CLIP, padded with zeros to the width of
    /// T5, then those of T5.
    pub fn text(&self) -> Vec<f32> {
        let [tokens, width] = self.text_shape;
        let mut text = vec![0.0; tokens * width];
        let clip_width = self.clip.shape()[1];
        for (token, features) in text.chunks_exact_mut(width).zip(self.clip.numbers().chunks_exact(clip_width)) {
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
    /// How many of some prompts are longer than CLIP reads: what is beyond its last token is not seen.
    pub fn cuts(&self, prompts: &[&str]) -> usize {
        prompts.iter().filter(|prompt| self.0.iter().any(|(tokenizer, _)| tokenizer.cuts(prompt))).count()
    }

    /// For each prompt of a batch the features of its tokens, `[77, D_l + D_g]`, and the pooled ones, `[D_l + D_g]`.
    ///
    /// # Errors
    /// If a tokenizer cannot handle a prompt.
    // ANCHOR: encode
    pub fn encode(&self, prompts: &[&str]) -> Result<Vec<[TensorData; 2]>, Sd3Error> {
        let Self([(tokenizer_l, clip_l), (tokenizer_g, clip_g)]) = self;
        let (l, g) = (clip_l.encode(&tokens(tokenizer_l, prompts)?), clip_g.encode(&tokens(tokenizer_g, prompts)?));
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
    /// How many of some prompts are longer than T5 reads: what is beyond its last token is not seen.
    pub fn cuts(&self, prompts: &[&str]) -> usize {
        prompts.iter().filter(|prompt| self.tokenizer.cuts(prompt)).count()
    }

    /// For each prompt of a batch the features of its tokens, `[L, D]`.
    ///
    /// # Errors
    /// If the tokenizer cannot handle a prompt.
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
