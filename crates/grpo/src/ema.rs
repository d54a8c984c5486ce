//! The exponential moving average of the trained weights, which is what is evaluated and saved.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    parameters::Parameters,
    ranges::{self, MOST},
};

/// How the average is kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmaConfig {
    /// The largest decay, in `[0, 1)`; 0 follows the weights exactly.
    pub decay: f64,
    /// Updates of the weights between two updates of the average, at least 1.
    pub every: usize,
}

impl EmaConfig {
    /// All that is out of range, one sentence each, beginning with the key.
    pub fn problems(&self) -> Vec<String> {
        [ranges::decay("decay", self.decay), ranges::count("every", self.every, MOST)].into_iter().flatten().collect()
    }

    /// The decay after `updates` updates of the average: `min((1 + n)/(10 + n), decay)`.
    ///
    /// Source: the reference code's `EMAModuleWrapper`.
    pub fn decay_at(self, updates: usize) -> f64 {
        let n = updates as f64;
        ((1.0 + n) / (10.0 + n)).min(self.decay)
    }
}

/// `average ← d·average + (1 − d)·weights`
pub fn average<B: Backend>(average: &Parameters<B>, weights: &Parameters<B>, decay: f64) -> Parameters<B> {
    average.zip(weights, |old, new| old * decay + new * (1.0 - decay))
}
