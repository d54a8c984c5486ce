//! Muon: a step of a matrix by its orthogonalised momentum.

use std::collections::BTreeMap;

use burn::prelude::*;
use kernels::product::matmul;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::OptimizerState;
use crate::parameters::Parameters;

/// The hyperparameters of Muon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MuonConfig {
    /// Peak learning rate of the matrices; 0 leaves them to AdamW.
    #[schemars(range(min = 0.0))]
    pub learning_rate: f64,
    /// Decay of the sum of gradients.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub momentum: f64,
}

impl Default for MuonConfig {
    /// AdamW for all parameters.
    fn default() -> Self {
        Self { learning_rate: 0.0, momentum: 0.95 }
    }
}

/// Muon for some matrices, given by parameter identity with shape `[inputs, outputs]`.
#[derive(Clone, Debug)]
pub(super) struct Muon {
    pub(super) config: MuonConfig,
    pub(super) matrices: BTreeMap<u64, [usize; 2]>,
}

/// The factors of a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Factors {
    /// The factor of the gradient.
    pub(super) clip: f64,
    /// The learning rate relative to its peak.
    pub(super) rate: f64,
    /// The factor of the weights: 1 minus the decay.
    pub(super) keep: f64,
}

impl Muon {
    /// Takes the step of the matrices: replaces them in `moved`, and their first moments in `state`
    /// by the decayed sums of gradients.
    ///
    /// ```text
    /// M ← μ·M + g      W ← keep·W − η·√max(1, outputs/inputs)·orthogonal(μ·M + g)
    /// ```
    ///
    /// `first` has the sums before this gradient.
    pub(super) fn step<B: Backend>(
        &self,
        state: &mut OptimizerState<B>,
        first: &Parameters<B>,
        parameters: &Parameters<B>,
        gradient: &Parameters<B>,
        moved: &mut Parameters<B>,
        Factors { clip, rate, keep }: Factors,
    ) {
        let MuonConfig { learning_rate, momentum } = self.config;
        for (&id, &shape) in &self.matrices {
            let sum = first.get(id) * momentum + gradient.get(id) * clip;
            let ahead = sum.clone() * momentum + gradient.get(id) * clip;
            let step = orthogonal(ahead.reshape(shape)).reshape([-1])
                * (learning_rate * rate * scale(shape));
            moved.set(id, parameters.get(id) * keep - step);
            state.first.set(id, sum);
        }
    }
}

/// Scale that gives the steps of matrices of all shapes the same size per element of the output.
fn scale([inputs, outputs]: [usize; 2]) -> f64 {
    (outputs as f64 / inputs as f64).max(1.0).sqrt()
}

/// An approximation of the nearest matrix with all singular values near 1, by five Newton-Schulz
/// iterations.
///
/// ```text
/// X ← G/‖G‖      five times:  A = X·Xᵀ,  X ← 3.4445·X + (−4.7750·A + 2.0315·A²)·X
/// ```
///
/// Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); arXiv
/// 2502.16982.
///
/// # Shapes
/// - `gradient` and the result: `[m, n]`
fn orthogonal<B: Backend>(gradient: Tensor<B, 2>) -> Tensor<B, 2> {
    let [rows, columns] = gradient.dims();
    // The products are smaller for a wide matrix.
    let wide = if rows > columns { gradient.transpose() } else { gradient };
    let norm = (wide.clone() * wide.clone()).sum().sqrt() + 1e-7;
    let mut x = wide / norm.reshape([1, 1]);
    for _ in 0..5 {
        let a = matmul(x.clone(), x.clone().transpose());
        let b = matmul(a.clone(), a.clone()) * 2.0315 - a * 4.775;
        x = x.clone() * 3.4445 + matmul(b, x);
    }
    if rows > columns { x.transpose() } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tall_outputs_take_larger_steps() {
        assert_eq!(scale([4, 16]), 2.0);
        assert_eq!(scale([16, 4]), 1.0);
    }
}
