//! Scenes: the content of an image, before it is drawn.

use rand::{Rng, seq::IndexedRandom};

use super::{Color, Metadata, Relation, Shape};

/// One object of a scene.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// Shape of the object.
    pub shape: Shape,
    /// Colour of the object.
    pub color: Color,
    /// Centre (x, y), in shares of the image's side, from the top left.
    pub center: (f32, f32),
    /// Side of the bounding square, in shares of the image's side.
    pub size: f32,
}

/// Objects on a grey background.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// The grey of the background, in `[0, 1]`.
    pub background: f32,
    /// The objects, none touching another.
    pub objects: Vec<Object>,
}

/// Sizes of objects, in shares of the side; crowded scenes get the smaller ones.
const SIZES: (f32, f32) = (7.5 / 24.0, 10.0 / 24.0);
const CROWDED_SIZES: (f32, f32) = (7.0 / 24.0, 8.5 / 24.0);
/// Number of objects from which on a scene counts as crowded.
const CROWDED: usize = 3;
/// The smallest gap between two bounding squares.
const GAP: f32 = 2.0 / 24.0;
/// The smallest gap between an object and the frame.
const MARGIN: f32 = 0.5 / 24.0;
/// Smallest distance along its axis of a relation in a drawn scene.
const RELATION_DISTANCE: f32 = 0.25;

/// Height and width of the smallest image whose objects can be told apart, in pixels.
pub const SMALLEST_IMAGE: usize = 16;

impl Scene {
    /// Draws a random scene with exactly the objects that the metadata asks for.
    ///
    /// Colours that are not asked for are uniformly distributed. Deterministic given the generator.
    /// `resolution` is in pixels and only guards against images too small to draw on.
    ///
    /// # Panics
    /// If `resolution` is below [`SMALLEST_IMAGE`], or more objects are asked for than fit.
    pub fn sample(metadata: &Metadata, resolution: usize, rng: &mut impl Rng) -> Self {
        assert!(
            resolution >= SMALLEST_IMAGE,
            "objects of an image below 16 pixels cannot be told apart"
        );
        let background = rng.random_range(0.05..0.30);
        for _ in 0..10_000 {
            if let Some(objects) = attempt(metadata, rng) {
                return Self { background, objects };
            }
        }
        panic!("no room for what \"{}\" asks for", metadata.prompt);
    }
}

/// Places one object after the other; returns `None` if an object finds no room.
fn attempt(metadata: &Metadata, rng: &mut impl Rng) -> Option<Vec<Object>> {
    let total: usize = metadata.include.iter().map(|entry| entry.count).sum();
    let sizes = if total >= CROWDED { CROWDED_SIZES } else { SIZES };
    let mut objects: Vec<Object> = Vec::with_capacity(total);
    let mut owners: Vec<usize> = Vec::with_capacity(total);
    for (index, entry) in metadata.include.iter().enumerate() {
        for _ in 0..entry.count {
            let color = entry.color.or_else(|| Color::ALL.choose(rng).copied())?;
            let fits = |object: &Object| {
                let anchors = objects.iter().zip(&owners);
                objects.iter().all(|other| apart(object, other))
                    && entry.position.is_none_or(|(relation, anchor)| {
                        anchors
                            .filter(|(_, owner)| **owner == anchor)
                            .all(|(other, _)| related(relation, object, other))
                    })
            };
            let object = (0..20).map(|_| place(entry.class, color, sizes, rng)).find(fits)?;
            objects.push(object);
            owners.push(index);
        }
    }
    Some(objects)
}

fn place(shape: Shape, color: Color, sizes: (f32, f32), rng: &mut impl Rng) -> Object {
    let size = rng.random_range(sizes.0..sizes.1);
    let reach = MARGIN + size / 2.0;
    let center = (rng.random_range(reach..1.0 - reach), rng.random_range(reach..1.0 - reach));
    Object { shape, color, center, size }
}

fn apart(a: &Object, b: &Object) -> bool {
    let reach = f32::midpoint(a.size, b.size) + GAP;
    (a.center.0 - b.center.0).abs() >= reach || (a.center.1 - b.center.1).abs() >= reach
}

/// Whether `object` lies clearly in the direction of `relation` from `anchor`, and farther in this
/// direction than sideways.
fn related(relation: Relation, object: &Object, anchor: &Object) -> bool {
    let along = relation.distance(object.center, anchor.center);
    let sideways = match relation {
        Relation::LeftOf | Relation::RightOf => object.center.1 - anchor.center.1,
        Relation::Above | Relation::Below => object.center.0 - anchor.center.0,
    };
    along >= RELATION_DISTANCE && along > sideways.abs()
}
