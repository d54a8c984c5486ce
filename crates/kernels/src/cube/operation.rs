//! Operations of the device: what one launches, and what follows for every backend.
//!
//! An [`Operation`] launches kernels on tensors of the device. From it follow an operation that Burn's
//! fusion records (`recording`) and, if it is [`Differentiable`], a step of the autodiff graph,
//! [`run_tracked`].

use std::fmt::Debug;

use burn::{
    backend::{Autodiff, autodiff::checkpoint::strategy::CheckpointStrategy},
    tensor::{
        DType, Shape, Tensor, TensorMetadata, TensorPrimitive, backend::Backend, ops::FloatTensor,
    },
};
use burn_cubecl::{
    BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement, tensor::CubeTensor,
};

use crate::outputs::{self, Gradient};

#[cfg(feature = "fusion")]
pub(super) mod recording;

/// An operation of the device with `N` inputs and `M` outputs.
pub(super) trait Operation<const N: usize, const M: usize>:
    Copy + Debug + Send + Sync + 'static
{
    /// Shapes of the outputs.
    fn shapes(self, inputs: [Shape; N]) -> [Shape; M];

    /// Precision of the outputs, given that of the first input.
    fn dtype(self, first: DType) -> DType {
        first
    }

    /// Computes the outputs.
    fn forward<R: CubeRuntime>(self, inputs: [CubeTensor<R>; N]) -> [CubeTensor<R>; M];
}

/// An operation with a backward pass.
pub(super) trait Differentiable<const N: usize, const M: usize>: Operation<N, M> {
    /// Turns the gradients of the outputs into the gradients of those inputs that are wanted, and
    /// of no others.
    fn backward<R: CubeRuntime>(
        self,
        inputs: [CubeTensor<R>; N],
        of_outputs: [CubeTensor<R>; M],
        wanted: [bool; N],
    ) -> [Option<CubeTensor<R>>; N];
}

/// A backend whose device runs operations.
pub(super) trait Runs: Backend {
    /// As [`Operation::forward`].
    fn forward<O: Operation<N, M>, const N: usize, const M: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
    ) -> [FloatTensor<Self>; M];

    /// As [`Differentiable::backward`].
    fn backward<O: Differentiable<N, M>, const N: usize, const M: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
        of_outputs: [FloatTensor<Self>; M],
        wanted: [bool; N],
    ) -> [Option<FloatTensor<Self>>; N];
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, T: BoolElement> Runs
    for CubeBackend<R, F, I, T>
{
    fn forward<O: Operation<N, M>, const N: usize, const M: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
    ) -> [FloatTensor<Self>; M] {
        operation.forward(inputs)
    }

    fn backward<O: Differentiable<N, M>, const N: usize, const M: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
        of_outputs: [FloatTensor<Self>; M],
        wanted: [bool; N],
    ) -> [Option<FloatTensor<Self>>; N] {
        operation.backward(inputs, of_outputs, wanted)
    }
}

/// The backward pass of an operation as a step of autodiff.
#[derive(Clone, Debug)]
struct Saved<B: Backend, O, const N: usize> {
    operation: O,
    inputs: [FloatTensor<B>; N],
}

impl<B: Runs, O: Differentiable<N, M>, const N: usize, const M: usize> Gradient<B, N, M>
    for Saved<B, O, N>
{
    fn backward(
        self,
        of_outputs: [Option<FloatTensor<B>>; M],
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N] {
        let Self { operation, inputs } = self;
        let shapes = operation.shapes(inputs.each_ref().map(TensorMetadata::shape));
        let (device, dtype) = (B::float_device(&inputs[0]), operation.dtype(inputs[0].dtype()));
        let mut shapes = shapes.into_iter();
        let of_outputs = of_outputs.map(|gradient| {
            let shape = shapes.next().expect("a shape per output");
            gradient.unwrap_or_else(|| B::float_zeros(shape, &device, dtype.into()))
        });
        B::backward(operation, inputs, of_outputs, wanted)
    }
}

/// Runs an operation, tracked for the backward pass if an input requires a gradient.
pub(super) fn run_tracked<B, C, O, const N: usize, const M: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
) -> [FloatTensor<Autodiff<B, C>>; M]
where
    B: Runs,
    C: CheckpointStrategy,
    O: Differentiable<N, M>,
{
    let values = inputs.each_ref().map(|input| input.primitive.clone());
    let results = B::forward(operation, values.clone());
    outputs::tracked::<B, C, _, N, M>(&inputs, results, Saved { operation, inputs: values })
}

/// Whether the kernels take tensors of this type.
pub(super) fn takes_type(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
}

/// Whether the kernels take this tensor.
pub(super) fn takes<K: Backend, const D: usize>(tensor: &Tensor<K, D>) -> bool {
    takes_type(tensor.dtype()) && tensor.shape().num_elements() > 0
}

pub(super) fn primitive<K: Backend, const D: usize>(tensor: Tensor<K, D>) -> FloatTensor<K> {
    tensor.into_primitive().tensor()
}

pub(super) fn tensor<K: Backend, const D: usize>(primitive: FloatTensor<K>) -> Tensor<K, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// As many tensors as there are.
pub(super) fn exactly<T, const N: usize>(tensors: Vec<T>) -> [T; N] {
    let count = tensors.len();
    tensors.try_into().unwrap_or_else(|_| unreachable!("{count} tensors for {N}"))
}
