//! Velocity fields, the interface between networks and this crate, and classifier-free guidance.

use burn::{module::AutodiffModule, prelude::*, tensor::backend::AutodiffBackend};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A velocity field `v(x, t, c)`: the velocity of a latent at a time, under a condition.
pub trait VelocityField<B: Backend> {
    /// The input of the field besides latent and time; one value per row, held on the host.
    type Condition: Clone + Send + Sync;

    /// The velocity of every row.
    ///
    /// # Shapes
    /// - `latent`: `[B, C, H, W]`; `time`: `[B]`, in `(0, 1]`; `conditions`: `B` values
    /// - the result: `[B, C, H, W]`
    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[Self::Condition],
    ) -> Tensor<B, 4>;

    /// Moves what velocities for these conditions and latents of this size, `[C, H, W]`, need to the
    /// device and keeps it there, in place of what was kept before. Costs memory and saves copies; a
    /// velocity has the same value, also for other conditions. Nothing is kept by default.
    fn prepare(&mut self, _conditions: &[Self::Condition], _latent: [usize; 3]) {}

    /// Shares what `other` keeps: networks with the same conditions need it only once.
    fn prepare_like(&mut self, _other: &Self) {}

    /// Prefixes of the paths of the parameters inside the field's repeated blocks; none by default.
    /// An optimiser may treat the matrices of blocks apart from those before and after them, as
    /// Muon does.
    fn blocks(&self) -> &'static [&'static str] {
        &[]
    }
}

/// A field that can be trained: a module on the autodiff backend whose plain form is a field with
/// the same condition. Implemented for every such module.
pub trait TrainableField<B: AutodiffBackend>:
    VelocityField<B>
    + AutodiffModule<
        B,
        InnerModule: VelocityField<
            B::InnerBackend,
            Condition = <Self as VelocityField<B>>::Condition,
        >,
    >
{
}

impl<B, F> TrainableField<B> for F
where
    B: AutodiffBackend,
    F: VelocityField<B> + AutodiffModule<B>,
    F::InnerModule: VelocityField<B::InnerBackend, Condition = <F as VelocityField<B>>::Condition>,
{
}

/// A field that supports activation checkpointing: each block is recomputed in the backward pass,
/// so only one block's activations are in memory (arXiv 1604.06174).
pub trait Checkpointed<B: AutodiffBackend>: TrainableField<B> {
    /// The values that the forward pass keeps: the inputs of every block.
    type Kept;

    /// Computes the velocity without a graph, and the values that [`Self::backward`] needs.
    fn forward_keeping(
        network: &Self::InnerModule,
        query: Query<B::InnerBackend, Self::Condition>,
    ) -> (Tensor<B::InnerBackend, 4>, Self::Kept);

    /// Runs the backward pass, from the last part to the first. `take` gets the gradients of every
    /// part; the gradient of a parameter is the sum over the parts.
    ///
    /// # Shapes
    /// - `gradient`: that of the velocity, `[B, C, H, W]`
    fn backward(
        &self,
        kept: Self::Kept,
        gradient: Tensor<B::InnerBackend, 4>,
        take: impl FnMut(B::Gradients),
    );
}

/// A query to a field, row by row.
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
    /// A query with every row at the same time.
    pub fn at(time: f64, latent: Tensor<B, 4>, conditions: &[C]) -> Self {
        let time = Tensor::full([latent.dims()[0]], time, &latent.device());
        Self { latent, time, conditions: conditions.to_vec() }
    }

    /// Moves the query to the autodiff backend, without a graph.
    pub fn onto_autodiff<AB: AutodiffBackend<InnerBackend = B>>(self) -> Query<AB, C> {
        Query {
            latent: Tensor::from_inner(self.latent),
            time: Tensor::from_inner(self.time),
            conditions: self.conditions,
        }
    }

    /// Evaluates the field.
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
/// Source: arXiv 2207.12598, equation 6. `g` = 1 gives the unguided field at twice the cost; use no
/// guidance instead.
#[derive(Clone, Debug)]
pub struct Guidance<C> {
    /// The empty condition `∅`.
    pub unconditional: C,
    /// The scale `g`.
    pub scale: f64,
}

impl<C: Clone> Guidance<C> {
    /// Doubles a query to `2B` rows: all rows without their conditions, then all rows with them.
    pub fn doubled<B: Backend>(&self, query: Query<B, C>) -> Query<B, C> {
        let Query { latent, time, conditions } = query;
        let without = std::iter::repeat_n(self.unconditional.clone(), conditions.len());
        Query {
            latent: Tensor::cat(vec![latent.clone(), latent], 0),
            time: Tensor::cat(vec![time.clone(), time], 0),
            conditions: without.chain(conditions).collect(),
        }
    }

    /// Combines the answer to the doubled query, `[2B, C, H, W]`, into the guided velocity, `[B, C,
    /// H, W]`.
    pub fn combined<B: Backend>(
        &self,
        velocity: Tensor<B, 4>,
        gradient: GuidanceGradient,
    ) -> Tensor<B, 4> {
        // ANCHOR: combined
        let rows = velocity.dims()[0] / 2;
        let [without, with] = [velocity.clone().narrow(0, 0, rows), velocity.narrow(0, rows, rows)];
        let without = match gradient {
            GuidanceGradient::Both => without,
            GuidanceGradient::Conditional => without.detach(),
        };
        without.clone() + (with - without) * self.scale
        // ANCHOR_END: combined
    }

    /// The empty condition and these: the conditions of a doubled query.
    pub fn and_unconditional(&self, conditions: &[C]) -> Vec<C> {
        std::iter::once(&self.unconditional).chain(conditions).cloned().collect()
    }

    /// Wraps a field with this guidance.
    pub fn around<F>(&self, field: F) -> Guided<F, C> {
        Guided { field, guidance: self.clone() }
    }
}

/// Which halves of a guided velocity have a gradient; without guidance there is only one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuidanceGradient {
    /// Both halves: `g·∇v(x, t, c) − (g − 1)·∇v(x, t, ∅)`, as in the published code of May 2025 and
    /// in its later state.
    #[default]
    Both,
    /// Only the half with the condition: `g·∇v(x, t, c)`. The published code at commits 2d76907 to
    /// ac4c86e detaches the other half.
    ///
    /// Deviation `guidance-gradient`.
    Conditional,
}

/// A field with classifier-free guidance.
#[derive(Clone, Debug)]
pub struct Guided<F, C> {
    /// The field to guide.
    pub field: F,
    /// The guidance.
    pub guidance: Guidance<C>,
}

impl<B: Backend, F: VelocityField<B>> VelocityField<B> for Guided<F, F::Condition> {
    type Condition = F::Condition;

    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[Self::Condition],
    ) -> Tensor<B, 4> {
        let query = self.guidance.doubled(Query { latent, time, conditions: conditions.to_vec() });
        self.guidance.combined(query.ask(&self.field), GuidanceGradient::Both)
    }

    fn prepare(&mut self, conditions: &[Self::Condition], latent: [usize; 3]) {
        self.field.prepare(&self.guidance.and_unconditional(conditions), latent);
    }

    fn prepare_like(&mut self, other: &Self) {
        self.field.prepare_like(&other.field);
    }
}
