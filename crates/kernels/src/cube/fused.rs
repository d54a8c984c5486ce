//! The kernels as operations of a stream of Burn's fusion, which records tensor operations and runs
//! them later.

use std::marker::PhantomData;

use burn::tensor::{DType, Shape, TensorMetadata, ops::FloatTensor};
use burn_fusion::{Fusion, FusionBackend, FusionRuntime, FusionTensor, stream::Operation};
use burn_ir::{CustomOpIr, HandleContainer};

use super::{Attends, Saved, operation::recording};

impl<B: FusionBackend + Attends> Attends for Fusion<B> {
    fn fits(device: &Self::Device, dtype: DType, width: usize) -> bool {
        B::fits(device, dtype, width)
    }

    fn forward(inputs: [FloatTensor<Self>; 3], scale: f32) -> [FloatTensor<Self>; 2] {
        let output = (inputs[0].shape(), inputs[0].dtype());
        let [rows, heads, queries, _] = inputs[0].shape().dims();
        let log_sum_exp = (Shape::new([rows, heads, queries, 1]), DType::F32);
        record(inputs, [output, log_sum_exp], |desc| Forward::<B> {
            desc,
            scale,
            backend: PhantomData,
        })
    }

    fn backward(saved: Saved<Self>, gradient: FloatTensor<Self>) -> [FloatTensor<Self>; 3] {
        let Saved { inputs: [query, key, value], output, log_sum_exp, scale } = saved;
        let outputs = [&query, &key, &value].map(|x| (x.shape(), x.dtype()));
        let inputs = [query, key, value, output, log_sum_exp, gradient];
        record(inputs, outputs, |desc| BackwardPass::<B> { desc, scale, backend: PhantomData })
    }
}

/// [`recording::record`] of as many results as outputs.
fn record<R: FusionRuntime, O: Operation<R> + 'static, const N: usize, const M: usize>(
    inputs: [FusionTensor<R>; N],
    outputs: [(Shape, DType); M],
    operation: impl FnOnce(CustomOpIr) -> O,
) -> [FusionTensor<R>; M] {
    let results = recording::record(inputs.into(), outputs.into(), operation);
    results.try_into().unwrap_or_else(|_| unreachable!("as many results as outputs"))
}

/// A recorded forward pass.
#[derive(Debug)]
struct Forward<B> {
    desc: CustomOpIr,
    scale: f32,
    backend: PhantomData<B>,
}

impl<B: FusionBackend + Attends> Operation<B::FusionRuntime> for Forward<B> {
    fn execute(&self, handles: &mut HandleContainer<B::Handle>) {
        let (inputs, outputs) = self.desc.as_fixed::<3, 2>();
        let inputs = inputs.each_ref().map(|input| handles.get_float_tensor::<B>(input));
        let results = B::forward(inputs, self.scale);
        for (output, result) in outputs.iter().zip(results) {
            handles.register_float_tensor::<B>(&output.id, result);
        }
    }
}

/// A recorded backward pass.
#[derive(Debug)]
struct BackwardPass<B> {
    desc: CustomOpIr,
    scale: f32,
    backend: PhantomData<B>,
}

impl<B: FusionBackend + Attends> Operation<B::FusionRuntime> for BackwardPass<B> {
    fn execute(&self, handles: &mut HandleContainer<B::Handle>) {
        let (inputs, outputs) = self.desc.as_fixed::<6, 3>();
        let [query, key, value, output, log_sum_exp, gradient] =
            inputs.each_ref().map(|input| handles.get_float_tensor::<B>(input));
        let inputs = [query, key, value];
        let saved = Saved { inputs, output, log_sum_exp, scale: self.scale };
        for (output, result) in outputs.iter().zip(B::backward(saved, gradient)) {
            handles.register_float_tensor::<B>(&output.id, result);
        }
    }
}
