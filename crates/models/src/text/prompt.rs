//! Encoded prompts: the features of CLIP and T5, put together for a transformer.

use std::sync::Arc;

use burn::{
    module::Module,
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

/// Prompts whose features stay on the device.
#[derive(Module, Debug)]
pub(crate) struct HeldTexts<B: Backend> {
    /// `[prompts, T, D]`
    text: Tensor<B, 3>,
    /// `[prompts, D_pooled]`
    pooled: Tensor<B, 2>,
    #[module(skip)]
    prompts: Vec<Embedding>,
}

impl<B: Backend> HeldTexts<B> {
    /// Moves the distinct prompts among `conditions`, of which there is at least one, to the device.
    pub fn new(conditions: &[Embedding], precision: FloatDType, device: &B::Device) -> Self {
        let mut prompts: Vec<Embedding> = Vec::new();
        for condition in conditions {
            if !prompts.iter().any(|prompt| Arc::ptr_eq(prompt, condition)) {
                prompts.push(condition.clone());
            }
        }
        let (text, pooled) = on_device(&prompts.iter().collect::<Vec<_>>(), precision, device);
        Self { text, pooled, prompts }
    }

    /// The features of some prompts, unless one of them is not held.
    fn of(&self, prompts: &[&Embedding]) -> Option<(Tensor<B, 3>, Tensor<B, 2>)> {
        let position = |prompt: &&Embedding| {
            let found = self.prompts.iter().position(|held| Arc::ptr_eq(held, prompt));
            found.map(|position| position as i32)
        };
        let positions: Vec<i32> = prompts.iter().map(position).collect::<Option<_>>()?;
        let all = Tensor::<B, 1, Int>::from_ints(positions.as_slice(), &self.text.device());
        Some((self.text.clone().select(0, all.clone()), self.pooled.clone().select(0, all)))
    }
}

/// Copies the features of prompts to the device: `[prompts, T, D]` and `[prompts, D_pooled]`.
fn on_device<B: Backend>(
    prompts: &[&Embedding],
    precision: FloatDType,
    device: &B::Device,
) -> (Tensor<B, 3>, Tensor<B, 2>) {
    let text = prompts.iter().flat_map(|prompt| prompt.text()).collect::<Vec<f32>>();
    let pooled = prompts.iter().flat_map(|prompt| prompt.pooled.numbers()).collect::<Vec<f32>>();
    let [length, width] = prompts[0].text_shape;
    let text = TensorData::new(text, [prompts.len(), length, width]);
    let pooled = TensorData::new(pooled, [prompts.len(), prompts[0].pooled.shape()[0]]);
    (
        Tensor::<B, 3>::from_data(text, device).cast(precision),
        Tensor::<B, 2>::from_data(pooled, device).cast(precision),
    )
}

/// The distinct prompts of a batch on the device: neighbouring rows that share a prompt are one row
/// here.
#[derive(Clone, Debug)]
pub(crate) struct Texts<B: Backend> {
    /// `[prompts, T, D]`
    pub text: Tensor<B, 3>,
    /// `[prompts, D_pooled]`
    pub pooled: Tensor<B, 2>,
    /// The prompt of every row, unless every row has its own.
    prompts: Option<Tensor<B, 1, Int>>,
}

impl<B: Backend> Texts<B> {
    /// The prompts of a batch, taken from `held` if it has all of them.
    pub fn new(
        conditions: &[Embedding],
        held: Option<&HeldTexts<B>>,
        precision: FloatDType,
        device: &B::Device,
    ) -> Self {
        let runs: Vec<&[Embedding]> = conditions.chunk_by(Arc::ptr_eq).collect();
        let distinct: Vec<&Embedding> = runs.iter().map(|run| &run[0]).collect();
        let (text, pooled) = held
            .and_then(|held| held.of(&distinct))
            .unwrap_or_else(|| on_device(&distinct, precision, device));
        let prompts = (runs.len() < conditions.len()).then(|| {
            let runs = runs.iter().enumerate();
            let prompts = runs.flat_map(|(prompt, run)| vec![prompt as i32; run.len()]);
            Tensor::from_ints(prompts.collect::<Vec<i32>>().as_slice(), device)
        });
        Self { text, pooled, prompts }
    }

    /// Expands one row per prompt to one row per row of the batch.
    pub fn spread<const D: usize>(&self, of_prompts: Tensor<B, D>) -> Tensor<B, D> {
        match &self.prompts {
            Some(prompts) => of_prompts.select(0, prompts.clone()),
            None => of_prompts,
        }
    }
}
