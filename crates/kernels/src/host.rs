//! Connects the fused kernels to Burn: turns an operation on slices into a differentiable operation
//! on tensors.

use std::{borrow::Cow, fmt::Debug};

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::{
        DType, FloatDType, Shape, Tensor, TensorData, TensorMetadata, TensorPrimitive,
        backend::Backend, ops::FloatTensor,
    },
};
#[cfg(feature = "flex")]
use half::{bf16, f16, slice::HalfFloatSliceExt};

use crate::{
    Kernels,
    attention::Attention,
    attention_graph, convolution,
    elementwise::{GatedResidual, GeluTanh, ModulatedNorm, SquaredRelu},
    frozen::{self, is_tracked},
    group_norm::GroupNormSilu,
    heads,
    layer_norm::ModulatedLayerNorm,
    low_rank, plain, pull, split,
};

/// A differentiable operation on row-major numbers.
pub(crate) trait Operation<const N: usize>: Copy + Debug + Send + 'static {
    /// Shape of the result; that of the first input unless an operation says otherwise.
    fn shape(&self, inputs: [Shape; N]) -> Shape {
        inputs[0].clone()
    }

    /// Computes the result.
    fn forward(&self, inputs: [&[f32]; N]) -> Vec<f32>;

    /// Turns the gradient of the result into the gradient of each input.
    fn backward<'a>(&self, inputs: [&[f32]; N], gradient: &'a [f32]) -> [Cow<'a, [f32]>; N];
}

/// A backend that keeps its tensors in host memory.
pub(crate) trait Host: Backend {
    /// Values of an f32 tensor, row-major; copied only if the tensor is stored in another order.
    fn values(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]>;

    /// The f32 values of a row-major tensor of 16 bits; `None` of any other tensor.
    fn widened(_tensor: &FloatTensor<Self>) -> Option<Vec<f32>> {
        None
    }
}

#[cfg(feature = "flex")]
impl Host for burn_flex::Flex {
    fn values(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]> {
        match tensor.layout().contiguous_offsets() {
            Some((from, to)) => tensor.storage::<f32>()[from..to].into(),
            None => copied::<Self>(tensor).into(),
        }
    }

    fn widened(tensor: &FloatTensor<Self>) -> Option<Vec<f32>> {
        let (from, to) = tensor.layout().contiguous_offsets()?;
        let mut values = vec![0.0; to - from];
        match tensor.dtype() {
            DType::F16 => tensor.storage::<f16>()[from..to].convert_to_f32_slice(&mut values),
            DType::BF16 => tensor.storage::<bf16>()[from..to].convert_to_f32_slice(&mut values),
            _ => return None,
        }
        Some(values)
    }
}

#[cfg(feature = "ndarray")]
impl Host for burn_ndarray::NdArray<f32> {
    fn values(tensor: &FloatTensor<Self>) -> Cow<'_, [f32]> {
        let burn_ndarray::NdArrayTensor::F32(storage) = tensor else {
            unreachable!("the kernels take f32 alone")
        };
        // Burn's own conversion walks a shared tensor one number at a time.
        storage.view().to_slice().map_or_else(|| copied::<Self>(tensor).into(), Cow::Borrowed)
    }
}

/// Copies the values of an f32 tensor.
fn copied<B: Backend>(tensor: &FloatTensor<B>) -> Vec<f32> {
    // The rank in the type is arbitrary: Burn does not check it here.
    let tensor = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(tensor.clone()));
    tensor.into_data().into_vec().expect("f32 numbers")
}

fn tensor_of<B: Backend>(values: Vec<f32>, shape: Shape, device: &B::Device) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(values, shape), device)
}

