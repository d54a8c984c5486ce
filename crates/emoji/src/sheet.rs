//! The file of pictures: one PNG with all of them, and a list of captions in the same order.
//!
//! ```text
//! captions.tsv    caption TAB category, one emoji per line
//! pictures.png    tiles of 32 x 32 pixels, 64 in a row: both styles of the first emoji, of the second, …
//! ```

use std::{io::Cursor, path::Path, sync::OnceLock};

use files::FileError;
use image::{
    ExtendedColorType, ImageEncoder, ImageFormat,
    codecs::png::{CompressionType, FilterType, PngEncoder},
};
use thiserror::Error;

use crate::{
    category::Category,
    collection::{Collection, Emoji, LONGEST_CAPTION, SIDE, STYLES},
};

const CAPTIONS: &str = include_str!("../../../assets/emoji/captions.tsv");
const PICTURES: &[u8] = include_bytes!("../../../assets/emoji/pictures.png");

/// Pictures in a row of the sheet.
const ACROSS: usize = 64;

/// The pictures could not be read or written.
#[derive(Debug, Error)]
pub enum SheetError {
    /// A line of the captions is not one.
    #[error("captions.tsv, line {line}: {problem}")]
    Caption {
        /// The line, from 1.
        line: usize,
        /// Description of the problem.
        problem: String,
    },
    /// The sheet has another size than the captions ask for.
    #[error("pictures.png has {found} pixels, {wanted} are needed for {emoji} captions")]
    Size {
        /// Width and height of the sheet.
        found: String,
        /// Width and height for the captions.
        wanted: String,
        /// Number of captions.
        emoji: usize,
    },
    /// The sheet is no PNG.
    #[error("pictures.png: {0}")]
    Png(#[from] image::ImageError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Collection {
    /// The collection that is part of the program.
    ///
    /// # Errors
    /// If the program was built with a damaged file.
    pub fn built_in() -> Result<Self, SheetError> {
        decode(CAPTIONS, PICTURES)
    }

    /// Writes the captions and the sheet of pictures into a directory, each atomically.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, directory: &Path) -> Result<(), SheetError> {
        let (captions, pictures) = encode(self)?;
        files::write_atomically(&directory.join("captions.tsv"), captions.as_bytes())?;
        Ok(files::write_atomically(&directory.join("pictures.png"), &pictures)?)
    }
}

/// The captions of the built-in collection, empty if its file is damaged, which a test excludes.
pub(crate) fn captions() -> &'static [(String, Category)] {
    static READ: OnceLock<Vec<(String, Category)>> = OnceLock::new();
    READ.get_or_init(|| parse(CAPTIONS).unwrap_or_default())
}

fn parse(captions: &str) -> Result<Vec<(String, Category)>, SheetError> {
    let line = |(index, line): (usize, &str)| {
        let bad = |problem: String| SheetError::Caption { line: index + 1, problem };
        let (caption, category) =
            line.split_once('\t').ok_or_else(|| bad("there is no tab".to_owned()))?;
        let words = caption.split(' ').filter(|word| !word.is_empty()).count();
        if !(1..=LONGEST_CAPTION).contains(&words) {
            return Err(bad(format!("`{caption}` has {words} words, not 1 to {LONGEST_CAPTION}")));
        }
        let category = Category::of(category)
            .ok_or_else(|| bad(format!("there is no category `{category}`")))?;
        Ok((caption.to_owned(), category))
    };
    captions.lines().enumerate().map(line).collect()
}

/// Width and height of the sheet of so many emoji, in pixels.
fn size(emoji: usize) -> [usize; 2] {
    [ACROSS * SIDE, (emoji * STYLES.len()).div_ceil(ACROSS) * SIDE]
}

/// Reads a collection from the bytes of its two files.
fn decode(captions: &str, pictures: &[u8]) -> Result<Collection, SheetError> {
    let captions = parse(captions)?;
    let sheet = image::load_from_memory_with_format(pictures, ImageFormat::Png)?.to_rgb8();
    let (wanted, found) = (size(captions.len()), [sheet.width(), sheet.height()]);
    if wanted.map(|side| side as u32) != found {
        return Err(SheetError::Size {
            found: found.map(|side| side.to_string()).join(" x "),
            wanted: wanted.map(|side| side.to_string()).join(" x "),
            emoji: captions.len(),
        });
    }
    let emoji = |(index, (caption, category))| Emoji {
        caption,
        category,
        pictures: [0, 1].map(|style| tile(&sheet, STYLES.len() * index + style)),
    };
    Ok(Collection { emoji: captions.into_iter().enumerate().map(emoji).collect() })
}

/// The bytes of the two files of a collection.
fn encode(collection: &Collection) -> Result<(String, Vec<u8>), SheetError> {
    let line = |emoji: &Emoji| format!("{}\t{}\n", emoji.caption, emoji.category.name());
    let captions = collection.emoji.iter().map(line).collect();
    let [width, height] = size(collection.emoji.len());
    let mut sheet = vec![255_u8; 3 * width * height];
    let pictures = collection.emoji.iter().flat_map(|emoji| &emoji.pictures);
    for (index, picture) in pictures.enumerate() {
        let [left, top] = corner(index);
        for (row, line) in picture.chunks_exact(3 * SIDE).enumerate() {
            let begin = 3 * ((top + row) * width + left);
            sheet[begin..begin + line.len()].copy_from_slice(line);
        }
    }
    let mut bytes = Cursor::new(Vec::new());
    PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive)
        .write_image(&sheet, width as u32, height as u32, ExtendedColorType::Rgb8)?;
    Ok((captions, bytes.into_inner()))
}

/// Left and top of a picture, in pixels.
fn corner(index: usize) -> [usize; 2] {
    [index % ACROSS * SIDE, index / ACROSS * SIDE]
}

fn tile(sheet: &image::RgbImage, index: usize) -> Vec<u8> {
    let [left, top] = corner(index).map(|at| at as u32);
    let side = SIDE as u32;
    image::imageops::crop_imm(sheet, left, top, side, side).to_image().into_raw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{collection::Style, split::Encoder};

    fn some(count: usize) -> Collection {
        let emoji = |index: usize| Emoji {
            caption: format!("thing {index}"),
            category: Category::ALL[index % 6],
            pictures: [0, 1].map(|style| {
                (0..3 * SIDE * SIDE).map(|i| (i * 31 + 7 * index + style) as u8).collect()
            }),
        };
        Collection { emoji: (0..count).map(emoji).collect() }
    }

    #[test]
    fn a_collection_is_read_as_it_was_written() {
        for count in [1, 32, 33, 40] {
            let (captions, pictures) = encode(&some(count)).expect("two files");
            assert_eq!(decode(&captions, &pictures).expect("as written"), some(count));
        }
    }

    #[test]
    fn damaged_files_are_refused_with_the_place() {
        let (captions, pictures) = encode(&some(40)).expect("two files");
        let refused = |captions: &str, pictures: &[u8]| {
            decode(captions, pictures).expect_err("damaged").to_string()
        };
        assert!(refused("a cat", &pictures).contains("line 1: there is no tab"));
        assert!(
            refused("a\tfood\ncat\tpets\n", &pictures).contains("line 2: there is no category")
        );
        assert!(refused("a b c d e f g\tfood", &pictures).contains("has 7 words"));
        assert!(
            refused("a\tfood\n", &pictures).contains("2048 x 32 are needed")
                || refused("a\tfood\n", &pictures).contains("2048 x 96 pixels, 2048 x 32")
        );
        assert!(refused(&captions, &pictures[..300]).contains("pictures.png"));
    }

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
