//! Group norm followed by SiLU, one group at a time.

// A function call per vector would cost more than the work on it.
#![allow(clippy::inline_always)]

use std::borrow::Cow;

use rayon::prelude::*;
use wide::f32x8;

use crate::{
    host::Operation,
    plain::EPSILON,
    simd::{LANES, sigmoid},
};

/// `silu((x − mean) / √(variance + ε) · weight + bias)`; inputs `x`, `weight`, `bias`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupNormSilu {
    /// Groups of channels.
    pub groups: usize,
    /// Pixels per channel.
    pub pixels: usize,
}

/// Mean and `1 / √(variance + ε)` of a group.
#[derive(Clone, Copy)]
struct Moments {
    mean: f32,
    per_std: f32,
}

impl Moments {
    fn of(x: &[f32]) -> Self {
        let count = x.len() as f64;
        let mean = (total([x, x], |x, _| x) / count) as f32;
        let centred = |x: f32x8| x - f32x8::splat(mean);
        let variance = total([x, x], |x, _| centred(x) * centred(x)) / count;
        Self { mean, per_std: 1.0 / (variance as f32 + EPSILON).sqrt() }
    }
}

/// `Σ f(a, b)`. Parts of 1,024 numbers are added in f32, the parts in f64: a group of a large image
/// has millions of numbers.
#[inline(always)]
fn total([a, b]: [&[f32]; 2], f: impl Fn(f32x8, f32x8) -> f32x8) -> f64 {
    let part = |(a, b): (&[f32], &[f32])| {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        let pairs = a.iter().zip(b);
        let sums = pairs.fold(f32x8::ZERO, |sums, (a, b)| sums + f((*a).into(), (*b).into()));
        let rest = a_rest.iter().zip(b_rest);
        let rest = rest.map(|(a, b)| f(f32x8::splat(*a), f32x8::splat(*b)).to_array()[0]);
        f64::from(sums.reduce_add() + rest.sum::<f32>())
    };
    a.chunks(1024).zip(b.chunks(1024)).map(part).sum()
}

/// Sets `y = f(x, y)`, register by register.
#[inline(always)]
fn each(y: &mut [f32], x: &[f32], f: impl Fn(f32x8, f32x8) -> f32x8) {
    let (x, x_rest) = x.as_chunks::<LANES>();
    let (y, y_rest) = y.as_chunks_mut::<LANES>();
    for (y, x) in y.iter_mut().zip(x) {
        *y = f(f32x8::from(*x), f32x8::from(*y)).to_array();
    }
    for (y, x) in y_rest.iter_mut().zip(x_rest) {
        *y = f(f32x8::splat(*x), f32x8::splat(*y)).to_array()[0];
    }
}

/// The affine map `slope·x + offset` that normalises a channel and applies its weight and bias.
fn map_of_channel(moments: Moments, weight: f32, bias: f32) -> [f32x8; 2] {
    let slope = moments.per_std * weight;
    [f32x8::splat(slope), f32x8::splat(bias - moments.mean * slope)]
}

impl GroupNormSilu {
    /// Weight and bias of the channels of a group.
    fn of_group<'a>(&self, group: usize, weight: &'a [f32], bias: &'a [f32]) -> [&'a [f32]; 2] {
        let width = weight.len() / self.groups;
        [weight, bias].map(|all| &all[group % self.groups * width..][..width])
    }

    /// Numbers of a group.
    fn size(&self, weight: &[f32]) -> usize {
        weight.len() / self.groups * self.pixels
    }

    /// Writes the gradient of a group to `of_x`; returns those of weight and bias, by channel.
    fn backward_group(
        &self,
        of_x: &mut [f32],
        [x, gradient, weight, bias]: [&[f32]; 4],
    ) -> Vec<[f32; 2]> {
        let moments = Moments::of(x);
        let [mean, per_std] = [moments.mean, moments.per_std].map(f32x8::splat);
        let channels = || x.chunks_exact(self.pixels).zip(weight);
        let mut sums = vec![];
        let of_channels =
            of_x.chunks_exact_mut(self.pixels).zip(gradient.chunks_exact(self.pixels));
        for (((of_x, gradient), (x, weight)), bias) in of_channels.zip(channels()).zip(bias) {
            let [slope, offset] = map_of_channel(moments, *weight, *bias);
            of_x.copy_from_slice(gradient);
            each(of_x, x, |x, g| {
                let z = x.mul_add(slope, offset);
                let sigmoid = sigmoid(z);
                g * sigmoid * z.mul_add(f32x8::ONE - sigmoid, f32x8::ONE)
            });
            let normed = |x: f32x8| (x - mean) * per_std;
            sums.push([total([of_x, x], |g, x| g * normed(x)), total([of_x, x], |g, _| g)]);
        }
        // The mean of the gradient of the normalised numbers, and of its product with them.
        let [along, level] = [0, 1].map(|i| {
            let weighted = sums.iter().zip(weight).map(|(sums, w)| sums[i] * f64::from(*w));
            f32x8::splat((weighted.sum::<f64>() / x.len() as f64) as f32)
        });
        for (of_x, (x, weight)) in of_x.chunks_exact_mut(self.pixels).zip(channels()) {
            let weight = f32x8::splat(*weight);
            each(of_x, x, |x, g| per_std * (g * weight - level - (x - mean) * per_std * along));
        }
        sums.into_iter().map(|sums| sums.map(|sum| sum as f32)).collect()
    }
}

impl Operation<3> for GroupNormSilu {
    fn forward(&self, [x, weight, bias]: [&[f32]; 3]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        let size = self.size(weight);
        y.par_chunks_exact_mut(size).zip(x.par_chunks_exact(size)).enumerate().for_each(
            |(group, (y, x))| {
                let moments = Moments::of(x);
                let [weight, bias] = self.of_group(group, weight, bias);
                let channels = y.chunks_exact_mut(self.pixels).zip(x.chunks_exact(self.pixels));
                for ((y, x), (weight, bias)) in channels.zip(weight.iter().zip(bias)) {
                    let [slope, offset] = map_of_channel(moments, *weight, *bias);
                    each(y, x, |x, _| {
                        let z = x.mul_add(slope, offset);
                        z * sigmoid(z)
                    });
                }
            },
        );
        y
    }

    fn backward<'a>(
        &self,
        [x, weight, bias]: [&[f32]; 3],
        gradient: &'a [f32],
    ) -> [Cow<'a, [f32]>; 3] {
        let mut of_x = vec![0.0; x.len()];
        let size = self.size(weight);
        let groups = x.par_chunks_exact(size).zip(gradient.par_chunks_exact(size));
        let of_groups = of_x.par_chunks_exact_mut(size).zip(groups).enumerate();
        let sums: Vec<[f32; 2]> = of_groups
            .flat_map_iter(|(group, (of_x, (x, gradient)))| {
                let [weight, bias] = self.of_group(group, weight, bias);
                self.backward_group(of_x, [x, gradient, weight, bias])
            })
            .collect();
        let [mut of_weight, mut of_bias] = [vec![0.0; weight.len()], vec![0.0; bias.len()]];
        for image in sums.chunks_exact(weight.len()) {
            for ((of_weight, of_bias), sums) in of_weight.iter_mut().zip(&mut of_bias).zip(image) {
                *of_weight += sums[0];
                *of_bias += sums[1];
            }
        }
        [of_x.into(), of_weight.into(), of_bias.into()]
    }
}
