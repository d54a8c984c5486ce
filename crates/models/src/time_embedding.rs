//! Sinusoidal features of the time.

use burn::prelude::*;

/// Sines and cosines of the time at geometrically spaced frequencies.
///
/// ```text
/// [cos(1000·t·ω_i), sin(1000·t·ω_i)]_i        ω_i = 10000^(−i/half)
/// ```
///
/// Source: arXiv 1706.03762, section 3.5, on the thousandfold time of arXiv 2212.09748.
///
/// # Shapes
/// - `time`: `[B]`, in `[0, 1]`; the result: `[B, 2·half]`
pub(crate) fn sinusoidal<B: Backend>(time: Tensor<B, 1>, half: usize) -> Tensor<B, 2> {
    let frequencies: Vec<f32> =
        (0..half).map(|i| 1000.0 * (-(i as f32) / half as f32 * 10_000_f32.ln()).exp()).collect();
    let frequencies =
        Tensor::<B, 1>::from_floats(frequencies.as_slice(), &time.device()).reshape([1, half]);
    let angles = time.reshape([-1, 1]) * frequencies; // [B, half]
    Tensor::cat(vec![angles.clone().cos(), angles.sin()], 1)
}
