//! Compositional generation with a verifier: a small version of GenEval (arXiv 2310.11513).
//!
//! Prompts ask for coloured shapes, their number and their positions; an image is judged from its
//! pixels alone.

mod detect;
mod facts;
mod grammar;
mod metadata;
mod render;
mod scene;
mod variety;
mod verify;

pub use detect::{Blob, Detection, Detections, Examination, FIT, detect, examine};
pub use facts::{Asked, FACTS, asked, belief, facts};
pub use grammar::{Split, UNSEEN, captions, detailed, prompts, vocabulary};
pub use metadata::{Entry, Excluded, Metadata, Relation, Tag};
pub use render::{coverage, render};
pub use scene::{Object, SMALLEST_IMAGE, Scene};
pub use variety::{ShapesVariety, color_entropy};
pub use verify::{Fault, ShapesPartial, ShapesStrict, Verdict, verify};

use serde::{Deserialize, Serialize};

/// The shapes of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// A disc.
    Circle,
    /// A square with upright sides.
    Square,
    /// An isosceles triangle that points up.
    Triangle,
    /// A plus sign.
    Cross,
}

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 4] = [Self::Circle, Self::Square, Self::Triangle, Self::Cross];

    /// The English noun.
    pub fn word(self) -> &'static str {
        match self {
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Cross => "cross",
        }
    }

    /// The English plural.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Circle => "circles",
            Self::Square => "squares",
            Self::Triangle => "triangles",
            Self::Cross => "crosses",
        }
    }
}

/// The colours of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// Red.
    Red,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Yellow.
    Yellow,
    /// Magenta.
    Magenta,
    /// Cyan.
    Cyan,
}

impl Color {
    /// All colours.
    pub const ALL: [Self; 6] =
        [Self::Red, Self::Green, Self::Blue, Self::Yellow, Self::Magenta, Self::Cyan];

    /// The English adjective.
    pub fn word(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Magenta => "magenta",
            Self::Cyan => "cyan",
        }
    }

    /// The RGB value that the colour is painted in, each channel in `[0, 1]`.
    pub fn rgb(self) -> [f32; 3] {
        match self {
            Self::Red => [0.90, 0.15, 0.15],
            Self::Green => [0.15, 0.75, 0.20],
            Self::Blue => [0.20, 0.30, 0.95],
            Self::Yellow => [0.95, 0.85, 0.15],
            Self::Magenta => [0.85, 0.20, 0.80],
            Self::Cyan => [0.15, 0.80, 0.85],
        }
    }
}
