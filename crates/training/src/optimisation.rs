//! The optimisation of some parameters: an update of the weights by a gradient, then of their
//! average, and the state that a checkpoint saves.
//!
//! The loops of pre-training, reinforcement learning and classifiers compute a gradient and call
//! [`Optimisation::take`]; the weights then go back into the network by
//! [`Parameters::put_into`].

use burn::prelude::*;
use thiserror::Error;

use crate::{
    ema::EmaConfig,
    loss_scale::LossScale,
    optimizer::{Optimizer, OptimizerState, Stepped},
    parameters::Parameters,
};

/// The weights under optimisation, with optimiser, average and loss scale.
#[derive(Clone, Debug)]
pub struct Optimisation<B: Backend> {
    weights: Parameters<B>,
    average: Parameters<B>,
    old: Option<Parameters<B>>,
    optimizer: Optimizer<B>,
    ema: EmaConfig,
    loss_scale: Option<LossScale>,
}

/// The state of an optimisation that a checkpoint saves.
#[derive(Clone, Debug)]
pub struct OptimisationState<B: Backend> {
    /// The weights.
    pub weights: Parameters<B>,
    /// The moving average of the weights.
    pub average: Parameters<B>,
    /// The second, slower copy of the weights, if one is kept: see [`Optimisation::keeping_old`].
    pub old: Option<Parameters<B>>,
    /// The optimiser's moments and number of updates.
    pub optimizer: OptimizerState<B>,
    /// The loss scale, if layers compute in f16.
    pub loss_scale: Option<LossScale>,
}

/// The numbers of an update that was taken, or skipped because its gradient overflowed under a loss
/// scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// The loss.
    pub loss: f64,
    /// Whether the weights were changed; not if the gradient of a scaled loss is not finite.
    pub taken: bool,
    /// The global norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// The root mean square of the clipped gradient: see [`Stepped::gradient_rms`].
    pub gradient_rms: f64,
    /// The loss scale under which the gradient was computed.
    pub loss_scale: Option<f64>,
}

/// The loss or the gradient is not finite, and no lower loss scale can help.
#[derive(Clone, Copy, Debug, PartialEq, Error)]
#[error("the loss is {loss} and the gradient norm {gradient_norm}; the weights were not changed")]
pub struct NotFinite {
    /// The loss.
    pub loss: f64,
    /// The gradient norm.
    pub gradient_norm: f64,
}

impl<B: Backend> Optimisation<B> {
    /// Starts from `weights`, which are also the first average.
    pub fn new(weights: Parameters<B>, optimizer: Optimizer<B>, ema: EmaConfig) -> Self {
        let average = weights.clone();
        Self { weights, average, old: None, optimizer, ema, loss_scale: None }
    }

    /// Scales the loss, for layers that compute in f16: gradients below the range of f16 are not
    /// lost, and an update whose gradient overflows is skipped.
    #[must_use]
    pub fn scaling_loss(self, scale: LossScale) -> Self {
        Self { loss_scale: Some(scale), ..self }
    }

    /// Keeps a second copy of the weights, which starts as the weights and moves only by
    /// [`Self::move_old`]: the old policy of an algorithm that samples with one.
    #[must_use]
    pub fn keeping_old(self) -> Self {
        Self { old: Some(self.weights.clone()), ..self }
    }

    /// Takes a step by the gradient of a loss and moves the average.
    ///
    /// `rate` is the learning rate of this update relative to its peak. If the gradient of a scaled
    /// loss is not finite, the weights stay and the scale is halved.
    ///
    /// # Errors
    /// If the loss is not finite, or the gradient is not and the loss scale cannot be halved. The
    /// optimisation is then unchanged.
    pub fn take(
        &mut self,
        loss: f64,
        gradient: &Parameters<B>,
        rate: f64,
    ) -> Result<Update, NotFinite> {
        if !loss.is_finite() {
            return Err(NotFinite { loss, gradient_norm: gradient.norm() });
        }
        let Stepped { parameters, gradient_norm, gradient_rms } =
            self.optimizer.update(&self.weights, gradient, rate);
        let taken = gradient_norm.is_finite();
        let scale = self.loss_scale;
        let next_scale = scale.and_then(|scale| scale.after(taken));
        if !taken && next_scale.is_none() {
            return Err(NotFinite { loss, gradient_norm });
        }
        self.loss_scale = next_scale;
        if taken {
            self.weights = parameters;
            self.average = self.ema.follow(self.average.clone(), &self.weights, self.updates());
        }
        let loss_scale = scale.map(|scale| scale.factor);
        Ok(Update { loss, taken, gradient_norm, gradient_rms, loss_scale })
    }

    /// Moves the second copy of the weights towards the weights, if one is kept.
    ///
    /// ```text
    /// old ← d·old + (1 − d)·weights
    /// ```
    pub fn move_old(&mut self, decay: f64) {
        if let Some(old) = self.old.take() {
            self.old = Some(old.zip(&self.weights, |old, new| old * decay + new * (1.0 - decay)));
        }
    }

    /// The weights.
    pub fn weights(&self) -> &Parameters<B> {
        &self.weights
    }

    /// The moving average of the weights.
    pub fn average(&self) -> &Parameters<B> {
        &self.average
    }

    /// The second copy of the weights, if one is kept.
    pub fn old(&self) -> Option<&Parameters<B>> {
        self.old.as_ref()
    }

    /// Number of updates taken, without those that were skipped.
    pub fn updates(&self) -> usize {
        self.optimizer.state().updates
    }

    /// The factor of the loss before the backward pass; 1 without loss scaling.
    pub fn loss_factor(&self) -> f64 {
        self.loss_scale.map_or(1.0, |scale| scale.factor)
    }

    /// The loss scale, if the loss is scaled.
    pub fn loss_scale(&self) -> Option<LossScale> {
        self.loss_scale
    }

    /// The state to save.
    pub fn state(&self) -> OptimisationState<B> {
        OptimisationState {
            weights: self.weights.clone(),
            average: self.average.clone(),
            old: self.old.clone(),
            optimizer: self.optimizer.state().clone(),
            loss_scale: self.loss_scale,
        }
    }

    /// Restores a saved state.
    pub fn restore(&mut self, state: OptimisationState<B>) {
        let OptimisationState { weights, average, old, optimizer, loss_scale } = state;
        self.optimizer.restore(optimizer);
        (self.weights, self.average, self.old) = (weights, average, old);
        self.loss_scale = loss_scale;
    }
}
