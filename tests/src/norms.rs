//! The norms of large networks on the backend under test: layer norm with shift and scale, RMS norm
//! of heads, and group norm with SiLU. Outputs are compared with the definition in f64, gradients with differences
//! of it.

use burn::prelude::*;
use kernels::{
    Kernels,
    heads::{self, Stream},
    plain,
};

use crate::{
    backend::{Device, Plain, Training, distance, numbers},
    closed_forms::noise,
};

type T<const D: usize> = Tensor<Training, D>;

/// An output, and the gradients of its inputs.
#[derive(Clone, Debug, PartialEq)]
struct Pass<const N: usize> {
    output: Vec<f64>,
    gradients: [Vec<f64>; N],
}

impl<const N: usize> Pass<N> {
    /// Largest relative error of the output, and of a gradient.
    fn errors(&self, want: &Self) -> [f64; 2] {
        let of_gradients = self.gradients.iter().zip(&want.gradients);
        let of_gradients = of_gradients.map(|(got, want)| distance(got, want)).fold(0.0, f64::max);
        [distance(&self.output, &want.output), of_gradients]
    }
}

/// Computes an operation; the gradient of an input that is not tracked is empty.
fn computed<const N: usize>(
    inputs: &[Tensor<Plain, 3>; N],
    weights: &Tensor<Plain, 4>,
    tracked: [bool; N],
    operation: impl Fn([T<3>; N]) -> T<4>,
) -> Pass<N> {
    let mut tracked = tracked.into_iter();
    let inputs = inputs.clone().map(|x| {
        let x = Tensor::from_inner(x);
        if tracked.next() == Some(true) { x.require_grad() } else { x }
    });
    let output = operation(inputs.clone());
    let gradients = (output.clone() * Tensor::from_inner(weights.clone())).sum().backward();
    Pass {
        output: numbers(output.inner()),
        gradients: inputs.map(|x| x.grad(&gradients).map(numbers).unwrap_or_default()),
    }
}

/// Adds the gradients of `Σ weights·f(inputs)` to `sums`, by differences.
fn add_gradients<const N: usize>(
    sums: [&mut [f64]; N],
    inputs: [&[f64]; N],
    weights: &[f64],
    f: impl Fn([&[f64]; N]) -> Vec<f64>,
) {
    const STEP: f64 = 1e-5;
    let mut moved = inputs.map(<[f64]>::to_vec);
    for (index, sums) in sums.into_iter().enumerate() {
        for (i, sum) in sums.iter_mut().enumerate() {
            let [after, before] = [STEP, -STEP].map(|step| {
                moved[index][i] = inputs[index][i] + step;
                f(moved.each_ref().map(Vec::as_slice))
            });
            moved[index][i] = inputs[index][i];
            let change = after.iter().zip(before).map(|(after, before)| after - before);
            *sum += change.zip(weights).map(|(change, w)| change * w / (2.0 * STEP)).sum::<f64>();
        }
    }
}

/// Layer norm of a token, by definition.
fn layer_norm([x, shift, scale]: [&[f64]; 3]) -> Vec<f64> {
    let width = x.len() as f64;
    let mean = x.iter().sum::<f64>() / width;
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width;
    let normed = x.iter().map(|x| (x - mean) / (variance + 1e-6).sqrt());
    normed.zip(shift).zip(scale).map(|((n, shift), scale)| n * (1.0 + scale) + shift).collect()
}

/// RMS norm of a head of a token, by definition.
fn head([x, scale]: [&[f64]; 2]) -> Vec<f64> {
    let mean_square = x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    x.iter().zip(scale).map(|(x, scale)| x / (mean_square + 1e-6).sqrt() * scale).collect()
}

/// Samples, tokens and features of a layer norm.
#[derive(Clone, Copy, Debug)]
struct Norm {
    samples: usize,
    length: usize,
    width: usize,
}

impl Norm {
    /// `x`, shift and scale.
    fn inputs(self) -> [Tensor<Plain, 3>; 3] {
        let Self { samples, length, width } = self;
        let mut stream = 0;
        [length, 1, 1].map(|length| {
            stream += 1;
            noise(samples, [1, length, width], stream).squeeze_dim(1)
        })
    }

