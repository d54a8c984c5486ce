//! Decoding of final latents to images on the host.

use burn::prelude::*;
use tasks::image::{Image, quantized};

/// Turns final latents into images.
pub trait Decode<B: Backend>: Send + Sync {
    /// Decodes a batch of latents, `[B, C, H, W]`.
    fn decode(&self, latents: Tensor<B, 4>) -> Vec<Image>;
}

/// Decoder of networks that work without an autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// Pixels in `[−1, 1]`, mapped to `[0, 1]` and rounded to 8 bits ([`quantized`]), so that
    /// rewards and monitors see the image that a file would hold.
    Pixels,
    /// Points of the plane, passed on unchanged.
    Points,
}

impl<B: Backend> Decode<B> for Decoder {
    fn decode(&self, latents: Tensor<B, 4>) -> Vec<Image> {
        let [_, channels, height, width] = latents.dims();
        let values: Vec<f32> = latents.into_data().iter::<f32>().collect();
        let image = |pixels: &[f32]| Image {
            channels,
            height,
            width,
            pixels: pixels.iter().map(|&x| self.value(x)).collect(),
        };
        values.chunks_exact(channels * height * width).map(image).collect()
    }
}

impl Decoder {
    /// Turns images into latents, `[B, C, H, W]`: the inverse of [`Decode::decode`] for 8-bit
    /// images.
    pub fn encode<B: Backend>(self, images: &[Image], device: &B::Device) -> Tensor<B, 4> {
        let (channels, height, width) =
            images.first().map_or((0, 0, 0), |image| (image.channels, image.height, image.width));
        let values: Vec<f32> =
            images.iter().flat_map(|image| &image.pixels).map(|&x| self.latent(x)).collect();
        Tensor::from_data(TensorData::new(values, [images.len(), channels, height, width]), device)
    }

    fn value(self, latent: f32) -> f32 {
        match self {
            // NaN stays NaN: the reward must see it.
            Self::Pixels => quantized(latent.mul_add(0.5, 0.5)),
            Self::Points => latent,
        }
    }

    fn latent(self, value: f32) -> f32 {
        match self {
            Self::Pixels => value.mul_add(2.0, -1.0),
            Self::Points => value,
        }
    }
}
