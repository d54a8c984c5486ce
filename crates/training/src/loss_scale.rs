//! Loss scaling for 16-bit layers: the loss is scaled up so that small gradients do not round to 0,
//! and the gradient is unscaled in f32.

use serde::{Deserialize, Serialize};

/// A dynamic loss scale `s`, which the loss is multiplied by before the backward pass and the
/// gradient divided by after it.
///
/// ```text
/// gradient not finite:  s ← s/2, and the update is skipped
/// finite:               s ← 2·s after 200 updates in a row
/// ```
///
/// The scale is a power of two, so multiplying and dividing are exact. It starts at 2¹⁶.
///
/// Source: arXiv 1710.03740, section 3.2; `torch.amp.GradScaler`, which waits for 2,000 updates.
/// Here an epoch has only a few updates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// The scale `s`, at least 1.
    pub factor: f64,
    /// Updates in a row with a finite gradient since `s` changed.
    pub good: usize,
}

/// Number of good updates after which the scale doubles.
const GROW_AFTER: usize = 200;

impl Default for LossScale {
    fn default() -> Self {
        Self { factor: 65_536.0, good: 0 }
    }
}

impl LossScale {
    /// The scale after an update; `None` if the gradient was not finite and the scale cannot be
    /// halved any further.
    #[must_use]
    pub fn after(self, finite: bool) -> Option<Self> {
        match (finite, self.good + 1) {
            (true, GROW_AFTER) => Some(Self { factor: self.factor * 2.0, good: 0 }),
            (true, good) => Some(Self { good, ..self }),
            (false, _) => {
                (self.factor > 1.0).then_some(Self { factor: self.factor / 2.0, good: 0 })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_after_many_good_updates_and_halves_after_a_bad_one() {
        let start = LossScale::default();
        let grown =
            (0..GROW_AFTER).try_fold(start, |scale, _| scale.after(true)).expect("all good");
        assert_eq!(grown, LossScale { factor: 2.0 * start.factor, good: 0 });
        let almost =
            (1..GROW_AFTER).try_fold(start, |scale, _| scale.after(true)).expect("all good");
        let halved = almost.after(false).expect("there is room");
        assert_eq!(
            halved,
            LossScale { factor: start.factor / 2.0, good: 0 },
            "the count begins again"
        );
        assert_eq!(LossScale { factor: 1.0, good: 7 }.after(false), None);
    }
}
