//! The 3×3 convolution of the backend under test against its definition in f64. On a CPU it is made
//! of tiles of 4×4 pixels, and of strips of 128 tiles.

use burn::prelude::*;
use kernels::{Kernels, plain};

use crate::{
    backend::{Plain, Training, distance, numbers, of_products},
    closed_forms::noise,
};

/// Images, channels of image and result, and sides of an image.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    images: usize,
    channels: [usize; 2],
    sides: [usize; 2],
}

impl Sizes {
    const ALL: [Self; 8] = [
        Self { images: 1, channels: [1, 1], sides: [1, 1] },
        Self { images: 2, channels: [3, 5], sides: [4, 4] },
        Self { images: 1, channels: [2, 3], sides: [5, 1] },
        Self { images: 1, channels: [1, 2], sides: [1, 7] },
        Self { images: 3, channels: [17, 4], sides: [6, 13] },
        Self { images: 1, channels: [40, 33], sides: [8, 32] },
        // Several strips, the last of them of fewer rows, the last row of tiles not whole.
        Self { images: 2, channels: [3, 2], sides: [70, 42] },
        // A row of tiles longer than a strip.
        Self { images: 1, channels: [1, 1], sides: [6, 530] },
    ];

    /// Images, weights and bias.
    fn inputs(self, seed: usize) -> (Tensor<Plain, 4>, Tensor<Plain, 4>, Tensor<Plain, 1>) {
        let Self { images, channels: [inputs, outputs], sides: [height, width] } = self;
        let x = noise(images, [inputs, height, width], 100 * seed + 1);
        let weight = noise(outputs, [inputs, 3, 3], 100 * seed + 2);
        (x, weight, noise(1, [1, 1, outputs], 100 * seed + 3).reshape([outputs]))
    }

    /// The result by definition.
    fn wanted(self, x: &[f64], weight: &[f64], bias: &[f64]) -> Vec<f64> {
        let Self { images, channels: [inputs, outputs], sides: [height, width] } = self;
        let mut y = vec![];
        for (image, output) in (0..images).flat_map(|i| (0..outputs).map(move |o| (i, o))) {
            for (row, column) in (0..height).flat_map(|r| (0..width).map(move |c| (r, c))) {
                let mut sum = bias[output];
                for (input, tap) in (0..inputs).flat_map(|i| (0..9).map(move |tap| (i, tap))) {
                    // One more than the pixel, which may be -1.
                    let (r, c) = (row + tap / 3, column + tap % 3);
                    if (1..=height).contains(&r) && (1..=width).contains(&c) {
                        let pixel = ((image * inputs + input) * height + r - 1) * width + c - 1;
                        sum += x[pixel] * weight[(output * inputs + input) * 9 + tap];
                    }
                }
                y.push(sum);
            }
        }
        y
    }
}

#[test]
fn a_convolution_is_what_f64_computes() {
    for (sizes, seed) in Sizes::ALL.into_iter().flat_map(|sizes| (0..8).map(move |s| (sizes, s))) {
        let (x, weight, bias) = sizes.inputs(seed);
        let want =
            [numbers(x.clone()), numbers(weight.clone()), numbers(bias.clone().unsqueeze::<2>())];
        let want = sizes.wanted(&want[0], &want[1], &want[2]);
        // A number of the result is a sum of so many normal ones; it may be close to zero.
        let scale = ((9 * sizes.channels[0] + 1) as f64).sqrt();
        for convolution in [Plain::convolution, plain::convolution] {
            let got = numbers(convolution(x.clone(), weight.clone(), bias.clone()));
            let off = got.iter().zip(&want).map(|(got, want)| (got - want).abs());
            let off = off.fold(0.0, f64::max) / scale;
            assert!(off < of_products(5e-6), "{sizes:?}, seed {seed}: {off:e}");
        }
    }
}

