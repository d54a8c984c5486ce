//! The flow of data from a mixture of isotropic Gaussians.

use burn::{prelude::*, tensor::activation};

use super::gaussian::{common_time, flatten};
use crate::field::VelocityField;

/// One component of a mixture.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// The weight of the component, > 0; weights need not sum to 1.
    pub weight: f64,
    /// The mean, `d` numbers.
    pub mean: Vec<f32>,
    /// The standard deviation of every element, > 0.
    pub std: f64,
}

/// The exact flow of data from a mixture `Σ_k w_k·N(m_k, s_k²·I)`.
///
/// Marginals are mixtures too: component `k` has mean `(1 − t)·m_k` and variance `(1 − t)²·s_k² +
/// t²`.
#[derive(Clone, Debug, PartialEq)]
pub struct MixtureField {
    components: Vec<Component>,
}

impl MixtureField {
    /// Creates the field of a mixture of at least one component.
    ///
    /// # Panics
    /// If there is no component or the means differ in size.
    pub fn new(components: Vec<Component>) -> Self {
        assert!(!components.is_empty(), "a mixture needs a component");
        assert!(
            components.windows(2).all(|pair| pair[0].mean.len() == pair[1].mean.len()),
            "the means differ in size"
        );
        Self { components }
    }

    /// The components of the data.
    pub fn components(&self) -> &[Component] {
        &self.components
    }

    // ANCHOR: score
    /// The exact score `Σ_k Pr(k | x)·((1 − t)·m_k − x) / var_k`, `[B, C, H, W]`.
    pub fn score<B: Backend>(&self, latent: Tensor<B, 4>, t: f64) -> Tensor<B, 4> {
        self.weighted(latent, t, |component, offset| {
            offset * (-1.0 / marginal_variance(component, t))
        })
    }
    // ANCHOR_END: score

    /// The density `Σ_k w_k·N(x; (1 − t)·m_k, var_k·I)` of the marginal at `t`, `[B]`, with weights
    /// that sum to 1.
    pub fn density<B: Backend>(&self, latent: Tensor<B, 4>, t: f64) -> Tensor<B, 1> {
        let flat = flatten(latent);
        let [rows, d] = flat.dims();
        let total: f64 = self.components.iter().map(|component| component.weight).sum();
        let constant = total * (2.0 * std::f64::consts::PI).powf(d as f64 / 2.0);
        let terms = self.components.iter().map(|component| {
            let offset = flat.clone() - row(&component.mean, &flat.device()) * (1.0 - t);
            log_density(component, offset, t).exp()
        });
        let sum = terms.reduce(|sum, term| sum + term).expect("a mixture has a component");
        sum.reshape([rows]) / constant
    }

    /// The velocity `Σ_k Pr(k | x)·[−m_k + (t − (1 − t)·s_k²)/var_k · (x − (1 − t)·m_k)]`, with
    /// every row at the time `t`.
    fn velocity_at<B: Backend>(&self, latent: Tensor<B, 4>, t: f64) -> Tensor<B, 4> {
        self.weighted(latent, t, |component, offset| {
            let gain = (t - (1.0 - t) * component.std.powi(2)) / marginal_variance(component, t);
            let mean = row(&component.mean, &offset.device());
            offset * gain - mean
        })
    }

    /// The sum `Σ_k Pr(k | x)·f(k, x − (1 − t)·m_k)` with the probabilities of the components,
    /// given `x` at the time `t`.
    fn weighted<B: Backend>(
        &self,
        latent: Tensor<B, 4>,
        t: f64,
        f: impl Fn(&Component, Tensor<B, 2>) -> Tensor<B, 2>,
    ) -> Tensor<B, 4> {
        let shape = latent.dims();
        let flat = flatten(latent);
        let offsets: Vec<Tensor<B, 2>> = self
            .components
            .iter()
            .map(|c| flat.clone() - row(&c.mean, &flat.device()) * (1.0 - t))
            .collect();
        let logits: Vec<Tensor<B, 2>> = self
            .components
            .iter()
            .zip(&offsets)
            .map(|(c, o)| log_density(c, o.clone(), t))
            .collect();
        let responsibilities = activation::softmax(Tensor::cat(logits, 1), 1); // [B, K]
        let terms = self.components.iter().zip(offsets).enumerate();
        terms
            .map(|(k, (component, offset))| {
                f(component, offset) * responsibilities.clone().narrow(1, k, 1)
            })
            .reduce(|sum, term| sum + term)
            .expect("a mixture has a component")
            .reshape(shape)
    }
}

impl<B: Backend> VelocityField<B> for MixtureField {
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

/// The variance of a component's marginal at `t`.
fn marginal_variance(component: &Component, t: f64) -> f64 {
    ((1.0 - t) * component.std).powi(2) + t * t
}

/// The component's weighted log density up to a constant, `[B, 1]`.
fn log_density<B: Backend>(component: &Component, offset: Tensor<B, 2>, t: f64) -> Tensor<B, 2> {
    let variance = marginal_variance(component, t);
    let d = component.mean.len() as f64;
    offset.powi_scalar(2).sum_dim(1) * (-0.5 / variance)
        + (component.weight.ln() - 0.5 * d * variance.ln())
}

fn row<B: Backend>(values: &[f32], device: &B::Device) -> Tensor<B, 2> {
    Tensor::<B, 1>::from_floats(values, device).reshape([1, -1])
}
