//! Encoded prompts: the features of CLIP and T5, put together for a transformer.

use std::sync::Arc;

use burn::{
    prelude::*,
    tensor::{DType, FloatDType},
};

use crate::storage::Stored;

/// An encoded prompt, shared by the rows that use it.
pub type Embedding = Arc<PromptEmbedding>;

/// An encoded prompt, on the host or on disk.
#[derive(Clone, Debug)]
pub struct PromptEmbedding {
    /// Token features of the CLIP encoders, concatenated, `[77, D_l + D_g]`; `None` if the
    /// transformer does not read them (FLUX.1).
    pub clip: Option<Features>,
    /// Pooled features of the CLIP encoders, concatenated, `[D_l + D_g]`.
    pub pooled: Features,
    /// Token features of T5, `[L, D]`; `None` stands for zeros.
    pub t5: Option<Features>,
    /// Shape of the text that the transformer reads: `[77 + L, D]`, or `[L, D]` without CLIP's
    /// tokens.
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
        let mut of_clip = 0;
        if let Some(clip) = &self.clip {
            let clip_width = clip.shape()[1];
            of_clip = clip.shape()[0];
            for (token, features) in
                text.chunks_exact_mut(width).zip(clip.numbers().chunks_exact(clip_width))
            {
                token[..clip_width].copy_from_slice(features);
            }
        }
        if let Some(t5) = &self.t5 {
            text[of_clip * width..].copy_from_slice(&t5.numbers());
        }
        text
    }
    // ANCHOR_END: text
}

/// The distinct prompts of a batch on the device: neighbouring rows that share a prompt are one row
/// here.
#[derive(Clone, Debug)]
pub(crate) struct Texts<B: Backend> {
    /// `[prompts, T, D]`
    pub text: Tensor<B, 3>,
    /// `[prompts, D_pooled]`
    pub pooled: Tensor<B, 2>,
    /// Rows of every prompt.
    rows: Vec<usize>,
}

impl<B: Backend> Texts<B> {
    pub fn new(conditions: &[Embedding], precision: FloatDType, device: &B::Device) -> Self {
        let runs: Vec<&[Embedding]> = conditions.chunk_by(Arc::ptr_eq).collect();
        let distinct: Vec<&PromptEmbedding> = runs.iter().map(|run| &*run[0]).collect();
        let text = distinct.iter().flat_map(|embedding| embedding.text()).collect::<Vec<f32>>();
        let pooled =
            distinct.iter().flat_map(|embedding| embedding.pooled.numbers()).collect::<Vec<f32>>();
        let [length, width] = distinct[0].text_shape;
        let features = distinct[0].pooled.shape()[0];
        let text = TensorData::new(text, [distinct.len(), length, width]);
        let pooled = TensorData::new(pooled, [distinct.len(), features]);
        Self {
            text: Tensor::<B, 3>::from_data(text, device).cast(precision),
            pooled: Tensor::<B, 2>::from_data(pooled, device).cast(precision),
            rows: runs.iter().map(|run| run.len()).collect(),
        }
    }

    /// Expands one row per prompt to one row per row of the batch.
    pub fn spread<const D: usize>(&self, of_prompts: Tensor<B, D>) -> Tensor<B, D> {
        if self.rows.iter().all(|rows| *rows == 1) {
            return of_prompts;
        }
        let rows = self.rows.iter().enumerate();
        let prompts: Vec<i32> =
            rows.flat_map(|(prompt, &rows)| vec![prompt as i32; rows]).collect();
        let prompts = Tensor::<B, 1, Int>::from_ints(prompts.as_slice(), &of_prompts.device());
        of_prompts.select(0, prompts)
    }
}
