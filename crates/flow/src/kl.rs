//! The Kullback-Leibler divergence between the policies of two velocities, in the forms of the
//! papers and codes.

use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{gaussian::row_mean, time_grid::Step, transition::Transition};

/// The form of a KL divergence; see [`Transition::kl`]. The forms differ in scale, so a weight `β`
/// belongs to one form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KlForm {
    /// The paper's form: the divergence of the whole latent.
    Paper,
    /// The paper's form as a mean over elements: the published code until 2025-07-15, which trained
    /// the checkpoints published in May 2025 (`β` = 0.004 for GenEval and text rendering, 0.001 for
    /// `PickScore`).
    PaperMean,
    /// A mean over elements without the step's duration in the denominator: the published code
    /// since 2025-07-15 (`β` = 0.04, 0.04, 0.01).
    #[default]
    Reference,
    /// The mean squared distance of the velocities, with the same factor for every step: the later
    /// advice of the published code's author (`yifan123/flow_grpo`, issue 198).
    Velocity,
}

impl Transition {
    /// The KL divergence between the policies of two velocities at the same latent, per row.
    ///
    /// ```text
    /// paper:       ‖μ − μ_ref‖² / (2·σ²·|Δt|)               std = σ·√|Δt|
    /// paper_mean:  mean((μ − μ_ref)²) / (2·σ²·|Δt|)         = paper / dim
    /// reference:   mean((μ − μ_ref)²) / (2·σ²)              = paper · |Δt| / dim
    /// velocity:    mean((v − v_ref)²)
    /// ```
    ///
    /// Both means are linear in their velocity, `μ − μ_ref = c·(v − v_ref)`, so every form is the
    /// last one times a number.
    ///
    /// Source: arXiv 2505.05470, section 4.1 (`paper`); the published code's `train_sd3.py` with
    /// `sd3_sde_with_logprob.py`, before and after commit 2d76907 (`paper_mean` and `reference`).
    /// Deviations `kl-without-dt`, `kl-mean` and `kl-velocity`.
    ///
    /// # Shapes
    /// - `velocity`, `reference`: `[B, C, H, W]`; the result: `[B]`
    ///
    /// # Panics
    /// If the step is deterministic: a point mass has no density.
    // ANCHOR: kl
    pub fn kl<B: Backend>(
        self,
        form: KlForm,
        step: Step,
        velocity: Tensor<B, 4>,
        reference: Tensor<B, 4>,
    ) -> Tensor<B, 1> {
        let affine = self.affine(step);
        assert!(affine.std > 0.0, "a deterministic step has no KL divergence");
        let elements = velocity.dims()[1..].iter().product::<usize>() as f64;
        let per_element = affine.velocity.powi(2) / (2.0 * affine.std.powi(2));
        let factor = match form {
            KlForm::Paper => per_element * elements,
            KlForm::PaperMean => per_element,
            KlForm::Reference => per_element * step.duration(),
            KlForm::Velocity => 1.0,
        };
        row_mean((velocity - reference).powi_scalar(2)) * factor
    }
    // ANCHOR_END: kl
}
