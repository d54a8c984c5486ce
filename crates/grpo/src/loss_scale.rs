//! Loss scaling: gradients that 16-bit floats would round to 0 are computed larger, and made small again in f32.

use serde::{Deserialize, Serialize};

/// What the loss is multiplied by before the backward pass, and the gradient divided by after it. It follows the gradients.
///
/// ```text
/// gradient not finite:  s ← s/2, and the update is skipped
/// finite:               s ← 2·s after 200 updates in a row
/// ```
///
/// A power of two, so that multiplying and dividing are exact. It starts at 2¹⁶.
///
/// Source: arXiv 1710.03740, section 3.2; `torch.amp.GradScaler`, which waits for 2,000 updates: an epoch has only two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// `s`, at least 1.
    pub factor: f64,
    /// Updates with a finite gradient since `s` changed.
    pub good: usize,
}

/// Good updates after which the scale doubles.
const GROW_AFTER: usize = 200;

impl Default for LossScale {
    fn default() -> Self {
        Self { factor: 65_536.0, good: 0 }
    }
}

impl LossScale {
    /// The scale after an update whose gradient was finite; none if it was not and there is nothing left to halve.
    #[must_use]
    pub fn after(self, finite: bool) -> Option<Self> {
        match (finite, self.good + 1) {
            (true, GROW_AFTER) => Some(Self { factor: self.factor * 2.0, good: 0 }),
            (true, good) => Some(Self { good, ..self }),
            (false, _) => (self.factor > 1.0).then_some(Self { factor: self.factor / 2.0, good: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_after_many_good_updates_and_halves_after_a_bad_one() {
        let start = LossScale::default();
        let grown = (0..GROW_AFTER).try_fold(start, |scale, _| scale.after(true)).expect("all good");
        assert_eq!(grown, LossScale { factor: 2.0 * start.factor, good: 0 });
        let almost = (1..GROW_AFTER).try_fold(start, |scale, _| scale.after(true)).expect("all good");
        let halved = almost.after(false).expect("there is room");
        assert_eq!(halved, LossScale { factor: start.factor / 2.0, good: 0 }, "the count begins again");
        assert_eq!(LossScale { factor: 1.0, good: 7 }.after(false), None);
    }
}