    /// Gradient of the output.
    fn weights(self) -> Tensor<Plain, 4> {
        noise(1, [self.samples, self.length, self.width], 9)
    }

    fn by_definition(self, inputs: &[Tensor<Plain, 3>; 3], weights: &Tensor<Plain, 4>) -> Pass<3> {
        let Self { samples, length, width } = self;
        let ([x, shift, scale], weights) = (inputs.clone().map(numbers), numbers(weights.clone()));
        let mut output = vec![];
        let [mut of_x, mut of_shift, mut of_scale] =
            [&x, &shift, &scale].map(|input| vec![0.0; input.len()]);
        for row in 0..samples * length {
            let (at, sample) = (row * width, row / length * width);
            let (here, there) = (at..at + width, sample..sample + width);
            let inputs = [&x[here.clone()], &shift[there.clone()], &scale[there.clone()]];
            output.extend(layer_norm(inputs));
            let sums = [
                &mut of_x[here.clone()],
                &mut of_shift[there.clone()],
                &mut of_scale[there.clone()],
            ];
            add_gradients(sums, inputs, &weights[here], layer_norm);
        }
        Pass { output, gradients: [of_x, of_shift, of_scale] }
    }

    const SIZES: [Self; 7] = [
        Self { samples: 1, length: 1, width: 8 },
        Self { samples: 2, length: 5, width: 7 },
        Self { samples: 3, length: 1, width: 24 },
        Self { samples: 2, length: 37, width: 12 },
        Self { samples: 1, length: 19, width: 130 },
        Self { samples: 2, length: 3, width: 516 },
        Self { samples: 1, length: 2, width: 1031 },
    ];
}

fn fused_norm([x, shift, scale]: [T<3>; 3]) -> T<4> {
    Training::modulated_layer_norm(x, shift, scale).unsqueeze()
}

fn plain_norm([x, shift, scale]: [T<3>; 3]) -> T<4> {
    plain::modulated_layer_norm(x, shift, scale).unsqueeze()
}

/// Samples, heads and features per head, and the tokens of each of `S` streams.
#[derive(Clone, Copy, Debug)]
struct Streams<const S: usize> {
    samples: usize,
    heads: usize,
    width: usize,
    lengths: [usize; S],
}

impl<const S: usize> Streams<S> {
    /// What is projected in stream `s`, `[B, L, 3·H·w]`.
    fn x(self, s: usize) -> Tensor<Plain, 3> {
        let features = [1, self.lengths[s], 3 * self.heads * self.width];
        noise(self.samples, features, 1 + s).squeeze_dim(1)
    }

    /// The scale of queries (0) or keys (1) of stream `s`, `[1, 1, w]`.
    fn scale(self, s: usize, part: usize) -> Tensor<Plain, 3> {
        noise(1, [1, 1, self.width], 3 + 2 * s + part).squeeze_dim(1)
    }

    /// What is projected, and both scales, of each stream.
    fn inputs<const N: usize>(self) -> [Tensor<Plain, 3>; N] {
        assert_eq!(N, 3 * S);
        std::array::from_fn(|i| match (i / 3, i % 3) {
            (s, 0) => self.x(s),
            (s, part) => self.scale(s, part - 1),
        })
    }

    /// Gradient of queries, keys and values, one sample after the other.
    fn weights(self) -> Tensor<Plain, 4> {
        noise(3 * self.samples, [self.heads, self.lengths.iter().sum(), self.width], 9)
    }

