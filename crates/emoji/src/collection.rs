//! The emoji: captions with pictures in two art styles.

use tasks::image::Image;

use crate::category::Category;

/// Height and width of a picture in pixels.
pub const SIDE: usize = 32;

/// Most words of a caption; emoji with longer names are left out.
pub const LONGEST_CAPTION: usize = 6;

/// An art style.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Google's Noto Emoji, flat.
    Noto,
    /// Microsoft's Fluent Emoji, in the manner of three dimensions.
    Fluent,
}

/// Both art styles, in the order of the file.
pub const STYLES: [Style; 2] = [Style::Noto, Style::Fluent];

/// An emoji: a caption and a picture in each style.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Emoji {
    /// The name, in lower case.
    pub caption: String,
    /// The category.
    pub category: Category,
    /// The pictures by style, `[SIDE, SIDE, 3]` bytes each.
    pub(crate) pictures: [Vec<u8>; 2],
}

impl Emoji {
    /// The picture in a style.
    pub fn picture(&self, style: Style) -> Image {
        let [noto, fluent] = &self.pictures;
        let bytes = if style == Style::Noto { noto } else { fluent };
        Image::from_rgb8(bytes, SIDE, SIDE)
    }
}

/// All emoji, in the order of the published list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// The emoji.
    pub emoji: Vec<Emoji>,
}
