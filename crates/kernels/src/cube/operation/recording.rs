//! Operations of the device in a stream of Burn's fusion, which records tensor operations and runs
//! them later.

use std::marker::PhantomData;

use burn::tensor::{DType, Shape, TensorMetadata, ops::FloatTensor};
use burn_fusion::{
    Fusion, FusionBackend, FusionRuntime, FusionTensor,
    stream::{self, OperationStreams},
};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};

use super::{Differentiable, Operation, Runs};

impl<B: FusionBackend + Runs> Runs for Fusion<B> {
    fn forward<O: Operation<N, M>, const N: usize, const M: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
    ) -> [FloatTensor<Self>; M] {
        let shapes = operation.shapes(inputs.each_ref().map(TensorMetadata::shape));
        let dtype = operation.dtype(inputs[0].dtype());
        let outputs = shapes.map(|shape| (shape, dtype)).into();
        let recorded = |desc| Forward::<B, O, N, M> { desc, operation, backend: PhantomData };
        let mut outputs = record(Vec::from(inputs), outputs, recorded).into_iter();
        std::array::from_fn(|_| outputs.next().expect("a result per output"))
    }

    fn backward<O: Differentiable<N, M>, const N: usize, const M: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
        of_outputs: [FloatTensor<Self>; M],
        wanted: [bool; N],
    ) -> [Option<FloatTensor<Self>>; N] {
        let of_inputs = inputs.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        let outputs = of_inputs.map(|(input, _)| (input.shape(), input.dtype())).collect();
        let inputs = inputs.into_iter().chain(of_outputs).collect();
        let recorded =
            |desc| BackwardPass::<B, O, N, M> { desc, operation, wanted, backend: PhantomData };
        let mut results = record(inputs, outputs, recorded).into_iter();
        wanted.map(|wanted| wanted.then(|| results.next().expect("a result per input")))
    }
}

/// Records an operation with outputs of the given shapes and types.
pub(in crate::cube) fn record<R: FusionRuntime, O: stream::Operation<R> + 'static>(
    inputs: Vec<FusionTensor<R>>,
    outputs: Vec<(Shape, DType)>,
    operation: impl FnOnce(CustomOpIr) -> O,
) -> Vec<FusionTensor<R>> {
    let streams = OperationStreams::with_inputs(&inputs);
    let client = inputs[0].client.clone();
    let outputs: Vec<TensorIr> = outputs
        .into_iter()
        .map(|(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype))
        .collect();
    let inputs: Vec<TensorIr> = inputs.into_iter().map(FusionTensor::into_ir).collect();
    let desc = CustomOpIr::new(std::any::type_name::<O>(), &inputs, &outputs);
    client.register(streams, OperationIr::Custom(desc.clone()), operation(desc))
}

/// A recorded forward pass.
#[derive(Debug)]
struct Forward<B, O, const N: usize, const M: usize> {
    desc: CustomOpIr,
    operation: O,
    backend: PhantomData<B>,
}

impl<B, O, const N: usize, const M: usize> stream::Operation<B::FusionRuntime>
    for Forward<B, O, N, M>
where
    B: FusionBackend + Runs,
    O: Operation<N, M>,
{
    fn execute(&self, handles: &mut HandleContainer<B::Handle>) {
        let (inputs, outputs) = self.desc.as_fixed::<N, M>();
        let inputs = inputs.each_ref().map(|input| handles.get_float_tensor::<B>(input));
        for (output, result) in outputs.iter().zip(B::forward(self.operation, inputs)) {
            handles.register_float_tensor::<B>(&output.id, result);
        }
    }
}

/// A recorded backward pass; the gradients of the outputs are the last inputs.
#[derive(Debug)]
struct BackwardPass<B, O, const N: usize, const M: usize> {
    desc: CustomOpIr,
    operation: O,
    wanted: [bool; N],
    backend: PhantomData<B>,
}

impl<B, O, const N: usize, const M: usize> stream::Operation<B::FusionRuntime>
    for BackwardPass<B, O, N, M>
where
    B: FusionBackend + Runs,
    O: Differentiable<N, M>,
{
    fn execute(&self, handles: &mut HandleContainer<B::Handle>) {
        let mut tensors = self.desc.inputs.iter().map(|input| handles.get_float_tensor::<B>(input));
        let mut next = || tensors.next().expect("the inputs and the gradients");
        let inputs = std::array::from_fn(|_| next());
        let of_outputs = std::array::from_fn(|_| next());
        let results = B::backward(self.operation, inputs, of_outputs, self.wanted);
        for (output, result) in self.desc.outputs.iter().zip(results.into_iter().flatten()) {
            handles.register_float_tensor::<B>(&output.id, result);
        }
    }
}
