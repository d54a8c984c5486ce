//! The flow of data from one Gaussian with any covariance.

use burn::prelude::*;

use crate::field::VelocityField;

/// The exact flow of data `x_0 ~ N(m, C)` with `C = Q·diag(λ)·Qᵀ`.
///
/// Marginals: `x_t ~ N((1 − t)·m, S_t)` with `S_t = (1 − t)²·C + t²·I`, which has the eigenvectors
/// of `C`.
#[derive(Clone, Debug)]
pub struct GaussianField<B: Backend> {
    mean: Tensor<B, 2>,
    basis: Tensor<B, 2>,
    eigenvalues: Vec<f64>,
}

impl<B: Backend> GaussianField<B> {
    /// Creates the field of a Gaussian over `d` elements.
    ///
    /// # Shapes
    /// - `mean`: `[d]`; `basis` (`Q`, orthonormal columns): `[d, d]`; `eigenvalues` (`λ`): `d`
    ///   numbers ≥ 0
    ///
    /// # Panics
    /// If the sizes differ.
    pub fn new(mean: Tensor<B, 1>, basis: Tensor<B, 2>, eigenvalues: Vec<f64>) -> Self {
        let d = eigenvalues.len();
        assert_eq!(
            (mean.dims(), basis.dims()),
            ([d], [d, d]),
            "mean, basis and eigenvalues differ in size"
        );
        Self { mean: mean.reshape([1, d]), basis, eigenvalues }
    }

    /// The mean `(1 − t)·m` of the marginal at `t`, `[1, d]`.
    pub fn marginal_mean(&self, t: f64) -> Tensor<B, 2> {
        self.mean.clone() * (1.0 - t)
    }

    /// The covariance `S_t` of the marginal at `t`, `[d, d]`.
    pub fn marginal_covariance(&self, t: f64) -> Tensor<B, 2> {
        self.spectral(|eigenvalue| marginal_variance(eigenvalue, t))
    }

    /// The exact solution of the flow ODE from `x_1` at t = 1 down to `t`.
    ///
    /// ```text
    /// x_t = (1 − t)·m + Q·diag(√((1 − t)²·λ + t²))·Qᵀ·x_1
    /// ```
    ///
    /// # Shapes
    /// - `noise` (`x_1`), the result: `[B, C, H, W]` with `C·H·W = d`
    pub fn solve(&self, noise: Tensor<B, 4>, t: f64) -> Tensor<B, 4> {
        let shape = noise.dims();
        let transport = self.spectral(|eigenvalue| marginal_variance(eigenvalue, t).sqrt());
        (flatten(noise).matmul(transport) + self.marginal_mean(t)).reshape(shape)
    }

    /// The exact score `−S_t⁻¹·(x − (1 − t)·m)`, `[B, C, H, W]`.
    pub fn score(&self, latent: Tensor<B, 4>, t: f64) -> Tensor<B, 4> {
        let shape = latent.dims();
        let precision = self.spectral(|eigenvalue| 1.0 / marginal_variance(eigenvalue, t));
        -((flatten(latent) - self.marginal_mean(t)).matmul(precision)).reshape(shape)
    }

    /// The velocity `−m + (t·I − (1 − t)·C)·S_t⁻¹·(x − (1 − t)·m)`, with every row at the time `t`.
    fn velocity_at(&self, latent: Tensor<B, 4>, t: f64) -> Tensor<B, 4> {
        let shape = latent.dims();
        let gain = self
            .spectral(|eigenvalue| (t - (1.0 - t) * eigenvalue) / marginal_variance(eigenvalue, t));
        ((flatten(latent) - self.marginal_mean(t)).matmul(gain) - self.mean.clone()).reshape(shape)
    }

    /// The matrix `Q·diag(f(λ))·Qᵀ`, `[d, d]`.
    fn spectral(&self, f: impl Fn(f64) -> f64) -> Tensor<B, 2> {
        let values: Vec<f32> =
            self.eigenvalues.iter().map(|&eigenvalue| f(eigenvalue) as f32).collect();
        let diagonal =
            Tensor::<B, 1>::from_floats(values.as_slice(), &self.basis.device()).reshape([1, -1]);
        (self.basis.clone() * diagonal).matmul(self.basis.clone().transpose())
    }
}

impl<B: Backend> VelocityField<B> for GaussianField<B> {
    type Condition = ();

    /// # Panics
    /// If the rows are not all at the same time.
    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        _conditions: &[()],
    ) -> Tensor<B, 4> {
        self.velocity_at(latent, common_time(time))
    }
}

/// The eigenvalue of `S_t` for an eigenvalue of `C`.
fn marginal_variance(eigenvalue: f64, t: f64) -> f64 {
    (1.0 - t).powi(2) * eigenvalue + t * t
}

/// Flattens the rows: `[B, C, H, W]` to `[B, d]`.
pub(super) fn flatten<B: Backend>(latent: Tensor<B, 4>) -> Tensor<B, 2> {
    latent.flatten(1, 3)
}

/// The common time of all rows.
pub(super) fn common_time<B: Backend>(time: Tensor<B, 1>) -> f64 {
    let times: Vec<f64> = time.into_data().iter::<f64>().collect();
    assert!(
        times.windows(2).all(|pair| pair[0] == pair[1]),
        "an analytic field needs all rows at one time"
    );
    times[0]
}
