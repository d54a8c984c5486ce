//! PNG files: single images and captioned grids.

use std::{io::Cursor, path::Path};

use ab_glyph::{Font, FontRef, PxScale, ScaleFont, point};
use files::{Action, directory_of, write_atomically};
use image::{ImageFormat, Rgb, RgbImage};
use tasks::image::Image;

use crate::RunError;

/// An image with its caption.
#[derive(Clone, Copy, Debug)]
pub struct Captioned<'a> {
    /// The image.
    pub image: &'a Image,
    /// The text below the image.
    pub caption: &'a str,
    /// The verdict on the image.
    pub mark: Option<Mark<'a>>,
}

/// A verdict on an image: a frame around it, and a line below its caption.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    /// Whether the image is right, which gives the colour of the frame; without it there is none.
    pub right: Option<bool>,
    /// The line, after a tick or a cross.
    pub text: &'a str,
}

/// Least side of an image in a grid, in pixels.
const CELL: u32 = 120;
const GAP: u32 = 8;
const CAPTION_LINES: u32 = 2;
const LINE: u32 = 14;
const FONT: f32 = 12.0;
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([30, 30, 30]);
const RIGHT: Rgb<u8> = Rgb([42, 143, 42]);
const WRONG: Rgb<u8> = Rgb([201, 42, 43]);
/// Width of a frame; smaller than [`GAP`].
const FRAME: u32 = 3;

/// Writes captioned images in rows of `columns`.
///
/// # Errors
/// If the file cannot be written.
pub fn write_grid(cells: &[Captioned<'_>], columns: usize, path: &Path) -> Result<(), RunError> {
    let columns = columns.clamp(1, cells.len().max(1)) as u32;
    let rows = (cells.len() as u32).div_ceil(columns);
    let scale = cells.first().map_or(1, |cell| CELL.div_ceil(cell.image.width as u32).max(1));
    let [shown_width, shown_height] = cells.first().map_or([CELL; 2], |cell| {
        [cell.image.width, cell.image.height].map(|side| side as u32 * scale)
    });
    let lines = CAPTION_LINES + u32::from(cells.iter().any(|cell| cell.mark.is_some()));
    let (width, height) = (shown_width + GAP, shown_height + GAP + lines * LINE);
    let mut grid = RgbImage::from_pixel(columns * width + GAP, rows * height + GAP, PAPER);
    let font = FontRef::try_from_slice(include_bytes!("../../../assets/fonts/DejaVuSans.ttf"))
        .map_err(|error| RunError::Drawing { what: "captions", problem: error.to_string() })?;
    for (index, cell) in cells.iter().enumerate() {
        let (x, y) = (GAP + index as u32 % columns * width, GAP + index as u32 / columns * height);
        let image = image::imageops::resize(
            &to_rgb(cell.image),
            shown_width,
            shown_height,
            image::imageops::FilterType::Nearest,
        );
        let below = y + shown_height + 3;
        if let Some(mark) = cell.mark {
            let size = [shown_width, shown_height];
            write_mark(&mut grid, &font, mark, [x, y], size);
        }
        image::imageops::replace(&mut grid, &image, x.into(), y.into());
        write_caption(&mut grid, &font, cell.caption, (x, below), shown_width);
    }
    write_png(&grid, path)
}

/// Checks that the directory of an output file exists.
///
/// # Errors
/// If the directory of `path` does not exist; called before the work whose result is written there.
pub fn check_directory_of(path: &Path) -> Result<(), RunError> {
    if path.extension().is_none() {
        return Ok(()); // A directory, which is made with all above it.
    }
    let directory = directory_of(path);
    if directory.is_dir() {
        return Ok(());
    }
    Err(RunError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() })
}

/// Whether a path names an image file and not a directory.
pub fn is_grid(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
}

/// Writes images with their captions: a grid with rows of `columns` if the path is a PNG file, or
/// one PNG file per image, `000.png`, …, in a directory.
///
/// # Errors
/// If a file or the directory cannot be written.
pub fn write_all(
    images: &[Image],
    captions: &[&str],
    columns: usize,
    path: &Path,
) -> Result<(), RunError> {
    if is_grid(path) {
        let cells: Vec<Captioned<'_>> = images
            .iter()
            .zip(captions)
            .map(|(image, caption)| Captioned { image, caption, mark: None })
            .collect();
        return write_grid(&cells, columns, path);
    }
    std::fs::create_dir_all(path).map_err(Action::MakeDirectory.failed_on(path))?;
    for (index, image) in images.iter().enumerate() {
        write_png(&to_rgb(image), &path.join(format!("{index:03}.png")))?;
    }
    Ok(())
}

/// Writes an RGB image, atomically.
///
/// # Errors
/// If the file cannot be written.
pub fn write_png(image: &RgbImage, path: &Path) -> Result<(), RunError> {
    Ok(write_atomically(path, &png_bytes(image)?)?)
}

/// Encodes an image as a PNG file.
///
/// # Errors
/// If the image cannot be encoded.
pub fn png_bytes(image: &RgbImage) -> Result<Vec<u8>, RunError> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).map_err(RunError::Encode)?;
    Ok(bytes.into_inner())
}

/// Converts a three-channel image to bytes.
pub fn to_rgb(image: &Image) -> RgbImage {
    RgbImage::from_fn(image.width as u32, image.height as u32, |x, y| {
        Rgb(image.rgb(y as usize, x as usize).map(|value| (value * 255.0).round() as u8))
    })
}

