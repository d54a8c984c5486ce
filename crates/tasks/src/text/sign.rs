//! Signs: the content of an image, before it is drawn.

use rand::{Rng, seq::IndexedRandom};

use crate::shapes::Color;

/// A typeface of the signs, with equally wide letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typeface {
    /// `DejaVu` Sans Mono Bold.
    Bold,
    /// `DejaVu` Sans Mono.
    Regular,
}

impl Typeface {
    /// All typefaces.
    pub const ALL: [Self; 2] = [Self::Bold, Self::Regular];
}

/// A board with a word, before a grey background. Lengths are shares of the image's side, from the
/// top left.
#[derive(Clone, Debug, PartialEq)]
pub struct Sign {
    /// The word, in capitals from A to Z.
    pub word: String,
    /// The colour of the board.
    pub color: Color,
    /// The typeface of the word.
    pub typeface: Typeface,
    /// The grey of the background, in `[0, 1]`.
    pub background: f32,
    /// Centre (x, y) of the board and of the word.
    pub center: (f32, f32),
    /// Width and height of the board.
    pub board: (f32, f32),
    /// Width of a letter with its share of the gaps.
    pub pitch: f32,
    /// Height of the capitals.
    pub height: f32,
}

impl Sign {
    /// Draws the places, sizes and the typeface of a sign.
    pub fn sample(word: &str, color: Color, rng: &mut impl Rng) -> Self {
        let letters = word.chars().count().max(1) as f32;
        let width = rng.random_range(0.84..0.90);
        let height = rng.random_range(0.44..0.50);
        let board = (width + 0.08, height + rng.random_range(0.16..0.28));
        let x = rng.random_range(-1.0..1.0) * (1.0 - board.0) / 2.0;
        let y = rng.random_range(-0.3..0.3) * (1.0 - board.1) / 2.0;
        Self {
            word: word.to_owned(),
            color,
            typeface: *Typeface::ALL.choose(rng).expect("there are typefaces"),
            background: rng.random_range(0.05..0.30),
            center: (0.5 + x, 0.5 + y),
            board,
            pitch: width / letters,
            height,
        }
    }
}