/// As [`Kernels::in_precision`], for 16 bits to f32 in one pass and in the order of memory that the
/// weights have. Burn goes through f64, and copies a transposed matrix number by number.
fn in_precision<B: Host>(weight: Tensor<B, 2>, precision: FloatDType) -> Tensor<B, 2> {
    let widened = |weight: &Tensor<B, 2>| {
        let values = B::widened(&primitive(weight.clone()))?;
        Some(Tensor::from_data(TensorData::new(values, weight.dims()), &weight.device()))
    };
    if precision != FloatDType::F32 {
        return weight.cast(precision);
    }
    // PyTorch stores `[outputs, inputs]`, so that weights of published models are transposed.
    let transposed = weight.clone().transpose();
    widened(&weight)
        .or_else(|| widened(&transposed).map(Tensor::transpose))
        .unwrap_or_else(|| weight.cast(precision))
}

fn run<B: Host, O: Operation<N>, const N: usize>(
    operation: O,
    inputs: &[FloatTensor<B>; N],
) -> FloatTensor<B> {
    let values = inputs.each_ref().map(B::values);
    let result = operation.forward(values.each_ref().map(|values| &**values));
    let shape = operation.shape(inputs.each_ref().map(TensorMetadata::shape));
    tensor_of::<B>(result, shape, &B::float_device(&inputs[0]))
}

#[derive(Debug)]
struct Gradient<O>(std::marker::PhantomData<O>);

impl<B: Host, O: Operation<N>, const N: usize> Backward<B, N> for Gradient<O> {
    type State = (O, [FloatTensor<B>; N]);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (operation, inputs) = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let of_result = B::values(&gradient);
        let values = inputs.each_ref().map(B::values);
        let of_inputs = operation.backward(values.each_ref().map(|values| &**values), &of_result);
        for ((parent, of_input), input) in ops.parents.into_iter().zip(of_inputs).zip(&inputs) {
            let Some(parent) = parent else { continue };
            let of_input = match of_input {
                Cow::Borrowed(_) => gradient.clone(),
                Cow::Owned(values) => {
                    tensor_of::<B>(values, input.shape(), &B::float_device(input))
                }
            };
            grads.register::<B>(parent.id, of_input);
        }
    }
}

/// [`run`], tracked for the backward pass if an input requires a gradient.
fn run_tracked<B: Host, C: CheckpointStrategy, O: Operation<N>, const N: usize>(
    operation: O,
    inputs: [FloatTensor<Autodiff<B, C>>; N],
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let inputs = inputs.map(|input| input.primitive);
    let result = run::<B, O, N>(operation, &inputs);
    let gradient = Gradient::<O>(std::marker::PhantomData);
    match Backward::<B, N>::prepare::<C>(gradient, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish((operation, inputs), result),
        OpsKind::UnTracked(prepared) => prepared.finish(result),
    }
}

pub(crate) fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

fn tensor<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// Whether the loops over numbers take tensors of these types, the first of these sides.
fn fused<const N: usize, const D: usize>(dtypes: [DType; N], sides: [usize; D]) -> bool {
    dtypes == [DType::F32; N] && !sides.contains(&0)
}

