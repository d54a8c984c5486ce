//! A small convolutional network that answers yes-or-no questions about an image.

use burn::{
    module::{Module, Param},
    nn::PaddingConfig2d,
    nn::conv::{Conv2d, Conv2dConfig},
    prelude::*,
    tensor::activation,
};
use serde::{Deserialize, Serialize};

use crate::{init::Initializer, linear::Linear};

/// The sizes of a [`Classifier`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassifierConfig {
    /// Height and width of an image in pixels, a multiple of 8.
    pub image_size: usize,
    /// Channels of the first layer; the next three layers halve the sides and have 2, 3 and 3 times
    /// this number.
    pub channels: usize,
    /// Features of the hidden linear layer.
    pub hidden: usize,
    /// Number of questions.
    pub answers: usize,
}

/// Four convolutions, the last three with stride 2, and two linear layers.
#[derive(Module, Debug)]
pub struct Classifier<B: Backend> {
    convolutions: Vec<Conv2d<B>>,
    hidden: Linear<B>,
    output: Linear<B>,
}

impl ClassifierConfig {
    /// Lists everything that is wrong with these sizes, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.image_size == 0 || !self.image_size.is_multiple_of(8) {
            problems.push(format!("image_size ({}) must be a multiple of 8", self.image_size));
        }
        if self.channels == 0 || self.hidden == 0 || self.answers == 0 {
            problems.push("channels, hidden and answers must be at least 1".to_owned());
        }
        problems
    }

    /// Creates a network with weights drawn from `seed`.
    pub fn init<B: Backend>(&self, seed: u64, device: &B::Device) -> Classifier<B> {
        let mut init = Initializer::new(seed, device);
        let channels = [3, self.channels, 2 * self.channels, 3 * self.channels, 3 * self.channels];
        let convolutions = (0..4)
            .map(|i| init.convolution(channels[i], channels[i + 1], if i == 0 { 1 } else { 2 }));
        let convolutions = convolutions.collect();
        let features = channels[4] * (self.image_size / 8).pow(2);
        Classifier {
            convolutions,
            hidden: init.linear(features, self.hidden),
            output: init.linear(self.hidden, self.answers),
        }
    }
}

impl<B: Backend> Classifier<B> {
    /// Logits of the answer yes, one per question.
    ///
    /// # Shapes
    /// - `images`: `[B, 3, H, W]`, in `[−1, 1]`; the result: `[B, answers]`
    pub fn logits(&self, images: Tensor<B, 4>) -> Tensor<B, 2> {
        let features =
            self.convolutions.iter().fold(images, |x, layer| activation::relu(layer.forward(x)));
        self.output.composed(activation::relu(self.hidden.composed(features.flatten(1, 3))))
    }
}

impl<B: Backend> Initializer<'_, B> {
    /// A 3x3 convolution that keeps the sides (stride 1) or halves them (stride 2).
    fn convolution(&mut self, inputs: usize, outputs: usize, stride: usize) -> Conv2d<B> {
        let mut layer = Conv2dConfig::new([inputs, outputs], [3, 3])
            .with_stride([stride, stride])
            .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
            .init(self.device());
        layer.weight = self.normal([outputs, inputs, 3, 3], (2.0 / (9 * inputs) as f32).sqrt());
        layer.bias = Some(self.zeros(outputs));
        layer
    }

    fn zeros(&mut self, size: usize) -> Param<Tensor<B, 1>> {
        self.param([size], vec![0.0; size])
    }
}
