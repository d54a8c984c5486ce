//! RMS norm of the heads of one or two streams, written as attention reads them.
//!
//! ```text
//! r  = 1 / √(mean(x²) + ε)         y = x·r·scale
//! dx = r·(dy·scale − x·r²·mean(dy·scale·x))         d scale = Σ dy·x·r         sum over all heads
//! ```
//!
//! Means are over the features of a head. A row is a head of a token; rows are numbered as they lie
//! in `x` `[B, L, H·w]`. Each stream is one launch, forward and backward, into its part of the
//! tokens. The gradient of `scale`, where it is wanted, takes two more: sums of some rows each, and
//! the sum of these.

mod on_device;

use burn::tensor::{DType, Shape, Tensor, TensorMetadata, backend::Backend, ops::FloatTensor};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};

use super::{
    operation::{Operation, primitive, takes, tensor},
    rows::{Units, cubes, empty, readable, vector},
};
use crate::plain;

/// Most cubes that sum rows for the gradient of a scale.
const MOST_PARTS: usize = 256;

/// The operation; inputs `x` `[B, L, H·w]` and `scale` `[w]` of each stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads;

/// [`Kernels::normalized_heads`](crate::Kernels::normalized_heads) by `run`, or by the composition
/// if the kernels do not take the inputs.
pub(super) fn normalized_heads<K: Backend>(
    x: Tensor<K, 3>,
    scale: Tensor<K, 1>,
    run: impl FnOnce(Heads, [FloatTensor<K>; 2]) -> FloatTensor<K>,
) -> Tensor<K, 4> {
    plain::check_heads([&x], [&scale]);
    if takes(&x) && takes(&scale) {
        return tensor(run(Heads, [primitive(x), primitive(scale)]));
    }
    plain::normalized_heads(x, scale)
}

/// [`Kernels::joint_heads`](crate::Kernels::joint_heads), likewise.
pub(super) fn joint_heads<K: Backend>(
    x: [Tensor<K, 3>; 2],
    scale: [Tensor<K, 1>; 2],
    run: impl FnOnce(Heads, [FloatTensor<K>; 4]) -> FloatTensor<K>,
) -> Tensor<K, 4> {
    plain::check_heads(x.each_ref(), scale.each_ref());
    if x.iter().all(|part| takes(part) && part.dtype() == x[0].dtype()) && scale.iter().all(takes) {
        let ([a, b], [of_a, of_b]) = (x, scale);
        return tensor(run(Heads, [primitive(a), primitive(of_a), primitive(b), primitive(of_b)]));
    }
    plain::joint_heads(x, scale)
}

impl<const N: usize> Operation<N> for Heads {
    fn shape(self, inputs: [Shape; N]) -> Shape {
        let ([samples, _, features], [width]) = (inputs[0].dims::<3>(), inputs[1].dims::<1>());
        let length = inputs.iter().step_by(2).map(|x| x[1]).sum();
        Shape::new([samples, features / width, length, width])
    }

    fn forward<R: CubeRuntime>(self, inputs: [CubeTensor<R>; N]) -> CubeTensor<R> {
        let shape = self.shape(inputs.each_ref().map(TensorMetadata::shape));
        let heads = empty_heads(&inputs[0], shape.dims());
        for stream in streams(inputs) {
            stream.write(&heads);
        }
        heads
    }

