//! Yes-or-no facts about a scene: the labels of a classifier, and the score that its answers give
//! for a prompt.
//!
//! The classifier is a reward that can be hacked: it was trained on clean scenes only. It stands in
//! for the verifier.

use super::{Color, Entry, Metadata, Relation, Scene, Shape};

/// Number of counts that are told apart: none, one, …, and `COUNTS − 1` or more.
const COUNTS: usize = 6;

/// Number of facts: the counts and colours of every shape, and the relations of every pair of
/// shapes.
pub const FACTS: usize =
    Shape::ALL.len() * (COUNTS + Color::ALL.len() + Shape::ALL.len() * Relation::ALL.len());

/// Index of the fact that a shape occurs exactly `count` times.
fn counted(shape: Shape, count: usize) -> usize {
    shape as usize * COUNTS + count.min(COUNTS - 1)
}

/// Index of the fact that an object of a shape has a colour.
fn colored(shape: Shape, color: Color) -> usize {
    Shape::ALL.len() * COUNTS + shape as usize * Color::ALL.len() + color as usize
}

/// Index of the fact that the only object of a shape has a relation to the only object of another
/// shape.
fn placed(shape: Shape, relation: Relation, from: Shape) -> usize {
    let pair = shape as usize * Shape::ALL.len() + from as usize;
    Shape::ALL.len() * (COUNTS + Color::ALL.len()) + pair * Relation::ALL.len() + relation as usize
}

/// Labels of a scene: whether each fact holds, `None` where the scene does not say.
///
/// Colours are labelled for shapes that occur, relations for pairs of shapes that occur once each.
pub fn facts(scene: &Scene) -> Vec<Option<bool>> {
    let mut facts = vec![None; FACTS];
    let of = |shape: Shape| scene.objects.iter().filter(move |object| object.shape == shape);
    for shape in Shape::ALL {
        let there = of(shape).count();
        (0..COUNTS).for_each(|count| {
            facts[counted(shape, count)] = Some(counted(shape, count) == counted(shape, there));
        });
        if there > 0 {
            for color in Color::ALL {
                facts[colored(shape, color)] = Some(of(shape).any(|object| object.color == color));
            }
        }
        for other in Shape::ALL
            .into_iter()
            .filter(|other| *other != shape && there == 1 && of(*other).count() == 1)
        {
            let centers = of(shape).zip(of(other)).map(|(a, b)| (a.center, b.center)).next();
            for relation in Relation::ALL {
                facts[placed(shape, relation, other)] =
                    centers.map(|(a, b)| relation.distance(a, b) > 0.1);
            }
        }
    }
    facts
}

/// A part of a prompt as a question to the classifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The index of the fact.
    pub fact: usize,
    /// The fact in words: `2 circles`, `a red circle`, `a circle left of a square`.
    pub text: String,
}

/// The facts that a prompt asks for, entry by entry: the number, the colour and the place, as far
/// as the entry has them.
///
/// # Panics
/// If an entry refers to another one that does not exist.
pub fn asked(metadata: &Metadata) -> Vec<Vec<Asked>> {
    let of_entry = |entry: &Entry| {
        let word = entry.class.word();
        let noun = if entry.count == 1 { word } else { entry.class.plural() };
        let count = Asked {
            fact: counted(entry.class, entry.count),
            text: format!("{} {noun}", entry.count),
        };
        let color = entry.color.map(|color| Asked {
            fact: colored(entry.class, color),
            text: format!("a {} {word}", color.word()),
        });
        let place = entry.position.map(|(relation, other)| {
            let other = metadata.include[other].class;
            Asked {
                fact: placed(entry.class, relation, other),
                text: format!("a {word} {} a {}", relation.words(), other.word()),
            }
        });
        std::iter::once(count).chain(color).chain(place).collect()
    };
    metadata.include.iter().map(of_entry).collect()
}

/// Score of an image by the classifier's probabilities, in `[0, 1]`: the mean over entries of the
/// mean over their parts, as in [`super::verify`], with the probability of each fact in place of
/// its truth.
///
/// # Panics
/// If there is not one probability for every fact.
// ANCHOR: belief
pub fn belief(probabilities: &[f32], metadata: &Metadata) -> f32 {
    assert_eq!(probabilities.len(), FACTS, "one probability for every fact");
    let of_entry = |parts: Vec<Asked>| {
        parts.iter().map(|asked| probabilities[asked.fact]).sum::<f32>() / parts.len() as f32
    };
    asked(metadata).into_iter().map(of_entry).sum::<f32>() / metadata.include.len().max(1) as f32
}
// ANCHOR_END: belief

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::shapes::{Split, prompts};

    #[test]
    fn every_fact_has_a_place_of_its_own() {
        let mut places = BTreeSet::new();
        for shape in Shape::ALL {
            places.extend((0..COUNTS).map(|count| counted(shape, count)));
            places.extend(Color::ALL.map(|color| colored(shape, color)));
            places.extend(
                Shape::ALL
                    .into_iter()
                    .flat_map(|from| Relation::ALL.map(|relation| placed(shape, relation, from))),
            );
        }
        assert_eq!(places, (0..FACTS).collect());
    }

    #[test]
    fn a_scene_is_believed_to_show_what_it_was_made_for_and_nothing_similar() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for split in [Split::Train, Split::Validation, Split::Test, Split::Unseen] {
            for metadata in
                prompts(split).prompts.into_iter().filter_map(|prompt| Metadata::of(&prompt))
            {
                let scene = Scene::sample(&metadata, 24, &mut rng);
                let sure: Vec<f32> = facts(&scene)
                    .iter()
                    .map(|fact| if *fact == Some(true) { 1.0 } else { 0.0 })
                    .collect();
                assert_eq!(belief(&sure, &metadata), 1.0, "{}", metadata.prompt);
                let other = metadata.similar(&mut rng);
                assert!(belief(&sure, &other) < 1.0, "{} is not {other:?}", metadata.prompt);
            }
        }
    }
}
