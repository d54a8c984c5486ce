//! Pieces of a tensor whose gradients are put together once.
//!
//! Burn's gradient of a piece has the size of the whole tensor: zeros, into which the piece's gradient
//! is written. The gradients of all pieces are then added. Here a node stands between the tensor and
//! its pieces. Each piece leaves its gradient there, and the node concatenates them.
//!
//! ```text
//! forward:  x → joint → piece 1, …, piece N        backward:  dx = [d piece 1, …, d piece N]
//! ```
//!
//! As after every intermediate result, one backward pass may go through the pieces of one split.

use std::sync::{Arc, Mutex, MutexGuard};

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::{Shape, Tensor, TensorMetadata, TensorPrimitive, backend::Backend, ops::FloatTensor},
};

use crate::plain;

/// [`Kernels::split`](crate::Kernels::split) under autodiff.
pub(crate) fn tracked<B: Backend, C: CheckpointStrategy, const D: usize, const N: usize>(
    x: Tensor<Autodiff<B, C>, D>,
    dim: usize,
    sizes: [usize; N],
) -> [Tensor<Autodiff<B, C>, D>; N] {
    let pieces = plain::split(x.clone().inner(), dim, sizes);
    let x = x.into_primitive().tensor();
    let left = Left::new(dim, sizes);
    let joint = Backward::<B, 1>::prepare::<C>(Joint::<N>, [x.node]).compute_bound().stateful();
    let joint = match joint {
        OpsKind::Tracked(prepared) => prepared.finish(left.clone(), x.primitive),
        OpsKind::UnTracked(_) => return pieces.map(Tensor::from_inner),
    };
    let mut index = 0;
    pieces.map(|piece| {
        let piece = piece.into_primitive().tensor();
        let prepared = Backward::<B, 1>::prepare::<C>(Piece::<N>, [joint.node.clone()]);
        let piece = match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((left.clone(), index), piece),
            OpsKind::UnTracked(prepared) => prepared.finish(piece),
        };
        index += 1;
        Tensor::from_primitive(TensorPrimitive::Float(piece))
    })
}

/// The gradients that the pieces of a tensor have left.
#[derive(Clone, Debug)]
struct Left<B: Backend, const N: usize> {
    gradients: Arc<Mutex<[Option<FloatTensor<B>>; N]>>,
    dim: usize,
    sizes: [usize; N],
}

impl<B: Backend, const N: usize> Left<B, N> {
    fn new(dim: usize, sizes: [usize; N]) -> Self {
        Self { gradients: Arc::new(Mutex::new([const { None }; N])), dim, sizes }
    }

    fn gradients(&self) -> MutexGuard<'_, [Option<FloatTensor<B>>; N]> {
        self.gradients.lock().expect("nothing panics while it holds the lock")
    }

    /// The gradient of the whole tensor, with zeros for pieces that left none.
    ///
    /// # Panics
    /// If no piece left one.
    fn joined(&self) -> FloatTensor<B> {
        let gradients = std::mem::replace(&mut *self.gradients(), [const { None }; N]);
        let some = gradients.iter().flatten().next().expect("a piece has a gradient").clone();
        let zeros = |size: usize| {
            let mut shape: Shape = some.shape();
            shape[self.dim] = size;
            B::float_zeros(shape, &B::float_device(&some), some.dtype().into())
        };
        let all = gradients.into_iter().zip(self.sizes);
        let all = all.map(|(gradient, size)| gradient.unwrap_or_else(|| zeros(size))).collect();
        B::float_cat(all, self.dim)
    }
}

/// The backward pass of a piece.
#[derive(Debug)]
struct Piece<const N: usize>;

impl<B: Backend, const N: usize> Backward<B, 1> for Piece<N> {
    /// Where the gradient is left, and at which place.
    type State = (Left<B, N>, usize);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (left, index) = ops.state;
        left.gradients()[index] = Some(grads.consume::<B>(&ops.node));
    }
}

/// The backward pass of the node between a tensor and its pieces. It comes after those of all pieces:
/// steps run from the deepest node up.
#[derive(Debug)]
struct Joint<const N: usize>;

impl<B: Backend, const N: usize> Backward<B, 1> for Joint<N> {
    type State = Left<B, N>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        // Nothing is registered for this node itself.
        let [whole] = ops.parents;
        if let Some(whole) = whole {
            grads.register::<B>(whole.id, ops.state.joined());
        }
    }
}
