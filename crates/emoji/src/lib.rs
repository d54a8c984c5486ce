//! Pictures with captions: about a thousand emoji, each drawn in two art styles.
//!
//! The pictures are 32 x 32 pixels on white, from Google's Noto Emoji and Microsoft's Fluent Emoji;
//! a caption is the name of an emoji, in lower case. They are part of the crate
//! ([`Collection::built_in`]); [`source`] and [`prepare`] make them again from the published
//! packages. Knows images in host memory and files; no tensors.

mod augment;
mod captions;
mod category;
mod collection;
pub mod prepare;
mod sheet;
pub mod source;
mod split;

pub use augment::{Augmentation, faded};
pub use captions::{prompts, words};
pub use category::Category;
pub use collection::{Collection, Emoji, LONGEST_CAPTION, SIDE, STYLES, Style};
pub use sheet::SheetError;
pub use split::{Encoder, Split};
