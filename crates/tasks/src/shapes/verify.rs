//! The verifier: judges whether an image shows what its metadata asks for, strictly and in part.

use serde::{Deserialize, Serialize};

use super::{Detection, Detections, Entry, Metadata, detect};
use crate::{
    image::Image,
    prompts::Prompt,
    reward::{Reward, Unjudged},
};

/// The verdict on one image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The first fault; `None` if the image shows exactly the objects that were asked for.
    pub fault: Option<Fault>,
    /// Partial score in `[0, 1]`: the share of the request that the image fulfils.
    pub partial: f32,
}

impl Verdict {
    /// Whether the image shows exactly the objects that were asked for.
    pub fn strict(&self) -> bool {
        self.fault.is_none()
    }
}

/// The first fault of an image; later faults in this list may apply as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Something in the image is not a clean shape of a known colour.
    Unclear,
    /// More or fewer objects than asked for.
    Number,
    /// The wrong shapes, or the wrong number of one of them.
    Shapes,
    /// The wrong colours, or the right colours on the wrong objects.
    Colors,
    /// A relation that does not hold.
    Places,
}

impl Fault {
    /// All faults, in the order in which they are checked.
    pub const ALL: [Self; 5] =
        [Self::Unclear, Self::Number, Self::Shapes, Self::Colors, Self::Places];

    /// Name of the fault in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unclear => "unclear",
            Self::Number => "number",
            Self::Shapes => "shapes",
            Self::Colors => "colors",
            Self::Places => "places",
        }
    }
}

/// Smallest distance along its axis at which a relation holds, in shares of the image's side.
const RELATION_DISTANCE: f32 = 0.1;

/// Judges an image by its pixels.
///
/// - Strict: every class in exactly the number asked for, every colour and every relation right, no
///   other object, nothing unrecognised.
/// - Partial: the mean over entries of the mean over each entry's parts: the number,
///   `max(0, 1 − |found − asked|/asked)`; the colour, the share of the asked objects that have it;
///   the relation, 1 or 0.
///
/// Source: the reward of GenEval in the reference code. Deviation `position-pays-nothing`: there,
/// an object in the wrong place still earns half; here a part that fails earns nothing.
pub fn verify(image: &Image, metadata: &Metadata) -> Verdict {
    let found = detect(image);
    let entries = metadata.include.iter();
    let partial = entries.map(|entry| partial(&found.objects, entry, metadata)).sum::<f32>()
        / metadata.include.len().max(1) as f32;
    Verdict { fault: fault(&found, metadata), partial }
}

fn fault(found: &Detections, metadata: &Metadata) -> Option<Fault> {
    let objects = &found.objects;
    let asked: usize = metadata.include.iter().map(|entry| entry.count).sum();
    let all = |right: &dyn Fn(&Entry) -> bool| metadata.include.iter().all(right);
    let in_number = |entry: &Entry| {
        let same = metadata.include.iter().filter(|other| other.class == entry.class);
        count(objects, |object| object.shape == entry.class)
            == same.map(|other| other.count).sum::<usize>()
    };
    let in_color = |entry: &Entry| {
        entry.color.is_none() || count(objects, |object| matches(object, entry)) == entry.count
    };
    let excluded = metadata
        .exclude
        .iter()
        .any(|no| count(objects, |object| object.shape == no.class) >= no.count);
    if found.unrecognised > 0 {
        Some(Fault::Unclear)
    } else if objects.len() != asked {
        Some(Fault::Number)
    } else if excluded || !all(&in_number) {
        Some(Fault::Shapes)
    } else if !all(&in_color) {
        Some(Fault::Colors)
    } else if !all(&|entry| placed(objects, entry, metadata) != Some(false)) {
        Some(Fault::Places)
    } else {
        None
    }
}

