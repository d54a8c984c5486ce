//! From final latents to pictures on the host.

use burn::prelude::*;
use tasks::image::Image;

/// Turns final latents into pictures.
pub trait Decode<B: Backend>: Send + Sync {
    /// The pictures of a batch of latents, `[B, C, H, W]`.
    fn decode(&self, latents: Tensor<B, 4>) -> Vec<Image>;
}

/// Networks that draw without an autoencoder: what the numbers of their final latents mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoder {
    /// Pixels in `[−1, 1]`, clamped and mapped to `[0, 1]`.
    Pixels,
    /// Points of the plane, handed on as they are.
    Points,
}

impl<B: Backend> Decode<B> for Decoder {
    fn decode(&self, latents: Tensor<B, 4>) -> Vec<Image> {
        let [_, channels, height, width] = latents.dims();
        let values: Vec<f32> = latents.into_data().iter::<f32>().collect();
        let image = |pixels: &[f32]| Image { channels, height, width, pixels: pixels.iter().map(|&x| self.value(x)).collect() };
        values.chunks_exact(channels * height * width).map(image).collect()
    }
}

impl Decoder {
    /// The latents of pictures, `[B, C, H, W]`: the reverse of [`Decode::decode`] within the range of pixels.
    pub fn encode<B: Backend>(self, images: &[Image], device: &B::Device) -> Tensor<B, 4> {
        let (channels, height, width) = images.first().map_or((0, 0, 0), |image| (image.channels, image.height, image.width));
        let values: Vec<f32> = images.iter().flat_map(|image| &image.pixels).map(|&x| self.latent(x)).collect();
        Tensor::from_data(TensorData::new(values, [images.len(), channels, height, width]), device)
    }

    fn value(self, latent: f32) -> f32 {
        match self {
            // A NaN stays a NaN: the reward must see it.
            Self::Pixels => latent.mul_add(0.5, 0.5).clamp(0.0, 1.0),
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