/// The methods of [`Kernels`] for a backend, given a function that runs an [`Operation`] on it.
macro_rules! fused_kernels {
    ($run:expr) => {
        fn modulated_norm(
            x: Tensor<Self, 2>,
            shift: Tensor<Self, 2>,
            scale: Tensor<Self, 2>,
        ) -> Tensor<Self, 2> {
            if x.dtype() != DType::F32 {
                return plain::modulated_norm(x, shift, scale);
            }
            let operation = ModulatedNorm { width: x.dims()[1] };
            tensor($run(operation, [primitive(x), primitive(shift), primitive(scale)]))
        }

        fn gated_residual(
            x: Tensor<Self, 2>,
            branch: Tensor<Self, 2>,
            gate: Tensor<Self, 2>,
        ) -> Tensor<Self, 2> {
            if !fused([x.dtype()], x.dims()) {
                return plain::gated_residual(x, branch, gate);
            }
            tensor($run(
                GatedResidual { parts: 1 },
                [primitive(x), primitive(branch), primitive(gate)],
            ))
        }

        fn squared_relu(x: Tensor<Self, 2>) -> Tensor<Self, 2> {
            if x.dtype() != DType::F32 {
                return plain::squared_relu(x);
            }
            tensor($run(SquaredRelu, [primitive(x)]))
        }

        fn add_gated(
            x: Tensor<Self, 3>,
            branch: Tensor<Self, 3>,
            gate: Tensor<Self, 3>,
        ) -> Tensor<Self, 3> {
            plain::check_modulation(&x, [&gate]);
            if !fused([x.dtype(), branch.dtype(), gate.dtype()], x.dims()) {
                return plain::add_gated(x, branch, gate);
            }
            assert_eq!(x.dims(), branch.dims(), "the branch has the shape of its input");
            let operation = GatedResidual { parts: gate.dims()[0] };
            tensor($run(operation, [primitive(x), primitive(branch), primitive(gate)]))
        }

        fn gelu_tanh<const D: usize>(x: Tensor<Self, D>) -> Tensor<Self, D> {
            if x.dtype() != DType::F32 {
                return plain::gelu_tanh(x);
            }
            tensor($run(GeluTanh, [primitive(x)]))
        }

        fn modulated_layer_norm(
            x: Tensor<Self, 3>,
            shift: Tensor<Self, 3>,
            scale: Tensor<Self, 3>,
        ) -> Tensor<Self, 3> {
            plain::check_modulation(&x, [&shift, &scale]);
            if !fused([x.dtype(), shift.dtype(), scale.dtype()], x.dims()) {
                return plain::modulated_layer_norm(x, shift, scale);
            }
            let [_, length, width] = x.dims();
            let operation = ModulatedLayerNorm { length, width };
            tensor($run(operation, [primitive(x), primitive(shift), primitive(scale)]))
        }

        fn group_norm_silu(
            x: Tensor<Self, 4>,
            weight: Tensor<Self, 1>,
            bias: Tensor<Self, 1>,
            groups: usize,
        ) -> Tensor<Self, 4> {
            let [_, channels, height, width] = x.dims();
            let dtypes = [x.dtype(), weight.dtype(), bias.dtype()];
            if !fused(dtypes, x.dims()) || !channels.is_multiple_of(groups) {
                return plain::group_norm_silu(x, weight, bias, groups);
            }
            let operation = GroupNormSilu { groups, pixels: height * width };
            tensor($run(operation, [primitive(x), primitive(weight), primitive(bias)]))
        }

        fn heads<const S: usize>(
            streams: [heads::Stream<Self>; S],
            count: usize,
        ) -> [Tensor<Self, 4>; 3] {
            let inputs = heads::inputs(&streams, count, |dtype| dtype == DType::F32);
            let operation = heads::host::Heads::of(&streams[0], count);
            let [rows, ..] = streams[0].projected.dims();
            let all = match (inputs.as_deref(), streams[0].scales.is_some()) {
                (Some([x]), false) => $run(operation, [x.clone()]),
                (Some([a, b]), false) => $run(operation, [a.clone(), b.clone()]),
                (Some([a, b, c]), true) => $run(operation, [a, b, c].map(Clone::clone)),
                (Some([a, b, c, d, e, f]), true) => {
                    $run(operation, [a, b, c, d, e, f].map(Clone::clone))
                }
                _ => return heads::composed(streams, count),
            };
            Self::split(tensor(all), 0, [rows; 3])
        }

        fn normalized_attention(
            query: Tensor<Self, 2>,
            key: Tensor<Self, 2>,
            value: Tensor<Self, 2>,
            query_scale: Tensor<Self, 1>,
            key_scale: Tensor<Self, 1>,
            rows: usize,
        ) -> Tensor<Self, 2> {
            if query.dtype() != DType::F32 {
                return plain::normalized_attention(
                    query,
                    key,
                    value,
                    query_scale,
                    key_scale,
                    rows,
                );
            }
            let width = query_scale.dims()[0];
            let [tokens_and_rows, d] = query.dims();
            assert!(
                d.is_multiple_of(width) && tokens_and_rows.is_multiple_of(rows),
                "{tokens_and_rows} x {d} are not whole heads"
            );
            let operation = Attention { heads: rows * (d / width), width };
            let features = [primitive(query), primitive(key), primitive(value)];
            let [query, key, value] = features;
            tensor($run(
                operation,
                [query, key, value, primitive(query_scale), primitive(key_scale)],
            ))
        }
    };
}