// ANCHOR: partial
fn partial(objects: &[Detection], entry: &Entry, metadata: &Metadata) -> f32 {
    let asked = entry.count.max(1) as f32;
    let of_class = count(objects, |object| object.shape == entry.class) as f32;
    let number = (1.0 - (of_class - entry.count as f32).abs() / asked).max(0.0);
    let color = entry
        .color
        .map(|_| (count(objects, |object| matches(object, entry)) as f32 / asked).min(1.0));
    let place = placed(objects, entry, metadata).map(|right| if right { 1.0 } else { 0.0 });
    let parts: Vec<f32> = std::iter::once(number).chain(color).chain(place).collect();
    parts.iter().sum::<f32>() / parts.len() as f32
}
// ANCHOR_END: partial

/// Whether some object of the entry has the relation to some object of the entry it refers to;
/// `None` if no relation was asked for.
fn placed(objects: &[Detection], entry: &Entry, metadata: &Metadata) -> Option<bool> {
    let (relation, anchor) = entry.position?;
    let anchor = metadata.include.get(anchor);
    let of =
        |entry: &Entry| objects.iter().filter(|object| matches(object, entry)).collect::<Vec<_>>();
    let anchors = anchor.map(of).unwrap_or_default();
    let right = |object: &&Detection| {
        anchors
            .iter()
            .any(|anchor| relation.distance(object.center, anchor.center) >= RELATION_DISTANCE)
    };
    Some(of(entry).iter().any(right))
}

fn matches(object: &Detection, entry: &Entry) -> bool {
    object.shape == entry.class && entry.color.is_none_or(|color| color == object.color)
}

fn count(objects: &[Detection], which: impl Fn(&Detection) -> bool) -> usize {
    objects.iter().filter(|object| which(object)).count()
}

/// The partial score as a reward, in `[0, 1]`.
#[derive(Clone, Copy, Debug)]
pub struct ShapesPartial;

/// The strict score as a reward, 0 or 1.
#[derive(Clone, Copy, Debug)]
pub struct ShapesStrict;

impl Reward for ShapesPartial {
    fn check(&self, prompt: &Prompt) -> Result<(), String> {
        Metadata::required(prompt).map(drop)
    }

    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        verdicts(images, prompts, |verdict| verdict.partial)
    }
}

impl Reward for ShapesStrict {
    fn check(&self, prompt: &Prompt) -> Result<(), String> {
        Metadata::required(prompt).map(drop)
    }

    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        verdicts(images, prompts, |verdict| if verdict.strict() { 1.0 } else { 0.0 })
    }
}

