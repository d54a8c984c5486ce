//! Points of the plane as PNG: the images of the toy task.

use std::path::Path;

use image::{Rgb, RgbImage};
use tasks::{image::Image, toy};

use crate::{RunError, png};

/// Side of the plot, in pixels.
const SIDE: u32 = 400;
/// Range of the scatter plot, from the origin to each side.
const REACH: f32 = 3.2;

/// Writes points of the plane as a scatter plot; circles mark the clusters of the data.
///
/// # Errors
/// If the file cannot be written.
pub fn write_scatter(points: &[Image], path: &Path) -> Result<(), RunError> {
    let mut image = RgbImage::from_pixel(SIDE, SIDE, Rgb([255, 255, 255]));
    for mode in 0..toy::MODES {
        let [x, y] = toy::center(mode);
        for step in 0..720 {
            let angle = step as f32 / 720.0 * std::f32::consts::TAU;
            let radius = 3.0 * toy::STD;
            dot(
                &mut image,
                x + radius * angle.cos(),
                y + radius * angle.sin(),
                0,
                Rgb([170, 170, 170]),
            );
        }
    }
    for point in points {
        dot(&mut image, point.pixels[0], point.pixels[1], 1, Rgb([31, 119, 180]));
    }
    png::write_png(&image, path)
}

fn dot(image: &mut RgbImage, x: f32, y: f32, radius: i32, color: Rgb<u8>) {
    let at = |value: f32| (f32::midpoint(value / REACH, 1.0) * SIDE as f32) as i32;
    let (column, row) = (at(x), at(-y));
    for (dx, dy) in (-radius..=radius).flat_map(|dx| (-radius..=radius).map(move |dy| (dx, dy))) {
        if let (Ok(column), Ok(row)) =
            (u32::try_from(column.saturating_add(dx)), u32::try_from(row.saturating_add(dy)))
            && let Some(pixel) = image.get_pixel_mut_checked(column, row)
        {
            *pixel = color;
        }
    }
}
