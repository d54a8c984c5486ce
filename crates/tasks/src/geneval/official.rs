//! The official rule: is an image right?

use super::{
    Detection, Entry, Metadata, ScoreError,
    detections::{Found, Object, all_placed, in_color},
};

/// Judges the detections of an image by the official rule.
///
/// An image is right if every entry is matched and nothing is there that must not be. An entry
/// looks at the `count` most confident objects of its class. It is matched if there are `count`,
/// all of them have its colour, and every one of them has its position relative to every object
/// that matched the entry it refers to. More objects than `count` are no fault, unless the metadata
/// exclude them.
///
/// Source: djghosh13/geneval, `evaluation/evaluate_images.py`.
///
/// # Errors
/// As [`super::score`].
pub fn official(metadata: &Metadata, detections: &[Detection]) -> Result<bool, ScoreError> {
    let found = Found::new(metadata, detections)?;
    let mut groups = Vec::with_capacity(metadata.include.len());
    for entry in &metadata.include {
        groups.push(matched(entry, &found, &groups)?);
    }
    let excluded = metadata.exclude.iter().any(|no| found.of(no.class).len() >= no.count.get());
    Ok(!excluded && groups.iter().all(Option::is_some))
}

/// The objects that match an entry; `None` if they do not. `groups` are those of earlier entries.
fn matched<'a>(
    entry: &Entry,
    found: &'a Found,
    groups: &[Option<&'a [Object<'a>]>],
) -> Result<Option<&'a [Object<'a>]>, ScoreError> {
    let Some(objects) = found.of(entry.class).get(..entry.count.get()) else { return Ok(None) };
    if let Some(color) = entry.color
        && in_color(objects, color)? < objects.len()
    {
        return Ok(None);
    }
    let placed = entry.position.is_none_or(|(relation, target)| {
        let targets = groups.get(target).copied().flatten();
        targets.is_some_and(|targets| all_placed(objects, relation, targets))
    });
    Ok(placed.then_some(objects))
}
