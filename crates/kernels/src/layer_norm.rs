//! Layer norm with shift and scale, one row at a time.

use std::borrow::Cow;

use crate::{
    host::Operation,
    plain::EPSILON,
    simd::{dot, sum},
};

/// `(x − mean) / √(variance + ε) · (1 + scale) + shift`; inputs `x`, `shift`, `scale`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModulatedLayerNorm {
    /// Tokens per sample.
    pub length: usize,
    /// Features per token.
    pub width: usize,
}

impl ModulatedLayerNorm {
    /// Range of the features of a row's sample in shift and scale.
    fn sample(&self, row: usize) -> std::ops::Range<usize> {
        let at = row / self.length * self.width;
        at..at + self.width
    }
}

/// Writes `(x − mean) / √(variance + ε)` to `normed`; returns `1 / √(variance + ε)`.
fn normalize(normed: &mut [f32], x: &[f32]) -> f32 {
    let width = x.len() as f32;
    let mean = sum(x) / width;
    for (normed, x) in normed.iter_mut().zip(x) {
        *normed = x - mean;
    }
    let per_std = 1.0 / (dot(normed, normed) / width + EPSILON).sqrt();
    for normed in normed {
        *normed *= per_std;
    }
    per_std
}

/// Writes the gradient of `x` to `of_x`, given `normed`, its gradient and `1 / √(variance + ε)`.
///
/// ```text
/// dx = (dn − mean(dn) − n·mean(dn·n)) / √(variance + ε)
/// ```
fn normalize_backward(of_x: &mut [f32], normed: &[f32], of_normed: &[f32], per_std: f32) {
    let width = normed.len() as f32;
    let (mean, along) = (sum(of_normed) / width, dot(of_normed, normed) / width);
    for ((of_x, n), g) in of_x.iter_mut().zip(normed).zip(of_normed) {
        *of_x = per_std * (g - mean - n * along);
    }
}

impl Operation<3> for ModulatedLayerNorm {
    fn forward(&self, [x, shift, scale]: [&[f32]; 3]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        let rows = y.chunks_exact_mut(self.width).zip(x.chunks_exact(self.width));
        for (row, (y, x)) in rows.enumerate() {
            let (shift, scale) = (&shift[self.sample(row)], &scale[self.sample(row)]);
            normalize(y, x);
            for ((y, shift), scale) in y.iter_mut().zip(shift).zip(scale) {
                *y = *y * (1.0 + scale) + shift;
            }
        }
        y
    }

    fn backward<'a>(
        &self,
        [x, shift, scale]: [&[f32]; 3],
        gradient: &'a [f32],
    ) -> [Cow<'a, [f32]>; 3] {
        let [mut of_x, mut of_shift, mut of_scale] = [x, shift, scale].map(|x| vec![0.0; x.len()]);
        let [mut normed, mut of_normed] = [(); 2].map(|()| vec![0.0; self.width]);
        let rows = x.chunks_exact(self.width).zip(gradient.chunks_exact(self.width));
        for (row, (of_x, (x, gradient))) in of_x.chunks_exact_mut(self.width).zip(rows).enumerate()
        {
            let per_std = normalize(&mut normed, x);
            let sample = self.sample(row);
            let (of_shift, of_scale) =
                (&mut of_shift[sample.clone()], &mut of_scale[sample.clone()]);
            for ((((g, n), scale), of_normed), (of_shift, of_scale)) in gradient
                .iter()
                .zip(&normed)
                .zip(&scale[sample])
                .zip(&mut of_normed)
                .zip(of_shift.iter_mut().zip(of_scale))
            {
                *of_normed = g * (1.0 + scale);
                *of_shift += g;
                *of_scale += g * n;
            }
            normalize_backward(of_x, &normed, &of_normed, per_std);
        }
        [of_x.into(), of_shift.into(), of_scale.into()]
    }
}
