//! The reward's rule: how much of the prompt does an image show?

use serde::{Deserialize, Serialize};

use super::{
    Detection, Entry, Metadata, ScoreError,
    detections::{Found, Object, all_placed, in_color},
};

/// The terms that an object in the wrong place adds to the partial score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailedPosition {
    /// A 0.
    #[default]
    Zero,
    /// A 0 and a 1, as in the public reward servers: a wrong place still earns half.
    ZeroAndOne,
}

/// The verdict of the reward's rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Partial {
    /// Whether every class has exactly its count, and every colour and position is right.
    pub strict: bool,
    /// The mean of the terms, at most 1; negative if there are far too many objects.
    pub score: f64,
}

/// Scores the detections of an image by the rule that Flow-GRPO trains on.
///
/// The score is the mean of the terms of all entries, 0 without entries. With `n` objects of the
/// entry's class, of which `c` have its colour, the terms of an entry are
///
/// ```text
/// 1 − |count − n| / count     always
/// 0                           if n ≠ count and the entry has a colour or a position; the last term
/// 1 − |count − c| / count     if it has a colour; the last term if c ≠ count
/// 1 or 0                      if it has a position: whether all objects have it relative to all
///                             objects of its target; 0 if the target's own entry failed
/// ```
///
/// Unlike in [`super::official`], surplus objects are a fault, and `exclude` is ignored.
///
/// Source: yifan123/reward-server, `reward_server/gen_eval.py`. Deviation `position-pays-nothing`:
/// there, a wrong place adds the terms of [`FailedPosition::ZeroAndOne`].
///
/// # Errors
/// As [`super::score`].
pub fn reward(
    metadata: &Metadata,
    detections: &[Detection],
    failed_position: FailedPosition,
) -> Result<Partial, ScoreError> {
    let found = Found::new(metadata, detections)?;
    let mut terms = Vec::new();
    let mut groups = Vec::with_capacity(metadata.include.len());
    for entry in &metadata.include {
        let objects = found.of(entry.class);
        let right = judge(entry, objects, &groups, failed_position, &mut terms)?;
        groups.push(right.then_some(objects));
    }
    let score = terms.iter().sum::<f64>() / terms.len().max(1) as f64;
    Ok(Partial { strict: groups.iter().all(Option::is_some), score })
}

/// Whether an entry is matched; adds its terms. `groups` are the objects of earlier entries that
/// are matched.
fn judge(
    entry: &Entry,
    objects: &[Object],
    groups: &[Option<&[Object]>],
    failed_position: FailedPosition,
    terms: &mut Vec<f64>,
) -> Result<bool, ScoreError> {
    let count = entry.count.get();
    let share = |n: usize| 1.0 - count.abs_diff(n) as f64 / count as f64;
    terms.push(share(objects.len()));
    if objects.len() != count {
        if entry.color.is_some() || entry.position.is_some() {
            terms.push(0.0);
        }
        return Ok(false);
    }
    if let Some(color) = entry.color {
        let right = in_color(objects, color)?;
        terms.push(share(right));
        if right != count {
            return Ok(false);
        }
    }
    let Some((relation, target)) = entry.position else { return Ok(true) };
    let Some(targets) = groups.get(target).copied().flatten() else {
        terms.push(0.0);
        return Ok(false);
    };
    let placed = all_placed(objects, relation, targets);
    terms.push(if placed { 1.0 } else { 0.0 });
    if !placed && failed_position == FailedPosition::ZeroAndOne {
        terms.push(1.0);
    }
    Ok(placed)
}
