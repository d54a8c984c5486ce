//! Changes of a picture that leave its content: with them, an encoder learns content.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use tasks::image::Image;

/// How strongly pictures are changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Augmentation {
    /// Largest shift in either direction, in pixels; white comes in.
    pub shift: i32,
    /// Largest relative change of the contrast and of each channel.
    pub color: f32,
    /// Largest standard deviation of the noise, of the range `[0, 1]`.
    pub noise: f32,
    /// Share of pictures that are blurred by the mean over 3 x 3 pixels.
    pub blur: f64,
}

impl Augmentation {
    /// Changes a picture.
    pub fn apply(&self, image: &Image, rng: &mut impl Rng) -> Image {
        let mut changed = self.shifted(image, rng);
        if rng.random_bool(self.blur) {
            changed = blurred(&changed);
        }
        let contrast = 1.0 + rng.random_range(-self.color..=self.color);
        let plane = image.height * image.width;
        let deviation = rng.random_range(0.0..=self.noise);
        for channel in changed.pixels.chunks_mut(plane) {
            let gain = 1.0 + rng.random_range(-self.color..=self.color) / 2.0;
            for value in channel {
                let noise: f32 = StandardNormal.sample(rng);
                let bright = ((*value - 0.5) * contrast + 0.5) * gain;
                *value = deviation.mul_add(noise, bright).clamp(0.0, 1.0);
            }
        }
        changed
    }

    fn shifted(&self, image: &Image, rng: &mut impl Rng) -> Image {
        let [down, right] = [0, 1].map(|_| rng.random_range(-self.shift..=self.shift));
        let (height, width) = (image.height as i32, image.width as i32);
        let mut shifted = Image { pixels: vec![1.0; image.pixels.len()], ..image.clone() };
        for channel in 0..image.channels as i32 {
            for row in 0..height {
                for column in 0..width {
                    let (from_row, from_column) = (row - down, column - right);
                    if (0..height).contains(&from_row) && (0..width).contains(&from_column) {
                        let at = |row, column| ((channel * height + row) * width + column) as usize;
                        shifted.pixels[at(row, column)] = image.pixels[at(from_row, from_column)];
                    }
                }
            }
        }
        shifted
    }
}

/// Washes a picture out: `contrast` is what it keeps of the distance to white, in `[0, 1]`.
pub fn faded(image: &Image, contrast: f32) -> Image {
    let pixels = image.pixels.iter().map(|value| 1.0 - (1.0 - value) * contrast).collect();
    Image { pixels, ..image.clone() }
}

/// The mean over 3 x 3 pixels, at the rim over those that exist.
fn blurred(image: &Image) -> Image {
    let mut blurred = image.clone();
    let plane = image.height * image.width;
    for channel in 0..image.channels {
        for row in 0..image.height {
            for column in 0..image.width {
                let rows = row.saturating_sub(1)..=(row + 1).min(image.height - 1);
                let columns = column.saturating_sub(1)..=(column + 1).min(image.width - 1);
                let (mut sum, mut count) = (0.0, 0.0);
                for y in rows {
                    for x in columns.clone() {
                        sum += image.pixels[channel * plane + y * image.width + x];
                        count += 1.0;
                    }
                }
                blurred.pixels[channel * plane + row * image.width + column] = sum / count;
            }
        }
    }
    blurred
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn dot() -> Image {
        let mut pixels = vec![1.0; 3 * 64];
        for channel in 0..3 {
            pixels[channel * 64 + 27] = 0.0;
        }
        Image { channels: 3, height: 8, width: 8, pixels }
    }

    #[test]
    fn a_shift_moves_the_dot_by_at_most_its_length_and_keeps_all_else_white() {
        let only_shift = Augmentation { shift: 2, color: 0.0, noise: 0.0, blur: 0.0 };
        let mut places = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let moved = only_shift.apply(&dot(), &mut ChaCha8Rng::seed_from_u64(seed));
            let dark: Vec<usize> = (0..64).filter(|at| moved.pixels[*at] == 0.0).collect();
            assert_eq!(dark.len(), 1);
            let (row, column) = (dark[0] as i32 / 8, dark[0] as i32 % 8);
            assert!((row - 3).abs() <= 2 && (column - 3).abs() <= 2);
            places.insert((row, column));
        }
        assert_eq!(places.len(), 25, "every shift occurs");
    }

    #[test]
    fn a_faded_picture_keeps_its_white_and_a_share_of_its_darkness() {
        assert_eq!(faded(&dot(), 1.0), dot());
        let pale = faded(&dot(), 0.25);
        assert!(
            pale.pixels
                .iter()
                .zip(&dot().pixels)
                .all(|(pale, full)| *pale == if *full == 0.0 { 0.75 } else { 1.0 })
        );
    }

    #[test]
    fn values_stay_in_range_and_a_blur_keeps_the_sum_inside() {
        let all = Augmentation { shift: 1, color: 0.5, noise: 0.5, blur: 1.0 };
        for seed in 0..50 {
            let changed = all.apply(&dot(), &mut ChaCha8Rng::seed_from_u64(seed));
            assert!(changed.pixels.iter().all(|value| (0.0..=1.0).contains(value)));
        }
        let sum = |image: &Image| image.pixels.iter().sum::<f32>();
        assert!((sum(&blurred(&dot())) - sum(&dot())).abs() < 1e-3);
    }
}