    /// Queries, keys and values by definition; inputs are those of [`Self::inputs`].
    fn by_definition<const N: usize>(
        self,
        inputs: &[Tensor<Plain, 3>; N],
        weights: &Tensor<Plain, 4>,
    ) -> Pass<N> {
        let Self { samples, heads, width, lengths } = self;
        let (inputs, weights) = (inputs.clone().map(numbers), numbers(weights.clone()));
        let mut output = vec![0.0; weights.len()];
        let mut gradients = inputs.each_ref().map(|input| vec![0.0; input.len()]);
        let streams = inputs.chunks_exact(3).zip(gradients.chunks_exact_mut(3));
        let (total, mut start) = (lengths.iter().sum::<usize>(), 0);
        for (length, (inputs, gradients)) in lengths.into_iter().zip(streams) {
            let [of_x, of_scales @ ..] = gradients else { unreachable!("three of each") };
            for row in 0..samples * length * 3 * heads {
                let (token, part, h) = (row / heads / 3, row / heads % 3, row % heads);
                let (sample, token) = (token / length, token % length);
                let to = (((part * samples + sample) * heads + h) * total + start + token) * width;
                let (here, there) = (row * width..(row + 1) * width, to..to + width);
                let x = &inputs[0][here.clone()];
                if part == 2 {
                    output[there.clone()].copy_from_slice(x);
                    of_x[here].copy_from_slice(&weights[there]);
                    continue;
                }
                let inputs = [x, &inputs[1 + part]];
                output[there.clone()].copy_from_slice(&head(inputs));
                let sums = [&mut of_x[here], &mut of_scales[part][..]];
                add_gradients(sums, inputs, &weights[there], head);
            }
            start += length;
        }
        Pass { output, gradients }
    }

    /// An operation on streams as one on their tensors, its results one after the other.
    fn of<const N: usize>(
        self,
        operation: fn([Stream<Training>; S], usize) -> [T<4>; 3],
    ) -> impl Fn([T<3>; N]) -> T<4> {
        move |inputs| {
            let streams = std::array::from_fn(|s| {
                let scales = [1, 2].map(|i| flat(inputs[3 * s + i].clone()));
                Stream { projected: inputs[3 * s].clone(), scales: Some(scales) }
            });
            Tensor::cat(operation(streams, self.heads).into(), 0)
        }
    }
}

impl Streams<1> {
    const SIZES: [Self; 6] = [
        Self { samples: 1, heads: 1, width: 8, lengths: [1] },
        Self { samples: 2, heads: 3, width: 7, lengths: [5] },
        Self { samples: 3, heads: 2, width: 24, lengths: [1] },
        Self { samples: 2, heads: 4, width: 64, lengths: [19] },
        Self { samples: 1, heads: 2, width: 128, lengths: [3] },
        // More rows than the sums of rows have units.
        Self { samples: 2, heads: 8, width: 64, lengths: [300] },
    ];
}

impl Streams<2> {
    const SIZES: [Self; 4] = [
        Self { samples: 1, heads: 1, width: 8, lengths: [1, 1] },
        Self { samples: 2, heads: 3, width: 7, lengths: [5, 2] },
        Self { samples: 2, heads: 2, width: 64, lengths: [16, 9] },
        Self { samples: 3, heads: 4, width: 24, lengths: [1, 20] },
    ];
}

/// `[1, 1, w]` to `[w]`
fn flat(scale: T<3>) -> T<1> {
    let width = scale.dims()[2];
    scale.reshape([width])
}

/// Images of a group norm, its groups, channels per group and pixels.
#[derive(Clone, Copy, Debug)]
struct Grouped {
    images: usize,
    groups: usize,
    channels: usize,
    sides: [usize; 2],
}

impl Grouped {
    /// `x` `[B, C, H·W]`, weight and bias `[1, 1, C]`.
    fn inputs(self) -> [Tensor<Plain, 3>; 3] {
        let Self { images, groups, channels, sides: [height, width] } = self;
        let all = groups * channels;
        let x = noise(images, [1, all, height * width], 1).squeeze_dim(1);
        [x, noise(1, [1, 1, all], 2).squeeze_dim(1), noise(1, [1, 1, all], 3).squeeze_dim(1)]
    }

    /// Gradient of the output.
    fn weights(self) -> Tensor<Plain, 4> {
        noise(self.images, [self.groups * self.channels, self.sides[0], self.sides[1]], 9)
    }

