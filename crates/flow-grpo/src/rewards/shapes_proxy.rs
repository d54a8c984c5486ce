//! A reward that can be hacked: a small classifier, trained only on clean scenes, in place of the
//! verifier.
//!
//! The classifier behaves like a learned reward outside of toy tasks: accurate near its training
//! data and arbitrary elsewhere. The verifier is the gold reward.

use std::{path::Path, sync::Mutex};

use anyhow::{Context, Result, ensure};
use burn::{prelude::*, tensor::activation};
use grpo::images::Decoder;
use models::{Classifier, ClassifierConfig, WeightsFile};
use tasks::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, Unjudged},
    shapes::{self, Metadata},
};

use crate::backend::{Device, Plain};

/// Height and width of the images that the classifier judges.
pub const IMAGE_SIZE: usize = 24;
/// The sizes of the classifier.
pub const SIZES: ClassifierConfig =
    ClassifierConfig { image_size: IMAGE_SIZE, channels: 6, hidden: 32, answers: shapes::FACTS };
/// The metadata key of the sizes.
pub const CARD: &str = "flow_grpo_classifier";
const BUILT_IN: &[u8] = include_bytes!("../../../../assets/checkpoints/shapes-proxy.safetensors");

/// The reward: the classifier's belief that an image shows what its prompt asks for.
pub struct ShapesProxy {
    network: Mutex<Classifier<Plain>>,
    device: Device,
}

/// Images per forward pass.
const BATCH: usize = 128;

impl ShapesProxy {
    /// Loads the built-in classifier, for images of shape `[C, H, W]`.
    ///
    /// # Errors
    /// If the classifier was trained on images of another shape.
    pub fn built_in(shape: [usize; 3], device: &Device) -> Result<Self> {
        ensure!(
            shape == [3, IMAGE_SIZE, IMAGE_SIZE],
            "it judges images of {IMAGE_SIZE} x {IMAGE_SIZE} RGB pixels, not of {shape:?}"
        );
        let file = WeightsFile::from_bytes(BUILT_IN.to_vec(), Path::new("shapes-proxy"))?;
        let sizes: ClassifierConfig = file.parsed_metadata(CARD)?;
        let network =
            file.load_into(sizes.init::<Plain>(0, device)).context("the built-in classifier")?;
        Ok(Self { network: Mutex::new(network), device: device.clone() })
    }
}

impl Reward for ShapesProxy {
    fn check(&self, prompt: &Prompt) -> Result<(), String> {
        Metadata::required(prompt).map(drop)
    }

    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let network = self.network.lock().expect("no thread panics while it holds the network");
        let mut scores = Vec::with_capacity(images.len());
        for (images, prompts) in images.chunks(BATCH).zip(prompts.chunks(BATCH)) {
            let sure = activation::sigmoid(network.logits(pixels(images, &self.device)));
            let sure: Vec<f32> = sure.into_data().iter().collect();
            for (sure, prompt) in sure.chunks_exact(shapes::FACTS).zip(prompts) {
                let metadata = Metadata::required(prompt)
                    .map_err(|reason| Unjudged::image(scores.len(), reason))?;
                scores.push(shapes::belief(sure, &metadata));
            }
        }
        Ok(scores)
    }
}

/// Images as the classifier sees them.
pub fn pixels(images: &[Image], device: &Device) -> Tensor<Plain, 4> {
    Decoder::Pixels.encode(images, device)
}
