//! Linear layers under autodiff whose weights are frozen, as most are that carry an adapter.
//!
//! Burn's operation would do as well, if products had not to be padded on GPUs: the rows of `x` are
//! the inner side of the weight's gradient alone, and the weight's outputs that of the gradient of
//! `x`. Here each product is one of the backend without a graph, which pads its own inner side only.
//!
//! ```text
//! y = x·W + b        dx = dy·Wᵀ
//! ```

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

use crate::{Kernels, product::linear};

/// [`Kernels::linear_layer`](crate::Kernels::linear_layer) under autodiff: Burn's operation, if the
/// weight is tracked.
pub(crate) fn linear_layer<B: Kernels, C: CheckpointStrategy, const D: usize>(
    x: Tensor<Autodiff<B, C>, D>,
    weight: Tensor<Autodiff<B, C>, 2>,
    bias: Option<Tensor<Autodiff<B, C>, 1>>,
) -> Tensor<Autodiff<B, C>, D> {
    if is_tracked(&weight) {
        return linear(x, weight, bias);
    }
    match bias {
        Some(bias) if is_tracked(&bias) => product(x, weight.inner(), None) + bias.unsqueeze(),
        bias => product(x, weight.inner(), bias.map(Tensor::inner)),
    }
}

/// Whether the backward pass brings a tensor a gradient.
pub(crate) fn is_tracked<B: Backend, C: CheckpointStrategy, const D: usize>(
    tensor: &Tensor<Autodiff<B, C>, D>,
) -> bool {
    !tensor.clone().into_primitive().tensor().node.requirement.is_none()
}

/// `x·W + b`, tracked for the backward pass if `x` is.
fn product<B: Kernels, C: CheckpointStrategy, const D: usize>(
    x: Tensor<Autodiff<B, C>, D>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<Autodiff<B, C>, D> {
    let node = x.clone().into_primitive().tensor().node;
    let output = B::linear_layer(x.inner(), weight.clone(), bias).into_primitive().tensor();
    let prepared = Backward::<B, 1>::prepare::<C>(Gradient::<D>, [node]).compute_bound().stateful();
    Tensor::from_primitive(TensorPrimitive::Float(match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(weight, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }))
}

/// The backward pass for an `x` of `D` dimensions.
#[derive(Debug)]
struct Gradient<const D: usize>;

impl<B: Kernels, const D: usize> Backward<B, 1> for Gradient<D> {
    /// `W`
    type State = Tensor<B, 2>;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let of_output = grads.consume::<B>(&ops.node);
        let of_output = Tensor::<B, D>::from_primitive(TensorPrimitive::Float(of_output));
        let [x] = ops.parents;
        if let Some(x) = x {
            let of_x = B::linear_layer(of_output, ops.state.transpose(), None);
            grads.register::<B>(x.id, of_x.into_primitive().tensor());
        }
    }
}