    /// A group, by definition.
    fn group([x, weight, bias]: [&[f64]; 3]) -> Vec<f64> {
        let count = x.len() as f64;
        let mean = x.iter().sum::<f64>() / count;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
        let channels = x.chunks(x.len() / weight.len()).zip(weight.iter().zip(bias));
        let affine = channels.flat_map(|(x, (weight, bias))| {
            x.iter().map(move |x| (x - mean) / (variance + 1e-6).sqrt() * weight + bias)
        });
        affine.map(|z| z / (1.0 + (-z).exp())).collect()
    }

    fn by_definition(self, inputs: &[Tensor<Plain, 3>; 3], weights: &Tensor<Plain, 4>) -> Pass<3> {
        let Self { images, groups, channels, sides: [height, width] } = self;
        let (inputs, weights) = (inputs.clone().map(numbers), numbers(weights.clone()));
        let mut gradients = inputs.each_ref().map(|input| vec![0.0; input.len()]);
        let mut output = vec![];
        let size = channels * height * width;
        for index in 0..images * groups {
            let (here, of) = (index * size..(index + 1) * size, index % groups * channels);
            let there = of..of + channels;
            let [x, weight, bias] = inputs.each_ref();
            let inputs = [&x[here.clone()], &weight[there.clone()], &bias[there.clone()]];
            output.extend(Self::group(inputs));
            let [of_x, of_weight, of_bias] = gradients.each_mut();
            let sums = [
                &mut of_x[here.clone()],
                &mut of_weight[there.clone()],
                &mut of_bias[there.clone()],
            ];
            add_gradients(sums, inputs, &weights[here], Self::group);
        }
        Pass { output, gradients }
    }

    const SIZES: [Self; 6] = [
        Self { images: 1, groups: 1, channels: 1, sides: [2, 4] },
        Self { images: 2, groups: 3, channels: 1, sides: [3, 5] },
        Self { images: 2, groups: 2, channels: 3, sides: [4, 4] },
        Self { images: 3, groups: 4, channels: 2, sides: [1, 9] },
        Self { images: 1, groups: 2, channels: 5, sides: [1, 1] },
        // A channel is added in more than one part.
        Self { images: 1, groups: 1, channels: 2, sides: [27, 41] },
    ];

    /// An operation on images as one on `[B, C, H·W]`.
    fn of(self, operation: fn(T<4>, T<1>, T<1>, usize) -> T<4>) -> impl Fn([T<3>; 3]) -> T<4> {
        let Self { images, groups, channels, sides: [height, width] } = self;
        move |[x, weight, bias]| {
            let x = x.reshape([images, groups * channels, height, width]);
            operation(x, flat(weight), flat(bias), groups)
        }
    }
}

/// Largest relative error of a gradient of a composition: see `attention`.
const OF_COMPOSITION: f64 = if cfg!(feature = "ndarray") { 1e-3 } else { 1e-5 };

/// Asserts that an operation and its composition are right.
fn is_right<const N: usize>(
    sizes: impl std::fmt::Debug,
    inputs: &[Tensor<Plain, 3>; N],
    weights: &Tensor<Plain, 4>,
    want: &Pass<N>,
    [fused, plain]: [impl Fn([T<3>; N]) -> T<4>; 2],
) {
    for (operation, of_gradients) in [(fused, 1e-5), (plain, OF_COMPOSITION)] {
        let [output, gradients] = computed(inputs, weights, [true; N], operation).errors(want);
        assert!(
            output < 1e-5 && gradients < of_gradients,
            "{sizes:?}, to {of_gradients:e}: {output:e}, {gradients:e}"
        );
    }
}

#[test]
fn a_layer_norm_and_its_gradients_are_what_f64_computes() {
    for sizes in Norm::SIZES {
        let (inputs, weights) = (sizes.inputs(), sizes.weights());
        let want = sizes.by_definition(&inputs, &weights);
        is_right(sizes, &inputs, &weights, &want, [fused_norm, plain_norm]);
    }
}

/// Norms of `S` tensors as an operation on their inputs, its results one after the other.
fn side_by_side<const S: usize, const N: usize>(
    norms: fn([[T<3>; 3]; S]) -> [T<3>; S],
) -> impl Fn([T<3>; N]) -> T<4> {
    move |inputs| {
        let of = |s: usize| std::array::from_fn(|i| inputs[3 * s + i].clone());
        Tensor::cat(norms(std::array::from_fn(of)).into(), 1).unsqueeze()
    }
}

