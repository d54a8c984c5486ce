//! Pieces of a backward pass that runs block by block.

use burn::{
    module::{Module, ModuleVisitor, Param},
    prelude::*,
    tensor::backend::AutodiffBackend,
};
use kernels::Kernels;

/// A number whose backward pass carries `gradient` from `output` back to its inputs; see
/// [`Kernels::pulled`].
pub(crate) fn pulled<B: AutodiffBackend + Kernels, const D: usize>(
    output: Tensor<B, D>,
    gradient: Tensor<B::InnerBackend, D>,
) -> Tensor<B, 1> {
    B::pulled(output, Tensor::from_inner(gradient))
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

/// A value that several parts read, and the sum of its gradients over the parts that have run
/// backward. If no gradient is wanted, the parts compute none.
pub(crate) struct Shared<B: AutodiffBackend, const D: usize> {
    values: Tensor<B::InnerBackend, D>,
    wanted: bool,
    gradient: Option<Tensor<B::InnerBackend, D>>,
}

impl<B: AutodiffBackend, const D: usize> Shared<B, D> {
    pub fn new(values: Tensor<B::InnerBackend, D>, wanted: bool) -> Self {
        Self { values, wanted, gradient: None }
    }

    /// The value, for one part.
    pub fn read(&self) -> Tensor<B, D> {
        if self.wanted {
            leaf(self.values.clone())
        } else {
            Tensor::from_inner(self.values.clone())
        }
    }

    /// Adds the gradient of a part that has [`Self::read`] it.
    pub fn collect(&mut self, read: &Tensor<B, D>, gradients: &mut B::Gradients) {
        if self.wanted {
            let more = gradient_of(read, gradients);
            self.gradient = Some(match self.gradient.take() {
                Some(sum) => sum + more,
                None => more,
            });
        }
    }

    /// The sum of the gradients; `None` if it is not wanted.
    pub fn gradient(self) -> Option<Tensor<B::InnerBackend, D>> {
        self.gradient
    }
}

/// Whether a parameter of the module is trained.
pub(crate) fn is_trained<B: AutodiffBackend, M: Module<B>>(module: &M) -> bool {
    struct Found(bool);
    impl<B: Backend> ModuleVisitor<B> for Found {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
            self.0 |= param.val().is_require_grad();
        }
    }
    let mut found = Found(false);
    module.visit(&mut found);
    found.0
}
