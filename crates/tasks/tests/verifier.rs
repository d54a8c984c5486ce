//! The verifier on thousands of rendered scenes: some it must accept, some it must refuse.

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use tasks::{
    image::Image,
    shapes::{self, Metadata, Scene, Split},
};

/// Metadata of `count` prompts, with every kind equally often.
fn metadata(count: usize) -> Vec<Metadata> {
    let all = [Split::Train, Split::Validation, Split::Test, Split::Unseen]
        .into_iter()
        .flat_map(|split| shapes::prompts(split).prompts);
    let all: Vec<Metadata> = all.filter_map(|prompt| Metadata::of(&prompt)).collect();
    let of = |tag| all.iter().filter(move |metadata| metadata.tag == tag).cycle();
    let mut kinds: Vec<_> = shapes::Tag::ALL.into_iter().map(of).collect();
    (0..count).map(|i| kinds[i % 6].next().expect("every kind has prompts").clone()).collect()
}

/// The share of `count` images that the verifier accepts, each made from metadata by `make`.
fn accepted(
    count: usize,
    seed: u64,
    mut make: impl FnMut(&Metadata, &mut ChaCha8Rng) -> Image,
) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let right = metadata(count)
        .iter()
        .filter(|metadata| shapes::verify(&make(metadata, &mut rng), metadata).strict())
        .count();
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
fn blank_images_and_noise_are_refused() {
    let blank =
        |level: f32| Image { channels: 3, height: 24, width: 24, pixels: vec![level; 3 * 576] };
    assert_eq!(accepted(600, 4, |_, rng| blank(rng.random())), 0.0);
    let noise = |rng: &mut ChaCha8Rng| Image {
        pixels: (0..3 * 576).map(|_| rng.random()).collect(),
        ..blank(0.0)
    };
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
        // A bar of background, a quarter of the object wide, through the middle of the first
        // object.
        let object = scene.objects[0];
        let (first, last) =
            (object.center.0 - object.size / 8.0, object.center.0 + object.size / 8.0);
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

/// Paints a pixel of an image.
fn paint(image: &mut Image, row: usize, column: usize, color: [f32; 3]) {
    let (plane, place) = (image.height * image.width, row * image.width + column);
    color
        .into_iter()
        .enumerate()
        .for_each(|(channel, value)| image.pixels[channel * plane + place] = value);
}

/// The pixels more than two away from every pixel that a scene's objects cover.
fn free_places(scene: &Scene, side: usize) -> Vec<(usize, usize)> {
    let covered: Vec<Vec<f32>> =
        scene.objects.iter().map(|object| shapes::coverage(object, side)).collect();
    let near = |row: usize, column: usize| {
        (row.saturating_sub(2)..=(row + 2).min(side - 1)).any(|row| {
            (column.saturating_sub(2)..=(column + 2).min(side - 1))
                .any(|column| covered.iter().any(|shares| shares[row * side + column] > 0.0))
        })
    };
    (0..side)
        .flat_map(|row| (0..side).map(move |column| (row, column)))
        .filter(|&(row, column)| !near(row, column))
        .collect()
}

#[test]
fn specks_are_refused() {
    for side in [24, 64] {
        // Single pixels far enough apart to be separate blobs; then dots of 3 x 3, each too small
        // to count as a blob at 64 pixels.
        for (dot, share_of_places) in [(1, 1.0), (1, 0.4), (3, 1.0)] {
            if dot == 3 && side == 24 {
                continue; // At 24 pixels, nine pixels are a blob.
            }
            let share = accepted(300, 9, |metadata, rng| {
                let scene = Scene::sample(metadata, side, rng);
                let mut image = shapes::render(&scene, side);
                let grid = dot + 1;
                for (row, column) in free_places(&scene, side) {
                    let drawn = (row / grid + column / grid) % 2 == 0
                        && row % grid < dot
                        && column % grid < dot;
                    if drawn && rng.random_bool(share_of_places) {
                        paint(&mut image, row, column, [0.9, 0.95, 0.9]);
                    }
                }
                image
            });
            println!("{side} pixels, dots of {dot}, {share_of_places}: {share}");
            assert!(share <= 0.01, "{share} at {side} pixels with dots of {dot}");
        }
    }
}

/// Each is paler than any object, and a person sees them all the same.
#[test]
fn pale_specks_are_refused() {
    for (side, specks) in [(24, 4), (64, 30)] {
        let share = accepted(300, 12, |metadata, rng| {
            let scene = Scene::sample(metadata, side, rng);
            let mut image = shapes::render(&scene, side);
            let apart = free_places(&scene, side)
                .into_iter()
                .filter(|(row, column)| row % 2 == 0 && column % 2 == 0);
            // 0.35 from the background in RGB.
            for (row, column) in apart.take(specks) {
                paint(&mut image, row, column, [scene.background + 0.2; 3]);
            }
            image
        });
        println!("{side} pixels: {share}");
        assert!(share <= 0.01, "{share} at {side} pixels");
    }
}

#[test]
fn a_faint_second_object_is_refused() {
    for side in [24, 64] {
        for contrast in [0.06, 0.17] {
            let share = accepted(400, 10, |metadata, rng| {
                let scene = Scene::sample(metadata, side, rng);
                let mut image = shapes::render(&scene, side);
                let free = free_places(&scene, side);
                let (row, column) = free[rng.random_range(0..free.len())];
                let size = side / 4;
                for (row, column) in free
                    .into_iter()
                    .filter(|place| place.0.abs_diff(row) < size && place.1.abs_diff(column) < size)
                {
                    paint(&mut image, row, column, [scene.background + contrast; 3]);
                }
                image
            });
            println!("{side} pixels, {contrast} brighter: {share}");
            assert!(share <= 0.02, "{share} at {side} pixels, {contrast} brighter");
        }
    }
}

#[test]
fn a_patterned_background_is_refused() {
    for side in [24, 64] {
        let share = accepted(300, 11, |metadata, rng| {
            let scene = Scene::sample(metadata, side, rng);
            let mut image = shapes::render(&scene, side);
            for (row, column) in free_places(&scene, side) {
                let level = if (row + column) % 2 == 0 { 0.09 } else { -0.05 };
                paint(&mut image, row, column, [scene.background + level; 3]);
            }
            image
        });
        println!("{side} pixels: {share}");
        assert!(share <= 0.01, "{share} at {side} pixels");
    }
}

/// Replaces every pixel with the mean of the square of side `2·radius + 1` around it.
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
