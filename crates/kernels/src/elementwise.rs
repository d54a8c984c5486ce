//! Norm, gate and activation, each as one pass over the numbers.

use std::borrow::Cow;

use crate::{host::Operation, plain::EPSILON, simd::dot};

/// `x / √(mean(x²) + ε) · (1 + scale) + shift`; inputs `x`, `shift`, `scale`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ModulatedNorm {
    /// Features per row.
    pub width: usize,
}

impl Operation<3> for ModulatedNorm {
    fn forward(&self, [x, shift, scale]: [&[f32]; 3]) -> Vec<f32> {
        let width = self.width;
        let mut y = vec![0.0; x.len()];
        for (y, x) in y.chunks_exact_mut(shift.len()).zip(x.chunks_exact(shift.len())) {
            let rows = y.chunks_exact_mut(width).zip(x.chunks_exact(width));
            for ((y, x), (shift, scale)) in
                rows.zip(shift.chunks_exact(width).zip(scale.chunks_exact(width)))
            {
                let per_rms = per_rms(x);
                for (((y, x), shift), scale) in y.iter_mut().zip(x).zip(shift).zip(scale) {
                    *y = x * per_rms * (1.0 + scale) + shift;
                }
            }
        }
        y
    }

    fn backward<'a>(
        &self,
        [x, shift, scale]: [&[f32]; 3],
        gradient: &'a [f32],
    ) -> [Cow<'a, [f32]>; 3] {
        let width = self.width;
        let mut of_x = vec![0.0; x.len()];
        let (mut of_shift, mut of_scale) = (vec![0.0; shift.len()], vec![0.0; scale.len()]);
        let mut of_norm = vec![0.0; width];
        let tokens = gradient.chunks_exact(shift.len()).zip(x.chunks_exact(shift.len()));
        for (of_x, (gradient, x)) in of_x.chunks_exact_mut(shift.len()).zip(tokens) {
            let rows = gradient
                .chunks_exact(width)
                .zip(x.chunks_exact(width))
                .zip(scale.chunks_exact(width));
            let out = of_x
                .chunks_exact_mut(width)
                .zip(of_shift.chunks_exact_mut(width))
                .zip(of_scale.chunks_exact_mut(width));
            for (((gradient, x), scale), ((of_x, of_shift), of_scale)) in rows.zip(out) {
                let per_rms = per_rms(x);
                for ((((g, x), scale), of_norm), (of_shift, of_scale)) in gradient
                    .iter()
                    .zip(x)
                    .zip(scale)
                    .zip(&mut of_norm)
                    .zip(of_shift.iter_mut().zip(of_scale))
                {
                    *of_norm = g * (1.0 + scale);
                    *of_shift += g;
                    *of_scale += g * x * per_rms;
                }
                norm_backward(of_x, x, &of_norm, per_rms);
            }
        }
        [of_x.into(), of_shift.into(), of_scale.into()]
    }
}

/// `1 / √(mean(x²) + ε)`
#[inline]
pub(crate) fn per_rms(x: &[f32]) -> f32 {
    1.0 / (dot(x, x) / x.len() as f32 + EPSILON).sqrt()
}

/// Writes the gradient of `x` to `of_x`, given `of_norm`, the gradient of `x·per_rms`.
#[inline]
pub(crate) fn norm_backward(of_x: &mut [f32], x: &[f32], of_norm: &[f32], per_rms: f32) {
    let along = dot(of_norm, x) * per_rms * per_rms / x.len() as f32;
    for ((of_x, x), g) in of_x.iter_mut().zip(x).zip(of_norm) {
        *of_x = per_rms * (g - along * x);
    }
}

/// `x + branch·gate`; inputs `x`, `branch`, `gate`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatedResidual;

impl Operation<3> for GatedResidual {
    fn forward(&self, [x, branch, gate]: [&[f32]; 3]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        let tokens = x.chunks_exact(gate.len()).zip(branch.chunks_exact(gate.len()));
        for (y, (x, branch)) in y.chunks_exact_mut(gate.len()).zip(tokens) {
            for (((y, x), branch), gate) in y.iter_mut().zip(x).zip(branch).zip(gate) {
                *y = x + branch * gate;
            }
        }
        y
    }

    fn backward<'a>(
        &self,
        [_, branch, gate]: [&[f32]; 3],
        gradient: &'a [f32],
    ) -> [Cow<'a, [f32]>; 3] {
        let mut of_branch = vec![0.0; branch.len()];
        let mut of_gate = vec![0.0; gate.len()];
        let tokens = gradient.chunks_exact(gate.len()).zip(branch.chunks_exact(gate.len()));
        for (of_branch, (gradient, branch)) in of_branch.chunks_exact_mut(gate.len()).zip(tokens) {
            let out = of_branch.iter_mut().zip(&mut of_gate);
            for (((g, branch), gate), (of_branch, of_gate)) in
                gradient.iter().zip(branch).zip(gate).zip(out)
            {
                *of_branch = g * gate;
                *of_gate += g * branch;
            }
        }
        [gradient.into(), of_branch.into(), of_gate.into()]
    }
}

/// `max(x, 0)²`; input `x`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SquaredRelu;

impl Operation<1> for SquaredRelu {
    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        x.iter().map(|x| x.max(0.0) * x.max(0.0)).collect()
    }

    fn backward<'a>(&self, [x]: [&[f32]; 1], gradient: &'a [f32]) -> [Cow<'a, [f32]>; 1] {
        [x.iter().zip(gradient).map(|(x, g)| 2.0 * x.max(0.0) * g).collect()]
    }
}
