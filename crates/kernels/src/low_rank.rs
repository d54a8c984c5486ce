//! The product with a factor of low rank, whose gradient costs no more than its products.
//!
//! The factors are trained in f32, and the product computes in the precision of its input. A graph
//! of tensor operations would scale, cast and pad the factors in every pass, and do all of it
//! backwards. Here a pass can take factors that were made ready once, and its gradient is
//!
//! ```text
//! y = (x·A)·(s·B)        du = dy·(s·B)ᵀ        dx = du·Aᵀ        dA = xᵀ·du        dB = s·(x·A)ᵀ·dy
//! ```

#[cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]
pub(crate) mod graph;

use burn::tensor::{FloatDType, Tensor, backend::Backend};

use crate::product::{filled_rank, linear};

/// Two trained factors and their scale.
///
/// # Shapes
/// `a`: `[inputs, r]`; `b`: `[r, outputs]`
#[derive(Clone, Debug)]
pub struct Factors<B: Backend> {
    /// `A`
    pub a: Tensor<B, 2>,
    /// `B`
    pub b: Tensor<B, 2>,
    /// `s`
    pub scale: f64,
    /// What [`Self::ready`] returned for these values, if it is kept.
    pub kept: Option<[Tensor<B, 2>; 2]>,
}

impl<B: Backend> Factors<B> {
    /// `A` and `s·B` in a precision, their rank padded on backends that need it.
    pub fn ready(&self, precision: FloatDType) -> [Tensor<B, 2>; 2] {
        let (a, b) = (self.a.clone(), self.b.clone() * self.scale);
        filled_rank(a.cast(precision), b.cast(precision))
    }

    fn kept_or_ready(&self, precision: FloatDType) -> [Tensor<B, 2>; 2] {
        let kept = self.kept.clone().filter(|kept| kept[0].dtype() == precision.into());
        kept.unwrap_or_else(|| self.ready(precision))
    }
}

/// [`Kernels::low_rank`](crate::Kernels::low_rank) as a composition, for any backend. Under autodiff
/// it uses no kept factors, which would get no gradient.
pub fn composed<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    mut factors: Factors<B>,
) -> Tensor<B, D> {
    factors.kept.take_if(|kept| B::ad_enabled(&kept[0].device()));
    let [a, b] = factors.kept_or_ready(FloatDType::from(x.dtype()));
    linear(linear(x, a, None), b, None)
}
