//! Linear layers whose bias, and whatever follows element by element, is computed where the product is
//! written.
//!
//! Burn's fusion does so if the product is the first operation of its block. A batch of products needs
//! its weight as `[1, inputs, outputs]`, and as a tensor operation that reshape would be the first. Here
//! it is an operation of the device: no launch, and if no block is open it is over before the product
//! begins one. [`ended`] ends a block.

use burn::{
    backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy},
    tensor::{Shape, Tensor, TensorMetadata, backend::Backend, module, ops::FloatTensor},
};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};

use super::operation::{Operation, Runs, primitive, tensor};
use crate::{
    outputs::{self, Gradient},
    product::filled_linear_by,
};

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
        let [weight] = B::forward(View { before: D - 2 }, [primitive(weight)]);
        x.matmul(tensor(weight))
    })
}

/// The tensor itself, after the end of the fused block that computes it.
pub(super) fn ended<B: Runs, const D: usize>(x: Tensor<B, D>) -> Tensor<B, D> {
    let [x] = B::forward(View { before: 0 }, [primitive(x)]);
    tensor(x)
}

/// [`ended`] under autodiff; the gradient passes by.
pub(super) fn ended_tracked<B: Runs, C: CheckpointStrategy, const D: usize>(
    x: Tensor<Autodiff<B, C>, D>,
) -> Tensor<Autodiff<B, C>, D> {
    let x = primitive(x);
    let values = B::forward(View { before: 0 }, [x.primitive.clone()]);
    let [x] = outputs::tracked::<B, C, _, 1, 1>(&[x], values, Same);
    tensor(x)
}

/// The input with `before` dimensions of length 1 before its own.
#[derive(Clone, Copy, Debug)]
struct View {
    before: usize,
}

impl Operation<1, 1> for View {
    fn shapes(self, [x]: [Shape; 1]) -> [Shape; 1] {
        [Shape::from([vec![1; self.before], x.to_vec()].concat())]
    }

    fn forward<R: CubeRuntime>(self, [mut x]: [CubeTensor<R>; 1]) -> [CubeTensor<R>; 1] {
        let numbers = x.shape().num_elements();
        for _ in 0..self.before {
            x.meta.insert(0, 1, numbers);
        }
        [x]
    }
}

/// The backward pass of what changes nothing.
#[derive(Clone, Debug)]
struct Same;

impl<B: Backend> Gradient<B, 1, 1> for Same {
    fn backward(
        self,
        of_outputs: [Option<FloatTensor<B>>; 1],
        _wanted: [bool; 1],
    ) -> [Option<FloatTensor<B>>; 1] {
        of_outputs
    }
}
