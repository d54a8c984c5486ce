//! Heads on CPUs, one head of one token at a time.

use std::borrow::Cow;

use burn::tensor::{Shape, backend::Backend};

use super::Stream;
use crate::{
    elementwise::{norm_backward, per_rms},
    host::Operation,
};

/// Heads of one or several streams. Inputs of each: what is projected, and the scales of queries and
/// keys if they are normalised. The result is `[3·B, H, L, w]`: queries, keys, values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Samples.
    rows: usize,
    /// Heads per token.
    count: usize,
    /// Features per head.
    width: usize,
    normalised: bool,
}

/// A stream of `length` tokens, from `start` on among the tokens of all `total`.
struct Tokens<'a> {
    x: &'a [f32],
    /// Of queries and keys.
    scales: &'a [&'a [f32]],
    start: usize,
    length: usize,
    total: usize,
}

impl Heads {
    /// Sizes of a stream of so many heads.
    pub fn of<B: Backend>(stream: &Stream<B>, count: usize) -> Self {
        let [rows, _, features] = stream.projected.dims();
        let normalised = stream.scales.is_some();
        Self { rows, count, width: features / (3 * count), normalised }
    }

    /// The streams whose inputs these are.
    fn streams<'a>(self, inputs: &'a [&'a [f32]]) -> Vec<Tokens<'a>> {
        let of_each = inputs.chunks_exact(if self.normalised { 3 } else { 1 });
        let length = |x: &[f32]| x.len() / (self.rows * 3 * self.count * self.width);
        let total = of_each.clone().map(|of_stream| length(of_stream[0])).sum();
        let mut start = 0;
        let stream = |of_stream: &'a [&'a [f32]]| {
            let (x, length) = (of_stream[0], length(of_stream[0]));
            start += length;
            Tokens { x, scales: &of_stream[1..], start: start - length, length, total }
        };
        of_each.map(stream).collect()
    }

    /// For every head of a stream, in the order of the stream's numbers: whether it is of a query
    /// (0), a key (1) or a value (2), and its offset in the result.
    fn places(self, stream: &Tokens<'_>) -> impl Iterator<Item = (usize, usize)> + use<> {
        let Self { rows, count, width, .. } = self;
        let Tokens { start, length, total, .. } = *stream;
        (0..rows * length * 3 * count).map(move |i| {
            let (token, part, head) = (i / count / 3, i / count % 3, i % count);
            let (row, token) = (token / length, token % length);
            (part, (((part * rows + row) * count + head) * total + start + token) * width)
        })
    }

    /// Writes the heads of a stream to the result.
    fn write(self, out: &mut [f32], stream: &Tokens<'_>) {
        let heads = stream.x.chunks_exact(self.width);
        for (x, (part, at)) in heads.zip(self.places(stream)) {
            let out = &mut out[at..at + self.width];
            let Some(scale) = stream.scales.get(part) else {
                out.copy_from_slice(x);
                continue;
            };
            let per_rms = per_rms(x);
            for ((out, x), scale) in out.iter_mut().zip(x).zip(*scale) {
                *out = x * per_rms * scale;
            }
        }
    }

    /// Gradients of the inputs of a stream.
    fn gradients(self, stream: &Tokens<'_>, gradient: &[f32]) -> Vec<Vec<f32>> {
        let mut of_x = vec![0.0; stream.x.len()];
        let mut of_scales: Vec<_> = stream.scales.iter().map(|x| vec![0.0; x.len()]).collect();
        let mut of_norm = vec![0.0; self.width];
        let heads = of_x.chunks_exact_mut(self.width).zip(stream.x.chunks_exact(self.width));
        for ((of_x, x), (part, at)) in heads.zip(self.places(stream)) {
            let gradient = &gradient[at..at + self.width];
            let Some(scale) = stream.scales.get(part) else {
                of_x.copy_from_slice(gradient);
                continue;
            };
            let per_rms = per_rms(x);
            for ((((of_norm, of_scale), x), scale), g) in
                of_norm.iter_mut().zip(&mut of_scales[part]).zip(x).zip(*scale).zip(gradient)
            {
                *of_norm = g * scale;
                *of_scale += g * x * per_rms;
            }
            norm_backward(of_x, x, &of_norm, per_rms);
        }
        [of_x].into_iter().chain(of_scales).collect()
    }
}

impl<const N: usize> Operation<N> for Heads {
    fn shape(&self, inputs: [Shape; N]) -> Shape {
        let of_each = inputs.chunks_exact(if self.normalised { 3 } else { 1 });
        let length = of_each.map(|of_stream| of_stream[0][1]).sum();
        Shape::new([3 * self.rows, self.count, length, self.width])
    }

    fn forward(&self, inputs: [&[f32]; N]) -> Vec<f32> {
        let streams = self.streams(&inputs);
        let mut out = vec![0.0; streams.iter().map(|stream| stream.x.len()).sum()];
        for stream in &streams {
            self.write(&mut out, stream);
        }
        out
    }

    fn backward<'a>(&self, inputs: [&[f32]; N], gradient: &'a [f32]) -> [Cow<'a, [f32]>; N] {
        let streams = self.streams(&inputs);
        let mut results = streams.iter().flat_map(|stream| self.gradients(stream, gradient));
        std::array::from_fn(|_| results.next().expect("a gradient per input").into())
    }
}