fn verdicts(
    images: &[Image],
    prompts: &[&Prompt],
    score: impl Fn(Verdict) -> f32,
) -> Result<Vec<f32>, Unjudged> {
    let judge = |(index, (image, prompt)): (usize, (&Image, &&Prompt))| {
        let metadata =
            Metadata::required(prompt).map_err(|reason| Unjudged::image(index, reason))?;
        Ok(score(verify(image, &metadata)))
    };
    images.iter().zip(prompts).enumerate().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes::{Color, Object, Relation, Scene, Shape, Tag, render};

    fn drawn(objects: &[(Shape, Color, f32, f32)]) -> Image {
        let object = |&(shape, color, x, y): &(Shape, Color, f32, f32)| Object {
            shape,
            color,
            center: (x, y),
            size: 0.35,
        };
        render(&Scene { background: 0.1, objects: objects.iter().map(object).collect() }, 24)
    }

    fn entry(class: Shape) -> Entry {
        Entry { class, count: 1, color: None, position: None }
    }

    fn asked(tag: Tag, include: Vec<Entry>) -> Metadata {
        Metadata { tag, include, exclude: Vec::new(), prompt: "a test".to_owned() }
    }

    const CIRCLE_LEFT: (Shape, Color, f32, f32) = (Shape::Circle, Color::Red, 0.25, 0.5);
    const SQUARE_RIGHT: (Shape, Color, f32, f32) = (Shape::Square, Color::Blue, 0.75, 0.5);

    #[test]
    fn a_wrong_place_earns_nothing_for_its_part() {
        let right = Entry { position: Some((Relation::LeftOf, 0)), ..entry(Shape::Circle) };
        let wrong = Entry { position: Some((Relation::RightOf, 0)), ..entry(Shape::Circle) };
        let image = drawn(&[CIRCLE_LEFT, SQUARE_RIGHT]);
        let verdict = |placed: Entry| {
            verify(&image, &asked(Tag::Position, vec![entry(Shape::Square), placed]))
        };
        assert_eq!(verdict(right), Verdict { fault: None, partial: 1.0 });
        // The square earns all, the circle its number but not its place: (1 + ½)/2.
        assert_eq!(verdict(wrong), Verdict { fault: Some(Fault::Places), partial: 0.75 });
    }

    #[test]
    fn a_wrong_number_earns_its_share() {
        let three = asked(Tag::Counting, vec![Entry { count: 3, ..entry(Shape::Circle) }]);
        let two = drawn(&[CIRCLE_LEFT, (Shape::Circle, Color::Green, 0.75, 0.5)]);
        let verdict = verify(&two, &three);
        assert!(
            verdict.fault == Some(Fault::Number) && (verdict.partial - 2.0 / 3.0).abs() < 1e-6,
            "{verdict:?}"
        );
        assert_eq!(
            verify(&drawn(&[]), &three),
            Verdict { fault: Some(Fault::Number), partial: 0.0 }
        );
    }

    #[test]
    fn a_wrong_color_earns_half_of_its_entry() {
        let red =
            asked(Tag::Colors, vec![Entry { color: Some(Color::Red), ..entry(Shape::Square) }]);
        assert_eq!(
            verify(&drawn(&[SQUARE_RIGHT]), &red),
            Verdict { fault: Some(Fault::Colors), partial: 0.5 }
        );
    }

    #[test]
    fn exchanged_colors_are_not_strictly_right() {
        let colored = |class, color| Entry { color: Some(color), ..entry(class) };
        let exchanged =
            vec![colored(Shape::Circle, Color::Blue), colored(Shape::Square, Color::Red)];
        let verdict =
            verify(&drawn(&[CIRCLE_LEFT, SQUARE_RIGHT]), &asked(Tag::ColorAttr, exchanged));
        assert_eq!(verdict, Verdict { fault: Some(Fault::Colors), partial: 0.5 });
    }

    /// What a policy may still do to the images: no prompt asks for a bright ground, and single
    /// specks, or a step that is fainter than a person would notice, are nobody's object.
    #[test]
    fn the_verifier_does_not_see_what_no_prompt_asks_for() {
        let circle = asked(Tag::SingleObject, vec![entry(Shape::Circle)]);
        let mut image = drawn(&[CIRCLE_LEFT]);
        let plane = image.height * image.width;
        let right_half = |pixel: &usize| pixel % image.width >= image.width / 2;
        for pixel in (0..plane).filter(right_half) {
            for channel in 0..3 {
                image.pixels[channel * plane + pixel] = 0.06;
            }
        }
        image.pixels[20] = 1.0; // red, in the first row
        assert!(verify(&image, &circle).strict());
        image.pixels[9 * image.width + 20] = 1.0;
        assert_eq!(verify(&image, &circle).fault, Some(Fault::Unclear), "two specks are a blob");
    }

    #[test]
    fn a_further_object_is_not_strictly_right() {
        let circle = asked(Tag::SingleObject, vec![entry(Shape::Circle)]);
        assert!(verify(&drawn(&[CIRCLE_LEFT]), &circle).strict());
        assert_eq!(
            verify(&drawn(&[CIRCLE_LEFT, SQUARE_RIGHT]), &circle),
            Verdict { fault: Some(Fault::Number), partial: 1.0 }
        );
    }
}
