//! Monitors: measurements of images that are not trained on and show first when a reward is hacked.

use std::collections::BTreeMap;

use anyhow::Result;
use grpo::{advantage, evaluate::Row};
use serde::{Deserialize, Serialize};
use tasks::{
    image::Image, jpeg::jpeg_kilobytes, pixels, prompts::Prompt, reward::WeightedReward,
    shapes::color_entropy,
};

/// The monitors of a set of images by name: those of [`names`] that these images have.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Monitors(BTreeMap<String, f64>);

/// The names of the monitors.
///
/// - `diversity`: mean distance between two images for the same prompt, the root of the mean
///   squared difference of their pixels;
/// - for RGB images the means of `saturation`, `background_brightness`, `dark_pixels`,
///   `edge_density` and `high_frequency` ([`tasks::pixels`]), and `jpeg_kilobytes`, the size as a
///   JPEG of quality 95, which grows with noise and texture and falls with blur and emptiness;
/// - for images whose prompts leave colours open, `color_entropy`, the entropy of those colours
///   ([`tasks::shapes::color_entropy`]);
/// - in evaluations of RGB images, `base_distance`, the distance to the images that the base model
///   made for the same prompts from the same noise.
pub fn names(image_shape: [usize; 3], open_colors: bool) -> Vec<&'static str> {
    let colored = if image_shape[0] == 3 { &OF_COLORED[..] } else { &[] };
    let open = if open_colors { &[COLOR_ENTROPY][..] } else { &[] };
    [&[DIVERSITY], colored, open].concat()
}

const DIVERSITY: &str = "diversity";
const COLOR_ENTROPY: &str = "color_entropy";
/// The name of the distance to the base model's images.
pub const BASE_DISTANCE: &str = "base_distance";
const OF_COLORED: [&str; 7] = [
    "saturation",
    "background_brightness",
    "dark_pixels",
    "edge_density",
    "high_frequency",
    "jpeg_kilobytes",
    BASE_DISTANCE,
];

impl Monitors {
    /// Computes the monitors of images, all but [`BASE_DISTANCE`]; images whose rows have the same
    /// prompt belong together.
    pub fn of(images: &[Image], rows: &[Row], prompts: &[&Prompt]) -> Result<Self> {
        let mut numbers = BTreeMap::from([(DIVERSITY.to_owned(), diversity(images, rows))]);
        if images.iter().all(|image| image.channels == 3) && !images.is_empty() {
            let mean =
                |of: fn(&Image) -> f64| advantage::mean(&images.iter().map(of).collect::<Vec<_>>());
            let kilobytes = images.iter().map(jpeg_kilobytes).collect::<Result<Vec<f64>, _>>()?;
            numbers.extend([
                ("saturation".to_owned(), mean(pixels::saturation)),
                ("background_brightness".to_owned(), mean(pixels::background_brightness)),
                ("dark_pixels".to_owned(), mean(pixels::dark_pixels)),
                ("edge_density".to_owned(), mean(pixels::edge_density)),
                ("high_frequency".to_owned(), mean(pixels::high_frequency)),
                ("jpeg_kilobytes".to_owned(), advantage::mean(&kilobytes)),
            ]);
            numbers.extend(
                color_entropy(images, prompts).map(|entropy| (COLOR_ENTROPY.to_owned(), entropy)),
            );
        }
        Ok(Self(numbers))
    }

    /// Adds a monitor.
    pub fn insert(&mut self, name: &str, value: f64) {
        self.0.insert(name.to_owned(), value);
    }

    /// Ratio of every monitor to the base model's value, `(x + 1e-9)/(x_base + 1e-9)`: finite if
    /// the base has 0.
    pub fn relative_to(&self, base: &Self) -> BTreeMap<String, f64> {
        let relative = |(name, value): (&String, &f64)| {
            Some((name.clone(), (value + 1e-9) / (base.0.get(name)? + 1e-9)))
        };
        self.0.iter().filter_map(relative).collect()
    }

