//! Renders signs to pixels.

use ab_glyph::{Font, FontRef, PxScale, point};

use super::{Sign, Typeface};
use crate::image::Image;

/// Draws a sign, anti-aliased, at any resolution: `resolution` is the side in pixels.
pub fn render(sign: &Sign, resolution: usize) -> Image {
    let plane = resolution * resolution;
    let mut image = Image {
        channels: 3,
        height: resolution,
        width: resolution,
        pixels: vec![sign.background; 3 * plane],
    };
    paint_board(sign, &mut image);
    paint_word(sign, &mut image);
    image
}

/// The colour of the letters: black or white, whichever differs more from the board in brightness.
fn ink(board: [f32; 3]) -> [f32; 3] {
    let [r, g, b] = board;
    // Brightness as in ITU-R BT.601.
    let brightness = 0.299 * r + 0.587 * g + 0.114 * b;
    [if brightness > 0.5 { 0.05 } else { 0.97 }; 3]
}

fn paint_board(sign: &Sign, image: &mut Image) {
    let side = image.width as f32;
    // Share of a pixel between two edges.
    let overlap = |pixel: usize, center: f32, length: f32| {
        let (from, to) = ((center - length / 2.0) * side, (center + length / 2.0) * side);
        let pixel = pixel as f32;
        (to.min(pixel + 1.0) - from.max(pixel)).clamp(0.0, 1.0)
    };
    for row in 0..image.height {
        for column in 0..image.width {
            let share = overlap(row, sign.center.1, sign.board.1)
                * overlap(column, sign.center.0, sign.board.0);
            blend(image, row, column, sign.color.rgb(), share);
        }
    }
}

fn paint_word(sign: &Sign, image: &mut Image) {
    let font = font(sign.typeface);
    let side = image.width as f32;
    let (scale, capital) = scale(&font, sign, side);
    let ink = ink(sign.color.rgb());
    let letters = sign.word.chars().count() as f32;
    let left = sign.center.0 * side - letters * sign.pitch * side / 2.0;
    let baseline = sign.center.1 * side + capital / 2.0;
    for (index, letter) in sign.word.chars().enumerate() {
        let at = point(left + index as f32 * sign.pitch * side, baseline);
        let glyph = font.glyph_id(letter).with_scale_and_position(scale, at);
        let Some(outline) = font.outline_glyph(glyph) else { continue };
        let corner = outline.px_bounds().min;
        let (height, width) = (image.height as f32, image.width as f32);
        outline.draw(|x, y, share| {
            let (column, row) = (corner.x + x as f32, corner.y + y as f32);
            if (0.0..height).contains(&row) && (0.0..width).contains(&column) {
                blend(image, row as usize, column as usize, ink, share.clamp(0.0, 1.0));
            }
        });
    }
}

/// The scale of the font at which a letter is as wide, and a capital as high, as the sign asks;
/// and the height of a capital in pixels.
fn scale(font: &FontRef<'_>, sign: &Sign, side: f32) -> (PxScale, f32) {
    let height = sign.height * side;
    let line = font.height_unscaled();
    let letter = font.glyph_id('H');
    let capital = font.outline(letter).map_or(line, |outline| outline.bounds.height().abs());
    // `PxScale` is the height of a line; its horizontal part has the same unit.
    let x = sign.pitch * side / font.h_advance_unscaled(letter) * line;
    (PxScale { x, y: height / capital * line }, height)
}

fn font(typeface: Typeface) -> FontRef<'static> {
    let bytes: &[u8] = match typeface {
        Typeface::Bold => include_bytes!("../../../../assets/fonts/DejaVuSansMono-Bold-AZ.ttf"),
        Typeface::Regular => include_bytes!("../../../../assets/fonts/DejaVuSansMono-AZ.ttf"),
    };
    FontRef::try_from_slice(bytes).expect("the font is part of the program")
}

/// Mixes a colour into a pixel.
fn blend(image: &mut Image, row: usize, column: usize, color: [f32; 3], share: f32) {
    let plane = image.height * image.width;
    for (channel, value) in color.into_iter().enumerate() {
        let pixel = &mut image.pixels[channel * plane + row * image.width + column];
        *pixel += (value - *pixel) * share;
    }
}
