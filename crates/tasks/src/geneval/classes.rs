//! The 80 classes and ten colours, under GenEval's names.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The classes of COCO in the detector's order, as GenEval and the reference code spell them.
const NAMES: [&str; 80] = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "traffic light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
    "skis",
    "snowboard",
    "sports ball",
    "kite",
    "baseball bat",
    "baseball glove",
    "skateboard",
    "surfboard",
    "tennis racket",
    "bottle",
    "wine glass",
    "cup",
    "fork",
    "knife",
    "spoon",
    "bowl",
    "banana",
    "apple",
    "sandwich",
    "orange",
    "broccoli",
    "carrot",
    "hot dog",
    "pizza",
    "donut",
    "cake",
    "chair",
    "couch",
    "potted plant",
    "bed",
    "dining table",
    "toilet",
    "tv",
    "laptop",
    "computer mouse",
    "tv remote",
    "computer keyboard",
    "cell phone",
    "microwave",
    "oven",
    "toaster",
    "sink",
    "refrigerator",
    "book",
    "clock",
    "vase",
    "scissors",
    "teddy bear",
    "hair drier",
    "toothbrush",
];

/// The three names in which COCO differs: (COCO, GenEval).
const COCO_NAMES: [(&str, &str); 3] =
    [("mouse", "computer mouse"), ("remote", "tv remote"), ("keyboard", "computer keyboard")];

/// A class of objects: one of the 80 of COCO.
///
/// Files may use COCO's names `mouse`, `remote` and `keyboard`; GenEval's are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub struct Class(u8);

impl Class {
    /// All classes, in the order in which the published detector numbers them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..NAMES.len() as u8).map(Self)
    }

    /// Finds a class by its name in GenEval or in COCO.
    ///
    /// # Errors
    /// If there is no class of this name.
    pub fn named(name: &str) -> Result<Self, UnknownClass> {
        let name = COCO_NAMES.iter().find(|(coco, _)| *coco == name).map_or(name, |(_, ours)| ours);
        Self::all().find(|class| class.name() == name).ok_or_else(|| UnknownClass(name.to_owned()))
    }

    /// The name in GenEval.
    pub fn name(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }
}

impl TryFrom<String> for Class {
    type Error = UnknownClass;

    fn try_from(name: String) -> Result<Self, UnknownClass> {
        Self::named(&name)
    }
}

impl From<Class> for &'static str {
    fn from(class: Class) -> Self {
        class.name()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No class has this name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error(
    "unknown class `{0}`: the classes are the 80 of COCO in lower case, such as `bench`, \
     `wine glass` or `computer mouse`"
)]
pub struct UnknownClass(pub String);

/// A colour of GenEval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// Red.
    Red,
    /// Orange.
    Orange,
    /// Yellow.
    Yellow,
    /// Green.
    Green,
    /// Blue.
    Blue,
    /// Purple.
    Purple,
    /// Pink.
    Pink,
    /// Brown.
    Brown,
    /// Black.
    Black,
    /// White.
    White,
}

impl Color {
    /// All colours, in the order in which the published colour classifier numbers them.
    pub const ALL: [Self; 10] = [
        Self::Red,
        Self::Orange,
        Self::Yellow,
        Self::Green,
        Self::Blue,
        Self::Purple,
        Self::Pink,
        Self::Brown,
        Self::Black,
        Self::White,
    ];

    /// The colour's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Orange => "orange",
            Self::Yellow => "yellow",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Purple => "purple",
            Self::Pink => "pink",
            Self::Brown => "brown",
            Self::Black => "black",
            Self::White => "white",
        }
    }
}
