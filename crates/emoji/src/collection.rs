//! The emoji: captions with pictures in two art styles.

use std::path::Path;

use tasks::image::Image;

use crate::{
    SIDE,
    captions::{Category, hash},
    sheet::{self, SheetError},
};

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

/// All emoji, in the order of the published list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collection {
    /// The emoji.
    pub emoji: Vec<Emoji>,
}

impl Collection {
    /// The collection that is part of the program.
    ///
    /// # Errors
    /// If the program was built with a damaged file.
    pub fn built_in() -> Result<Self, SheetError> {
        sheet::decode(sheet::CAPTIONS, sheet::PICTURES)
    }

    /// Writes the captions and the sheet of pictures into a directory, each atomically.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), SheetError> {
        let (captions, pictures) = sheet::encode(self)?;
        files::write_atomically(&directory.join("captions.tsv"), captions.as_bytes())?;
        Ok(files::write_atomically(&directory.join("pictures.png"), &pictures)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_collection_has_a_picture_on_white_in_either_style_for_every_caption() {
        let collection = Collection::built_in().expect("the built-in files");
        assert!(collection.emoji.len() > 900);
        for emoji in &collection.emoji {
            for style in STYLES {
                let image = emoji.picture(style);
                let ink = image.pixels.iter().filter(|value| **value < 0.9).count();
                assert!(ink > 40, "{} is empty in {style:?}", emoji.caption);
            }
            assert_ne!(emoji.pictures[0], emoji.pictures[1], "{}", emoji.caption);
        }
        let corner = |emoji: &Emoji| emoji.picture(Style::Noto).rgb(0, 0).iter().sum::<f32>();
        let white = collection.emoji.iter().filter(|emoji| corner(emoji) > 2.9).count();
        assert!(white as f64 > 0.9 * collection.emoji.len() as f64, "{white}");
    }

    #[test]
    fn each_encoder_leaves_out_a_fifth_of_one_style_and_the_two_share_none() {
        let collection = Collection::built_in().expect("the built-in files");
        let all = collection.emoji.len() as f64;
        let share = |encoder: Encoder, style| {
            let out = |emoji: &&Emoji| encoder.holds_out(&emoji.caption, style);
            collection.emoji.iter().filter(out).count() as f64 / all
        };
        assert!((share(Encoder::Preference, Style::Fluent) - 0.2).abs() < 0.04);
        assert!((share(Encoder::Gold, Style::Noto) - 0.2).abs() < 0.04);
        assert_eq!(share(Encoder::Preference, Style::Noto), 0.0);
        assert_eq!(share(Encoder::Gold, Style::Fluent), 0.0);
    }
}