    /// A table of these monitors beside those of the base model's images.
    pub fn drift_table(&self, base: &Self) -> String {
        let relative = self.relative_to(base);
        let mut table = format!("{:<24}{:>10}{:>10}{:>10}\n", "images", "base", "now", "now/base");
        for (name, ratio) in &relative {
            table += &format!(
                "{name:<24}{:>10}{:>10}{ratio:>10.2}\n",
                short(base.0[name]),
                short(self.0[name])
            );
        }
        table
    }
}

/// Formats a number in a few characters.
fn short(value: f64) -> String {
    if value != 0.0 && value.abs() < 1e-3 { format!("{value:.2e}") } else { format!("{value:.3}") }
}

/// The mean of every reward by name.
pub fn means(
    reward: &WeightedReward,
    images: &[Image],
    prompts: &[&Prompt],
) -> Result<BTreeMap<String, f64>> {
    let mean =
        |scores: Vec<f32>| advantage::mean(&scores.into_iter().map(f64::from).collect::<Vec<_>>());
    Ok(reward
        .score(images, prompts)?
        .parts
        .into_iter()
        .map(|part| (part.name, mean(part.scores)))
        .collect())
}

/// The mean over prompts of the mean distance between their images; prompts with one image are left
/// out.
fn diversity(images: &[Image], rows: &[Row]) -> f64 {
    let mut by_prompt: BTreeMap<usize, Vec<&Image>> = BTreeMap::new();
    for (image, row) in images.iter().zip(rows) {
        by_prompt.entry(row.prompt).or_default().push(image);
    }
    let of_prompt = |images: &Vec<&Image>| {
        let pairs = (0..images.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
        advantage::mean(&pairs.map(|(i, j)| distance(images[i], images[j])).collect::<Vec<_>>())
    };
    advantage::mean(
        &by_prompt.values().filter(|images| images.len() > 1).map(of_prompt).collect::<Vec<_>>(),
    )
}

fn distance(a: &Image, b: &Image) -> f64 {
    let squares: f32 = a.pixels.iter().zip(&b.pixels).map(|(a, b)| (a - b).powi(2)).sum();
    (f64::from(squares) / a.pixels.len() as f64).sqrt()
}

/// Mean and standard deviation of coarse features of images: the mean of every channel in each of 4
/// x 4 fields, and the mean brightness difference between neighbouring pixels.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Features {
    mean: Vec<f64>,
    std: Vec<f64>,
}

const FIELDS: usize = 4;

impl Features {
    /// The features of RGB images; `None` for others.
    pub fn of(images: &[Image]) -> Option<Self> {
        if images.is_empty()
            || images
                .iter()
                .any(|image| image.channels != 3 || image.height.min(image.width) < FIELDS)
        {
            return None;
        }
        let of_images: Vec<Vec<f64>> = images.iter().map(features).collect();
        let column = |i: usize| of_images.iter().map(|features| features[i]).collect::<Vec<f64>>();
        let columns = 0..of_images[0].len();
        Some(Self {
            mean: columns.clone().map(|i| advantage::mean(&column(i))).collect(),
            std: columns.map(|i| advantage::std(&column(i))).collect(),
        })
    }

    /// The Fréchet distance between the two Gaussians with these means and diagonal covariances:
    ///
    /// ```text
    /// √( Σ (μ − μ')² + (σ − σ')² )
    /// ```
    ///
    /// Source: arXiv 1706.08500, section 2, with fixed features and without correlations.
    pub fn distance(&self, other: &Self) -> f64 {
        let squares =
            |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        (squares(&self.mean, &other.mean) + squares(&self.std, &other.std)).sqrt()
    }
}

fn features(image: &Image) -> Vec<f64> {
    let brightness = |row: usize, column: usize| image.rgb(row, column).iter().sum::<f32>() / 3.0;
    let mut sums = vec![[0.0_f64; 5]; FIELDS * FIELDS];
    for row in 0..image.height {
        for column in 0..image.width {
            let field =
                &mut sums[row * FIELDS / image.height * FIELDS + column * FIELDS / image.width];
            let (right, down) =
                ((column + 1).min(image.width - 1), (row + 1).min(image.height - 1));
            let here = brightness(row, column);
            let edges =
                (brightness(row, right) - here).abs() + (brightness(down, column) - here).abs();
            let [r, g, b] = image.rgb(row, column);
            for (sum, value) in field.iter_mut().zip([r, g, b, edges, 1.0]) {
                *sum += f64::from(value);
            }
        }
    }
    sums.into_iter()
        .flat_map(|[r, g, b, edges, pixels]| [r, g, b, edges].map(|sum| sum / pixels))
        .collect()
}

