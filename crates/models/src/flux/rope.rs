//! Rotary positions in three axes.

use burn::{module::Module, prelude::*, tensor::FloatDType};
use kernels::Kernels;

use super::FluxConfig;
use crate::layers::in_f32;

/// Cosines and sines of every token's angles, `[1, 1, L, w/2]`, f32.
///
/// ```text
/// angle_k = position · 10000^(−2k/d)        k = 0, …, d/2 − 1, for each axis of d features
/// ```
///
/// Source: RoFormer, arXiv 2104.09864, equation 15, axis by axis as in diffusers' `FluxPosEmbed`.
/// Text tokens are at position 0 of every axis, so they are not rotated; an image token is at (0,
/// row, column) of its patch.
#[derive(Module, Debug)]
pub(super) struct Rope<B: Backend> {
    cos: Tensor<B, 4>,
    sin: Tensor<B, 4>,
    #[module(skip)]
    text: usize,
    #[module(skip)]
    patches: [usize; 2],
}

impl<B: Backend> Rope<B> {
    /// The angles of `text` text tokens, and of the image tokens of `height` × `width` patches
    /// after them.
    pub fn new(
        config: &FluxConfig,
        text: usize,
        [height, width]: [usize; 2],
        device: &B::Device,
    ) -> Self {
        let patches = (0..height).flat_map(|row| (0..width).map(move |column| [0, row, column]));
        let positions: Vec<[usize; 3]> = std::iter::repeat_n([0; 3], text).chain(patches).collect();
        let angles = |position: &[usize; 3]| {
            let axes = position.iter().zip(config.axes_dims_rope);
            axes.flat_map(|(&index, d)| {
                (0..d / 2).map(move |k| index as f64 * 10_000_f64.powf(-2.0 * k as f64 / d as f64))
            })
            .collect::<Vec<f64>>()
        };
        let angles: Vec<f64> = positions.iter().flat_map(angles).collect();
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f32> = angles.iter().map(|&angle| of(angle) as f32).collect();
            Tensor::from_data(
                TensorData::new(values, [1, 1, positions.len(), config.attention_head_dim / 2]),
                device,
            )
        };
        let patches = [height, width];
        Self { cos: table(f64::cos), sin: table(f64::sin), text, patches }
    }

    /// Whether these are the angles of so many text tokens and patches.
    pub fn is_of(&self, text: usize, patches: [usize; 2]) -> bool {
        self.text == text && self.patches == patches
    }
}

impl<B: Kernels> Rope<B> {
    /// Rotates neighbouring features: `(a, b) → (a·cos − b·sin, a·sin + b·cos)`.
    ///
    /// # Shapes
    /// - `x` and the result: `[B, heads, L, w]`
    pub fn rotate(&self, x: Tensor<B, 4>) -> Tensor<B, 4> {
        let precision = FloatDType::from(x.dtype());
        let rotated = in_f32(x, |x| {
            let [rows, heads, length, width] = x.dims();
            let pairs = x.reshape([rows, heads, length, width / 2, 2]);
            let [a, b] = B::split(pairs, 4, [1, 1])
                .map(|of_pair| of_pair.reshape([rows, heads, length, width / 2]));
            let (cos, sin) = (self.cos.clone(), self.sin.clone());
            let turned = [a.clone() * cos.clone() - b.clone() * sin.clone(), a * sin + b * cos];
            Tensor::stack::<5>(turned.into(), 4).reshape([rows, heads, length, width])
        });
        rotated.cast(precision)
    }
}