/// Implements [`Kernels`] for a host backend, with and without autodiff.
macro_rules! host_backend {
    ($backend:ty) => {
        impl Kernels for $backend {
            fused_kernels!(|operation, inputs| run::<$backend, _, _>(operation, &inputs));

            fn convolution(
                x: Tensor<Self, 4>,
                weight: Tensor<Self, 4>,
                bias: Tensor<Self, 1>,
            ) -> Tensor<Self, 4> {
                if !fused([x.dtype(), weight.dtype(), bias.dtype()], x.dims()) {
                    return plain::convolution(x, weight, bias);
                }
                convolution::forward(x, weight, bias)
            }

            fn in_precision(weight: Tensor<Self, 2>, precision: FloatDType) -> Tensor<Self, 2> {
                in_precision(weight, precision)
            }
        }

        impl<C: CheckpointStrategy> Kernels for Autodiff<$backend, C> {
            fused_kernels!(run_tracked::<$backend, C, _, _>);

            fn softmax_attention(
                query: Tensor<Self, 4>,
                key: Tensor<Self, 4>,
                value: Tensor<Self, 4>,
            ) -> Tensor<Self, 4> {
                attention_graph::tracked([query, key, value])
            }

            fn convolution(
                x: Tensor<Self, 4>,
                weight: Tensor<Self, 4>,
                bias: Tensor<Self, 1>,
            ) -> Tensor<Self, 4> {
                if is_tracked(&x) || is_tracked(&weight) || is_tracked(&bias) {
                    return plain::convolution(x, weight, bias);
                }
                let [x, weight] = [x, weight].map(Tensor::inner);
                Tensor::from_inner(<$backend>::convolution(x, weight, bias.inner()))
            }

            fn in_precision(weight: Tensor<Self, 2>, precision: FloatDType) -> Tensor<Self, 2> {
                if !is_tracked(&weight) {
                    return Tensor::from_inner(in_precision(weight.inner(), precision));
                }
                weight.cast(precision)
            }

            fn pulled<const D: usize>(
                output: Tensor<Self, D>,
                gradient: Tensor<Self, D>,
            ) -> Tensor<Self, 1> {
                pull::tracked(output, gradient)
            }

            fn split<const D: usize, const N: usize>(
                x: Tensor<Self, D>,
                dim: usize,
                sizes: [usize; N],
            ) -> [Tensor<Self, D>; N] {
                split::tracked(x, dim, sizes)
            }

            fn linear_layer<const D: usize>(
                x: Tensor<Self, D>,
                weight: Tensor<Self, 2>,
                bias: Option<Tensor<Self, 1>>,
            ) -> Tensor<Self, D> {
                frozen::linear_layer(x, weight, bias)
            }

            fn low_rank<const D: usize>(
                x: Tensor<Self, D>,
                factors: low_rank::Factors<Self>,
            ) -> Tensor<Self, D> {
                low_rank::graph::tracked(x, factors)
            }

            fn ready_factors(
                factors: &low_rank::Factors<Self>,
                precision: FloatDType,
            ) -> [Tensor<Self, 2>; 2] {
                low_rank::graph::ready(factors, precision)
            }
        }
    };
}

#[cfg(feature = "flex")]
host_backend!(burn_flex::Flex);
#[cfg(feature = "ndarray")]
host_backend!(burn_ndarray::NdArray<f32>);