#[cfg(test)]
mod tests {
    use tasks::shapes;
    use training::noise::{Key, Purpose};

    use super::*;

    fn plain(value: f32) -> Image {
        Image { channels: 3, height: 8, width: 8, pixels: vec![value; 3 * 64] }
    }

    fn of(images: &[Image], rows: &[Row]) -> BTreeMap<String, f64> {
        let prompt = Prompt::plain("an image");
        Monitors::of(images, rows, &vec![&prompt; images.len()]).expect("numbers").0
    }

    #[test]
    fn diversity_is_within_prompts_and_not_between_them() {
        let rows: Vec<Row> =
            [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(prompt, sample)| Row { prompt, sample }).into();
        let same = [0.2, 0.2, 0.9, 0.9].map(plain);
        let differ = [0.2, 0.5, 0.2, 0.5].map(plain);
        assert_eq!(of(&same, &rows)[DIVERSITY], 0.0);
        assert!((of(&differ, &rows)[DIVERSITY] - 0.3).abs() < 1e-6);
    }

    #[test]
    fn noise_makes_jpegs_larger() {
        let mut noisy = plain(0.5);
        noisy
            .pixels
            .iter_mut()
            .enumerate()
            .for_each(|(i, pixel)| *pixel = (i * 37 % 101) as f32 / 100.0);
        let of = |image: &Image| of(std::slice::from_ref(image), &[Row { prompt: 0, sample: 0 }]);
        assert!(of(&noisy)["jpeg_kilobytes"] > of(&plain(0.5))["jpeg_kilobytes"]);
    }

    #[test]
    fn every_name_is_that_of_a_number_and_drift_is_relative_to_the_base() {
        let prompt = shapes::prompts(shapes::Split::Train).prompts.remove(0);
        let scene = shapes::Scene::sample(
            &shapes::Metadata::of(&prompt).expect("metadata"),
            24,
            &mut Key::new(1, Purpose::Order).rng(),
        );
        let image = shapes::render(&scene, 24);
        let numbers =
            Monitors::of(std::slice::from_ref(&image), &[Row { prompt: 0, sample: 0 }], &[&prompt])
                .expect("numbers");
        let mut named: Vec<&str> = names([3, 24, 24], true);
        named.retain(|name| *name != BASE_DISTANCE);
        named.sort_unstable();
        assert_eq!(numbers.0.keys().map(String::as_str).collect::<Vec<_>>(), named);
        let mut doubled = numbers.clone();
        doubled.0.values_mut().for_each(|value| *value *= 2.0);
        assert!(
            doubled
                .relative_to(&numbers)
                .values()
                .all(|ratio| *ratio == 1.0 || (ratio - 2.0).abs() < 1e-2)
        );
        assert!(doubled.drift_table(&numbers).contains("2.00"));
        assert_eq!(names([2, 1, 1], false), [DIVERSITY]);
    }

    #[test]
    fn features_tell_sets_of_images_apart() {
        let of = |values: &[f32]| {
            Features::of(&values.iter().copied().map(plain).collect::<Vec<_>>()).expect("RGB")
        };
        assert_eq!(of(&[0.1, 0.3]).distance(&of(&[0.3, 0.1])), 0.0);
        // 48 colour features, each moved by 0.1 in mean; then each with another spread.
        assert!((of(&[0.1, 0.3]).distance(&of(&[0.2, 0.4])) - 0.1 * 48.0_f64.sqrt()).abs() < 1e-6);
        assert!((of(&[0.1, 0.3]).distance(&of(&[0.0, 0.4])) - 0.1 * 48.0_f64.sqrt()).abs() < 1e-6);
        assert!(
            Features::of(&[Image { channels: 2, height: 1, width: 1, pixels: vec![0.0; 2] }])
                .is_none()
        );
    }
}
