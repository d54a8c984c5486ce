//! Which captions and pictures are kept from whom, decided by the caption alone.

use crate::collection::Style;

/// Which prompts are for what: reinforcement learning sees the captions of `Train` alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Four fifths of the captions.
    Train,
    /// A tenth, which chooses checkpoints.
    Validation,
    /// A tenth, which chooses nothing.
    Test,
}

impl Split {
    /// The split of a caption, decided by the caption alone, so that it does not depend on the
    /// other captions.
    pub fn of(caption: &str) -> Self {
        match hash(caption) % 10 {
            0 => Self::Validation,
            1 => Self::Test,
            _ => Self::Train,
        }
    }

    /// The name of the set of prompts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Train => "emoji:train",
            Self::Validation => "emoji:validation",
            Self::Test => "emoji:test",
        }
    }
}

/// Which of the two encoders is trained: each has never seen some of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// The reward.
    Preference,
    /// The second encoder, on which nothing is trained.
    Gold,
}

impl Encoder {
    /// Whether the encoder's training leaves a picture out, to measure it there.
    ///
    /// The preference model never sees a fifth of the Fluent pictures, the gold model another fifth
    /// of the Noto pictures. The captions of all of them are trained on with the other style.
    pub fn holds_out(self, caption: &str, style: Style) -> bool {
        let fifth = hash(caption) / 10 % 5;
        match self {
            Self::Preference => fifth == 0 && style == Style::Fluent,
            Self::Gold => fifth == 1 && style == Style::Noto,
        }
    }
}

/// FNV-1a over the bytes, folded to 32 bits.
fn hash(text: &str) -> u32 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    (hash ^ (hash >> 32)) as u32
}
