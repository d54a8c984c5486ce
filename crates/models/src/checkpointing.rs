//! Pieces of a backward pass that runs block by block.

use burn::{prelude::*, tensor::backend::AutodiffBackend};

/// `Σ output·gradient`: a scalar whose backward pass carries `gradient` from `output` back to its
/// inputs.
pub(crate) fn pulled<B: AutodiffBackend, const D: usize>(
    output: Tensor<B, D>,
    gradient: Tensor<B::InnerBackend, D>,
) -> Tensor<B, 1> {
    (output * Tensor::from_inner(gradient)).sum()
}

/// A leaf of the autodiff graph that requires a gradient.
pub(crate) fn leaf<B: AutodiffBackend, const D: usize>(
    values: Tensor<B::InnerBackend, D>,
) -> Tensor<B, D> {
    Tensor::from_inner(values).require_grad()
}

/// The gradient of a leaf.
pub(crate) fn gradient_of<B: AutodiffBackend, const D: usize>(
    leaf: &Tensor<B, D>,
    gradients: &mut B::Gradients,
) -> Tensor<B::InnerBackend, D> {
    leaf.grad_remove(gradients).expect("every part reads all of its inputs")
}
