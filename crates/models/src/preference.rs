//! Models of human preference that stand on CLIP: images and texts in, one number per image out.
//!
//! Each opens the files as they are published, safetensors or PyTorch's, and tokenises texts by the
//! tokenizer of transformers beside the weights.

use std::{collections::HashMap, path::Path};

use burn::{prelude::*, tensor::TensorData};
use kernels::Kernels;
use thiserror::Error;

mod aesthetic;
mod memory;
mod zero_shot;

pub use aesthetic::Aesthetic;
pub use zero_shot::{Classes, ZeroShot};

use crate::{
    clip::{Clip, ClipFiles, ClipModelConfig, Fit, Preprocess, cosine},
    rgb8::Rgb8,
    storage::ModelError,
    text::tokenizer::PromptTokenizer,
};

/// Images or texts that pass through a tower together.
const BATCH: usize = 32;

/// A model could not be opened, or could not score.
#[derive(Debug, Error)]
pub enum PreferenceError {
    /// The files of the model cannot be used, or a text cannot be tokenised.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// There is not one text for each image.
    #[error("{images} images and {texts} texts: image i is scored against text i")]
    Counts {
        /// Number of images.
        images: usize,
        /// Number of texts.
        texts: usize,
    },
}

/// A CLIP model with its tokenizer and preprocessing.
#[derive(Debug)]
struct Matcher<B: Backend> {
    clip: Clip<B>,
    tokenizer: PromptTokenizer,
    preprocess: Preprocess,
    /// Memory of the weights and of a batch, in bytes.
    bytes: u64,
    device: B::Device,
}

impl<B: Kernels> Matcher<B> {
    fn load(files: &ClipFiles, device: &B::Device) -> Result<Self, PreferenceError> {
        let tokenizer = files.tokenizer()?;
        let (clip, preprocess) = (files.model(device)?, files.preprocess().clone());
        let config = files.config();
        // The texts of a batch are embedded before its images.
        let batch = memory::of_images(&config.vision).max(memory::of_texts(&config.text));
        let bytes = memory::weights(&clip) + batch;
        Ok(Self { clip, tokenizer, preprocess, bytes, device: device.clone() })
    }

    /// Cosine between each image and its text. Equal texts are embedded once.
    fn cosines(&self, images: &[Rgb8], texts: &[&str]) -> Result<Vec<f32>, PreferenceError> {
        if images.len() != texts.len() {
            return Err(PreferenceError::Counts { images: images.len(), texts: texts.len() });
        }
        let mut cosines = Vec::with_capacity(images.len());
        for (images, texts) in images.chunks(BATCH).zip(texts.chunks(BATCH)) {
            let texts = self.embed_texts(texts)?;
            let images = self.clip.embed_images(pixels(images, &self.preprocess, &self.device));
            cosines.extend(cosine(images, texts).into_data().iter::<f32>());
        }
        Ok(cosines)
    }

    /// One embedding per text, `[B, D]`.
    fn embed_texts(&self, texts: &[&str]) -> Result<Tensor<B, 2>, PreferenceError> {
        let mut rows = HashMap::new();
        let mut ids = Vec::new();
        let mut row_of = Vec::with_capacity(texts.len());
        for text in texts {
            if !rows.contains_key(text) {
                rows.insert(*text, ids.len());
                ids.push(self.tokenizer.encode(text)?);
            }
            row_of.push(rows[text] as i32);
        }
        let count = row_of.len();
        let row_of = Tensor::from_data(TensorData::new(row_of, [count]), &self.device);
        Ok(self.clip.embed_texts(&ids).select(0, row_of))
    }
}

