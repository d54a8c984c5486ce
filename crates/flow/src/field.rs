//! What a network is to this crate: a velocity field.

use burn::prelude::*;

/// `v(x, t, c)`: where a latent moves at a time, under a condition.
pub trait VelocityField<B: Backend> {
    /// What the velocity depends on besides latent and time; one value per row, held on the host.
    type Condition: Clone;

    /// The velocity of every row.
    ///
    /// # Shapes
    /// - `latent`: `[B, C, H, W]`; `time`: `[B]`, in `(0, 1]`; `conditions`: `B` values
    /// - the result: `[B, C, H, W]`
    fn velocity(&self, latent: Tensor<B, 4>, time: Tensor<B, 1>, conditions: &[Self::Condition]) -> Tensor<B, 4>;
}

/// Classifier-free guidance around a field.
///
/// ```text
/// v = v(x, t, ∅) + g·[v(x, t, c) − v(x, t, ∅)]
/// ```
///
/// Source: arXiv 2207.12598, equation 6. `g` = 1 is the plain field, at twice the cost; use the field itself instead.
#[derive(Clone, Debug)]
pub struct Guided<F, C> {
    /// The field to guide.
    pub field: F,
    /// The empty condition `∅`.
    pub unconditional: C,
    /// The scale `g`.
    pub scale: f64,
}

impl<B: Backend, F: VelocityField<B>> VelocityField<B> for Guided<F, F::Condition> {
    type Condition = F::Condition;

    fn velocity(&self, latent: Tensor<B, 4>, time: Tensor<B, 1>, conditions: &[Self::Condition]) -> Tensor<B, 4> {
        let rows = conditions.len();
        let both: Vec<_> = std::iter::repeat_n(&self.unconditional, rows).chain(conditions).cloned().collect();
        let velocity =
            self.field.velocity(Tensor::cat(vec![latent.clone(), latent], 0), Tensor::cat(vec![time.clone(), time], 0), &both); // [2B, C, H, W]
        let [without, with] = [velocity.clone().narrow(0, 0, rows), velocity.narrow(0, rows, rows)];
        without.clone() + (with - without) * self.scale
    }
}
