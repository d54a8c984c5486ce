//! Attention, one head of one sample at a time, so that the working set stays in the L1 cache.
//!
//! The weights are stored transposed: `weights[j, i]` is the weight of key `j` for query `i`, so
//! that the softmax over keys is arithmetic between whole rows. The backward pass recomputes the
//! weights instead of storing `[B·heads, L, L]` numbers.

use std::borrow::Cow;

use wide::f32x8;

use crate::{
    elementwise::{norm_backward, per_rms},
    host::Operation,
    simd::{Left, exp, multiply, padded, transpose},
};

/// Normalised attention; inputs `query`, `key`, `value`, `query_scale`, `key_scale`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    /// Number of heads of all samples together, `B·heads`.
    pub heads: usize,
    /// Features per head.
    pub width: usize,
}

/// Intermediate values of one head, zero-padded to whole lanes: `L'` tokens, `w'` features.
struct Head {
    /// `q̂` `[L', w']`, normalised and scaled.
    query: Vec<f32>,
    /// `q̂ᵀ` `[w', L']`
    query_t: Vec<f32>,
    /// `k̂` `[L', w']`, normalised and scaled.
    key: Vec<f32>,
    /// `v` `[L', w']`
    value: Vec<f32>,
    /// Softmax weights `[L', L']`, one row per key.
    weights: Vec<f32>,
    /// `y` `[L', w']`
    output: Vec<f32>,
}

impl Attention {
    /// Tokens per sample.
    fn length(&self, query: &[f32]) -> usize {
        query.len() / (self.heads * self.width)
    }

    /// Offset of the features of `head` in each token.
    fn offsets(&self, head: usize, length: usize) -> impl Iterator<Item = usize> {
        let (stride, width) = (self.heads * self.width, self.width);
        (0..length).map(move |token| token * stride + head * width)
    }

    /// Copies a head's features to `[L', w']`.
    fn gather(&self, out: &mut [f32], from: &[f32], head: usize) {
        let length = self.length(from);
        for (out, at) in out.chunks_exact_mut(padded(self.width)).zip(self.offsets(head, length)) {
            out[..self.width].copy_from_slice(&from[at..at + self.width]);
        }
    }

    /// Copies a head's features back from `[L', w']`.
    fn scatter(&self, out: &mut [f32], from: &[f32], head: usize) {
        let length = self.length(out);
        for (from, at) in from.chunks_exact(padded(self.width)).zip(self.offsets(head, length)) {
            out[at..at + self.width].copy_from_slice(&from[..self.width]);
        }
    }

    /// Copies a head's features to `[L', w']`, normalised and scaled.
    fn gather_normalized(&self, out: &mut [f32], from: &[f32], scale: &[f32], head: usize) {
        let length = self.length(from);
        for (out, at) in out.chunks_exact_mut(padded(self.width)).zip(self.offsets(head, length)) {
            let x = &from[at..at + self.width];
            let per_rms = per_rms(x);
            for ((out, x), scale) in out.iter_mut().zip(x).zip(scale) {
                *out = x * per_rms * scale;
            }
        }
    }

    /// Backward pass of [`Self::gather_normalized`], from the gradient of its output, `[L', w']`:
    /// writes the gradient of `x` and adds to the gradient of `scale`.
    fn scatter_norm_gradient(
        &self,
        [of_x, of_scale]: [&mut [f32]; 2],
        [x, scale, gradient]: [&[f32]; 3],
        head: usize,
    ) {
        let length = self.length(x);
        let mut of_norm = vec![0.0; self.width];
        for (gradient, at) in
            gradient.chunks_exact(padded(self.width)).zip(self.offsets(head, length))
        {
            let x = &x[at..at + self.width];
            let per_rms = per_rms(x);
            for ((((of_norm, of_scale), x), scale), g) in
                of_norm.iter_mut().zip(of_scale.iter_mut()).zip(x).zip(scale).zip(gradient)
            {
                *of_norm = g * scale;
                *of_scale += g * x * per_rms;
            }
            norm_backward(&mut of_x[at..at + self.width], x, &of_norm, per_rms);
        }
    }

    /// `query_scale / √w`
    fn scaled_down(&self, query_scale: &[f32]) -> Vec<f32> {
        let root = (self.width as f32).sqrt();
        query_scale.iter().map(|scale| scale / root).collect()
    }

    /// Forward pass of `head`: fills `at` with its output and all intermediate values.
    fn head(
        &self,
        at: &mut Head,
        [query, key, value, query_scale, key_scale]: [&[f32]; 5],
        head: usize,
    ) {
        let (length, width) = (self.length(query), padded(self.width));
        let rows = padded(length);
        self.gather_normalized(&mut at.query, query, query_scale, head);
        self.gather_normalized(&mut at.key, key, key_scale, head);
        self.gather(&mut at.value, value, head);
        transpose(&mut at.query_t, &at.query, width);
        multiply(&mut at.weights, Left::Rows(&at.key), &at.query_t, rows);
        softmax(&mut at.weights[..length * rows], rows);
        multiply(&mut at.output, Left::Columns(&at.weights), &at.value, width);
    }
}

