//! The start of a backward pass from a gradient that is already known.

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::{Tensor, TensorPrimitive, backend::Backend},
};

/// [`Kernels::pulled`](crate::Kernels::pulled) under autodiff.
pub(crate) fn tracked<B: Backend, C: CheckpointStrategy, const D: usize>(
    output: Tensor<Autodiff<B, C>, D>,
    gradient: Tensor<Autodiff<B, C>, D>,
) -> Tensor<Autodiff<B, C>, 1> {
    let zero = Tensor::<B, 1>::zeros([1], (&output.device(), output.dtype()));
    let zero = zero.into_primitive().tensor();
    let output = output.into_primitive().tensor();
    let prepared = Backward::<B, 1>::prepare::<C>(Start, [output.node]).compute_bound().stateful();
    Tensor::from_primitive(TensorPrimitive::Float(match prepared {
        OpsKind::Tracked(prepared) => {
            prepared.finish(gradient.inner().into_primitive().tensor(), zero)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(zero),
    }))
}

#[derive(Debug)]
struct Start;

impl<B: Backend> Backward<B, 1> for Start {
    /// The gradient of the output.
    type State = burn::tensor::ops::FloatTensor<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        grads.consume::<B>(&ops.node);
        let [output] = ops.parents;
        if let Some(output) = output {
            grads.register::<B>(output.id, ops.state);
        }
    }
}