/// Several norms at once are each the norm alone, bit by bit, also where two are of the same tensor.
/// CPUs compute one after the other.
#[test]
#[cfg(on_gpu)]
fn layer_norms_at_once_are_those_one_by_one() {
    for width in [7, 24] {
        let lengths = [5, 9, 5];
        let weights = noise(1, [2, lengths.iter().sum(), width], 9);
        let of_each = lengths.map(|length| Norm { samples: 2, length, width }.inputs());
        // The third norm is of the tensor of the first, with another shift and scale.
        let inputs: [Tensor<Plain, 3>; 9] = std::array::from_fn(|i| {
            let input = of_each[i / 3][i % 3].clone();
            if i > 6 { input * 2.0 } else { input }
        });
        let one_by_one: fn([[T<3>; 3]; 3]) -> [T<3>; 3] =
            |norms| norms.map(|[x, shift, scale]| Training::modulated_layer_norm(x, shift, scale));
        let [got, want] = [Training::modulated_layer_norms, one_by_one]
            .map(|norms| computed(&inputs, &weights, [true; 9], side_by_side(norms)));
        assert!(got == want, "{width}");
    }
}

#[test]
fn heads_and_their_gradients_are_what_f64_computes() {
    for sizes in Streams::<1>::SIZES {
        let (inputs, weights) = (sizes.inputs::<3>(), sizes.weights());
        let want = sizes.by_definition(&inputs, &weights);
        let operations = [Training::heads, heads::composed].map(|f| sizes.of(f));
        is_right(sizes, &inputs, &weights, &want, operations);
    }
}

#[test]
fn heads_of_two_streams_and_their_gradients_are_what_f64_computes() {
    for sizes in Streams::<2>::SIZES {
        let (inputs, weights) = (sizes.inputs::<6>(), sizes.weights());
        let want = sizes.by_definition(&inputs, &weights);
        let operations = [Training::heads, heads::composed].map(|f| sizes.of(f));
        is_right(sizes, &inputs, &weights, &want, operations);
    }
}

/// The heads of streams that are not normalised are numbers at other places: no rounding.
#[test]
fn heads_without_scales_are_the_numbers_themselves() {
    let bare = |operation: fn([Stream<Training>; 2], usize) -> [T<4>; 3]| {
        move |inputs: [T<3>; 2]| {
            let streams = inputs.map(|projected| Stream { projected, scales: None });
            Tensor::cat(operation(streams, 3).into(), 0)
        }
    };
    for width in [7, 8] {
        let sizes = Streams { samples: 2, heads: 3, width, lengths: [5, 4] };
        let (inputs, weights) = ([0, 1].map(|s| sizes.x(s)), sizes.weights());
        let want = computed(&inputs, &weights, [true; 2], bare(heads::composed));
        assert!(computed(&inputs, &weights, [true; 2], bare(Training::heads)) == want);
        tracks_each(&inputs, &weights, bare(Training::heads));
    }
}

/// One scaled stream beside one without scales is the composition.
#[test]
fn streams_of_two_kinds_have_heads() {
    let sizes = Streams { samples: 2, heads: 3, width: 8, lengths: [5, 4] };
    let scales = [0, 1].map(|part| flat(Tensor::from_inner(sizes.scale(0, part))));
    let [a, b] = [0, 1].map(|s| Tensor::from_inner(sizes.x(s)));
    let streams =
        [Stream { projected: a, scales: Some(scales) }, Stream { projected: b, scales: None }];
    let numbers = |heads: [T<4>; 3]| heads.map(|x| numbers(x.inner()));
    let want = heads::composed(streams.clone(), 3);
    assert!(numbers(Training::heads(streams, 3)) == numbers(want));
}