impl Head {
    fn new(length: usize, width: usize) -> Self {
        let (length, width) = (padded(length), padded(width));
        let zeros = |n: usize| vec![0.0; n];
        Self {
            query: zeros(length * width),
            query_t: zeros(length * width),
            key: zeros(length * width),
            value: zeros(length * width),
            weights: zeros(length * length),
            output: zeros(length * width),
        }
    }
}

/// Softmax over the keys of `[keys, queries]`, in place, for each query separately.
fn softmax(scores: &mut [f32], queries: usize) {
    let mut largest = vec![f32::NEG_INFINITY; queries];
    for row in scores.chunks_exact(queries) {
        for (largest, score) in largest.iter_mut().zip(row) {
            *largest = if *score > *largest { *score } else { *largest };
        }
    }
    let mut sums = vec![0.0; queries];
    for row in scores.chunks_exact_mut(queries) {
        let lanes = row.as_chunks_mut().0.iter_mut().zip(largest.as_chunks().0);
        for ((scores, largest), sums) in lanes.zip(sums.as_chunks_mut().0) {
            let weights = exp(f32x8::from(*scores) - f32x8::from(*largest));
            *scores = weights.to_array();
            *sums = (f32x8::from(*sums) + weights).to_array();
        }
    }
    for row in scores.chunks_exact_mut(queries) {
        for (score, sum) in row.iter_mut().zip(&sums) {
            *score /= sum;
        }
    }
}

/// Turns the gradient of the weights `[keys, queries]` into the gradient of the scores, in place.
///
/// ```text
/// ds = p·(dp − Σ_keys p·dp)
/// ```
fn softmax_backward(gradient: &mut [f32], weights: &[f32], queries: usize) {
    let mut along = vec![0.0; queries];
    for (gradient, weights) in gradient.chunks_exact(queries).zip(weights.chunks_exact(queries)) {
        for ((along, g), weight) in along.iter_mut().zip(gradient).zip(weights) {
            *along += g * weight;
        }
    }
    for (gradient, weights) in gradient.chunks_exact_mut(queries).zip(weights.chunks_exact(queries))
    {
        for ((g, weight), along) in gradient.iter_mut().zip(weights).zip(&along) {
            *g = weight * (*g - along);
        }
    }
}

impl Operation<5> for Attention {
    fn forward(&self, [query, key, value, query_scale, key_scale]: [&[f32]; 5]) -> Vec<f32> {
        let query_scale = self.scaled_down(query_scale);
        let mut out = vec![0.0; query.len()];
        let mut at = Head::new(self.length(query), self.width);
        for head in 0..self.heads {
            self.head(&mut at, [query, key, value, &query_scale, key_scale], head);
            self.scatter(&mut out, &at.output, head);
        }
        out
    }

    fn backward<'a>(
        &self,
        [query, key, value, query_scale, key_scale]: [&[f32]; 5],
        gradient: &'a [f32],
    ) -> [Cow<'a, [f32]>; 5] {
        let scaled_down = self.scaled_down(query_scale);
        let [mut of_query, mut of_key, mut of_value] =
            [query, key, value].map(|x| vec![0.0; x.len()]);
        let [mut of_query_scale, mut of_key_scale] =
            [query_scale, key_scale].map(|x| vec![0.0; x.len()]);
        let (length, width) = (padded(self.length(query)), padded(self.width));
        let mut at = Head::new(self.length(query), self.width);
        let [mut of_output, mut of_output_t, mut of_features] =
            std::array::from_fn(|_| vec![0.0; length * width]);
        let mut of_scores = vec![0.0; length * length];
        for head in 0..self.heads {
            self.head(&mut at, [query, key, value, &scaled_down, key_scale], head);
            self.gather(&mut of_output, gradient, head);
            transpose(&mut of_output_t, &of_output, width);

            multiply(&mut of_features, Left::Rows(&at.weights), &of_output, width);
            self.scatter(&mut of_value, &of_features, head);

            multiply(&mut of_scores, Left::Rows(&at.value), &of_output_t, length);
            softmax_backward(&mut of_scores, &at.weights, length);

            multiply(&mut of_features, Left::Columns(&of_scores), &at.key, width);
            let query_side = [query, &scaled_down, &of_features];
            self.scatter_norm_gradient([&mut of_query, &mut of_query_scale], query_side, head);

            multiply(&mut of_features, Left::Rows(&of_scores), &at.query, width);
            self.scatter_norm_gradient(
                [&mut of_key, &mut of_key_scale],
                [key, key_scale, &of_features],
                head,
            );
        }
        let root = (self.width as f32).sqrt();
        for of_scale in &mut of_query_scale {
            *of_scale /= root;
        }
        [
            of_query.into(),
            of_key.into(),
            of_value.into(),
            of_query_scale.into(),
            of_key_scale.into(),
        ]
    }
}