#[test]
fn every_image_of_a_batch_is_convolved_as_if_it_were_alone() {
    for sizes in Sizes::ALL {
        let (x, weight, bias) = sizes.inputs(1);
        let together = Plain::convolution(x.clone(), weight.clone(), bias.clone());
        let alone = (0..sizes.images)
            .map(|i| Plain::convolution(x.clone().narrow(0, i, 1), weight.clone(), bias.clone()));
        let alone = Tensor::cat(alone.collect(), 0);
        // Products of other sizes may add in another order.
        assert!(distance(&numbers(together), &numbers(alone)) < of_products(1e-6), "{sizes:?}");
    }
}

#[test]
fn a_convolution_reads_views_as_what_they_show() {
    let sizes = Sizes { images: 2, channels: [3, 4], sides: [9, 11] };
    let (x, weight, bias) = sizes.inputs(2);
    let want = numbers(Plain::convolution(x.clone(), weight.clone(), bias.clone()));
    // The memory of both in another order, and parts of larger tensors.
    let view = |x: Tensor<Plain, 4>| {
        let count = x.dims()[0];
        let larger = Tensor::cat(vec![x.clone() * 2.0, x], 0).swap_dims(1, 3);
        (larger + 0.0).swap_dims(1, 3).narrow(0, count, count)
    };
    let got = numbers(Plain::convolution(view(x), view(weight), bias));
    assert!(distance(&got, &want) < of_products(1e-6));
}

#[test]
fn a_convolution_is_differentiated_in_whatever_is_tracked() {
    let sizes = Sizes { images: 2, channels: [3, 4], sides: [6, 5] };
    let (x, weight, bias) = sizes.inputs(3);
    let of_result: Tensor<Plain, 4> = noise(2, [4, 6, 5], 9);
    let [x64, w64, b64] =
        [numbers(x.clone()), numbers(weight.clone()), numbers(bias.clone().unsqueeze::<2>())];
    let of_result64 = numbers(of_result.clone());
    // The convolution is linear in each input: a difference of any length is exact.
    let slopes = |moved: usize| -> Vec<f64> {
        let value = |inputs: &[Vec<f64>; 3]| -> f64 {
            let y = sizes.wanted(&inputs[0], &inputs[1], &inputs[2]);
            y.iter().zip(&of_result64).map(|(y, g)| y * g).sum()
        };
        let mut inputs = [x64.clone(), w64.clone(), b64.clone()];
        let before = value(&inputs);
        let slope = |i: usize| {
            inputs[moved][i] += 1.0;
            let after = value(&inputs);
            inputs[moved][i] -= 1.0;
            after - before
        };
        (0..[x64.len(), w64.len(), b64.len()][moved]).map(slope).collect()
    };
    let want = [slopes(0), slopes(1), slopes(2)];
    for tracked in 0..8 {
        let is_tracked = |i: usize| tracked >> i & 1 == 1;
        let track = |i: usize, x: Tensor<Training, 4>| {
            if is_tracked(i) { x.require_grad() } else { x }
        };
        let bias = Tensor::<Training, 1>::from_inner(bias.clone());
        let bias = if is_tracked(2) { bias.require_grad() } else { bias };
        let x = track(0, Tensor::from_inner(x.clone()));
        let weight = track(1, Tensor::from_inner(weight.clone()));
        let y = Training::convolution(x.clone(), weight.clone(), bias.clone());
        let wanted = sizes.wanted(&x64, &w64, &b64);
        assert!(distance(&numbers(y.clone().inner()), &wanted) < of_products(5e-6));
        if tracked == 0 {
            continue;
        }
        let gradients = (y * Tensor::from_inner(of_result.clone())).sum().backward();
        let got = [x.grad(&gradients), weight.grad(&gradients)].map(|g| g.map(numbers));
        let of_bias = bias.grad(&gradients).map(|g| numbers(g.unsqueeze::<2>()));
        for (i, got) in got.into_iter().chain([of_bias]).enumerate() {
            assert_eq!(got.is_some(), is_tracked(i), "input {i}, tracked: {tracked:b}");
            let Some(got) = got else { continue };
            assert!(distance(&got, &want[i]) < of_products(1e-5), "input {i}");
        }
    }
}
