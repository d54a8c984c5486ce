//! Operations of the device in a stream of Burn's fusion, which records tensor operations and runs
//! them later.

use std::marker::PhantomData;

use burn::tensor::{DType, Shape, TensorMetadata, ops::FloatTensor};
use burn_fusion::{
    Fusion, FusionBackend, FusionRuntime, FusionTensor,
    stream::{self, OperationStreams},
};
use burn_ir::{CustomOpIr, HandleContainer, OperationIr, TensorIr};

use super::{Operation, Runs};

impl<B: FusionBackend + Runs> Runs for Fusion<B> {
    fn forward<O: Operation<N>, const N: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
    ) -> FloatTensor<Self> {
        let shape = operation.shape(inputs.each_ref().map(TensorMetadata::shape));
        let output = (shape, inputs[0].dtype());
        let recorded = |desc| Forward::<B, O, N> { desc, operation, backend: PhantomData };
        let mut outputs = record(Vec::from(inputs), vec![output], recorded);
        outputs.pop().expect("a result per output")
    }

    fn backward<O: Operation<N>, const N: usize>(
        operation: O,
        inputs: [FloatTensor<Self>; N],
        gradient: FloatTensor<Self>,
        wanted: [bool; N],
    ) -> [Option<FloatTensor<Self>>; N] {
        let of_inputs = inputs.iter().zip(wanted).filter(|(_, wanted)| *wanted);
        let outputs = of_inputs.map(|(input, _)| (input.shape(), input.dtype())).collect();
        let inputs = inputs.into_iter().chain([gradient]).collect();
        let recorded =
            |desc| BackwardPass::<B, O, N> { desc, operation, wanted, backend: PhantomData };
        let mut results = record(inputs, outputs, recorded).into_iter();
        wanted.map(|wanted| wanted.then(|| results.next().expect("a result per output")))
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
struct Forward<B, O, const N: usize> {
    desc: CustomOpIr,
    operation: O,
    backend: PhantomData<B>,
}

impl<B: FusionBackend + Runs, O: Operation<N>, const N: usize> stream::Operation<B::FusionRuntime>
    for Forward<B, O, N>
{
    fn execute(&self, handles: &mut HandleContainer<B::Handle>) {
        let (inputs, [output]) = self.desc.as_fixed::<N, 1>();
        let inputs = inputs.each_ref().map(|input| handles.get_float_tensor::<B>(input));
        handles.register_float_tensor::<B>(&output.id, B::forward(self.operation, inputs));
    }
}

/// A recorded backward pass; the gradient of the output is the last input.
#[derive(Debug)]
struct BackwardPass<B, O, const N: usize> {
    desc: CustomOpIr,
    operation: O,
    wanted: [bool; N],
    backend: PhantomData<B>,
}

impl<B: FusionBackend + Runs, O: Operation<N>, const N: usize> stream::Operation<B::FusionRuntime>
    for BackwardPass<B, O, N>
{
    fn execute(&self, handles: &mut HandleContainer<B::Handle>) {
        let mut tensors = self.desc.inputs.iter().map(|input| handles.get_float_tensor::<B>(input));
        let mut next = || tensors.next().expect("the inputs and the gradient");
        let inputs = std::array::from_fn(|_| next());
        let results = B::backward(self.operation, inputs, next(), self.wanted);
        for (output, result) in self.desc.outputs.iter().zip(results.into_iter().flatten()) {
            handles.register_float_tensor::<B>(&output.id, result);
        }
    }
}
