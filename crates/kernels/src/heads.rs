//! Query, key and value of every head, from the products that compute them for all heads at once.

#[cfg(any(feature = "flex", feature = "ndarray"))]
pub(crate) mod host;

#[cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]
use burn::tensor::{DType, ops::FloatTensor};
use burn::tensor::{FloatDType, Tensor, backend::Backend};

use crate::plain::{self, EPSILON};

/// A stream of tokens before an attention.
#[derive(Clone, Debug)]
pub struct Stream<B: Backend> {
    /// Queries, keys and values of all heads, one after the other, `[B, L, 3·H·w]`.
    pub projected: Tensor<B, 3>,
    /// The learned scales of normalised queries and keys, `[w]` each; `None` if they are not
    /// normalised.
    pub scales: Option<[Tensor<B, 1>; 2]>,
}

impl<B: Backend> Stream<B> {
    /// Query, key and value, `[B, H, L, w]`.
    fn heads(self, count: usize) -> [Tensor<B, 4>; 3] {
        let [rows, length, features] = self.projected.dims();
        let width = features / (3 * count);
        let parts = plain::split(self.projected, 2, [features / 3; 3]);
        let mut scales = self.scales.into_iter().flatten();
        parts.map(|part| {
            let heads = part.reshape([rows, length, count, width]).swap_dims(1, 2);
            match scales.next() {
                Some(scale) => normalized(heads, scale),
                None => heads,
            }
        })
    }
}

/// RMS norm in f32 and scale of heads `[B, H, L, w]`.
fn normalized<B: Backend>(heads: Tensor<B, 4>, scale: Tensor<B, 1>) -> Tensor<B, 4> {
    let precision = FloatDType::from(heads.dtype());
    let heads = heads.cast(FloatDType::F32);
    let mean_square = (heads.clone() * heads.clone()).mean_dim(3);
    let normed = heads / (mean_square + EPSILON).sqrt();
    (normed * scale.cast(FloatDType::F32).unsqueeze()).cast(precision)
}

/// [`Kernels::heads`](crate::Kernels::heads) as a composition, for any backend.
///
/// # Panics
/// As [`Kernels::heads`](crate::Kernels::heads).
pub fn composed<B: Backend, const S: usize>(
    streams: [Stream<B>; S],
    count: usize,
) -> [Tensor<B, 4>; 3] {
    check(&streams, count);
    let mut joint = [const { Vec::new() }; 3];
    for stream in streams {
        for (joint, heads) in joint.iter_mut().zip(stream.heads(count)) {
            joint.push(heads);
        }
    }
    joint.map(|mut heads| if S == 1 { heads.remove(0) } else { Tensor::cat(heads, 2) })
}

/// Panics unless the streams are what [`Kernels::heads`](crate::Kernels::heads) takes.
fn check<B: Backend, const S: usize>(streams: &[Stream<B>; S], count: usize) {
    let [rows, _, features] = streams[0].projected.dims();
    assert!(
        features.is_multiple_of(3 * count),
        "{features} features are not queries, keys and values of {count} heads"
    );
    for Stream { projected, scales } in streams {
        assert_eq!(
            [projected.dims()[0], projected.dims()[2]],
            [rows, features],
            "samples, features"
        );
        for scale in scales.iter().flatten() {
            assert_eq!(scale.dims(), [features / (3 * count)], "features per head");
        }
    }
}

/// The tensors of the streams in their order, after a check: `projected`, then the scales where all
/// streams have some. `None` if a fused operation does not take them: then `takes` says no to a
/// type, or there are no numbers, or only some streams are normalised.
#[cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]
pub(crate) fn inputs<B: Backend, const S: usize>(
    streams: &[Stream<B>; S],
    count: usize,
    takes: impl Fn(DType) -> bool,
) -> Option<Vec<FloatTensor<B>>> {
    check(streams, count);
    let types = |Stream { projected, scales }: &Stream<B>| {
        let scales = scales.as_ref().map(|scales| scales.each_ref().map(Tensor::dtype));
        (projected.dtype(), scales)
    };
    let (of_projected, of_scales) = types(&streams[0]);
    let alike = streams.iter().all(|stream| types(stream) == (of_projected, of_scales));
    let numbers = streams.iter().all(|stream| stream.projected.shape().num_elements() > 0);
    let mut all_types = [of_projected].into_iter().chain(of_scales.into_iter().flatten());
    (alike && numbers && all_types.all(takes)).then(|| {
        let tensors = |Stream { projected, scales }: &Stream<B>| {
            let scales = scales.iter().flatten().map(|x| x.clone().into_primitive().tensor());
            let mut all = vec![projected.clone().into_primitive().tensor()];
            all.extend(scales);
            all
        };
        streams.iter().flat_map(tensors).collect()
    })
}
