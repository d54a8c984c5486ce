//! Metadata of prompts, in GenEval's format.

use rand::{Rng, seq::IndexedRandom};
use serde::{Deserialize, Serialize};

use super::{Color, Shape};
use crate::prompts::Prompt;

/// One line of a GenEval metadata file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// The kind of prompt.
    pub tag: Tag,
    /// Objects that the image must show.
    pub include: Vec<Entry>,
    /// Objects that the image must not show: `count` or more of a class.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Excluded>,
    /// The text of the prompt.
    pub prompt: String,
}

/// The six kinds of prompt of GenEval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tag {
    /// One object.
    SingleObject,
    /// Two different objects.
    TwoObject,
    /// Several objects of one class.
    Counting,
    /// One object of a colour.
    Colors,
    /// One object placed relative to another.
    Position,
    /// Two objects, each of its own colour.
    ColorAttr,
}

impl Tag {
    /// All kinds of prompt.
    pub const ALL: [Self; 6] = [
        Self::SingleObject,
        Self::TwoObject,
        Self::Counting,
        Self::Colors,
        Self::Position,
        Self::ColorAttr,
    ];

    /// The name in metadata files.
    pub fn name(self) -> &'static str {
        match self {
            Self::SingleObject => "single_object",
            Self::TwoObject => "two_object",
            Self::Counting => "counting",
            Self::Colors => "colors",
            Self::Position => "position",
            Self::ColorAttr => "color_attr",
        }
    }
}

/// Objects that an image must show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The shape.
    pub class: Shape,
    /// Number of objects.
    pub count: usize,
    /// Colour of the objects, if the prompt names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<Color>,
    /// Position relative to another entry of the list, given by its index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<(Relation, usize)>,
}

/// Objects that an image must not show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Excluded {
    /// The shape.
    pub class: Shape,
    /// Number of objects from which on there are too many.
    pub count: usize,
}

/// Position of one object relative to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Relation {
    /// Smaller x.
    #[serde(rename = "left of")]
    LeftOf,
    /// Larger x.
    #[serde(rename = "right of")]
    RightOf,
    /// Smaller y: rows count from the top.
    #[serde(rename = "above")]
    Above,
    /// Larger y.
    #[serde(rename = "below")]
    Below,
}

impl Relation {
    /// All relations.
    pub const ALL: [Self; 4] = [Self::LeftOf, Self::RightOf, Self::Above, Self::Below];

    /// The English words.
    pub fn words(self) -> &'static str {
        match self {
            Self::LeftOf => "left of",
            Self::RightOf => "right of",
            Self::Above => "above",
            Self::Below => "below",
        }
    }

    /// Distance of `from` in this direction as seen from `to`, both (x, y); negative on the other
    /// side.
    pub fn distance(self, from: (f32, f32), to: (f32, f32)) -> f32 {
        match self {
            Self::LeftOf => to.0 - from.0,
            Self::RightOf => from.0 - to.0,
            Self::Above => to.1 - from.1,
            Self::Below => from.1 - to.1,
        }
    }

    /// The relation as seen from the other object.
    pub(super) fn opposite(self) -> Self {
        match self {
            Self::LeftOf => Self::RightOf,
            Self::RightOf => Self::LeftOf,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }
}

impl Metadata {
    /// Reads the metadata of a prompt; `None` if the prompt does not describe a scene of this task.
    pub fn of(prompt: &Prompt) -> Option<Self> {
        Self::required(prompt).ok()
    }

    /// Reads the metadata of a prompt whose images a verifier judges.
    ///
    /// # Errors
    /// If the prompt does not describe a scene of this task.
    pub fn required(prompt: &Prompt) -> Result<Self, String> {
        if prompt.metadata.is_null() {
            return Err("it has no metadata; use a GenEval .jsonl prompt file".to_owned());
        }
        Self::deserialize(&prompt.metadata).map_err(|error| error.to_string())
    }

    /// Whether the prompt asks for an object without naming its colour.
    pub fn leaves_a_color_open(&self) -> bool {
        self.include.iter().any(|entry| entry.color.is_none())
    }

    /// Metadata of a slightly different prompt: same kind, one thing changed, so that no image
    /// satisfies both.
    ///
    /// Changes a shape, a colour or a count, reverses a relation, or exchanges two colours. Used
    /// for the wrong captions of pre-training and to test the verifier. `prompt` stays as it was.
    #[must_use]
    pub fn similar(&self, rng: &mut impl Rng) -> Self {
        let mut other = self.clone();
        match self.tag {
            Tag::SingleObject | Tag::TwoObject => other.change_shape(rng),
            Tag::Counting => match rng.random_range(0..3) {
                0 => other.change_shape(rng),
                _ => other.change_count(rng),
            },
            Tag::Colors => match rng.random_range(0..3) {
                0 => other.change_shape(rng),
                _ => other.change_color(rng),
            },
            Tag::Position => match rng.random_range(0..3) {
                0 => other.change_shape(rng),
                1 if other.include.iter().all(|entry| entry.color.is_some()) => {
                    other.exchange_colors();
                }
                _ => other.turn_relation_round(),
            },
            Tag::ColorAttr => match rng.random_range(0..4) {
                0 => other.change_shape(rng),
                1 => other.change_color(rng),
                _ => other.exchange_colors(),
            },
        }
        other
    }

    fn change_shape(&mut self, rng: &mut impl Rng) {
        let others: Vec<Shape> = Shape::ALL
            .into_iter()
            .filter(|shape| self.include.iter().all(|entry| entry.class != *shape))
            .collect();
        let index = rng.random_range(0..self.include.len());
        if let Some(&shape) = others.choose(rng) {
            let old = std::mem::replace(&mut self.include[index].class, shape);
            for excluded in self.exclude.iter_mut().filter(|excluded| excluded.class == old) {
                excluded.class = shape;
            }
        }
    }

    fn change_color(&mut self, rng: &mut impl Rng) {
        let others: Vec<Color> = Color::ALL
            .into_iter()
            .filter(|color| self.include.iter().all(|entry| entry.color != Some(*color)))
            .collect();
        let index = rng.random_range(0..self.include.len());
        self.include[index].color = others.choose(rng).copied();
    }

    fn change_count(&mut self, rng: &mut impl Rng) {
        let entry = &mut self.include[0];
        entry.count = match entry.count {
            0 | 1 => 2,
            4.. => 3,
            count if rng.random() => count + 1,
            count => count - 1,
        };
        if let Some(excluded) = self.exclude.first_mut() {
            excluded.count = entry.count + 1;
        }
    }

    fn turn_relation_round(&mut self) {
        for entry in &mut self.include {
            entry.position = entry.position.map(|(relation, index)| (relation.opposite(), index));
        }
    }

    fn exchange_colors(&mut self) {
        if let [first, second, ..] = self.include.as_mut_slice() {
            std::mem::swap(&mut first.color, &mut second.color);
        }
    }
}

impl From<Metadata> for Prompt {
    fn from(metadata: Metadata) -> Self {
        Self {
            text: metadata.prompt.clone(),
            tag: metadata.tag.name().to_owned(),
            metadata: serde_json::to_value(&metadata).expect("metadata is plain data"),
        }
    }
}
