//! Sinusoidal features of the time.

use burn::{module::Module, prelude::*};

/// Sines and cosines of the time at geometrically spaced frequencies, which are on the device.
///
/// ```text
/// [cos(t·ω_i), sin(t·ω_i)]_i        ω_i = scale · 10000^(−i/half)
/// ```
///
/// Source: arXiv 1706.03762, section 3.5, on the thousandfold time of arXiv 2212.09748.
///
/// # Shapes
/// - `frequencies`: `[1, half]`
#[derive(Module, Debug)]
pub(crate) struct Sinusoidal<B: Backend> {
    frequencies: Tensor<B, 2>,
}

impl<B: Backend> Sinusoidal<B> {
    /// `half` frequencies from `scale` downwards.
    pub fn new(half: usize, scale: f32, device: &B::Device) -> Self {
        let frequencies: Vec<f32> = (0..half)
            .map(|i| scale * (-(i as f32) / half as f32 * 10_000_f32.ln()).exp())
            .collect();
        Self { frequencies: Tensor::from_data(TensorData::new(frequencies, [1, half]), device) }
    }

    /// The features of every row's time, `[B]` to `[B, 2·half]`.
    pub fn features(&self, time: Tensor<B, 1>) -> Tensor<B, 2> {
        let angles = time.reshape([-1, 1]) * self.frequencies.clone(); // [B, half]
        Tensor::cat(vec![angles.clone().cos(), angles.sin()], 1)
    }
}
