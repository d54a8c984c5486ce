//! From the published packages to the collection: which emoji, at which size, on which background.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
};

use flate2::read::GzDecoder;
use image::ImageFormat;
use serde::Deserialize;
use thiserror::Error;

use crate::{
    category::Category,
    collection::{Collection, Emoji, LONGEST_CAPTION, SIDE},
};

/// A package is not what it should be.
#[derive(Debug, Error)]
pub enum PrepareError {
    /// The archive is damaged.
    #[error("the archive of {package} cannot be unpacked: {source}")]
    Archive {
        /// The package.
        package: &'static str,
        /// The error of the reader.
        source: std::io::Error,
    },
    /// The list of emoji is missing.
    #[error("there is no {LIST} in the archive")]
    NoList,
    /// The list of emoji does not parse.
    #[error("{LIST}: {0}")]
    BadList(#[from] serde_json::Error),
    /// A picture cannot be decoded.
    #[error("{name}: {source}")]
    Picture {
        /// The file in the archive.
        name: String,
        /// The error of the decoder.
        source: image::ImageError,
    },
}

/// The list of emoji in the package of Noto.
const LIST: &str = "package/emoji.json";
/// The folder of the pictures in the package of Noto.
const NOTO: &str = "package/img/google/64/";
/// The folder of the pictures in the package of Fluent.
const FLUENT: &str = "package/assets/";

/// One entry of the list of emoji.
#[derive(Deserialize)]
struct Entry {
    name: String,
    image: String,
    unified: String,
    category: String,
    subcategory: String,
}

/// Makes the collection from the archives of both packages.
///
/// Flags, people, symbols and clock faces are left out, and emoji with long names or without a
/// picture in either style.
///
/// # Errors
/// If an archive is damaged, or has no list of emoji, or a picture cannot be decoded.
pub fn collection(noto: &[u8], fluent: &[u8]) -> Result<Collection, PrepareError> {
    let noto = unpack("Noto Emoji", noto, |name| name == LIST || name.starts_with(NOTO))?;
    let fluent = unpack("Fluent Emoji", fluent, |name| name.starts_with(FLUENT))?;
    let list: Vec<Entry> = serde_json::from_slice(noto.get(LIST).ok_or(PrepareError::NoList)?)?;
    let (mut emoji, mut captions) = (Vec::new(), BTreeSet::new());
    for entry in &list {
        let (Some(category), Some(caption)) = (entry.category(), entry.caption()) else { continue };
        let of_noto = format!("{NOTO}{}", entry.image);
        let of_fluent = entry.fluent_names().into_iter().find(|name| fluent.contains_key(name));
        let (Some(flat), Some(of_fluent)) = (noto.get(&of_noto), of_fluent) else { continue };
        if !captions.insert(caption.clone()) {
            continue;
        }
        let pictures = [
            picture(&of_noto, flat, ImageFormat::Png)?,
            picture(&of_fluent, &fluent[&of_fluent], ImageFormat::WebP)?,
        ];
        emoji.push(Emoji { caption, category, pictures });
    }
    Ok(Collection { emoji })
}

impl Entry {
    /// The category; `None` for those that are left out.
    fn category(&self) -> Option<Category> {
        if self.subcategory == "time" {
            return None;
        }
        match self.category.as_str() {
            "Activities" => Some(Category::Activities),
            "Animals & Nature" => Some(Category::Animals),
            "Food & Drink" => Some(Category::Food),
            "Objects" => Some(Category::Objects),
            "Smileys & Emotion" => Some(Category::Smileys),
            "Travel & Places" => Some(Category::Travel),
            _ => None,
        }
    }

    /// The name as plain words in lower case; `None` if it is too long.
    fn caption(&self) -> Option<String> {
        let name = self.name.to_lowercase();
        let words: Vec<&str> = name
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        (1..=LONGEST_CAPTION).contains(&words.len()).then(|| words.join(" "))
    }

    /// The names that the picture may have in the package of Fluent, which writes the selector of
    /// the picture form or not.
    fn fluent_names(&self) -> [String; 3] {
        let code = self.unified.to_lowercase();
        let bare = code.replace("-fe0f", "");
        [&code, &bare, &format!("{bare}-fe0f")].map(|code| format!("{FLUENT}{code}.webp"))
    }
}

/// The files of a gzipped tar whose names are wanted.
fn unpack(
    package: &'static str,
    archive: &[u8],
    wanted: impl Fn(&str) -> bool,
) -> Result<BTreeMap<String, Vec<u8>>, PrepareError> {
    let failed = |source| PrepareError::Archive { package, source };
    let mut archive = tar::Archive::new(GzDecoder::new(archive));
    let mut files = BTreeMap::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let name = entry.path().map_err(failed)?.to_string_lossy().into_owned();
        if !wanted(&name) {
            continue;
        }
        let mut bytes = Vec::new();
        (&mut entry).take(LARGEST).read_to_end(&mut bytes).map_err(failed)?;
        files.insert(name, bytes);
    }
    Ok(files)
}

