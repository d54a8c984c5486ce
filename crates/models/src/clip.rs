//! CLIP: an image tower and a text tower that embed into one space (arXiv 2103.00020).
//!
//! Reads the files of transformers and of OpenCLIP. `tests/src/clip.rs` compares both with their
//! own code.

use burn::{
    module::{Module, ModuleMapper, Param},
    prelude::*,
    tensor::FloatDType,
};
use kernels::Kernels;

mod config;
mod contrastive;
mod files;
mod preprocess;
mod vision;

pub use config::{ClipModelConfig, VisionConfig};
pub use contrastive::contrastive_loss;
pub use files::ClipFiles;
pub(crate) use files::{directory_of, weights};
pub use preprocess::{Fit, MEAN, Preprocess, STD};
pub use vision::ClipVision;

use crate::{storage::Source, text::clip::ClipText};

/// A CLIP model.
#[derive(Module, Debug)]
pub struct Clip<B: Backend> {
    /// The image tower.
    pub vision: ClipVision<B>,
    /// The text tower.
    pub text: ClipText<B>,
    /// `ln` of the factor between a cosine and a logit, `[1]`.
    pub logit_scale: Param<Tensor<B, 1>>,
}

impl<B: Kernels> Clip<B> {
    /// Loads a model of these sizes from a source, under the names of transformers.
    pub fn load(config: &ClipModelConfig, source: &mut Source<'_, B>) -> Self {
        Self {
            vision: ClipVision::load(&config.vision, source),
            text: ClipText::load(&config.text, source),
            logit_scale: source.tensor("logit_scale", [1]),
        }
    }

    /// Creates a model with weights drawn from `seed`, for training.
    ///
    /// # Panics
    /// If the configuration has [problems](ClipModelConfig::problems).
    pub fn init(config: &ClipModelConfig, seed: u64, device: &B::Device) -> Self {
        let problems = config.problems();
        assert!(problems.is_empty(), "{problems:?}");
        let mut source = Source::random(seed, FloatDType::F32, device);
        let mut model = Self::load(config, &mut source);
        model.logit_scale = model.logit_scale.map(|zero| zero + config.logit_scale);
        model.map(&mut Trained)
    }

    /// Embeds images.
    ///
    /// # Shapes
    /// `pixels`: `[B, 3, S, S]`, as [`Preprocess`] makes them; the result: `[B, D]`, of any length
    pub fn embed_images(&self, pixels: Tensor<B, 4>) -> Tensor<B, 2> {
        self.vision.embed(pixels)
    }

    /// Embeds texts, given the ids of their tokens.
    ///
    /// # Shapes
    /// the result: `[B, D]`, of any length
    pub fn embed_texts(&self, ids: &[Vec<u32>]) -> Tensor<B, 2> {
        self.text.encode(ids).pooled
    }

    /// The factor between a cosine and a logit, `exp(logit_scale)`, `[1]`.
    pub fn scale(&self) -> Tensor<B, 1> {
        self.logit_scale.val().exp()
    }
}

/// Scales rows to length 1: `x / √Σx²`.
///
/// # Shapes
/// `x` and the result: `[B, D]`
pub fn unit<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let length = (x.clone() * x.clone()).sum_dim(1).sqrt();
    x / length
}

/// Cosine between row `i` of one tensor and row `i` of the other.
///
/// # Shapes
/// both: `[B, D]`; the result: `[B]`
pub fn cosine<B: Backend>(images: Tensor<B, 2>, texts: Tensor<B, 2>) -> Tensor<B, 1> {
    (unit(images) * unit(texts)).sum_dim(1).squeeze_dim(1)
}

/// Makes every parameter one with a gradient.
struct Trained;

impl<B: Backend> ModuleMapper<B> for Trained {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|values| values.detach().require_grad())
    }
}
