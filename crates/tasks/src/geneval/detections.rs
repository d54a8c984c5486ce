//! Detections, and those of them that count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Class, Color, Mask, Metadata, ScoreError, position};
use crate::shapes::{Relation, Tag};

/// A detection counts if its score is greater, unless the prompt's kind is `counting`.
pub const THRESHOLD: f32 = 0.3;
/// A detection for a prompt of kind `counting` counts if its score is greater.
pub const COUNTING_THRESHOLD: f32 = 0.9;
/// Largest number of objects of a class that count.
pub const MOST_OBJECTS: usize = 16;

/// An object that a detector found in an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Detection {
    /// The class.
    pub class: Class,
    /// `[x0, y0, x1, y1]` in pixels; x grows to the right, y downwards.
    #[serde(rename = "box")]
    pub corners: [f32; 4],
    /// The detector's confidence, in `[0, 1]`.
    pub score: f32,
    /// The colour, for the prompts that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<Color>,
    /// The object's pixels, for the classifier of colours alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
}

impl Detection {
    /// Checks that the box is a box and the score a probability.
    fn check(&self, index: usize) -> Result<(), ScoreError> {
        let (class, score, corners) = (self.class, self.score, self.corners);
        let [x0, y0, x1, y1] = corners;
        if !(0.0..=1.0).contains(&score) {
            return Err(ScoreError::Score { index, class, score });
        }
        if !(corners.iter().all(|corner| corner.is_finite()) && x0 <= x1 && y0 <= y1) {
            return Err(ScoreError::Box { index, class, corners });
        }
        Ok(())
    }
}

/// A detection that counts.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    index: usize,
    detection: &'a Detection,
}

/// The detections that count, by class, the most confident first.
pub(super) struct Found<'a>(BTreeMap<Class, Vec<Object<'a>>>);

impl<'a> Found<'a> {
    /// Keeps, of every class, the [`MOST_OBJECTS`] most confident detections above the threshold.
    ///
    /// Overlapping detections all count: the official overlap threshold of 1 switches suppression
    /// off. Of equal scores the later one comes first, as in the published script, which reverses a
    /// sort that is stable for up to 16 detections.
    ///
    /// # Errors
    /// If the metadata contradicts itself, or a detection is no detection.
    pub(super) fn new(
        metadata: &Metadata,
        detections: &'a [Detection],
    ) -> Result<Self, ScoreError> {
        metadata.check()?;
        let threshold = match metadata.tag {
            Tag::Counting => COUNTING_THRESHOLD,
            _ => THRESHOLD,
        };
        let mut found: BTreeMap<Class, Vec<Object>> = BTreeMap::new();
        for (index, detection) in detections.iter().enumerate() {
            detection.check(index)?;
            if detection.score > threshold {
                found.entry(detection.class).or_default().push(Object { index, detection });
            }
        }
        for objects in found.values_mut() {
            objects.sort_by(|a, b| a.detection.score.total_cmp(&b.detection.score));
            objects.reverse();
            objects.truncate(MOST_OBJECTS);
        }
        Ok(Self(found))
    }

    /// The objects of a class.
    pub(super) fn of(&self, class: Class) -> &[Object<'a>] {
        self.0.get(&class).map_or(&[], Vec::as_slice)
    }
}

/// Number of objects of this colour.
///
/// # Errors
/// The first object without a colour.
pub(super) fn in_color(objects: &[Object], color: Color) -> Result<usize, ScoreError> {
    let mut count = 0;
    for Object { index, detection } in objects {
        let Some(found) = detection.color else {
            return Err(ScoreError::NoColor { index: *index, class: detection.class });
        };
        count += usize::from(found == color);
    }
    Ok(count)
}

/// Whether the relation holds for every pair of an object and a target.
pub(super) fn all_placed(objects: &[Object], relation: Relation, targets: &[Object]) -> bool {
    let pair = |object: &Object, target: &Object| {
        position::holds(relation, object.detection.corners, target.detection.corners)
    };
    objects.iter().all(|object| targets.iter().all(|target| pair(object, target)))
}
