//! Sizes of JPEGs compared with Pillow's, on the images of `golden/make_jpeg_sizes.py`.

use std::{collections::BTreeMap, path::Path};

use tasks::{image::Image, jpeg::jpeg_kilobytes};

type Pixel = [usize; 3];

/// Draws the pixels of an image of a width and a height, row by row.
type Kind = fn(&mut Random, usize, usize) -> Vec<Pixel>;

const KINDS: [(&str, Kind); 5] =
    [("smooth", smooth), ("noise", noise), ("drawing", drawing), ("text", text), ("rings", rings)];

const SIZES: [(usize, usize); 10] = [
    (1, 1),
    (5, 3),
    (8, 8),
    (24, 24),
    (33, 17),
    (64, 64),
    (100, 75),
    (96, 128),
    (250, 131),
    (512, 512),
];

/// A linear congruential generator.
struct Random(u32);

impl Random {
    fn byte(&mut self) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 24) as usize
    }

    fn pixel(&mut self) -> Pixel {
        [(); 3].map(|()| self.byte())
    }
}

fn pixels(width: usize, height: usize, pixel: impl FnMut((usize, usize)) -> Pixel) -> Vec<Pixel> {
    (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(pixel).collect()
}

fn smooth(_: &mut Random, width: usize, height: usize) -> Vec<Pixel> {
    pixels(width, height, |(x, y)| {
        [255 * x / width, 255 * y / height, 255 * (x + y) / (width + height)]
    })
}

fn noise(random: &mut Random, width: usize, height: usize) -> Vec<Pixel> {
    pixels(width, height, |_| random.pixel())
}

fn drawing(random: &mut Random, width: usize, height: usize) -> Vec<Pixel> {
    let mut image = vec![[235, 235, 230]; width * height];
    for shape in 0..6 {
        let color = random.pixel();
        let (left, top) = (random.byte() * width / 256, random.byte() * height / 256);
        let radius = 1 + random.byte() * width.min(height) / 1024;
        let inside = |x: usize, y: usize| {
            let (across, down) = (x.abs_diff(left), y.abs_diff(top));
            if shape % 2 == 1 {
                across * across + down * down <= radius * radius
            } else {
                across.max(down) <= radius
            }
        };
        let before = image.clone();
        image = pixels(
            width,
            height,
            |(x, y)| if inside(x, y) { color } else { before[y * width + x] },
        );
    }
    image
}

fn text(random: &mut Random, width: usize, height: usize) -> Vec<Pixel> {
    let mut image = vec![[255; 3]; width * height];
    for (top, left) in
        (1..height).step_by(10).flat_map(|top| (1..width).step_by(6).map(move |left| (top, left)))
    {
        for (y, x) in (top..top + 7).flat_map(|y| (left..left + 5).map(move |x| (y, x))) {
            if random.byte() < 110 && x < width && y < height {
                image[y * width + x] = [20, 20, 30];
            }
        }
    }
    image
}

fn rings(_: &mut Random, width: usize, height: usize) -> Vec<Pixel> {
    pixels(width, height, |(x, y)| {
        [(x * x + y * y) / 16 % 256, (x * x + 2 * y * y) / 32 % 256, x * y / 8 % 256]
    })
}

fn image(pixels: &[Pixel], width: usize, height: usize) -> Image {
    let plane = |channel: usize| pixels.iter().map(move |pixel| pixel[channel] as f32 / 255.0);
    Image { channels: 3, height, width, pixels: (0..3).flat_map(plane).collect() }
}

#[test]
fn jpegs_are_as_large_as_those_of_pillow() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/jpeg_sizes.json");
    let sizes: BTreeMap<String, f64> =
        serde_json::from_str(&std::fs::read_to_string(path).expect("the golden is committed"))
            .expect("JSON");
    assert_eq!(sizes.len(), 50);
    for (name, kind) in KINDS {
        for (seed, (width, height)) in (0..).zip(SIZES) {
            let name_of_case = format!("{name} {width}x{height}");
            let bytes = 1000.0
                * jpeg_kilobytes(&image(&kind(&mut Random(seed), width, height), width, height))
                    .expect("RGB");
            let error = (bytes / sizes[&name_of_case] - 1.0).abs();
            assert!(
                error <= 3e-3,
                "{name_of_case}: {bytes} bytes, Pillow writes {}",
                sizes[&name_of_case]
            );
        }
    }
}