/// The gradient of a query does not depend on whether keys and values are used.
#[test]
fn heads_that_are_not_used_have_no_gradient() {
    let sizes = Streams { samples: 2, heads: 3, width: 8, lengths: [5, 4] };
    let (inputs, weights) = (sizes.inputs::<6>(), sizes.weights());
    let alone = |part: usize| {
        let only = sizes.of(Training::heads);
        let weights = weights.clone().narrow(0, part * 2, 2);
        let pass =
            computed(&inputs, &weights, [true; 6], |inputs| only(inputs).narrow(0, part * 2, 2));
        pass.gradients
    };
    let all = computed(&inputs, &weights, [true; 6], sizes.of(Training::heads)).gradients;
    let parts = [0, 1, 2].map(alone);
    for (input, all) in all.iter().enumerate() {
        let sum = (0..all.len()).map(|i| parts.iter().map(|part| part[input][i]).sum::<f64>());
        let d = distance(&sum.collect::<Vec<_>>(), all);
        assert!(d < 1e-6, "input {input}: {d:e}");
    }
}

#[test]
fn a_group_norm_with_silu_and_its_gradients_are_what_f64_computes() {
    for sizes in Grouped::SIZES {
        let (inputs, weights) = (sizes.inputs(), sizes.weights());
        let want = sizes.by_definition(&inputs, &weights);
        let operations = [Training::group_norm_silu, plain::group_norm_silu];
        is_right(sizes, &inputs, &weights, &want, operations.map(|f| sizes.of(f)));
    }
}

/// Asserts that an input's gradient does not depend on which others are tracked, and that those
/// which are not get none.
fn tracks_each<const N: usize>(
    inputs: &[Tensor<Plain, 3>; N],
    weights: &Tensor<Plain, 4>,
    operation: impl Fn([T<3>; N]) -> T<4>,
) {
    let all = computed(inputs, weights, [true; N], &operation);
    for subset in 1..1 << N {
        let tracked = std::array::from_fn(|i| subset >> i & 1 == 1);
        let some = computed(inputs, weights, tracked, &operation);
        assert!(some.output == all.output, "tracked: {subset:b}");
        for ((some, all), tracked) in some.gradients.iter().zip(&all.gradients).zip(tracked) {
            let want: &[f64] = if tracked { all } else { &[] };
            assert!(some == want, "tracked: {subset:b}");
        }
    }
}

#[test]
fn gradients_are_those_of_the_tracked_inputs() {
    let sizes = Norm { samples: 2, length: 5, width: 12 };
    tracks_each(&sizes.inputs(), &sizes.weights(), fused_norm);
    let longer = Norm { length: 7, ..sizes };
    let inputs: Vec<_> = sizes.inputs().into_iter().chain(longer.inputs()).collect();
    let weights = noise(1, [2, 12, 12], 9);
    let norms = side_by_side::<2, 6>(Training::modulated_layer_norms);
    tracks_each(&inputs.try_into().expect("six"), &weights, norms);
    let sizes = Streams { samples: 2, heads: 3, width: 8, lengths: [5] };
    tracks_each(&sizes.inputs::<3>(), &sizes.weights(), sizes.of(Training::heads));
    let sizes = Streams { samples: 2, heads: 3, width: 8, lengths: [5, 4] };
    tracks_each(&sizes.inputs::<6>(), &sizes.weights(), sizes.of(Training::heads));
    let sizes = Grouped { images: 2, groups: 3, channels: 2, sides: [3, 4] };
    tracks_each(&sizes.inputs(), &sizes.weights(), sizes.of(Training::group_norm_silu));
}

// GPUs run the composition, whose sums are those of Burn.
#[test]
#[cfg(not(on_gpu))]
fn a_group_norm_is_exact_where_numbers_are_many_and_far_from_zero() {
    // A single sum of so many numbers in f32 is off by a thousandth.
    let x = noise(1, [1, 1100, 1000], 1) * 0.1 + 30.0;
    let [weight, bias] = [1.0, 0.0].map(|x| Tensor::<Plain, 1>::full([1], x, &Device::default()));
    let y = numbers(Plain::group_norm_silu(x.clone(), weight, bias, 1));
    let want = Grouped::group([&numbers(x), &[1.0], &[0.0]]);
    let d = distance(&y, &want);
    assert!(d < 1e-4, "{d:e}");
}

