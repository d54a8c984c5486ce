//! Linear layers whose bias, and whatever follows element by element, is added where the product is
//! written.
//!
//! Burn's fusion does so if the product is the first operation of its block. A batch of products needs
//! its weight as `[1, inputs, outputs]`. As a tensor operation, that reshape would be the first. Here
//! it is an operation of the device: no launch, but it ends the block before.

use burn::tensor::{Shape, Tensor, TensorMetadata, module};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};

use super::operation::{Operation, Runs, primitive, tensor};
use crate::product::filled_linear_by;

/// As [`Kernels::linear_layer`](crate::Kernels::linear_layer).
pub(super) fn linear<B: Runs, const D: usize>(
    x: Tensor<B, D>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, D> {
    filled_linear_by(x, weight, bias, |x, weight| {
        if D == 2 {
            return module::linear(x, weight, None);
        }
        let [weight] = B::forward(OfBatch { dims: D - 2 }, [primitive(weight)]);
        x.matmul(tensor(weight))
    })
}

/// A matrix as a batch of one: the input, with `dims` dimensions of length 1 before its own.
#[derive(Clone, Copy, Debug)]
struct OfBatch {
    dims: usize,
}

impl Operation<1, 1> for OfBatch {
    fn shapes(self, [matrix]: [Shape; 1]) -> [Shape; 1] {
        [Shape::from([vec![1; self.dims], matrix.dims::<2>().into()].concat())]
    }

    fn forward<R: CubeRuntime>(self, [mut matrix]: [CubeTensor<R>; 1]) -> [CubeTensor<R>; 1] {
        let numbers = matrix.shape().num_elements();
        for _ in 0..self.dims {
            matrix.meta.insert(0, 1, numbers);
        }
        [matrix]
    }
}
