//! What a network is to this crate: a velocity field.

use burn::{module::AutodiffModule, prelude::*, tensor::backend::AutodiffBackend};
use serde::{Deserialize, Serialize};

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

/// A field whose gradient can be found part by part: a part's inside is computed again when its turn comes, so that only one is in
/// memory at a time (arXiv 1604.06174).
pub trait InParts<B: AutodiffBackend>: VelocityField<B> + AutodiffModule<B> {
    /// What the forward pass keeps: what goes into every part.
    type Kept;

    /// The velocity, without a graph, and what [`Self::backward`] needs.
    fn forward_keeping(
        network: &Self::InnerModule,
        query: Query<B::InnerBackend, Self::Condition>,
    ) -> (Tensor<B::InnerBackend, 4>, Self::Kept);

    /// The backward pass, from the last part to the first. `take` gets the gradients of every part; a parameter's gradient is their
    /// sum.
    ///
    /// # Shapes
    /// - `gradient`: that of the velocity, `[B, C, H, W]`
    fn backward(&self, kept: Self::Kept, gradient: Tensor<B::InnerBackend, 4>, take: impl FnMut(B::Gradients));
}

/// What a field is asked, row by row.
///
/// # Shapes
/// - `latent`: `[B, C, H, W]`; `time`: `[B]`, in `(0, 1]`; `conditions`: `B` values
#[derive(Clone, Debug)]
pub struct Query<B: Backend, C> {
    /// `x`
    pub latent: Tensor<B, 4>,
    /// `t`
    pub time: Tensor<B, 1>,
    /// `c`
    pub conditions: Vec<C>,
}

impl<B: Backend, C: Clone> Query<B, C> {
    /// Every row at the same time.
    pub fn at(time: f64, latent: Tensor<B, 4>, conditions: &[C]) -> Self {
        let time = Tensor::full([latent.dims()[0]], time, &latent.device());
        Self { latent, time, conditions: conditions.to_vec() }
    }

    /// The same query on the autodiff backend, without a graph.
    pub fn onto_autodiff<AB: AutodiffBackend<InnerBackend = B>>(self) -> Query<AB, C> {
        Query { latent: Tensor::from_inner(self.latent), time: Tensor::from_inner(self.time), conditions: self.conditions }
    }

    /// The field's answer.
    pub fn ask<F: VelocityField<B, Condition = C>>(self, field: &F) -> Tensor<B, 4> {
        field.velocity(self.latent, self.time, &self.conditions)
    }
}

/// Classifier-free guidance.
///
/// ```text
/// v = v(x, t, ∅) + g·[v(x, t, c) − v(x, t, ∅)]
/// ```
///
/// Source: arXiv 2207.12598, equation 6. `g` = 1 is the plain field, at twice the cost; use no guidance instead.
#[derive(Clone, Debug)]
pub struct Guidance<C> {
    /// The empty condition `∅`.
    pub unconditional: C,
    /// The scale `g`.
    pub scale: f64,
}

impl<C: Clone> Guidance<C> {
    /// A query for `2B` rows: those of `query` without their conditions, then with them.
    pub fn doubled<B: Backend>(&self, query: Query<B, C>) -> Query<B, C> {
        let Query { latent, time, conditions } = query;
        let without = std::iter::repeat_n(self.unconditional.clone(), conditions.len());
        Query {
            latent: Tensor::cat(vec![latent.clone(), latent], 0),
            time: Tensor::cat(vec![time.clone(), time], 0),
            conditions: without.chain(conditions).collect(),
        }
    }

    /// The guided velocity, `[B, C, H, W]`, from the answer to the doubled query, `[2B, C, H, W]`.
    pub fn combined<B: Backend>(&self, velocity: Tensor<B, 4>, gradient: GuidanceGradient) -> Tensor<B, 4> {
        let rows = velocity.dims()[0] / 2;
        let [without, with] = [velocity.clone().narrow(0, 0, rows), velocity.narrow(0, rows, rows)];
        let without = match gradient {
            GuidanceGradient::Both => without,
            GuidanceGradient::Conditional => without.detach(),
        };
        without.clone() + (with - without) * self.scale
    }

    /// The guided field.
    pub fn around<F>(&self, field: F) -> Guided<F, C> {
        Guided { field, guidance: self.clone() }
    }
}

/// Which halves of a guided velocity have a gradient; without guidance there is only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GuidanceGradient {
    /// Both: `g·∇v(x, t, c) − (g − 1)·∇v(x, t, ∅)`, as in the published code of May 2025 and in its later state.
    #[default]
    Both,
    /// The one with the condition alone: `g·∇v(x, t, c)`. The published code at commits 2d76907 to ac4c86e detaches the other one.
    ///
    /// Deviation `guidance-gradient`.
    Conditional,
}

/// A field under guidance.
#[derive(Clone, Debug)]
pub struct Guided<F, C> {
    /// The field to guide.
    pub field: F,
    /// How.
    pub guidance: Guidance<C>,
}

impl<B: Backend, F: VelocityField<B>> VelocityField<B> for Guided<F, F::Condition> {
    type Condition = F::Condition;

    fn velocity(&self, latent: Tensor<B, 4>, time: Tensor<B, 1>, conditions: &[Self::Condition]) -> Tensor<B, 4> {
        let query = self.guidance.doubled(Query { latent, time, conditions: conditions.to_vec() });
        self.guidance.combined(query.ask(&self.field), GuidanceGradient::Both)
    }
}
