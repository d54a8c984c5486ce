//! RMS norm of the heads of one or several streams, one head of one token at a time.

use std::borrow::Cow;

use burn::tensor::{Shape, Tensor, backend::Backend};

use crate::{
    elementwise::{norm_backward, per_rms},
    host::Operation,
};

/// Normalised and scaled heads, one stream after the other along the tokens; inputs `x` and `scale`
/// of each stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    /// Samples.
    rows: usize,
    /// Heads per token.
    count: usize,
    /// Features per head.
    width: usize,
}

/// Tokens of a stream within the result.
#[derive(Clone, Copy)]
struct Place {
    /// Its first token.
    start: usize,
    /// Number of its tokens.
    length: usize,
    /// Number of the tokens of all streams.
    total: usize,
}

impl Heads {
    /// Sizes of a stream `[B, L, H·w]` with a scale `[w]`.
    pub fn of<B: Backend>(x: &Tensor<B, 3>, scale: &Tensor<B, 1>) -> Self {
        let ([rows, _, features], [width]) = (x.dims(), scale.dims());
        Self { rows, count: features / width, width }
    }

    /// The place of each stream, given its `x`.
    fn places<'a>(&self, inputs: &[&'a [f32]]) -> impl Iterator<Item = Place> + use<'a> {
        let features = self.rows * self.count * self.width;
        let lengths: Vec<usize> = inputs.iter().step_by(2).map(|x| x.len() / features).collect();
        let total = lengths.iter().sum();
        lengths.into_iter().scan(0, move |next, length| {
            let start = *next;
            *next += length;
            Some(Place { start, length, total })
        })
    }

    /// Offset in the result of every head of a stream, in the order of the stream's numbers.
    fn offsets(&self, place: Place) -> impl Iterator<Item = usize> + use<> {
        let Self { rows, count, width } = *self;
        let Place { start, length, total } = place;
        (0..rows * length * count).map(move |i| {
            let (row, token, head) = (i / count / length, i / count % length, i % count);
            ((row * count + head) * total + start + token) * width
        })
    }

    /// Writes the heads of a stream to the result.
    fn write(&self, out: &mut [f32], [x, scale]: [&[f32]; 2], place: Place) {
        for (x, at) in x.chunks_exact(self.width).zip(self.offsets(place)) {
            let per_rms = per_rms(x);
            for ((out, x), scale) in out[at..at + self.width].iter_mut().zip(x).zip(scale) {
                *out = x * per_rms * scale;
            }
        }
    }

    /// Gradients of `x` and `scale` of a stream.
    fn gradients(&self, [x, scale]: [&[f32]; 2], gradient: &[f32], place: Place) -> [Vec<f32>; 2] {
        let [mut of_x, mut of_scale] = [x, scale].map(|x| vec![0.0; x.len()]);
        let mut of_norm = vec![0.0; self.width];
        let heads = of_x.chunks_exact_mut(self.width).zip(x.chunks_exact(self.width));
        for ((of_x, x), at) in heads.zip(self.offsets(place)) {
            let per_rms = per_rms(x);
            let gradient = &gradient[at..at + self.width];
            for ((((of_norm, of_scale), x), scale), g) in
                of_norm.iter_mut().zip(&mut of_scale).zip(x).zip(scale).zip(gradient)
            {
                *of_norm = g * scale;
                *of_scale += g * x * per_rms;
            }
            norm_backward(of_x, x, &of_norm, per_rms);
        }
        [of_x, of_scale]
    }
}

impl<const N: usize> Operation<N> for Heads {
    fn shape(&self, inputs: [Shape; N]) -> Shape {
        let length = inputs.iter().step_by(2).map(|x| x[1]).sum();
        Shape::new([self.rows, self.count, length, self.width])
    }

    fn forward(&self, inputs: [&[f32]; N]) -> Vec<f32> {
        let numbers = inputs.iter().step_by(2).map(|x| x.len()).sum();
        let mut out = vec![0.0; numbers];
        for (stream, place) in inputs.as_chunks().0.iter().zip(self.places(&inputs)) {
            self.write(&mut out, *stream, place);
        }
        out
    }

    fn backward<'a>(&self, inputs: [&[f32]; N], gradient: &'a [f32]) -> [Cow<'a, [f32]>; N] {
        let streams = inputs.as_chunks().0.iter().zip(self.places(&inputs));
        let mut results =
            streams.flat_map(|(stream, place)| self.gradients(*stream, gradient, place));
        std::array::from_fn(|_| results.next().expect("two gradients per stream").into())
    }
}
