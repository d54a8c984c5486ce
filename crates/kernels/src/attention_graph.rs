//! Attention of CPU backends as one operation of autodiff.
//!
//! The forward pass is the backend's own, the same with and without a graph, and keeps no scores.
//! The backward pass computes them again (arXiv 2205.14135, algorithm 4, without tiles):
//!
//! ```text
//! p = softmax(s·q·kᵀ)        dp = dy·vᵀ        ds = p·(dp − Σ dy·y)
//! dq = s·ds·k                dk = s·dsᵀ·q      dv = pᵀ·dy
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
    tensor::{Tensor, TensorPrimitive, activation, backend::Backend},
};

use crate::product::{attention, matmul};

/// [`Kernels::softmax_attention`](crate::Kernels::softmax_attention), tracked for the backward pass
/// if an input requires a gradient.
pub(crate) fn tracked<B: Backend, C: CheckpointStrategy>(
    inputs: [Tensor<Autodiff<B, C>, 4>; 3],
) -> Tensor<Autodiff<B, C>, 4> {
    let nodes = inputs.each_ref().map(|input| input.clone().into_primitive().tensor().node);
    let inputs = inputs.map(Tensor::inner);
    let [query, key, value] = inputs.clone();
    let output = attention(query, key, value, None, None);
    let result = output.clone().into_primitive().tensor();
    let prepared = Backward::<B, 3>::prepare::<C>(Gradient, nodes).compute_bound().stateful();
    Tensor::from_primitive(TensorPrimitive::Float(match prepared {
        OpsKind::Tracked(prepared) => prepared.finish(Saved { inputs, output }, result),
        OpsKind::UnTracked(prepared) => prepared.finish(result),
    }))
}

#[derive(Debug)]
struct Gradient;

/// What the backward pass needs.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    /// Query `[B, heads, Q, w]`, key and value `[B, heads, L, w]`.
    inputs: [Tensor<B, 4>; 3],
    /// `[B, heads, Q, w]`
    output: Tensor<B, 4>,
}

impl<B: Backend> Backward<B, 3> for Gradient {
    type State = Saved<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let Saved { inputs: [query, key, value], output } = ops.state;
        let gradient = grads.consume::<B>(&ops.node);
        let gradient = Tensor::<B, 4>::from_primitive(TensorPrimitive::Float(gradient));
        let scale = (query.dims()[3] as f64).sqrt().recip();
        let query = query * scale;
        let weights = activation::softmax(matmul(query.clone(), key.clone().transpose()), 3);
        let along = (gradient.clone() * output).sum_dim(3); // [B, heads, Q, 1]
        let of_value = matmul(weights.clone().transpose(), gradient.clone());
        let of_scores = weights * (matmul(gradient, value.transpose()) - along);
        let of_key = matmul(of_scores.clone().transpose(), query);
        let of_query = matmul(of_scores, key) * scale;
        for (parent, gradient) in ops.parents.into_iter().zip([of_query, of_key, of_value]) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient.into_primitive().tensor());
            }
        }
    }
}
