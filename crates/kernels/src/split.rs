//! Pieces of a tensor whose gradients are put together once.
//!
//! Burn's gradient of a piece has the size of the whole tensor: zeros, into which the piece's gradient
//! is written. The gradients of all pieces are then added. Here they are concatenated.

use burn::{
    backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy},
    tensor::{Shape, Tensor, TensorMetadata, TensorPrimitive, backend::Backend, ops::FloatTensor},
};

use crate::{
    outputs::{self, Gradient},
    plain,
};

/// [`Kernels::split`](crate::Kernels::split) under autodiff.
pub(crate) fn tracked<B: Backend, C: CheckpointStrategy, const D: usize, const N: usize>(
    x: Tensor<Autodiff<B, C>, D>,
    dim: usize,
    sizes: [usize; N],
) -> [Tensor<Autodiff<B, C>, D>; N] {
    let pieces = plain::split(x.clone().inner(), dim, sizes);
    let pieces = pieces.map(|piece| piece.into_primitive().tensor());
    let x = x.into_primitive().tensor();
    let pieces = outputs::tracked::<B, C, _, 1, N>(&[x], pieces, Split { dim, sizes });
    pieces.map(|piece| Tensor::from_primitive(TensorPrimitive::Float(piece)))
}

/// Pieces of these sizes along a dimension.
#[derive(Clone, Debug)]
struct Split<const M: usize> {
    dim: usize,
    sizes: [usize; M],
}

impl<B: Backend, const M: usize> Gradient<B, 1, M> for Split<M> {
    /// The gradient of the whole tensor, with zeros for pieces that have none.
    fn backward(
        self,
        of_pieces: [Option<FloatTensor<B>>; M],
        _wanted: [bool; 1],
    ) -> [Option<FloatTensor<B>>; 1] {
        let some = of_pieces.iter().flatten().next().expect("a piece has a gradient").clone();
        let zeros = |size: usize| {
            let mut shape: Shape = some.shape();
            shape[self.dim] = size;
            B::float_zeros(shape, &B::float_device(&some), some.dtype().into())
        };
        let all = of_pieces.into_iter().zip(self.sizes);
        let all = all.map(|(gradient, size)| gradient.unwrap_or_else(|| zeros(size))).collect();
        [Some(B::float_cat(all, self.dim))]
    }
}
