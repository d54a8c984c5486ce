//! Operations of autodiff with several outputs.
//!
//! A step of Burn's graph has one output. Here a node stands between the inputs and the outputs. Each
//! output leaves its gradient there, and the node turns all of them into the gradients of the inputs.
//!
//! ```text
//! forward:  inputs → joint → output 1, …, output M        backward:  d inputs = f(d output 1, …, d output M)
//! ```
//!
//! As after every intermediate result, one backward pass may go through the outputs of one operation.

use std::{
    fmt::Debug,
    marker::PhantomData,
    sync::{Arc, Mutex, MutexGuard},
};

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::{backend::Backend, ops::FloatTensor},
};

/// The backward pass of an operation, with what it needs of the forward pass.
pub(crate) trait Gradient<B: Backend, const N: usize, const M: usize>:
    Clone + Debug + Send + 'static
{
    /// Turns the gradients of the outputs, of which there is at least one, into those of the inputs
    /// that are wanted.
    fn backward(
        self,
        of_outputs: [Option<FloatTensor<B>>; M],
        wanted: [bool; N],
    ) -> [Option<FloatTensor<B>>; N];
}

/// The outputs as results of the inputs, tracked if an input requires a gradient.
pub(crate) fn tracked<B, C, G, const N: usize, const M: usize>(
    inputs: &[FloatTensor<Autodiff<B, C>>; N],
    outputs: [FloatTensor<B>; M],
    gradient: G,
) -> [FloatTensor<Autodiff<B, C>>; M]
where
    B: Backend,
    C: CheckpointStrategy,
    G: Gradient<B, N, M>,
{
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let left = Left(Arc::new(Mutex::new([const { None }; M])));
    let joint = Backward::<B, N>::prepare::<C>(Joint::<G, M>(PhantomData), nodes).compute_bound();
    let joint = match joint.stateful() {
        // The node's own value is never read.
        OpsKind::Tracked(prepared) => prepared.finish((gradient, left.clone()), outputs[0].clone()),
        OpsKind::UnTracked(_) => {
            return outputs
                .map(<Autodiff<B, C> as burn::tensor::backend::AutodiffBackend>::from_inner);
        }
    };
    let mut index = 0;
    outputs.map(|output| {
        let prepared = Backward::<B, 1>::prepare::<C>(Output::<M>, [joint.node.clone()]);
        index += 1;
        match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((left.clone(), index - 1), output),
            OpsKind::UnTracked(prepared) => prepared.finish(output),
        }
    })
}

/// The gradients that the outputs of an operation have left.
#[derive(Clone, Debug)]
struct Left<B: Backend, const M: usize>(Arc<Mutex<[Option<FloatTensor<B>>; M]>>);

impl<B: Backend, const M: usize> Left<B, M> {
    fn gradients(&self) -> MutexGuard<'_, [Option<FloatTensor<B>>; M]> {
        self.0.lock().expect("nothing panics while it holds the lock")
    }
}

/// The backward pass of an output.
#[derive(Debug)]
struct Output<const M: usize>;

impl<B: Backend, const M: usize> Backward<B, 1> for Output<M> {
    /// Where the gradient is left, and at which place.
    type State = (Left<B, M>, usize);

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let (left, index) = ops.state;
        left.gradients()[index] = Some(grads.consume::<B>(&ops.node));
    }
}

/// The backward pass of the node between inputs and outputs. It comes after those of all outputs:
/// steps run from the deepest node up.
#[derive(Debug)]
struct Joint<G, const M: usize>(PhantomData<G>);

impl<B: Backend, G: Gradient<B, N, M>, const N: usize, const M: usize> Backward<B, N>
    for Joint<G, M>
{
    type State = (G, Left<B, M>);

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        // Nothing is registered for this node itself.
        let (gradient, left) = ops.state;
        let of_outputs = std::mem::replace(&mut *left.gradients(), [const { None }; M]);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let of_inputs = gradient.backward(of_outputs, wanted);
        for (parent, of_input) in ops.parents.into_iter().zip(of_inputs) {
            if let (Some(parent), Some(of_input)) = (parent, of_input) {
                grads.register::<B>(parent.id, of_input);
            }
        }
    }
}
