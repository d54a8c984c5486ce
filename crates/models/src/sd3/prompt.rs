//! From a prompt to what the transformer reads of it, as diffusers' `StableDiffusion3Pipeline` does it.

use std::sync::Arc;

use burn::prelude::*;

use super::{Sd3Error, clip::ClipText, t5::T5Encoder, tokenizer::PromptTokenizer};

/// What the transformer reads of a prompt, shared between the rows that have it.
pub type Embedding = Arc<PromptEmbedding>;

/// A prompt for the transformer, on the host.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptEmbedding {
    /// The features of its tokens, row-major: those of both CLIP encoders beside each other, padded with zeros to the width of T5,
    /// then those of T5.
    pub text: Vec<f32>,
    /// `[tokens, features]`
    pub text_shape: [usize; 2],
    /// The pooled features of both CLIP encoders.
    pub pooled: Vec<f32>,
}

/// The text encoders with their tokenizers.
#[derive(Debug)]
pub struct PromptEncoder<B: Backend> {
    /// CLIP-L and CLIP-G.
    pub clip: [(PromptTokenizer, ClipText<B>); 2],
    /// T5; without it its features are zeros, as in diffusers.
    pub t5: Option<(PromptTokenizer, T5Encoder<B>)>,
    /// Tokens that are read by T5.
    pub max_sequence_length: usize,
    /// Features of a token.
    pub width: usize,
}

/// Prompts that are encoded at a time.
const BATCH: usize = 8;

impl<B: Backend> PromptEncoder<B> {
    /// The embeddings of prompts; `done` hears how many more there are.
    ///
    /// # Errors
    /// If a tokenizer cannot handle a prompt, or the encoders are wider than the transformer reads.
    pub fn encode(&self, prompts: &[&str], mut done: impl FnMut(usize)) -> Result<Vec<Embedding>, Sd3Error> {
        let mut embeddings = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(BATCH) {
            embeddings.extend(self.encode_batch(batch)?);
            done(batch.len());
        }
        Ok(embeddings)
    }

    // ANCHOR: encode
    fn encode_batch(&self, prompts: &[&str]) -> Result<Vec<Embedding>, Sd3Error> {
        let ids =
            |tokenizer: &PromptTokenizer| prompts.iter().map(|prompt| tokenizer.encode(prompt)).collect::<Result<Vec<_>, _>>();
        let [(tokenizer_l, clip_l), (tokenizer_g, clip_g)] = &self.clip;
        let (l, g) = (clip_l.encode(&ids(tokenizer_l)?), clip_g.encode(&ids(tokenizer_g)?));
        let clip = Tensor::cat(vec![l.hidden, g.hidden], 2); // [B, 77, D_l + D_g]
        let [rows, clip_tokens, clip_width] = clip.dims();
        let margin = Tensor::zeros([rows, clip_tokens, self.width - clip_width], (&clip.device(), clip.dtype()));
        let clip = Tensor::cat(vec![clip, margin], 2);
        let t5 = match &self.t5 {
            Some((tokenizer, encoder)) => encoder.encode(&ids(tokenizer)?),
            None => Tensor::zeros([rows, self.max_sequence_length, self.width], (&clip.device(), clip.dtype())),
        };
        let text = Tensor::cat(vec![clip, t5], 1); // [B, 77 + L, D]
        let pooled = Tensor::cat(vec![l.pooled, g.pooled], 1); // [B, D_l + D_g]
        Ok(rows_of(text, pooled))
    }
    // ANCHOR_END: encode
}

fn rows_of<B: Backend>(text: Tensor<B, 3>, pooled: Tensor<B, 2>) -> Vec<Embedding> {
    let [_, tokens, features] = text.dims();
    let width = pooled.dims()[1];
    let numbers = |data: burn::tensor::TensorData| data.iter::<f32>().collect::<Vec<f32>>();
    let (text, pooled) = (numbers(text.into_data()), numbers(pooled.into_data()));
    let rows = text.chunks_exact(tokens * features).zip(pooled.chunks_exact(width));
    let embedding = |(text, pooled): (&[f32], &[f32])| {
        Arc::new(PromptEmbedding { text: text.into(), text_shape: [tokens, features], pooled: pooled.into() })
    };
    rows.map(embedding).collect()
}
