//! The exponential moving average of the trained weights; the averaged policy is evaluated and
//! saved.

use burn::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{parameters::Parameters, ranges::MOST};

/// Configuration of the moving average.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// The largest decay, in `[0, 1)`; with 0 the average equals the weights.
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub decay: f64,
    /// Optimiser updates per update of the average, at least 1.
    #[schemars(range(min = 1, max = MOST))]
    pub every: usize,
    /// Moves of the average per update of the average, at least 1 (deviation `ema-repeat`). The
    /// reference code moves the average once for each sampled batch while the number of updates
    /// qualifies: twice per update on 32 GPUs, four times on 4 GPUs or one.
    #[schemars(range(min = 1, max = MOST))]
    pub repeat: usize,
}

impl Default for EmaConfig {
    /// The values of the reference code on 4 GPUs or one.
    fn default() -> Self {
        Self { decay: 0.9, every: 8, repeat: 4 }
    }
}

impl EmaConfig {
    /// An average that always equals the weights.
    pub const OFF: Self = Self { decay: 0.0, every: 1, repeat: 1 };

    /// The share of the average that remains, after `updates` updates of the weights.
    ///
    /// ```text
    /// d = min((1 + n)/(10 + n), decay)^repeat        where n + 1 is a multiple of `every`, otherwise 1
    /// ```
    ///
    /// Source: the reference code's `EMAModuleWrapper`, where `n` is its `global_step`: the number
    /// of optimiser updates, not of moves of the average.
    pub fn decay_at(self, updates: usize) -> f64 {
        if !(updates + 1).is_multiple_of(self.every) {
            return 1.0;
        }
        let n = updates as f64;
        ((1.0 + n) / (10.0 + n)).min(self.decay).powf(self.repeat as f64)
    }

    /// Moves the average towards `weights`, the weights after `updates` updates.
    ///
    /// ```text
    /// average ← d·average + (1 − d)·weights
    /// ```
    #[must_use]
    pub fn follow<B: Backend>(
        self,
        average: Parameters<B>,
        weights: &Parameters<B>,
        updates: usize,
    ) -> Parameters<B> {
        // ANCHOR: follow
        let decay = self.decay_at(updates);
        if decay == 1.0 {
            return average;
        }
        average.zip(weights, |old, new| old * decay + new * (1.0 - decay))
        // ANCHOR_END: follow
    }
}