#[test]
fn a_group_norm_reads_views_as_what_they_show() {
    let sizes = Grouped { images: 2, groups: 2, channels: 3, sides: [3, 5] };
    let (inputs, weights) = (sizes.inputs(), sizes.weights());
    let norm = sizes.of(Training::group_norm_silu);
    let want = computed(&inputs, &weights, [true; 3], &norm);
    let views = inputs.map(|x| (x.swap_dims(1, 2) + 0.0).swap_dims(1, 2));
    assert!(computed(&views, &weights, [true; 3], &norm) == want);
    let turned = |inputs: [T<3>; 3]| norm(inputs).swap_dims(1, 3);
    let got = computed(&views, &weights.swap_dims(1, 3), [true; 3], turned);
    assert!(got.gradients == want.gradients);
}

#[test]
#[should_panic(expected = "are not 4 groups")]
fn channels_that_are_not_whole_groups_are_refused() {
    let [x, weight, _] = Grouped { images: 1, groups: 3, channels: 2, sides: [1, 1] }.inputs();
    let weight = weight.reshape([6]);
    let _ = Plain::group_norm_silu(x.reshape([1, 6, 1, 1]), weight.clone(), weight, 4);
}

#[test]
fn a_layer_norm_does_not_see_a_shift_of_its_input() {
    let sizes = Norm { samples: 2, length: 5, width: 48 };
    let [x, shift, scale] = sizes.inputs();
    let norm = |x| numbers(Plain::modulated_layer_norm(x, shift.clone(), scale.clone()));
    let d = distance(&norm(x.clone() + 3.0), &norm(x));
    assert!(d < 3e-6, "{d:e}");
}

#[test]
fn heads_of_two_streams_are_those_of_each_side_by_side() {
    for sizes in Streams::<2>::SIZES {
        let (inputs, weights) = (sizes.inputs::<6>(), sizes.weights());
        let one_by_one = |streams: [Stream<Training>; 2], count| {
            let [a, b] = streams.map(|stream| Training::heads([stream], count));
            let mut both = a.into_iter().zip(b).map(|(a, b)| Tensor::cat(vec![a, b], 2));
            [(); 3].map(|()| both.next().expect("three of each"))
        };
        let joint = computed(&inputs, &weights, [true; 6], sizes.of(Training::heads));
        let each = computed(&inputs, &weights, [true; 6], sizes.of(one_by_one));
        assert!(joint == each, "{sizes:?}");
    }
}

/// The operation with another order of its output's memory, so that the gradient comes in another
/// order, too.
fn turned<const N: usize>(operation: impl Fn([T<3>; N]) -> T<4>) -> impl Fn([T<3>; N]) -> T<4> {
    move |inputs| operation(inputs).swap_dims(1, 3)
}

#[test]
fn norms_read_views_as_what_they_show() {
    // Memory in the order `[L, B, …]`, and parts of larger tensors, as of all modulations at once.
    let stored = |x: Tensor<Plain, 3>| {
        let larger = Tensor::cat(vec![x.clone() * 2.0, x.clone(), x.clone()], 1);
        let turned = (larger.swap_dims(0, 1) + 0.0).swap_dims(0, 1);
        turned.narrow(1, x.dims()[1], x.dims()[1])
    };
    for width in [7, 12] {
        let sizes = Norm { samples: 2, length: 5, width };
        let (inputs, weights) = (sizes.inputs(), sizes.weights());
        let want = computed(&inputs, &weights, [true; 3], fused_norm);
        let inputs = inputs.map(stored);
        assert!(computed(&inputs, &weights, [true; 3], fused_norm) == want, "{sizes:?}");
        let got = computed(&inputs, &weights.swap_dims(1, 3), [true; 3], turned(fused_norm));
        assert!(got.gradients == want.gradients, "{sizes:?}");

        let sizes = Streams { samples: 2, heads: 3, width, lengths: [5, 4] };
        let (inputs, weights) = (sizes.inputs::<6>(), sizes.weights());
        let heads = sizes.of(Training::heads);
        let want = computed(&inputs, &weights, [true; 6], &heads);
        let inputs = inputs.map(stored);
        assert!(computed(&inputs, &weights, [true; 6], &heads) == want, "{sizes:?}");
        let got = computed(&inputs, &weights.swap_dims(1, 3), [true; 6], turned(heads));
        assert!(got.gradients == want.gradients, "{sizes:?}");
    }
}

