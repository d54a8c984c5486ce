//! A zero-shot classifier: CLIP's choice among classes that are described by texts.

use std::path::Path;

use burn::prelude::*;
use kernels::Kernels;

use super::{BATCH, Matcher, PreferenceError, pixels};
use crate::{
    clip::{ClipFiles, unit},
    rgb8::Rgb8,
};

/// The factor between a cosine and a logit.
const SCALE: f64 = 100.0;

/// A zero-shot classifier of images.
///
/// ```text
/// c = unit(mean over the texts of the class of unit(t))         logit = 100·⟨unit(v), c⟩
/// ```
///
/// Source: arXiv 2103.00020, section 3.1.4; the zero-shot classifier of LAION's CLIP benchmark.
#[derive(Debug)]
pub struct ZeroShot<B: Backend>(Matcher<B>);

/// The vectors of classes, `[K, D]`, each of length 1.
#[derive(Clone, Debug)]
pub struct Classes<B: Backend>(Tensor<B, 2>);

impl<B: Kernels> ZeroShot<B> {
    /// Opens a directory such as `openai/clip-vit-large-patch14`, in the layout of transformers or
    /// OpenCLIP.
    ///
    /// # Errors
    /// If the path is no CLIP model, or with everything that is missing or does not fit.
    pub fn open(path: &Path, device: &B::Device) -> Result<Self, PreferenceError> {
        Ok(Self(Matcher::load(&ClipFiles::open(path)?, device)?))
    }

    /// The vectors of classes that are described by one or more texts each.
    ///
    /// # Errors
    /// If a text cannot be tokenised.
    ///
    /// # Panics
    /// If there is no class, or a class has no text.
    pub fn classes(&self, texts: &[Vec<String>]) -> Result<Classes<B>, PreferenceError> {
        let vector = |texts: &Vec<String>| {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            Ok::<_, PreferenceError>(unit(unit(self.0.embed_texts(&texts)?).mean_dim(0))) // [1, D]
        };
        let vectors = texts.iter().map(vector).collect::<Result<Vec<_>, _>>()?;
        Ok(Classes(Tensor::cat(vectors, 0)))
    }

    /// The logits of the classes for each image.
    pub fn logits(&self, images: &[Rgb8], classes: &Classes<B>) -> Vec<Vec<f32>> {
        let [count, _] = classes.0.dims();
        let of_batch = |images: &[Rgb8]| {
            let pixels = pixels(images, &self.0.preprocess, &self.0.device);
            let embeddings = unit(self.0.clip.embed_images(pixels)); // [B, D]
            let logits = kernels::product::linear(embeddings, classes.0.clone().transpose(), None);
            let logits: Vec<f32> = (logits * SCALE).into_data().iter::<f32>().collect();
            logits.chunks(count).map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        images.chunks(BATCH).flat_map(of_batch).collect()
    }
}
