//! Image statistics that do not depend on the content, to detect a drift from the base model's
//! images.
//!
//! All statistics are of RGB images with values in `[0, 1]`; values outside are clamped.

use crate::image::Image;

/// The median of every channel: in an image of few objects, the colour of its background.
pub fn background(image: &Image) -> [f32; 3] {
    let pixels = all(image);
    [0, 1, 2].map(|channel| median(pixels.iter().map(|pixel| pixel[channel]).collect()))
}

/// Mean saturation over all pixels, `(max − min)/max` of the channels, in `[0, 1]`.
pub fn saturation(image: &Image) -> f64 {
    let of_pixel = |[r, g, b]: [f32; 3]| {
        let (low, high) = (r.min(g).min(b), r.max(g).max(b));
        if high > 0.0 { f64::from((high - low) / high) } else { 0.0 }
    };
    mean(all(image).into_iter().map(of_pixel))
}

/// The brightness of the [`background`], the mean of its channels, in `[0, 1]`.
pub fn background_brightness(image: &Image) -> f64 {
    f64::from(brightness(background(image)))
}

/// Brightness below which a pixel is dark: the base model's backgrounds are at least this bright.
const DARK: f32 = 0.05;

/// The share of dark pixels, in `[0, 1]`.
pub fn dark_pixels(image: &Image) -> f64 {
    mean(all(image).into_iter().map(|pixel| share(brightness(pixel) < DARK)))
}

/// Brightness difference to the pixel on the right or below, above which a pixel is at an edge.
const EDGE: f32 = 0.1;

/// The share of pixels at an edge, in `[0, 1]`.
pub fn edge_density(image: &Image) -> f64 {
    let at = |row: usize, column: usize| {
        brightness(image.rgb(row.min(image.height - 1), column.min(image.width - 1)))
    };
    let step = |row: usize, column: usize| {
        (at(row, column + 1) - at(row, column))
            .abs()
            .max((at(row + 1, column) - at(row, column)).abs())
    };
    mean(places(image).map(|(row, column)| share(step(row, column) > EDGE)))
}

/// Largest RGB distance from the [`background`] at which a pixel belongs to it.
const BACKGROUND: f32 = 0.3;

/// High-frequency energy of the background: the mean square difference between a pixel and the mean
/// of its four neighbours, over all channels of pixels with only background around them. 0 for an
/// image without such pixels.
///
/// ```text
/// E = mean( (p − (p↑ + p↓ + p← + p→)/4)² )
/// ```
///
/// Independent noise of std `s` gives `5/4·s²`.
pub fn high_frequency(image: &Image) -> f64 {
    let ground = background(image);
    let is_ground = |row: usize, column: usize| {
        let pixel = image.rgb(row, column);
        (0..3).map(|channel| (pixel[channel] - ground[channel]).powi(2)).sum::<f32>()
            <= BACKGROUND.powi(2)
    };
    let inner = places(image).filter(|&(row, column)| {
        let inside = row > 0 && column > 0 && row + 1 < image.height && column + 1 < image.width;
        inside
            && (row - 1..=row + 1)
                .all(|row| (column - 1..=column + 1).all(|column| is_ground(row, column)))
    });
    let energy = |(row, column): (usize, usize)| {
        let [here, up, down, left, right] = [
            (row, column),
            (row - 1, column),
            (row + 1, column),
            (row, column - 1),
            (row, column + 1),
        ]
        .map(|(row, column)| image.rgb(row, column));
        let detail = |i: usize| here[i] - (up[i] + down[i] + left[i] + right[i]) / 4.0;
        mean((0..3).map(|channel| f64::from(detail(channel).powi(2))))
    };
    mean(inner.map(energy))
}

/// The median of some numbers; the upper of the two middle ones if their number is even.
///
/// # Panics
/// If `values` is empty.
pub(crate) fn median(mut values: Vec<f32>) -> f32 {
    let middle = values.len() / 2;
    *values.select_nth_unstable_by(middle, f32::total_cmp).1
}

fn all(image: &Image) -> Vec<[f32; 3]> {
    places(image).map(|(row, column)| image.rgb(row, column)).collect()
}

fn places(image: &Image) -> impl Iterator<Item = (usize, usize)> {
    let width = image.width;
    (0..image.height).flat_map(move |row| (0..width).map(move |column| (row, column)))
}

fn brightness([r, g, b]: [f32; 3]) -> f32 {
    (r + g + b) / 3.0
}

fn share(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    sum / count.max(1) as f64
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use rand_distr::{Distribution, StandardNormal};

    use super::*;

    fn plain(value: f32) -> Image {
        Image { channels: 3, height: 24, width: 24, pixels: vec![value; 3 * 576] }
    }

    fn noisy(std: f32, seed: u64) -> Image {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut image = plain(0.4);
        image.pixels.iter_mut().for_each(|pixel| {
            let z: f32 = StandardNormal.sample(&mut rng);
            *pixel += std * z;
        });
        image
    }

    #[test]
    fn noise_has_five_quarters_of_its_variance_as_high_frequency_energy() {
        for seed in 0..20 {
            let energy = high_frequency(&noisy(0.03, seed));
            assert!((energy / (1.25 * 9e-4) - 1.0).abs() < 0.2, "seed {seed}: {energy}");
        }
        assert_eq!(high_frequency(&plain(0.4)), 0.0);
    }

    #[test]
    fn an_object_is_no_high_frequency_energy_of_the_background() {
        let mut image = plain(0.2);
        for (row, column) in (8..16).flat_map(|row| (8..16).map(move |column| (row, column))) {
            image.pixels[row * 24 + column] = 0.9;
        }
        assert_eq!(high_frequency(&image), 0.0);
        // 8 pixels to its left, 8 above it, and its own last row and column, whose corner counts
        // once.
        assert!(
            (edge_density(&image) - 32.0 / 576.0).abs() < 2.0 / 576.0,
            "{}",
            edge_density(&image) * 576.0
        );
        assert!((background_brightness(&image) - 0.2).abs() < 1e-6);
    }

    #[test]
    fn dark_pixels_are_counted_and_colour_is_saturation() {
        let mut image = plain(0.2);
        (0..144).for_each(|index| {
            for plane in [0, 576, 1152] {
                image.pixels[plane + index] = 0.01;
            }
        });
        assert_eq!(dark_pixels(&image), 0.25);
        let mut red = plain(0.0);
        red.pixels[..576].fill(0.8);
        assert_eq!((saturation(&plain(0.5)), saturation(&red)), (0.0, 1.0));
    }
}
