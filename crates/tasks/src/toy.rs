//! A toy task in the plane, for tests and for teaching: points in eight clusters, and a reward for
//! one of them.
//!
//! A point is an image of one pixel with two channels.

use rand::Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::{
    image::Image,
    prompts::{Prompt, PromptSet},
    reward::{Reward, Unjudged},
};

/// The number of clusters.
pub const MODES: usize = 8;
/// The standard deviation of a cluster.
pub const STD: f32 = 0.2;
/// The distance of the clusters from the origin.
pub const RADIUS: f32 = 2.0;
/// Distance from the cluster over which the reward falls, the `σ` of its Gaussian.
const REWARD_WIDTH: f32 = 0.5;

/// The centre of a cluster.
pub fn center(mode: usize) -> [f32; 2] {
    let angle = mode as f32 * std::f32::consts::TAU / MODES as f32;
    [RADIUS * angle.cos(), RADIUS * angle.sin()]
}

/// Draws a point of the data.
pub fn sample(rng: &mut impl Rng) -> Image {
    let [x, y] = center(rng.random_range(0..MODES));
    let mut jitter = || {
        let z: f32 = StandardNormal.sample(rng);
        STD * z
    };
    Image { channels: 2, height: 1, width: 1, pixels: vec![x + jitter(), y + jitter()] }
}

/// The one prompt of the task.
pub fn prompts() -> PromptSet {
    PromptSet {
        name: "toy".to_owned(),
        prompts: vec![Prompt { tag: "toy".to_owned(), ..Prompt::plain("a point") }],
    }
}

/// Reward `exp(−d²/(2·0.5²))`, where `d` is the distance from a place; in `(0, 1]`.
#[derive(Clone, Copy, Debug)]
pub struct Near {
    /// The place in the plane.
    pub place: [f32; 2],
}

impl Reward for Near {
    fn score(&self, images: &[Image], _prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        let [x, y] = self.place;
        let squared = |image: &Image| (image.pixels[0] - x).powi(2) + (image.pixels[1] - y).powi(2);
        Ok(images
            .iter()
            .map(|image| (-squared(image) / (2.0 * REWARD_WIDTH.powi(2))).exp())
            .collect())
    }
}

/// The reward of the task: [`Near`] the first cluster.
#[derive(Clone, Copy, Debug)]
pub struct FirstMode;

impl Reward for FirstMode {
    fn score(&self, images: &[Image], prompts: &[&Prompt]) -> Result<Vec<f32>, Unjudged> {
        Near { place: center(0) }.score(images, prompts)
    }
}
