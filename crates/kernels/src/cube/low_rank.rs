//! Factors of low rank, made ready for a product and their gradients cut out again: one launch each.
//!
//! ```text
//! A = [A₁ … A_N]        B = diag(s₁·B₁, …, s_N·B_N)        dAᵢ = (dA)ᵢ        dBᵢ = sᵢ·(dB)ᵢ
//! ```

mod on_device;

use burn::tensor::{DType, FloatDType, Shape, Tensor, TensorMetadata, backend::Backend};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::{CubeCount, CubeDim, SequenceArg};

use super::{
    operation::{Operation, Runs, exactly, primitive, tensor},
    rows::empty,
};
use crate::low_rank::{Factors, Pair};

/// As [`Factors::ready`], in one launch for up to three layers.
pub(super) fn ready<B: Runs>(factors: &Factors<B>, precision: FloatDType) -> [Tensor<B, 2>; 2] {
    match &factors.pairs[..] {
        [a] => join::<B, 1, 2>([a], factors, precision),
        [a, b] => join::<B, 2, 4>([a, b], factors, precision),
        [a, b, c] => join::<B, 3, 6>([a, b, c], factors, precision),
        _ => factors.ready(precision),
    }
}

fn join<B: Runs, const P: usize, const N: usize>(
    pairs: [&Pair<B>; P],
    factors: &Factors<B>,
    precision: FloatDType,
) -> [Tensor<B, 2>; 2] {
    let operation = Join {
        layers: Layers::new(pairs),
        rank: factors.filled_rank(),
        outputs: factors.outputs,
        precision: precision.into(),
    };
    let inputs: Vec<_> =
        pairs.iter().flat_map(|pair| [&pair.a, &pair.b]).cloned().map(primitive).collect();
    B::forward(operation, exactly::<_, N>(inputs)).map(tensor)
}

/// As [`Factors::cut`], in one launch for up to three layers.
pub(super) fn cut<B: Runs>(
    factors: &Factors<B>,
    of_joined: [Tensor<B, 2>; 2],
) -> Vec<[Tensor<B, 2>; 2]> {
    match &factors.pairs[..] {
        [a] => cut_out::<B, 1, 2>([a], of_joined),
        [a, b] => cut_out::<B, 2, 4>([a, b], of_joined),
        [a, b, c] => cut_out::<B, 3, 6>([a, b, c], of_joined),
        _ => factors.cut(of_joined),
    }
}

fn cut_out<B: Runs, const P: usize, const M: usize>(
    pairs: [&Pair<B>; P],
    of_joined: [Tensor<B, 2>; 2],
) -> Vec<[Tensor<B, 2>; 2]> {
    let operation = Cut {
        layers: Layers::new(pairs),
        sizes: pairs.map(|pair| pair.b.dims()),
        precision: pairs[0].a.dtype(),
    };
    let results: [_; M] = B::forward(operation, of_joined.map(primitive));
    let mut results = results.into_iter().map(tensor);
    pairs.iter().map(|_| [(); 2].map(|()| results.next().expect("two of each pair"))).collect()
}

/// Units of a cube.
const UNITS: usize = 256;

/// Most cubes that share a factor: each unit then writes some numbers, one after the other.
const MOST_CUBES: usize = 512;

/// Where the factors of `P` layers lie in the joined ones, and the scale of each second factor.
#[derive(Clone, Copy, Debug)]
struct Layers<const P: usize> {
    scales: [f32; P],
    /// The first output of each layer.
    from: [usize; P],
}

impl<const P: usize> Layers<P> {
    fn new<B: Backend>(pairs: [&Pair<B>; P]) -> Self {
        Self { scales: pairs.map(|pair| pair.scale as f32), from: pairs.map(|pair| pair.from) }
    }

    fn scales<R: CubeRuntime>(self) -> SequenceArg<R, f32> {
        self.scales.into_iter().collect()
    }

    fn from<R: CubeRuntime>(self) -> SequenceArg<R, usize> {
        self.from.into_iter().collect()
    }
}