#[test]
#[should_panic(expected = "not queries, keys and values of 3 heads")]
fn features_that_are_not_whole_heads_are_refused() {
    let sizes = Streams { samples: 1, heads: 3, width: 8, lengths: [2] };
    let stream = Stream { projected: sizes.x(0).narrow(2, 0, 70), scales: None };
    let _ = Plain::heads([stream], 3);
}

/// Inputs and results of 16 bits; inside, the kernels compute in f32.
#[test]
#[cfg(on_gpu)]
fn norms_of_16_bits_are_right_to_their_precision() {
    use burn::tensor::FloatDType;

    use crate::backend::PRECISION;
    let device = Device::default();
    for (dtype, digits) in [(FloatDType::F16, 11), (FloatDType::BF16, 8)] {
        if !Plain::supports_dtype(&device, dtype.into()) {
            assert_eq!(PRECISION, "f32", "cuda has both");
            println!("{dtype:?}: not on this device");
            continue;
        }
        let rounding = 0.5_f64.powi(digits);
        let holds = |[output, gradients]: [f64; 2], what: &str| {
            assert!(
                output < 2.0 * rounding && gradients < 2.0 * rounding,
                "{what}, {dtype:?}: {output:e}, {gradients:e}"
            );
        };
        let sizes = Norm { samples: 2, length: 19, width: 260 };
        let (inputs, weights) =
            (sizes.inputs().map(|x| x.cast(dtype)), sizes.weights().cast(dtype));
        let want = sizes.by_definition(&inputs, &weights);
        holds(computed(&inputs, &weights, [true; 3], fused_norm).errors(&want), "layer norm");

        let sizes = Streams { samples: 2, heads: 3, width: 64, lengths: [19, 5] };
        let (inputs, weights) =
            (sizes.inputs::<6>().map(|x| x.cast(dtype)), sizes.weights().cast(dtype));
        let want = sizes.by_definition(&inputs, &weights);
        let heads = sizes.of(Training::heads);
        holds(computed(&inputs, &weights, [true; 6], &heads).errors(&want), "heads");
        // Scales in f32 beside features of 16 bits.
        let [a, query_of_a, key_of_a, b, query_of_b, key_of_b] = inputs;
        let [query_of_a, key_of_a, query_of_b, key_of_b] =
            [query_of_a, key_of_a, query_of_b, key_of_b].map(|scale| scale.cast(FloatDType::F32));
        let inputs = [a, query_of_a, key_of_a, b, query_of_b, key_of_b];
        holds(computed(&inputs, &weights, [true; 6], &heads).errors(&want), "heads in f32");
    }
}

#[test]
#[cfg(on_gpu)]
#[ignore = "minutes where the CPU is the GPU: cargo xtask test --backend wgpu -- --ignored more_rows"]
fn norms_of_more_rows_than_a_launch_has_cubes_are_right() {
    // A launch has 65,535 cubes, of 32 rows each where rows are as short as these.
    let (rows, width) = (65_535 * 32 + 50, 4);
    let sizes = Norm { samples: 1, length: rows, width };
    let (inputs, weights) = (sizes.inputs(), sizes.weights());
    let want = sizes.by_definition(&inputs, &weights);
    let got = computed(&inputs, &weights, [true; 3], fused_norm);
    assert!(distance(&got.output, &want.output) < 1e-5);
    assert!(distance(&got.gradients[0], &want.gradients[0]) < 1e-3);
    let sizes = Streams { samples: 1, heads: 2, width, lengths: [rows / 2] };
    let (inputs, weights) = (sizes.inputs::<3>(), sizes.weights());
    let want = sizes.by_definition(&inputs, &weights);
    let got = computed(&inputs, &weights, [true; 3], sizes.of(Training::heads));
    assert!(distance(&got.output, &want.output) < 1e-5);
    assert!(distance(&got.gradients[0], &want.gradients[0]) < 1e-3);
}
