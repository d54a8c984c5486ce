//! Query, key and value of every head of one or two streams, written as attention reads them.
//!
//! ```text
//! r  = 1 / √(mean(x²) + ε)         y = x·r·scale
//! dx = r·(dy·scale − x·r²·mean(dy·scale·x))         d scale = Σ dy·x·r         sum over all heads
//! ```
//!
//! Means are over the features of a head. Values, and all heads of streams without scales, are
//! copied. A row is a head of a token; rows are numbered sample by sample, token by token. All is one
//! launch, forward and backward: cubes with another `y` take queries, keys or values, those with
//! another `z` another stream. The gradient of a scale, where it is wanted, takes two more: sums of
//! some rows each, and the sum of these.

mod on_device;

use burn::tensor::{DType, Shape, TensorMetadata};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::CubeCount;

use super::{
    operation::{Differentiable, Operation},
    rows::{Units, cubes, empty, readable, vector},
};

/// Most cubes that sum rows for the gradient of a scale.
const MOST_PARTS: usize = 256;

/// The operation with `count` heads. Inputs of each stream: what is projected, `[B, L, 3·H·w]`, and
/// the scales `[w]` of queries and keys, if the streams are normalised.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads {
    pub count: usize,
}

/// Inputs of a stream, among `N` of one stream or two.
const fn per_stream<const N: usize>() -> usize {
    if N.is_multiple_of(3) { 3 } else { 1 }
}

impl<const N: usize> Operation<N, 3> for Heads {
    fn shapes(self, inputs: [Shape; N]) -> [Shape; 3] {
        let [samples, _, features] = inputs[0].dims();
        let length = inputs.iter().step_by(per_stream::<N>()).map(|x| x[1]).sum();
        let shape = Shape::new([samples, self.count, length, features / (3 * self.count)]);
        [(); 3].map(|()| shape.clone())
    }

    fn forward<R: CubeRuntime>(self, inputs: [CubeTensor<R>; N]) -> [CubeTensor<R>; 3] {
        let shapes = Operation::<N, 3>::shapes(self, inputs.each_ref().map(TensorMetadata::shape));
        let heads = shapes.map(|shape| empty_heads(&inputs[0], shape.dims()));
        Streams::new(inputs, self.count).write(heads.clone());
        heads
    }
}

impl<const N: usize> Differentiable<N, 3> for Heads {
    fn backward<R: CubeRuntime>(
        self,
        inputs: [CubeTensor<R>; N],
        of_heads: [CubeTensor<R>; 3],
        wanted: [bool; N],
    ) -> [Option<CubeTensor<R>>; N] {
        let streams = Streams::new(inputs, self.count);
        let of_heads = of_heads.map(|gradient| readable(gradient, streams.vector));
        let per_stream = per_stream::<N>();
        let wants_scales = (0..N).any(|i| wanted[i] && i % per_stream > 0);
        let (of_x, per_rms) = streams.of_rows(&of_heads, wants_scales);
        std::array::from_fn(|i| {
            let (stream, input) = (i / per_stream, i % per_stream);
            wanted[i].then(|| match input.checked_sub(1) {
                None => of_x[stream].clone(),
                Some(part) => streams.of_scale([stream, part], &of_heads[part], &per_rms),
            })
        })
    }
}

/// Heads `[B, H, L, w]`, uninitialised, that lie beside each other in memory: `[B, L, H, w]`.
fn empty_heads<R: CubeRuntime>(
    beside: &CubeTensor<R>,
    [samples, heads, length, width]: [usize; 4],
) -> CubeTensor<R> {
    let mut new = empty(beside, [samples, length, heads, width], beside.dtype);
    new.meta.permute(&[0, 2, 1, 3]).expect("a permutation of four");
    new
}

/// One stream or two, as the kernels take them.
struct Streams<R: CubeRuntime> {
    /// What is projected, `[B, L, 3·H·w]`. The second is the first where there is one stream.
    x: [CubeTensor<R>; 2],
    /// Scales of each stream's queries and keys, `[w]`. Where there are none it is what is projected,
    /// and not read.
    scales: [[CubeTensor<R>; 2]; 2],
    /// Number of streams.
    streams: usize,
    normalised: bool,
    /// Heads per token.
    count: usize,
    /// Numbers per access to memory.
    vector: usize,
    /// Units for the kernels that go through each row.
    units: Units,
}

impl<R: CubeRuntime> Streams<R> {
    fn new<const N: usize>(inputs: [CubeTensor<R>; N], count: usize) -> Self {
        let [.., features] = inputs[0].shape().dims::<3>();
        let width = features / (3 * count);
        let vector = vector(width);
        let inputs = inputs.map(|input| readable(input, vector));
        let per_stream = per_stream::<N>();
        let input = |stream: usize, i: usize| {
            let first = stream * per_stream % N;
            inputs[first + i % per_stream].clone()
        };
        Self {
            x: [0, 1].map(|stream| input(stream, 0)),
            scales: [0, 1].map(|stream| [1, 2].map(|i| input(stream, i))),
            streams: N / per_stream,
            normalised: per_stream > 1,
            count,
            vector,
            units: Units::of_rows(width / vector),
        }
    }