/// The input of an image tower, `[B, 3, S, S]`.
fn pixels<B: Backend>(
    images: &[Rgb8],
    preprocess: &Preprocess,
    device: &B::Device,
) -> Tensor<B, 4> {
    let values: Vec<f32> = images.iter().flat_map(|image| preprocess.apply(image)).collect();
    let shape = [images.len(), 3, preprocess.size, preprocess.size];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// CLIPScore: the cosine between image and text.
///
/// ```text
/// score = ⟨v/|v|, t/|t|⟩
/// ```
///
/// Source: arXiv 2104.08718, without its factor 2.5 and its cut at 0.
///
/// Deviation `clipscore-cosine`: `yifan123/flow_grpo` divides CLIP's logit `100·score` by 30, and
/// resizes bilinearly; this is the preprocessing of the model's own files.
#[derive(Debug)]
pub struct ClipScore<B: Backend>(Matcher<B>);

impl<B: Kernels> ClipScore<B> {
    /// Opens a directory such as `openai/clip-vit-large-patch14`, in the layout of transformers or
    /// OpenCLIP.
    ///
    /// # Errors
    /// If the path is no CLIP model, or with everything that is missing or does not fit.
    pub fn open(path: &Path, device: &B::Device) -> Result<Self, PreferenceError> {
        Ok(Self(Matcher::load(&ClipFiles::open(path)?, device)?))
    }

    /// Approximate memory of the model in bytes: its weights, and the activations of a batch.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Scores image `i` against text `i`, in `[−1, 1]`.
    ///
    /// # Errors
    /// If there is not one text for each image, or a text cannot be tokenised.
    pub fn score(&self, images: &[Rgb8], texts: &[&str]) -> Result<Vec<f32>, PreferenceError> {
        self.0.cosines(images, texts)
    }
}

/// PickScore, trained on the choices of Pick-a-Pic's users.
///
/// ```text
/// score = exp(logit scale) · ⟨v/|v|, t/|t|⟩ / 26
/// ```
///
/// Source: arXiv 2305.01569; the divisor is that of `yifan123/flow_grpo`, `pickscore_scorer.py`.
#[derive(Debug)]
pub struct PickScore<B: Backend> {
    matcher: Matcher<B>,
    /// `exp(logit scale)`
    scale: f32,
}

/// Divides PickScore's logit, so that scores are about 1.
const PICKSCORE_DIVISOR: f32 = 26.0;

impl<B: Kernels> PickScore<B> {
    /// Opens a directory such as `yuvalkirstain/PickScore_v1`.
    ///
    /// # Errors
    /// If the path is no CLIP model, or with everything that is missing or does not fit.
    pub fn open(path: &Path, device: &B::Device) -> Result<Self, PreferenceError> {
        let matcher = Matcher::load(&ClipFiles::open(path)?, device)?;
        let scale = matcher.clip.scale().into_data().iter::<f32>().next().expect("one number");
        Ok(Self { matcher, scale })
    }

    /// Approximate memory of the model in bytes: its weights, and the activations of a batch.
    pub fn bytes(&self) -> u64 {
        self.matcher.bytes
    }

    /// Scores image `i` against text `i`.
    ///
    /// # Errors
    /// If there is not one text for each image, or a text cannot be tokenised.
    pub fn score(&self, images: &[Rgb8], texts: &[&str]) -> Result<Vec<f32>, PreferenceError> {
        let cosines = self.matcher.cosines(images, texts)?;
        Ok(cosines.iter().map(|cosine| self.scale * cosine / PICKSCORE_DIVISOR).collect())
    }
}

/// HPSv2 and 2.1, trained on the Human Preference Dataset.
///
/// ```text
/// score = ⟨v/|v|, t/|t|⟩            without the logit scale
/// ```
///
/// Source: arXiv 2306.09341; tgxs002/HPSv2, `img_score.py`.
///
/// Deviation `hpsv2-f32`: the published code computes in 16 bits on a GPU, replaces HTML entities in
/// texts, and fails on images that it does not pad.
#[derive(Debug)]
pub struct Hpsv2<B: Backend>(Matcher<B>);

/// Names of the published weights in a directory, without the ending, the newest first.
const HPS: [&str; 2] = ["HPS_v2.1_compressed", "HPS_v2_compressed"];

impl<B: Kernels> Hpsv2<B> {
    /// Opens a file of weights in the layout of OpenCLIP, or the directory that holds it, such as
    /// `HPS_v2.1_compressed.pt`. The files of CLIP's tokenizer are beside it. Without an
    /// `open_clip_config.json`, the network is ViT-H/14.
    ///
    /// # Errors
    /// If the weights are no CLIP model, or with everything that is missing or does not fit.
    pub fn open(path: &Path, device: &B::Device) -> Result<Self, PreferenceError> {
        let files = ClipFiles::open_named(path, &HPS, Some(&ClipModelConfig::vit_h_14()))?;
        let mut matcher = Matcher::load(&files, device)?;
        matcher.preprocess = Preprocess::openai(matcher.preprocess.size, Fit::Pad);
        Ok(Self(matcher))
    }

    /// Approximate memory of the model in bytes: its weights, and the activations of a batch.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Scores image `i` against text `i`, in `[−1, 1]`.
    ///
    /// # Errors
    /// If there is not one text for each image, or a text cannot be tokenised.
    pub fn score(&self, images: &[Rgb8], texts: &[&str]) -> Result<Vec<f32>, PreferenceError> {
        self.0.cosines(images, texts)
    }
}