    fn backward<R: CubeRuntime>(
        self,
        inputs: [CubeTensor<R>; N],
        gradient: CubeTensor<R>,
        wanted: [bool; N],
    ) -> [Option<CubeTensor<R>>; N] {
        let [.., width] = gradient.shape().dims::<4>();
        let gradient = readable(gradient, vector(width));
        let of_streams = streams(inputs).into_iter().zip(wanted.chunks_exact(2));
        let mut results = of_streams.flat_map(|(stream, wanted)| {
            // If neither input is tracked there is nothing to launch.
            if wanted[0] || wanted[1] {
                stream.gradients(&gradient, [wanted[0], wanted[1]])
            } else {
                [None, None]
            }
        });
        std::array::from_fn(|_| results.next().expect("two gradients per stream"))
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

/// A stream of tokens.
struct Stream<R: CubeRuntime> {
    /// `[B, L, H·w]`
    x: CubeTensor<R>,
    /// `[w]`
    scale: CubeTensor<R>,
    /// Its first token among those of all streams.
    start: usize,
    /// Numbers per access to memory.
    vector: usize,
}

/// The streams whose `x` and `scale` are the inputs.
fn streams<R: CubeRuntime>(inputs: impl IntoIterator<Item = CubeTensor<R>>) -> Vec<Stream<R>> {
    let mut inputs = inputs.into_iter();
    let mut start = 0;
    let next = || {
        let (x, scale) = (inputs.next()?, inputs.next()?);
        let ([_, length, _], [width]) = (x.shape().dims::<3>(), scale.shape().dims::<1>());
        let vector = vector(width);
        let [x, scale] = [x, scale].map(|input| readable(input, vector));
        start += length;
        Some(Stream { x, scale, start: start - length, vector })
    };
    std::iter::from_fn(next).collect()
}

impl<R: CubeRuntime> Stream<R> {
    /// Features per head.
    fn width(&self) -> usize {
        let [width] = self.scale.shape().dims::<1>();
        width
    }

    /// Heads of all tokens of all samples.
    fn rows(&self) -> usize {
        self.x.shape().num_elements() / self.width()
    }

    /// Units for the kernels that go through each row.
    fn units(&self) -> Units {
        Units::of_rows(self.width() / self.vector)
    }

    /// Writes the stream's part of the heads.
    fn write(self, heads: &CubeTensor<R>) {
        let (units, rows) = (self.units(), self.rows());
        let dtypes = [self.x.dtype.into(), self.scale.dtype.into()];
        on_device::forward::launch::<R>(
            &heads.client,
            units.cubes(rows),
            units.dim(),
            self.vector,
            self.x.into_tensor_arg(),
            self.scale.into_tensor_arg(),
            heads.clone().into_tensor_arg(),
            self.start,
            units,
            dtypes,
        );
    }

    /// Gradients of `x` and `scale`, from that of all heads.
    fn gradients(
        self,
        gradient: &CubeTensor<R>,
        [wants_x, wants_scale]: [bool; 2],
    ) -> [Option<CubeTensor<R>>; 2] {
        let (units, rows) = (self.units(), self.rows());
        let of_x = empty(&self.x, self.x.shape().dims::<3>(), self.x.dtype);
        let per_rms = empty(&self.x, [rows], DType::F32);
        on_device::of_rows::launch::<R>(
            &gradient.client,
            units.cubes(rows),
            units.dim(),
            self.vector,
            self.x.clone().into_tensor_arg(),
            self.scale.clone().into_tensor_arg(),
            gradient.clone().into_tensor_arg(),
            of_x.clone().into_tensor_arg(),
            per_rms.clone().into_tensor_arg(),
            self.start,
            units,
            [self.x.dtype.into(), self.scale.dtype.into()],
        );
        let of_scale = wants_scale.then(|| self.of_scale(gradient, per_rms));
        [wants_x.then_some(of_x), of_scale]
    }

    /// Gradient of `scale`, from that of all heads and `r` of each row.
    fn of_scale(self, gradient: &CubeTensor<R>, per_rms: CubeTensor<R>) -> CubeTensor<R> {
        let (units, width, dtype) = (self.units(), self.width(), self.scale.dtype);
        let parts = self.rows().div_ceil(units.down).min(MOST_PARTS);
        let sums = empty(&self.x, [parts, width], DType::F32);
        let of_scale = empty(&self.x, [width], dtype);
        let x_dtype = self.x.dtype;
        on_device::sums_of_rows::launch::<R>(
            &gradient.client,
            cubes(parts),
            units.dim(),
            self.vector,
            self.x.into_tensor_arg(),
            gradient.clone().into_tensor_arg(),
            per_rms.into_tensor_arg(),
            sums.clone().into_tensor_arg(),
            self.start,
            units,
            x_dtype.into(),
        );
        let units = Units::SQUARE;
        on_device::sum_of_sums::launch::<R>(
            &gradient.client,
            cubes((width / self.vector).div_ceil(units.across)),
            units.dim(),
            self.vector,
            sums.into_tensor_arg(),
            of_scale.clone().into_tensor_arg(),
            units,
            dtype.into(),
        );
        of_scale
    }
}