    /// Heads of all tokens of all samples of a stream.
    fn rows(&self, stream: usize) -> usize {
        let [samples, length, _] = self.x[stream].shape().dims::<3>();
        samples * length * self.count
    }

    /// Heads of the stream that has most.
    fn most_rows(&self) -> usize {
        self.rows(0).max(self.rows(1))
    }

    /// Cubes for the rows of queries, keys and values of each stream.
    fn cubes(&self) -> CubeCount {
        self.units.cubes(self.most_rows(), [3, self.streams])
    }

    /// Writes query, key and value.
    fn write(self, [query, key, value]: [CubeTensor<R>; 3]) {
        let cubes = self.cubes();
        let dtypes = [self.x[0].dtype.into(), self.scales[0][0].dtype.into()];
        let ([a, b], [of_a, of_b]) = (self.x, self.scales);
        let ([query_of_a, key_of_a], [query_of_b, key_of_b]) = (of_a, of_b);
        on_device::forward::launch::<R>(
            &query.client.clone(),
            cubes,
            self.units.dim(),
            self.vector,
            a.into_tensor_arg(),
            b.into_tensor_arg(),
            query_of_a.into_tensor_arg(),
            key_of_a.into_tensor_arg(),
            query_of_b.into_tensor_arg(),
            key_of_b.into_tensor_arg(),
            query.into_tensor_arg(),
            key.into_tensor_arg(),
            value.into_tensor_arg(),
            self.normalised,
            self.units,
            dtypes,
        );
    }

    /// Gradient of what is projected, of each stream; `r` of each row of queries and keys, `[streams,
    /// 2, rows]`, if it is wanted.
    fn of_rows(
        &self,
        of_heads: &[CubeTensor<R>; 3],
        wants_per_rms: bool,
    ) -> ([CubeTensor<R>; 2], CubeTensor<R>) {
        let of_a = empty(&self.x[0], self.x[0].shape().dims::<3>(), self.x[0].dtype);
        let of_b = match self.streams {
            1 => of_a.clone(),
            _ => empty(&self.x[1], self.x[1].shape().dims::<3>(), self.x[1].dtype),
        };
        let rows = if wants_per_rms { self.most_rows() } else { 1 };
        let per_rms = empty(&self.x[0], [self.streams, 2, rows], DType::F32);
        let ([a, b], [of_a_scales, of_b_scales]) = (self.x.clone(), self.scales.clone());
        let ([query_of_a, key_of_a], [query_of_b, key_of_b]) = (of_a_scales, of_b_scales);
        let [of_query, of_key, of_value] = of_heads.clone();
        on_device::of_rows::launch::<R>(
            &a.client.clone(),
            self.cubes(),
            self.units.dim(),
            self.vector,
            a.into_tensor_arg(),
            b.into_tensor_arg(),
            query_of_a.into_tensor_arg(),
            key_of_a.into_tensor_arg(),
            query_of_b.into_tensor_arg(),
            key_of_b.into_tensor_arg(),
            of_query.into_tensor_arg(),
            of_key.into_tensor_arg(),
            of_value.into_tensor_arg(),
            of_a.clone().into_tensor_arg(),
            of_b.clone().into_tensor_arg(),
            per_rms.clone().into_tensor_arg(),
            self.normalised,
            wants_per_rms,
            self.units,
            [self.x[0].dtype.into(), self.scales[0][0].dtype.into()],
        );
        ([of_a, of_b], per_rms)
    }

    /// Gradient of the scale of queries (0) or keys (1) of a stream, from that of all heads and `r` of
    /// each row.
    fn of_scale(
        &self,
        [stream, part]: [usize; 2],
        of_heads: &CubeTensor<R>,
        per_rms: &CubeTensor<R>,
    ) -> CubeTensor<R> {
        let (scale, x) = (&self.scales[stream][part], &self.x[stream]);
        let [width] = scale.shape().dims::<1>();
        let [_, start, _] = self.x[0].shape().dims::<3>().map(|side| side * stream);
        let parts = self.rows(stream).div_ceil(self.units.down).min(MOST_PARTS);
        let sums = empty(x, [parts, width], DType::F32);
        let of_scale = empty(x, [width], scale.dtype);
        on_device::sums_of_rows::launch::<R>(
            &x.client,
            cubes(parts),
            self.units.dim(),
            self.vector,
            x.clone().into_tensor_arg(),
            of_heads.clone().into_tensor_arg(),
            per_rms.clone().into_tensor_arg(),
            sums.clone().into_tensor_arg(),
            start,
            stream,
            part,
            self.units,
            x.dtype.into(),
        );
        let units = Units::SQUARE;
        on_device::sum_of_sums::launch::<R>(
            &x.client,
            cubes((width / self.vector).div_ceil(units.across)),
            units.dim(),
            self.vector,
            sums.into_tensor_arg(),
            of_scale.clone().into_tensor_arg(),
            units,
            scale.dtype.into(),
        );
        of_scale
    }
}
