//! The isotropic Gaussian that a denoising step draws from: the policy `π(x' | x, c)`.

use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Gaussian `N(mean, std²·I)`, with one mean per row and one standard deviation for all.
///
/// # Shapes
/// - `mean`: `[B, C, H, W]`, f32
/// - `std`: in latent units, at least 0; 0 is a point mass, which has no density
#[derive(Clone, Debug)]
pub struct IsotropicGaussian<B: Backend> {
    /// The mean of each row.
    pub mean: Tensor<B, 4>,
    /// The standard deviation of every element.
    pub std: f64,
}

impl<B: Backend> IsotropicGaussian<B> {
    // ANCHOR: sample
    /// Draws `mean + std·noise`, given standard normal noise, `[B, C, H, W]`.
    pub fn sample(&self, noise: Tensor<B, 4>) -> Tensor<B, 4> {
        if self.std == 0.0 {
            return self.mean.clone();
        }
        self.mean.clone() + noise * self.std
    }
    // ANCHOR_END: sample

    /// Whether a draw is random, so that it has a density.
    pub fn is_random(&self) -> bool {
        self.std > 0.0
    }

    /// The log density of `value` under each row's Gaussian, reduced over the elements of the row.
    ///
    /// ```text
    /// log π = − (x' − mean)² / (2·std²) − ln std − ½·ln 2π
    /// ```
    ///
    /// Source: arXiv 2505.05470, section 4.1; the reduction as in the reference code.
    ///
    /// # Shapes
    /// - `value`: `[B, C, H, W]`; the result: `[B]`
    ///
    /// # Panics
    /// If the Gaussian is a point mass (`std` = 0).
    pub fn log_prob(&self, value: Tensor<B, 4>, reduction: Reduction) -> Tensor<B, 1> {
        assert!(self.is_random(), "a deterministic step has no log-probability");
        let offset = self.std.ln() + 0.5 * (2.0 * std::f64::consts::PI).ln();
        let squared = (value - self.mean.clone()).powi_scalar(2);
        match reduction {
            Reduction::Mean => row_mean(squared) * (-0.5 / self.std.powi(2)) - offset,
            Reduction::Sum => {
                let elements = squared.dims()[1..].iter().product::<usize>() as f64;
                row_mean(squared) * (-0.5 / self.std.powi(2) * elements) - offset * elements
            }
        }
    }
}

/// How a log-probability is reduced over the elements of a latent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reduction {
    /// The mean, as in the reference code, whose clip range is therefore 1e-4 and not 0.2
    /// (deviation `log-prob-mean`).
    #[default]
    Mean,
    /// The sum: the log density of the whole latent, as in the paper.
    Sum,
}

/// The mean over all but the first dimension: `[B, C, H, W]` to `[B]`.
pub fn row_mean<B: Backend>(values: Tensor<B, 4>) -> Tensor<B, 1> {
    let rows = values.dims()[0];
    values.reshape([rows as i32, -1]).mean_dim(1).reshape([rows]) // [B, C·H·W] -> [B]
}
