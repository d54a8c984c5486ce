//! The verifier against thousands of rendered scenes: what it must accept and what it must refuse.

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tasks::{
    image::Image,
    shapes::{self, Metadata, Scene, Split},
};

/// Metadata of all prompts, every kind equally often.
fn metadata(count: usize) -> Vec<Metadata> {
    let all = [Split::Train, Split::Test, Split::Unseen].into_iter().flat_map(|split| shapes::prompts(split).prompts);
    let all: Vec<Metadata> = all.filter_map(|prompt| prompt.metadata).collect();
    let of = |tag| all.iter().filter(move |metadata| metadata.tag == tag).cycle();
    let mut kinds: Vec<_> = shapes::Tag::ALL.into_iter().map(of).collect();
    (0..count).map(|i| kinds[i % 6].next().expect("every kind has prompts").clone()).collect()
}

/// The share of `count` pictures that the verifier accepts, each made from metadata by `make`.
fn accepted(count: usize, seed: u64, mut make: impl FnMut(&Metadata, &mut ChaCha8Rng) -> Image) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let right = metadata(count).iter().filter(|metadata| shapes::verify(&make(metadata, &mut rng), metadata).strict()).count();
    right as f64 / count as f64
}

fn rendered(metadata: &Metadata, resolution: usize, rng: &mut ChaCha8Rng) -> Image {
    shapes::render(&Scene::sample(metadata, resolution, rng), resolution)
}

#[test]
fn a_true_scene_is_accepted() {
    for (resolution, count) in [(24, 10_000), (32, 1_000), (64, 1_000)] {
        let share = accepted(count, 1, |metadata, rng| rendered(metadata, resolution, rng));
        println!("{resolution}: {share}");
        assert!(share >= 0.995, "{share} at {resolution} pixels");
    }
}

#[test]
fn a_true_scene_with_mild_noise_is_accepted() {
    let share = accepted(2_000, 2, |metadata, rng| {
        let mut image = rendered(metadata, 24, rng);
        for pixel in &mut image.pixels {
            let z: f32 = StandardNormal.sample(rng);
            *pixel += 0.03 * z;
        }
        image
    });
    println!("noisy: {share}");
    assert!(share >= 0.99, "{share}");
}

#[test]
fn a_scene_of_a_similar_prompt_is_refused() {
    let share = accepted(10_000, 3, |metadata, rng| rendered(&metadata.similar(rng), 24, rng));
    println!("similar: {share}");
    assert!(share <= 0.01, "{share}");
}

#[test]
fn blank_pictures_and_noise_are_refused() {
    let blank = |level: f32| Image { channels: 3, height: 24, width: 24, pixels: vec![level; 3 * 576] };
    assert_eq!(accepted(600, 4, |_, rng| blank(rng.random())), 0.0);
    let noise = |rng: &mut ChaCha8Rng| Image { pixels: (0..3 * 576).map(|_| rng.random()).collect(), ..blank(0.0) };
    assert_eq!(accepted(600, 5, |_, rng| noise(rng)), 0.0);
    assert_eq!(accepted(60, 6, |_, _| blank(f32::NAN)), 0.0);
}

#[test]
fn blurred_shapes_are_refused() {
    let share = accepted(2_000, 6, |metadata, rng| blurred(&rendered(metadata, 24, rng), 2));
    println!("blurred: {share}");
    assert!(share <= 0.01, "{share}");
}

#[test]
fn shapes_with_parts_missing_are_refused() {
    let share = accepted(2_000, 7, |metadata, rng| {
        let scene = Scene::sample(metadata, 24, rng);
        let mut image = shapes::render(&scene, 24);
        // A bar of background, a quarter of the object wide, through the middle of the first object.
        let object = scene.objects[0];
        let (first, last) = (object.center.0 - object.size / 8.0, object.center.0 + object.size / 8.0);
        for column in (first * 24.0).floor() as usize..=(last * 24.0).floor() as usize {
            for row in ((object.center.1 - object.size / 2.0) * 24.0) as usize
                ..=(((object.center.1 + object.size / 2.0) * 24.0) as usize).min(23)
            {
                for channel in 0..3 {
                    image.pixels[channel * 576 + row * 24 + column] = scene.background;
                }
            }
        }
        image
    });
    println!("cut: {share}");
    assert!(share <= 0.01, "{share}");
}

#[test]
fn pictures_in_shuffled_pieces_are_refused() {
    let share = accepted(2_000, 8, |metadata, rng| {
        let image = rendered(metadata, 24, rng);
        let mut tiles: Vec<usize> = (0..36).collect();
        tiles.shuffle(rng);
        let pixel = |index: usize| {
            let (channel, row, column) = (index / 576, index / 24 % 24, index % 24);
            let tile = tiles[row / 4 * 6 + column / 4];
            image.pixels[channel * 576 + (tile / 6 * 4 + row % 4) * 24 + tile % 6 * 4 + column % 4]
        };
        Image { pixels: (0..3 * 576).map(pixel).collect(), ..image.clone() }
    });
    println!("shuffled: {share}");
    assert!(share <= 0.01, "{share}");
}

/// Every pixel the mean of the square of `2·radius + 1` pixels around it.
fn blurred(image: &Image, radius: usize) -> Image {
    let side = image.width;
    let around = |center: usize| center.saturating_sub(radius)..=(center + radius).min(side - 1);
    let pixel = |index: usize| {
        let (channel, row, column) = (index / (side * side), index / side % side, index % side);
        let values: Vec<f32> = around(row)
            .flat_map(|r| around(column).map(move |c| (r, c)))
            .map(|(r, c)| image.pixels[channel * side * side + r * side + c])
            .collect();
        values.iter().sum::<f32>() / values.len() as f32
    };
    Image { pixels: (0..image.pixels.len()).map(pixel).collect(), ..image.clone() }
}
