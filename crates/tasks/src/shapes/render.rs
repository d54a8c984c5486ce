//! Renders scenes to pixels.

use super::{Object, Scene, Shape};
use crate::image::Image;

/// Draws a scene, anti-aliased, at any resolution.
pub fn render(scene: &Scene, resolution: usize) -> Image {
    let plane = resolution * resolution;
    let mut pixels = vec![scene.background; 3 * plane];
    for object in &scene.objects {
        for (row, column, share) in covered(object, resolution) {
            for (channel, color) in object.color.rgb().into_iter().enumerate() {
                let pixel = &mut pixels[channel * plane + row * resolution + column];
                *pixel += (color - *pixel) * share;
            }
        }
    }
    Image { channels: 3, height: resolution, width: resolution, pixels }
}

/// Share of every pixel that an object covers, row-major, in `[0, 1]`.
pub fn coverage(object: &Object, resolution: usize) -> Vec<f32> {
    let mut shares = vec![0.0; resolution * resolution];
    for (row, column, share) in covered(object, resolution) {
        shares[row * resolution + column] = share;
    }
    shares
}

/// Samples per pixel and axis.
const SAMPLES: usize = 4;

/// Pixels that an object touches, each with the share that the object covers.
fn covered(object: &Object, resolution: usize) -> impl Iterator<Item = (usize, usize, f32)> {
    let object = *object;
    let side = resolution as f32;
    let range = move |center: f32| {
        let first = ((center - object.size / 2.0) * side).floor().max(0.0) as usize;
        let last = ((center + object.size / 2.0) * side).ceil().clamp(0.0, side) as usize;
        first..last
    };
    let rows = range(object.center.1);
    let columns = range(object.center.0);
    rows.flat_map(move |row| columns.clone().map(move |column| (row, column))).filter_map(
        move |(row, column)| {
            let at = |pixel: usize, sample: usize| {
                (pixel as f32 + (sample as f32 + 0.5) / SAMPLES as f32) / side
            };
            let inside = (0..SAMPLES * SAMPLES)
                .filter(|sample| {
                    contains(&object, at(column, sample % SAMPLES), at(row, sample / SAMPLES))
                })
                .count();
            (inside > 0).then(|| (row, column, inside as f32 / (SAMPLES * SAMPLES) as f32))
        },
    )
}

/// Half the width of a cross's arms, in shares of its size.
const ARM: f32 = 0.17;

/// Whether a point lies inside an object.
fn contains(object: &Object, x: f32, y: f32) -> bool {
    // In units of the object's size, from its centre: the bounding square is [−½, ½]².
    let (u, v) = ((x - object.center.0) / object.size, (y - object.center.1) / object.size);
    if u.abs() > 0.5 || v.abs() > 0.5 {
        return false;
    }
    match object.shape {
        Shape::Circle => u * u + v * v <= 0.25,
        // Slightly smaller than its box, so that the four shapes cover comparable areas.
        Shape::Square => u.abs().max(v.abs()) <= 0.45,
        Shape::Triangle => 2.0 * u.abs() <= v + 0.5,
        Shape::Cross => u.abs() <= ARM || v.abs() <= ARM,
    }
}
