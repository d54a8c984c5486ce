//! Chapter 10, *Reading a run*: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

use crate::epochs::{Ailment, Epoch};

// ANCHOR: diagnose
/// **10.1** What ails this run? Read the numbers of its epochs, and name its ailment. No run has two.
///
/// In the book: *Reading the metrics*; [`Epoch`] and [`Ailment`] say what the names mean. What a healthy
/// run looks like: the on-policy deviation is rounding, the ratio spreads by less than a few clip
/// ranges, gold follows the reward, fewer than half of the groups have no spread, and diversity falls by
/// less than a half. The numbers are noisy. Hint: which number tells each ailment from all others?
pub fn diagnose(run: &[Epoch]) -> Ailment {
    todo!("10.1: the ailment of a run")
}
// ANCHOR_END: diagnose
