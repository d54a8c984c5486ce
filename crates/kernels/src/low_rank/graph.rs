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

use super::{Factors, Pair, composed};
use crate::{
    Kernels,
    product::{matmul, stays_as_it_is},
};

/// [`Kernels::low_rank`](crate::Kernels::low_rank), tracked for the backward pass if an input
/// requires a gradient. More than three layers take the composition, because the number of inputs
/// of an operation is part of its type.
pub(crate) fn tracked<B: Kernels, C: CheckpointStrategy, const D: usize>(
    x: Tensor<Autodiff<B, C>, D>,
    factors: Factors<Autodiff<B, C>>,
) -> Tensor<Autodiff<B, C>, D> {
    match factors.pairs.len() {
        1 => run_tracked::<B, C, D, 3>(x, factors),
        2 => run_tracked::<B, C, D, 5>(x, factors),
        3 => run_tracked::<B, C, D, 7>(x, factors),
        _ => composed(x, factors),
    }
}

/// The operation with `N` inputs: `x`, and the two factors of each pair.
fn run_tracked<B: Kernels, C: CheckpointStrategy, const D: usize, const N: usize>(
    x: Tensor<Autodiff<B, C>, D>,
    factors: Factors<Autodiff<B, C>>,
) -> Tensor<Autodiff<B, C>, D> {
    let of_pairs = factors.pairs.iter().flat_map(|pair| [pair.a.clone(), pair.b.clone()]);
    let nodes: Vec<_> = [primitive(x.clone()).node]
        .into_iter()
        .chain(of_pairs.map(|factor| primitive(factor).node))
        .collect();
    let nodes: [_; N] = nodes.try_into().expect("x and two factors of each pair");
    let (saved, output) = forward(x.inner(), inner(factors));
    let output = output.into_primitive().tensor();
    let prepared = Backward::<B, N>::prepare::<C>(Gradient, nodes).compute_bound().stateful();
    Tensor::from_primitive(TensorPrimitive::Float(match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(saved, output),
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }))
}

/// The product, and what its backward pass needs.
fn forward<B: Kernels, const D: usize>(
    x: Tensor<B, D>,
    factors: Factors<B>,
) -> (Saved<B>, Tensor<B, D>) {
    let (precision, mut dims) = (FloatDType::from(x.dtype()), x.dims());
    let ready = factors.kept(precision).unwrap_or_else(|| B::ready_factors(&factors, precision));
    let samples: usize = dims[..D - 2].iter().product();
    let x = x.reshape([samples, dims[D - 2], dims[D - 1]]);
    let reduced = B::linear_layer(x.clone(), ready[0].clone(), None);
    let output = B::linear_layer(reduced.clone(), ready[1].clone(), None);
    dims[D - 1] = output.dims()[2];
    (Saved { x, reduced, ready, factors }, output.reshape(dims))
}

/// [`Kernels::low_rank`] of a GPU without a graph.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) fn untracked<B: Kernels, const D: usize>(
    x: Tensor<B, D>,
    factors: Factors<B>,
) -> Tensor<B, D> {
    let (_, output) = forward(x, factors);
    output
}

/// [`Kernels::ready_factors`] without a graph.
pub(crate) fn ready<B: Kernels, C: CheckpointStrategy>(
    factors: &Factors<Autodiff<B, C>>,
    precision: FloatDType,
) -> [Tensor<Autodiff<B, C>, 2>; 2] {
    B::ready_factors(&inner(factors.clone()), precision).map(Tensor::from_inner)
}

/// The factors without their graph.
fn inner<B: Backend, C: CheckpointStrategy>(factors: Factors<Autodiff<B, C>>) -> Factors<B> {
    let Factors { pairs, outputs, kept } = factors;
    let of_pair = |Pair { a, b, scale, from }: Pair<Autodiff<B, C>>| Pair {
        a: a.inner(),
        b: b.inner(),
        scale,
        from,
    };
    Factors {
        pairs: pairs.into_iter().map(of_pair).collect(),
        outputs,
        kept: kept.map(|kept| kept.map(Tensor::inner)),
    }
}

#[derive(Debug)]
struct Gradient;

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    /// `[samples, rows, inputs]`
    x: Tensor<B, 3>,
    /// `x·A`, `[samples, rows, Σr]`, as padded as the factors.
    reduced: Tensor<B, 3>,
    /// `A` and `B` as the product took them.
    ready: [Tensor<B, 2>; 2],
    factors: Factors<B>,
}

impl<B: Kernels, const N: usize> Backward<B, N> for Gradient {
    type State = Saved<B>;

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let Saved { x, reduced, ready: [a, b], factors } = ops.state;
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
        let of_reduced = B::linear_layer(of_output.clone(), b.transpose(), None);

        let mut parents = ops.parents.into_iter().map(|parent| parent.map(|node| node.id));
        if let Some(id) = parents.next().flatten() {
            let gradient = B::linear_layer(of_reduced.clone(), a.transpose(), None);
            grads.register::<B>(id, B::float_reshape(primitive(gradient), shape_of_x));
        }
        let parents: Vec<_> = parents.collect();
        if parents.iter().all(Option::is_none) {
            return;
        }
        // Transposed, because the first rows of a matrix are cut off without a copy.
        let of_a = of_factor(of_reduced, x); // [Σr, inputs]
        let of_b = of_factor(reduced, of_output); // [Σr, outputs]
        let of_factors = B::cut_factors(&factors, [of_a, of_b]).into_iter().flatten();
        for (id, gradient) in parents.into_iter().zip(of_factors) {
            if let Some(id) = id {
                grads.register::<B>(id, primitive(gradient));
            }
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