/// Draws the frame of an image at a place, and the line below its caption.
fn write_mark(
    canvas: &mut RgbImage,
    font: &FontRef<'_>,
    mark: Mark<'_>,
    [x, y]: [u32; 2],
    [width, height]: [u32; 2],
) {
    let (color, sign) = match mark.right {
        Some(true) => (RIGHT, "\u{2713} "),
        Some(false) => (WRONG, "\u{2717} "),
        None => (INK, ""),
    };
    if mark.right.is_some() {
        for (row, column) in (y - FRAME..y + height + FRAME)
            .flat_map(|row| (x - FRAME..x + width + FRAME).map(move |column| (row, column)))
        {
            if let Some(pixel) = canvas.get_pixel_mut_checked(column, row) {
                *pixel = color;
            }
        }
    }
    let scale = PxScale::from(FONT);
    let baseline = (y + height + 3 + CAPTION_LINES * LINE) as f32 + font.as_scaled(scale).ascent();
    write_line(canvas, font, &format!("{sign}{}", mark.text), color, (x as f32, baseline));
}

/// Writes a caption in up to [`CAPTION_LINES`] lines, broken between words.
fn write_caption(
    canvas: &mut RgbImage,
    font: &FontRef<'_>,
    text: &str,
    (x, y): (u32, u32),
    width: u32,
) {
    let scale = PxScale::from(FONT);
    let measure = |text: &str| {
        text.chars().map(|c| font.as_scaled(scale).h_advance(font.glyph_id(c))).sum::<f32>()
    };
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if measure(&format!("{line} {word}")) <= width as f32 => {
                *line = format!("{line} {word}");
            }
            _ => lines.push(word.to_owned()),
        }
    }
    for (number, line) in lines.iter().take(CAPTION_LINES as usize).enumerate() {
        let baseline = y as f32 + number as f32 * LINE as f32 + font.as_scaled(scale).ascent();
        write_line(canvas, font, line, INK, (x as f32, baseline));
    }
}

fn write_line(
    canvas: &mut RgbImage,
    font: &FontRef<'_>,
    text: &str,
    color: Rgb<u8>,
    (mut x, baseline): (f32, f32),
) {
    let scale = PxScale::from(FONT);
    for c in text.chars() {
        let glyph = font.glyph_id(c).with_scale_and_position(scale, point(x, baseline));
        x += font.as_scaled(scale).h_advance(glyph.id);
        let Some(outline) = font.outline_glyph(glyph) else { continue };
        let bounds = outline.px_bounds();
        outline.draw(|dx, dy, share| {
            let (px, py) = (bounds.min.x as i32 + dx as i32, bounds.min.y as i32 + dy as i32);
            let (Ok(px), Ok(py)) = (u32::try_from(px), u32::try_from(py)) else { return };
            if let Some(pixel) = canvas.get_pixel_mut_checked(px, py) {
                for (value, ink) in pixel.0.iter_mut().zip(color.0) {
                    *value = (f32::from(*value) + (f32::from(ink) - f32::from(*value)) * share)
                        .round() as u8;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_rows_of_columns_with_room_for_captions_in_ink() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("grid.png");
        let image = Image { channels: 3, height: 40, width: 40, pixels: vec![1.0; 3 * 1600] };
        let caption = "a red circle left of a blue square";
        let cell = Captioned { image: &image, caption, mark: None };
        write_grid(&[cell; 3], 2, &path).expect("written");
        let grid = image::open(&path).expect("a PNG file").to_rgb8();
        assert_eq!(grid.dimensions(), (2 * (120 + GAP) + GAP, 2 * (120 + GAP + 28) + GAP));
        let dark = |from: u32| {
            let rows = from..from + CAPTION_LINES * LINE;
            let columns = GAP..GAP + 120;
            rows.flat_map(|y| columns.clone().map(move |x| (x, y)))
                .filter(|&(x, y)| grid.get_pixel(x, y).0[0] < 128)
                .count()
        };
        assert!(dark(GAP + 120) > 100, "a caption below the image");
        assert_eq!(dark(GAP + 60), 0, "no ink on the image");
    }

    #[test]
    fn a_verdict_is_a_frame_around_the_image_and_a_line_of_its_own() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("grid.png");
        let image = Image { channels: 3, height: 40, width: 40, pixels: vec![1.0; 3 * 1600] };
        let cell = |right| {
            let mark = Mark { right, text: "colors" };
            Captioned { image: &image, caption: "a red circle", mark: Some(mark) }
        };
        write_grid(&[cell(Some(true)), cell(Some(false)), cell(None)], 3, &path).expect("written");
        let grid = image::open(&path).expect("a PNG file").to_rgb8();
        assert_eq!(grid.height(), 120 + 2 * GAP + 3 * LINE);
        let at = |cell: u32, beside: u32| *grid.get_pixel(GAP + cell * 128 - beside, GAP + 60);
        assert_eq!([0, 1, 2].map(|cell| at(cell, 1)), [RIGHT, WRONG, PAPER]);
        assert_eq!([0, 1, 2].map(|cell| at(cell, 0)), [PAPER; 3], "the image is left as it is");
        let line = 120 + GAP + 3 + CAPTION_LINES * LINE;
        let inked = (line..line + LINE).flat_map(|y| (0..128).map(move |x| (x, y)));
        assert!(inked.filter(|&(x, y)| grid.get_pixel(x, y).0[0] < 128).count() > 20);
    }

    #[test]
    fn a_file_needs_its_directory_before_the_work_begins() {
        let home = tempfile::tempdir().expect("a directory");
        check_directory_of(&home.path().join("a.png")).expect("it is there");
        check_directory_of(&home.path().join("new/deep")).expect("a directory is made");
        let error = check_directory_of(&home.path().join("new/a.png")).expect_err("missing");
        assert!(error.to_string().contains("there is no directory"), "{error}");
    }
}
