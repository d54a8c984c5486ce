//! The product of low rank as one operation of autodiff.

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
        FloatDType, Tensor, TensorMetadata, TensorPrimitive, backend::Backend, ops::FloatTensor,
    },
};

use super::Factors;
use crate::product::{linear, matmul, stays_as_it_is};

/// [`Kernels::low_rank`](crate::Kernels::low_rank), tracked for the backward pass if an input
/// requires a gradient.
pub(crate) fn tracked<B: Backend, C: CheckpointStrategy, const D: usize>(
    x: Tensor<Autodiff<B, C>, D>,
    Factors { a, b, scale, kept }: Factors<Autodiff<B, C>>,
) -> Tensor<Autodiff<B, C>, D> {
    let nodes = [primitive(x.clone()).node, primitive(a.clone()).node, primitive(b.clone()).node];
    let mut dims = x.dims();
    let samples: usize = dims[..D - 2].iter().product();
    let x = x.inner().reshape([samples, dims[D - 2], dims[D - 1]]);
    let factors = Factors {
        a: a.inner(),
        b: b.inner(),
        scale,
        kept: kept.map(|kept| kept.map(Tensor::inner)),
    };
    let ready = factors.kept_or_ready(FloatDType::from(x.dtype()));
    let reduced = linear(x.clone(), ready[0].clone(), None);
    let output = linear(reduced.clone(), ready[1].clone(), None);
    dims[D - 1] = output.dims()[2];
    let output = output.reshape(dims).into_primitive().tensor();
    let prepared = Backward::<B, 3>::prepare::<C>(Gradient, nodes).compute_bound().stateful();
    Tensor::from_primitive(TensorPrimitive::Float(match prepared {
        OpsKind::Tracked(prepared) => {
            let Factors { a, b, .. } = factors;
            prepared.finish(Saved { x, reduced, ready, a, b, scale }, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }))
}

#[derive(Debug)]
struct Gradient;

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    /// `[samples, rows, inputs]`
    x: Tensor<B, 3>,
    /// `x·A`, `[samples, rows, r]`, as padded as the factors.
    reduced: Tensor<B, 3>,
    /// `A` and `s·B` as the product took them.
    ready: [Tensor<B, 2>; 2],
    a: Tensor<B, 2>,
    b: Tensor<B, 2>,
    scale: f64,
}

impl<B: Backend> Backward<B, 3> for Gradient {
    type State = Saved<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let Saved { x, reduced, ready: [a_ready, b_ready], a, b, scale } = ops.state;
        let of_output = grads.consume::<B>(&ops.node);
        let shape_of_x = {
            let mut shape = of_output.shape();
            let last = shape.num_dims() - 1;
            shape[last] = x.dims()[2];
            shape
        };
        let [samples, rows, _] = x.dims();
        let of_output = Tensor::<B, 2>::from_primitive(TensorPrimitive::Float(of_output));
        let of_output: Tensor<B, 3> = of_output.reshape([samples as i32, rows as i32, -1]);
        let of_reduced = linear(of_output.clone(), b_ready.transpose(), None);
        let [of_x, of_a, of_b] = ops.parents;
        if let Some(parent) = of_x {
            let gradient = linear(of_reduced.clone(), a_ready.transpose(), None);
            let gradient = B::float_reshape(primitive(gradient), shape_of_x);
            grads.register::<B>(parent.id, gradient);
        }
        if let Some(parent) = of_a {
            // Transposed, because the first rows of a matrix are cut off without a copy.
            let gradient = of_factor(of_reduced, x).narrow(0, 0, a.dims()[1]);
            grads.register::<B>(parent.id, primitive(gradient.cast(a.dtype()).transpose()));
        }
        if let Some(parent) = of_b {
            let gradient = of_factor(reduced, of_output).narrow(0, 0, b.dims()[0]);
            grads.register::<B>(parent.id, primitive(gradient.cast(b.dtype()) * scale));
        }
    }
}

fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

/// `Σ leftᵀ·right` over the samples: one product of all rows, unless their number has to be padded.
///
/// # Shapes
/// `left`: `[samples, rows, M]`; `right`: `[samples, rows, N]`; result: `[M, N]`
fn of_factor<B: Backend>(left: Tensor<B, 3>, right: Tensor<B, 3>) -> Tensor<B, 2> {
    let [samples, rows, m] = left.dims();
    let n = right.dims()[2];
    if samples == 1 || stays_as_it_is::<B>(&left.device(), samples * rows) {
        let (left, right) = (left.reshape([-1, m as i32]), right.reshape([-1, n as i32]));
        return matmul(left.transpose(), right);
    }
    matmul(left.swap_dims(1, 2), right).sum_dim(0).reshape([m, n])
}