/// Longest file that is read from an archive, in bytes.
const LARGEST: u64 = 16 << 20;

/// A picture on white: the mean over the square of pixels that becomes one, and 32 levels per
/// channel, which nobody sees and which halve the file.
///
/// ```text
/// c = mean(α·c + (1 − α)·255)
/// ```
fn picture(name: &str, bytes: &[u8], format: ImageFormat) -> Result<Vec<u8>, PrepareError> {
    let decoded = image::load_from_memory_with_format(bytes, format)
        .map_err(|source| PrepareError::Picture { name: name.to_owned(), source })?
        .to_rgba8();
    let [width, height] = [decoded.width() as usize, decoded.height() as usize];
    let mut picture = Vec::with_capacity(3 * SIDE * SIDE);
    for row in 0..SIDE {
        for column in 0..SIDE {
            let rows = span(row, height);
            let columns = span(column, width);
            let count = (rows.len() * columns.len()) as f32;
            let mut sums = [0.0_f32; 3];
            for y in rows {
                for x in columns.clone() {
                    let [r, g, b, alpha] = decoded.get_pixel(x as u32, y as u32).0.map(f32::from);
                    for (sum, value) in sums.iter_mut().zip([r, g, b]) {
                        *sum += (alpha * value + (255.0 - alpha) * 255.0) / 255.0;
                    }
                }
            }
            picture.extend(sums.map(|sum| level(sum / count)));
        }
    }
    Ok(picture)
}

/// The pixels of a side that become pixel `index` of the picture's side.
fn span(index: usize, side: usize) -> std::ops::Range<usize> {
    let begin = index * side / SIDE;
    begin..((index + 1) * side / SIDE).max(begin + 1).min(side.max(begin + 1))
}

/// The nearest of 32 levels.
fn level(value: f32) -> u8 {
    const MOST: f32 = 31.0;
    ((value / 255.0 * MOST).round() / MOST * 255.0).round() as u8
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use flate2::{Compression, write::GzEncoder};
    use image::{Rgba, RgbaImage};

    use super::*;

    fn encoded(side: u32, pixel: [u8; 4], format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let image = RgbaImage::from_fn(side, side, |x, _| {
            if x < side / 2 { Rgba(pixel) } else { Rgba([0, 0, 0, 0]) }
        });
        image.write_to(&mut bytes, format).expect("a picture");
        bytes.into_inner()
    }

    fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_cksum();
            tar.append_data(&mut header, name, &bytes[..]).expect("in memory");
        }
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(&tar.into_inner().expect("in memory")).expect("in memory");
        gzip.finish().expect("in memory")
    }

    fn entry(name: &str, code: &str, category: &str) -> serde_json::Value {
        let image = format!("{}.png", code.to_lowercase());
        serde_json::json!({
            "name": name, "unified": code, "image": image, "category": category, "subcategory": "any",
        })
    }

    fn packages() -> [Vec<u8>; 2] {
        let list = serde_json::json!([
            entry("RED APPLE", "1F34E", "Food & Drink"),
            entry("UMBRELLA", "2602-FE0F", "Travel & Places"),
            entry("Egypt Flag", "1F1EA", "Flags"),
            entry("FACE WITH ONE LARGE AND ONE SMALL EYE", "1F92A", "Smileys & Emotion"),
            entry("ONLY IN ONE STYLE", "1F92B", "Smileys & Emotion"),
        ]);
        let noto = |code: &str| {
            (format!("{NOTO}{code}.png"), encoded(64, [255, 0, 0, 255], ImageFormat::Png))
        };
        let fluent = |code: &str| {
            (format!("{FLUENT}{code}.webp"), encoded(256, [0, 0, 255, 255], ImageFormat::WebP))
        };
        let mut flat: Vec<_> =
            ["1f34e", "2602-fe0f", "1f1ea", "1f92a", "1f92b"].map(noto).into_iter().collect();
        flat.push((LIST.to_owned(), list.to_string().into_bytes()));
        [archive(&flat), archive(&["1f34e", "2602", "1f1ea", "1f92a"].map(fluent))]
    }

    #[test]
    fn objects_with_short_names_and_both_styles_are_taken_on_white() {
        let [noto, fluent] = packages();
        let Collection { emoji } = collection(&noto, &fluent).expect("two packages");
        let captions: Vec<&str> = emoji.iter().map(|emoji| emoji.caption.as_str()).collect();
        assert_eq!(captions, ["red apple", "umbrella"]);
        let [flat, round] = &emoji[0].pictures;
        assert_eq!((&flat[..3], &round[..3]), (&[255, 0, 0][..], &[0, 0, 255][..]));
        assert_eq!(flat[3 * 31..3 * 32], [255; 3], "the transparent half is white");
    }

    #[test]
    fn cut_archives_are_refused() {
        let [noto, fluent] = packages();
        assert!(matches!(
            collection(&noto[..noto.len() / 2], &fluent),
            Err(PrepareError::Archive { package: "Noto Emoji", .. })
        ));
        assert!(matches!(collection(&fluent, &fluent), Err(PrepareError::NoList)));
    }
}
