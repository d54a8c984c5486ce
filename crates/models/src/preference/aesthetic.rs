//! LAION's aesthetic predictor: the beauty of an image, whatever its prompt.

use std::path::Path;

use burn::{module::Module, prelude::*, tensor::FloatDType};
use kernels::Kernels;

use super::{BATCH, PreferenceError, memory, pixels};
use crate::{
    clip::{ClipFiles, ClipModelConfig, ClipVision, Preprocess, directory_of, unit, weights},
    linear::Linear,
    rgb8::Rgb8,
    storage::{ModelError, Problems, Source, TensorFiles},
};

/// LAION's aesthetic predictor, about 1 to 10.
///
/// ```text
/// score = W₅(W₄(W₃(W₂(W₁·v/|v| + b₁) + b₂) + b₃) + b₄) + b₅
/// ```
///
/// `v` is CLIP's image embedding. There are no activations; dropout works in training only.
///
/// Source: christophschuhmann/improved-aesthetic-predictor, `simple_inference.py`.
#[derive(Debug)]
pub struct Aesthetic<B: Backend> {
    vision: ClipVision<B>,
    head: Head<B>,
    preprocess: Preprocess,
    /// Memory of the weights and of a batch, in bytes.
    bytes: u64,
    device: B::Device,
}

/// The affine layers.
#[derive(Module, Debug)]
struct Head<B: Backend> {
    layers: Vec<Linear<B>>,
}

/// Names of the published head in a directory, without the ending.
const HEAD: [&str; 2] = ["sac+logos+ava1-l14-linearMSE", "aesthetic_head"];

/// Places of the linear layers in the published sequence; dropout stands in the others.
const PLACES: [usize; 5] = [0, 2, 4, 6, 7];

impl<B: Kernels> Aesthetic<B> {
    /// Opens a directory of CLIP ViT-L/14 that also has the head,
    /// `sac+logos+ava1-l14-linearMSE.pth` or `.safetensors`, or that file; or a file or directory
    /// with both in one set of weights (`clip.*` and `mlp.*`), such as `RE-N-Y/laion-aesthetic`. The
    /// text tower and the tokenizer are not needed.
    ///
    /// # Errors
    /// With everything that is missing or does not fit.
    pub fn open(path: &Path, device: &B::Device) -> Result<Self, PreferenceError> {
        let given = if path.is_file() { Some(weights(path, &[])?) } else { None };
        let given = given.filter(|file| file.shape("layers.0.weight").is_some());
        let directory = directory_of(path)?;
        let clip = if given.is_some() { &directory } else { path };
        let clip = ClipFiles::open_named(clip, &[], Some(&ClipModelConfig::vit_l_14()))?;
        let head = match given.or_else(|| clip.others("mlp.")) {
            Some(head) => head,
            None => weights(&directory, &HEAD)?,
        };
        let head = Head::open(path, &head, clip.config().vision.projection_dim, device)?;
        let (vision, preprocess) = (clip.vision(device)?, clip.preprocess().clone());
        let weights = memory::weights(&vision) + memory::weights(&head);
        let bytes = weights + memory::of_images(&clip.config().vision);
        Ok(Self { vision, head, preprocess, bytes, device: device.clone() })
    }

    /// Approximate memory of the model in bytes: its weights, and the activations of a batch.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Scores images; the texts are not read.
    ///
    /// # Errors
    /// If there is not one text for each image.
    pub fn score(&self, images: &[Rgb8], texts: &[&str]) -> Result<Vec<f32>, PreferenceError> {
        if images.len() != texts.len() {
            return Err(PreferenceError::Counts { images: images.len(), texts: texts.len() });
        }
        let of_batch = |images: &[Rgb8]| {
            let embeddings = self.vision.embed(pixels(images, &self.preprocess, &self.device));
            self.head.forward(unit(embeddings)).into_data().iter::<f32>().collect::<Vec<f32>>()
        };
        Ok(images.chunks(BATCH).flat_map(of_batch).collect())
    }
}

impl<B: Kernels> Head<B> {
    /// Opens a head of any inner sizes for embeddings of `inputs` numbers.
    fn open(
        path: &Path,
        files: &TensorFiles,
        inputs: usize,
        device: &B::Device,
    ) -> Result<Self, ModelError> {
        let mut source = Source::files(files.clone(), FloatDType::F32, device);
        let mut width = inputs;
        let mut layer = |place: usize| {
            let name = format!("layers.{place}");
            let last = place == PLACES[PLACES.len() - 1];
            let stored = files.shape(&format!("{name}.weight")).and_then(<[usize]>::first);
            let outputs = if last { 1 } else { stored.copied().unwrap_or(1) };
            let layer = source.linear(&name, width, outputs);
            width = outputs;
            layer
        };
        let layers = PLACES.into_iter().map(&mut layer).collect();
        Problems(source.problems()).none(path, Self { layers })
    }

    /// One score per row.
    ///
    /// # Shapes
    /// `embeddings`: `[B, D]`; the result: `[B, 1]`
    fn forward(&self, embeddings: Tensor<B, 2>) -> Tensor<B, 2> {
        self.layers.iter().fold(embeddings, |x, layer| layer.forward(x))
    }
}