/// Makes the factors ready; inputs are `A` and `B` of each layer.
#[derive(Clone, Copy, Debug)]
struct Join<const P: usize> {
    layers: Layers<P>,
    /// Sum of all ranks, padded.
    rank: usize,
    /// Outputs of all layers together.
    outputs: usize,
    precision: DType,
}

impl<const P: usize, const N: usize> Operation<N, 2> for Join<P> {
    fn shapes(self, inputs: [Shape; N]) -> [Shape; 2] {
        [Shape::new([inputs[0][0], self.rank]), Shape::new([self.rank, self.outputs])]
    }

    fn dtype(self, _first: DType) -> DType {
        self.precision
    }

    fn forward<R: CubeRuntime>(self, inputs: [CubeTensor<R>; N]) -> [CubeTensor<R>; 2] {
        let shapes = Operation::<N, 2>::shapes(self, inputs.each_ref().map(TensorMetadata::shape));
        let joined = shapes.map(|shape| empty(&inputs[0], shape.dims::<2>(), self.precision));
        let most = joined.iter().map(|joined| joined.shape().num_elements()).max().unwrap_or(0);
        let [a, b] = joined.clone();
        let dtypes = [inputs[0].dtype.into(), self.precision.into()];
        let client = inputs[0].client.clone();
        let factors =
            |side| inputs.iter().skip(side).step_by(2).cloned().map(CubeTensor::into_tensor_arg);
        on_device::join::launch::<R>(
            &client,
            cubes(most, 2),
            CubeDim::new_1d(UNITS as u32),
            factors(0).collect(),
            factors(1).collect(),
            self.layers.scales(),
            self.layers.from(),
            a.into_tensor_arg(),
            b.into_tensor_arg(),
            dtypes,
        );
        joined
    }
}

/// Cuts the gradients of the layers out of those of the joined factors, of which the first comes
/// transposed; outputs are those of `A` and `B` of each layer.
#[derive(Clone, Copy, Debug)]
struct Cut<const P: usize> {
    layers: Layers<P>,
    /// Rank and outputs of each layer.
    sizes: [[usize; 2]; P],
    /// That of the factors.
    precision: DType,
}

impl<const P: usize, const M: usize> Operation<2, M> for Cut<P> {
    fn shapes(self, [of_a, _]: [Shape; 2]) -> [Shape; M] {
        std::array::from_fn(|i| {
            let [rank, outputs] = self.sizes[i / 2];
            if i % 2 == 0 { Shape::new([of_a[1], rank]) } else { Shape::new([rank, outputs]) }
        })
    }

    fn dtype(self, _first: DType) -> DType {
        self.precision
    }

    fn forward<R: CubeRuntime>(self, inputs: [CubeTensor<R>; 2]) -> [CubeTensor<R>; M] {
        let shapes: [Shape; M] = self.shapes(inputs.each_ref().map(TensorMetadata::shape));
        let most = shapes.iter().map(Shape::num_elements).max().unwrap_or(0);
        let results = shapes.map(|shape| empty(&inputs[0], shape.dims::<2>(), self.precision));
        let factors =
            |side| results.iter().skip(side).step_by(2).cloned().map(CubeTensor::into_tensor_arg);
        let dtypes = [inputs[0].dtype.into(), self.precision.into()];
        let [of_a, of_b] = inputs;
        on_device::cut::launch::<R>(
            &of_a.client.clone(),
            cubes(most, M),
            CubeDim::new_1d(UNITS as u32),
            of_a.into_tensor_arg(),
            of_b.into_tensor_arg(),
            self.layers.scales(),
            self.layers.from(),
            factors(0).collect(),
            factors(1).collect(),
            dtypes,
        );
        results
    }
}

/// Cubes that write `numbers` numbers at most of each of so many factors.
fn cubes(numbers: usize, factors: usize) -> CubeCount {
    let each = numbers.div_ceil(UNITS).min(MOST_CUBES);
    CubeCount::Static(each as u32, factors as u32, 1)
}
