//! What the verifier of the shapes task makes of an image, step by step.

use image::{Rgb, RgbImage};
use tasks::shapes::{Color, Object, Scene, Shape, coverage, examine, render};

/// Height and width of the image, in pixels.
const SIDE: usize = 24;
/// Colours of the blobs, one after the other.
const BLOBS: [[u8; 3]; 2] = [[31, 119, 180], [217, 98, 11]];

/// The image of the book's example, the foreground with its blobs, and the shapes that fit them best.
pub fn frames() -> Vec<RgbImage> {
    let object = |shape, color, x| Object { shape, color, center: (x, 0.5), size: 0.35 };
    let objects =
        vec![object(Shape::Circle, Color::Red, 0.25), object(Shape::Square, Color::Blue, 0.75)];
    let image = render(&Scene { background: 0.1, objects }, SIDE);
    let seen = examine(&image).expect("the image is finite");
    let mut blobs = frame([60; 3]);
    let mut shapes = frame([60; 3]);
    for (blob, color) in seen.blobs.iter().zip(BLOBS) {
        for &pixel in &blob.pixels {
            *at(&mut blobs, pixel) = Rgb(color);
        }
        let Some(found) = blob.object else { continue };
        let object = Object {
            shape: found.shape,
            color: found.color,
            center: found.center,
            size: found.size,
        };
        for (pixel, share) in coverage(&object, SIDE).into_iter().enumerate() {
            let place = at(&mut shapes, pixel);
            for (old, new) in place.0.iter_mut().zip(color) {
                *old = (f32::from(*old) + (f32::from(new) - f32::from(*old)) * share).round() as u8;
            }
        }
    }
    let drawn = RgbImage::from_raw(SIDE as u32, SIDE as u32, image.rgb8());
    vec![drawn.expect("three bytes a pixel"), blobs, shapes]
}

fn frame(color: [u8; 3]) -> RgbImage {
    RgbImage::from_pixel(SIDE as u32, SIDE as u32, Rgb(color))
}

/// A pixel by its number, row by row.
fn at(frame: &mut RgbImage, pixel: usize) -> &mut Rgb<u8> {
    frame.get_pixel_mut((pixel % SIDE) as u32, (pixel / SIDE) as u32)
}
