//! Operations of the device: what one launches, and what follows for every backend.
//!
//! An [`Operation`] launches kernels on tensors of the device, forward and backward. From it follow
//! a node of the autodiff graph, [`run_tracked`], and an operation that Burn's fusion records
//! (`recording`).

use std::fmt::Debug;

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::{DType, Shape, Tensor, TensorPrimitive, backend::Backend, ops::FloatTensor},
};
use burn_cubecl::{
    BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement, tensor::CubeTensor,
};

#[cfg(feature = "fusion")]
pub(super) mod recording;

/// An operation of the device with `N` inputs and one output, whose precision is that of the first
/// input.
pub(super) trait Operation<const N: usize>: Copy + Debug + Send + Sync + 'static {
    /// Shape of the output.
    fn shape(self, inputs: [Shape; N]) -> Shape;

    /// Computes the output.
    fn forward<R: CubeRuntime>(self, inputs: [CubeTensor<R>; N]) -> CubeTensor<R>;

    /// Turns the gradient of the output into the gradients of those inputs that are wanted, and
    /// of no others.
    fn backward<R: CubeRuntime>(
        self,
        inputs: [CubeTensor<R>; N],
        gradient: CubeTensor<R>,
        wanted: [bool; N],
    ) -> [Option<CubeTensor<R>>; N];
}

/// A backend whose device runs operations.
pub(super) trait Runs: Backend {
    /// As [`Operation::forward`].
    fn forward<O: Operation<N>, const N: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
    ) -> FloatTensor<Self>;

    /// As [`Operation::backward`].
    fn backward<O: Operation<N>, const N: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
        gradient: FloatTensor<Self>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<Self>>; N];
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Runs
    for CubeBackend<R, F, I, T>
{
    fn forward<O: Operation<N>, const N: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
    ) -> FloatTensor<Self> {
        operation.forward(inputs)
    }

    fn backward<O: Operation<N>, const N: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
        gradient: FloatTensor<Self>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<Self>>; N] {
        operation.backward(inputs, gradient, wanted)
    }
}

/// The backward pass of an operation as a step of autodiff.
#[derive(Debug)]
struct Gradient<O>(std::marker::PhantomData<O>);

impl<B: Runs, O: Operation<N>, const N: usize> Backward<B, N> for Gradient<O> {
    type State = (O, [FloatTensor<B>; N]);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (operation, inputs) = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let of_inputs = B::backward(operation, inputs, gradient, wanted);
        for (parent, of_input) in ops.parents.into_iter().zip(of_inputs) {
            if let (Some(parent), Some(of_input)) = (parent, of_input) {
                grads.register::<B>(parent.id, of_input);
            }
        }
    }
}

/// Runs an operation, tracked for the backward pass if an input requires a gradient.
pub(super) fn run_tracked<B: Runs, C: CheckpointStrategy, O: Operation<N>, const N: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let inputs = inputs.map(|input| input.primitive);
    let output = B::forward(operation, inputs.clone());
    let gradient = Gradient::<O>(std::marker::PhantomData);
    match Backward::<B, N>::prepare::<C>(gradient, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish((operation, inputs), output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}

/// Whether the kernels take this tensor.
pub(super) fn takes<K: Backend, const D: usize>(tensor: &Tensor<K, D>) -> bool {
    matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16)
        && tensor.shape().num_elements() > 0
}

pub(super) fn primitive<K: Backend, const D: usize>(tensor: Tensor<K, D>) -> FloatTensor<K> {
    tensor.into_primitive().tensor()
}

pub(super) fn tensor<K: Backend, const D: usize>(primitive: FloatTensor<K>) -> Tensor<K, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}
