//! Norm, gate and activation, each as one pass over the numbers.

use std::borrow::Cow;

use wide::f32x8;

use crate::{
    host::Operation,
    plain::{EPSILON, GELU_CUBE, GELU_SLOPE},
    simd::{LANES, dot, sigmoid},
};

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

/// `x + branch·gate`; inputs `x`, `branch`, `gate`, each in as many parts as given. A part's gate
/// repeats along its numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GatedResidual {
    pub parts: usize,
}

impl GatedResidual {
    /// Pieces of `x` as long as a part's gate.
    fn pieces<'a>(
        &self,
        x: &'a [f32],
        branch: &'a [f32],
        gate: &'a [f32],
    ) -> impl Iterator<Item = [&'a [f32]; 3]> {
        let width = gate.len() / self.parts;
        let parts =
            x.chunks_exact(x.len() / self.parts).zip(branch.chunks_exact(x.len() / self.parts));
        parts.zip(gate.chunks_exact(width)).flat_map(move |((x, branch), gate)| {
            let pieces = x.chunks_exact(width).zip(branch.chunks_exact(width));
            pieces.map(move |(x, branch)| [x, branch, gate])
        })
    }
}

impl Operation<3> for GatedResidual {
    fn forward(&self, [x, branch, gate]: [&[f32]; 3]) -> Vec<f32> {
        let mut y = Vec::with_capacity(x.len());
        for [x, branch, gate] in self.pieces(x, branch, gate) {
            y.extend(x.iter().zip(branch).zip(gate).map(|((x, branch), gate)| x + branch * gate));
        }
        y
    }

    fn backward<'a>(
        &self,
        [_, branch, gate]: [&[f32]; 3],
        gradient: &'a [f32],
    ) -> [Cow<'a, [f32]>; 3] {
        let mut of_branch = Vec::with_capacity(branch.len());
        let mut of_gate = vec![0.0; gate.len()];
        let (width, pieces) = (gate.len() / self.parts, branch.len() / gate.len());
        for (index, [gradient, branch, gate]) in self.pieces(gradient, branch, gate).enumerate() {
            of_branch.extend(gradient.iter().zip(gate).map(|(g, gate)| g * gate));
            let of_gate = &mut of_gate[index / pieces * width..][..width];
            for ((of_gate, g), branch) in of_gate.iter_mut().zip(gradient).zip(branch) {
                *of_gate += g * branch;
            }
        }
        [gradient.into(), of_branch.into(), of_gate.into()]
    }
}

/// GELU in its tanh form, `x·σ(2u)` with `u = √(2/π)·(x + 0.044715·x³)`; input `x`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GeluTanh;

impl GeluTanh {
    /// Applies `f(x, σ(2u))` to all numbers, vector by vector.
    fn each(x: &[f32], f: impl Fn(f32x8, f32x8) -> f32x8) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        let lanes = |x: &[f32; LANES]| {
            let x = f32x8::from(*x);
            let twice = x * (x * x).mul_add(f32x8::splat(GELU_CUBE), f32x8::ONE);
            f(x, sigmoid(twice * f32x8::splat(2.0 * GELU_SLOPE))).to_array()
        };
        let ((from, rest), (to, end)) = (x.as_chunks::<LANES>(), y.as_chunks_mut::<LANES>());
        for (to, from) in to.iter_mut().zip(from) {
            *to = lanes(from);
        }
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        end.copy_from_slice(&lanes(&last)[..rest.len()]);
        y
    }
}

impl Operation<1> for GeluTanh {
    fn forward(&self, [x]: [&[f32]; 1]) -> Vec<f32> {
        Self::each(x, |x, sigmoid| x * sigmoid)
    }

    fn backward<'a>(&self, [x]: [&[f32]; 1], gradient: &'a [f32]) -> [Cow<'a, [f32]>; 1] {
        let mut of_x = Self::each(x, |x, sigmoid| {
            // 2u' = 2·√(2/π)·(1 + 3·0.044715·x²)
            let slope = (x * x).mul_add(f32x8::splat(3.0 * GELU_CUBE), f32x8::ONE)
                * f32x8::splat(2.0 * GELU_SLOPE);
            sigmoid * (x * slope).mul_add(f32x8::ONE - sigmoid, f32x8::ONE)
        });
        for (of_x, g) in of_x.iter_mut().zip(gradient) {
            *of_x *= g;
        }
        [of_x.into()]
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
