//! GenEval's scorer (arXiv 2310.11513): metadata of a prompt and detections in, verdicts out.
//!
//! Judges objects that a detector has found; detects nothing itself. Computes the official rule and
//! the partial score that Flow-GRPO trains on, in f32 where the published scripts do.

mod channels;
mod classes;
mod colors;
mod detections;
mod lines;
mod mask;
mod metadata;
mod official;
mod position;
mod reward;
mod table;

use serde::Serialize;
use thiserror::Error;

pub use channels::Channels;
pub use classes::{Class, Color, UnknownClass};
pub use colors::{color_texts, crop, needs_color};
pub use detections::{COUNTING_THRESHOLD, Detection, MOST_OBJECTS, THRESHOLD};
pub use lines::{LinesError, Seen, read_metadata, score_lines, score_lines_by, score_seen};
pub use mask::Mask;
pub use metadata::{Entry, Excluded, Metadata};
pub use official::official;
pub use position::{MARGIN, holds};
pub use reward::{FailedPosition, Partial, reward};
pub use table::{IMAGES_PER_PROMPT, Summary, Table, TagSummary, is_complete, published_prompts};

/// The scores of one image.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scores {
    /// Whether the image is right by the official rule ([`official`]).
    pub official: bool,
    /// Whether the image is right by the reward's rule, which asks for exact counts.
    pub strict: bool,
    /// The partial score with [`FailedPosition::Zero`], or by the rule that [`score_lines_by`] was
    /// given.
    pub reward: f64,
    /// The partial score of the public reward servers, [`FailedPosition::ZeroAndOne`].
    pub reward_reference: f64,
}

/// Scores the detections of one image by every rule.
///
/// # Errors
/// If the metadata contradicts itself, a detection is no detection, or an object whose colour
/// decides has none.
pub fn score(metadata: &Metadata, detections: &[Detection]) -> Result<Scores, ScoreError> {
    let Partial { strict, score } = reward(metadata, detections, FailedPosition::Zero)?;
    let reference = reward(metadata, detections, FailedPosition::ZeroAndOne)?;
    Ok(Scores {
        official: official(metadata, detections)?,
        strict,
        reward: score,
        reward_reference: reference.score,
    })
}

/// An image could not be scored. Indices count from 0.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum ScoreError {
    /// The metadata places an object relative to an entry that does not come before it.
    #[error(
        "include[{entry}] of the metadata is placed relative to include[{target}]; it must be \
         placed relative to an entry before it"
    )]
    Target {
        /// Index of the entry.
        entry: usize,
        /// Index of the entry that it refers to.
        target: usize,
    },
    /// The score of a detection is no probability.
    #[error("detections[{index}] (`{class}`) has score {score}; scores are in [0, 1]")]
    Score {
        /// Index of the detection.
        index: usize,
        /// Class of the detection.
        class: Class,
        /// The score.
        score: f32,
    },
    /// The box of a detection is no box.
    #[error(
        "detections[{index}] (`{class}`) has box {corners:?}; a box is [x0, y0, x1, y1] with \
         x0 ≤ x1 and y0 ≤ y1, all of them finite"
    )]
    Box {
        /// Index of the detection.
        index: usize,
        /// Class of the detection.
        class: Class,
        /// The box.
        corners: [f32; 4],
    },
    /// The prompt asks for a colour, and an object that counts has none.
    #[error(
        "detections[{index}] (`{class}`) has no `color`, but the prompt asks for the colour of \
         this class; classify its crop as one of GenEval's ten colours"
    )]
    NoColor {
        /// Index of the detection.
        index: usize,
        /// Class of the detection.
        class: Class,
    },
}
