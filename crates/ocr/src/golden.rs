//! Single steps against OpenCV and Clipper, and the outputs of the networks against onnxruntime.

use std::path::Path;

use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    Image, Options, Point, Reader,
    crop::crop,
    detect::{self, First, Map},
    resize::resize,
};

#[derive(Deserialize)]
struct Steps {
    resizes: Vec<Resizing>,
    crop_from: Vec<u8>,
    crops: Vec<Crop>,
    boxes: Vec<Boxed>,
}

#[derive(Deserialize)]
struct Resizing {
    size: [usize; 2],
    to: [usize; 2],
    from: Vec<u8>,
    pixels: Vec<u8>,
}

#[derive(Deserialize)]
struct Crop {
    corners: [Point; 4],
    size: [usize; 2],
    pixels: Vec<u8>,
}

#[derive(Deserialize)]
struct Boxed {
    threshold: f64,
    field: Vec<u8>,
    outlines: Vec<Outline>,
}

#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "box")]
    corners: [Point; 4],
    side: f32,
    mean: f64,
    grown: [Point; 4],
    grown_side: f32,
}

#[derive(Deserialize)]
struct Expected {
    images: Vec<Place>,
    networks: Networks,
}

#[derive(Deserialize)]
struct Place {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Networks {
    maps: Vec<Probabilities>,
    labels: Vec<Reading>,
}

#[derive(Deserialize)]
struct Probabilities {
    image: usize,
    numbers: Vec<f32>,
}

#[derive(Deserialize)]
struct Reading {
    image: usize,
    labels: Vec<Vec<usize>>,
    numbers: Vec<Vec<f32>>,
}

fn golden<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ocr").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("read")).expect("parse")
}

fn image([width, height]: [usize; 2], pixels: Vec<u8>) -> Image {
    Image { width, height, pixels }
}

/// An image of the sheet, blue first.
fn picture(place: &Place) -> Image {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ocr/sheet.png");
    let sheet = image::open(path).expect("sheet").into_rgb8();
    let part = image::imageops::crop_imm(&sheet, place.x, place.y, place.width, place.height);
    let mut pixels = part.to_image().into_raw();
    pixels.chunks_exact_mut(3).for_each(|pixel| pixel.swap(0, 2));
    image([place.width as usize, place.height as usize], pixels)
}

#[test]
fn resizing_gives_the_bytes_of_opencv() {
    for case in golden::<Steps>("steps.json").resizes {
        let resized = resize(&image(case.size, case.from), case.to[0], case.to[1]);
        assert_eq!(resized.pixels, case.pixels, "{:?} to {:?}", case.size, case.to);
    }
}

#[test]
fn crops_have_the_bytes_of_opencv() {
    let steps: Steps = golden("steps.json");
    let source = image([24, 20], steps.crop_from);
    for case in steps.crops {
        let cut = crop(&source, &case.corners);
        assert_eq!([cut.width, cut.height], case.size, "{:?}", case.corners);
        assert_eq!(cut.pixels, case.pixels, "{:?}", case.corners);
    }
}

#[test]
fn outlines_rectangles_means_and_grown_boxes_are_those_of_opencv_and_clipper() {
    let mut count = 0;
    for (number, case) in golden::<Steps>("steps.json").boxes.into_iter().enumerate() {
        let numbers = case.field.iter().map(|byte| f32::from(*byte) / 255.0).collect();
        let map = Map { width: 36, height: 28, numbers };
        let found: Vec<_> = detect::outlines(&map, case.threshold as f32)
            .into_iter()
            .map(|outline| detect::around(&outline.pixels, outline.first))
            .filter(|(_, side)| *side >= 3.0)
            .collect();
        assert_eq!(found.len(), case.outlines.len(), "field {number}");
        for ((corners, side), expected) in found.iter().zip(&case.outlines) {
            assert_eq!(*corners, expected.corners, "field {number}");
            assert_eq!(*side, expected.side, "field {number}");
            // OpenCV's corners from here on: the last bit of one decides the cut to a whole pixel.
            let mean = detect::mean(&map, &expected.corners);
            let within = |[x, y]: &Point| (0.0..=35.0).contains(x) && (0.0..=27.0).contains(y);
            let inside = expected.corners.iter().all(within);
            let tolerance = if inside { 1e-6 } else { 0.02 };
            assert!((mean - expected.mean).abs() < tolerance, "{number}: {mean} {}", expected.mean);
            let (grown, side) =
                detect::around(&detect::grow(&expected.corners, 1.5), First::AfterTopRight);
            assert_eq!(grown, expected.grown, "field {number}");
            assert_eq!(side, expected.grown_side, "field {number}");
            count += 1;
        }
    }
    assert!(count > 100, "{count}");
}

#[test]
fn the_networks_give_the_numbers_of_onnxruntime() {
    let expected: Expected = golden("expected.json");
    let options = Options::default();
    let reader = Reader::built_in(options.clone()).expect("reader");
    let near = |ours: f32, theirs: f32| assert!((ours - theirs).abs() < 1e-4, "{ours} {theirs}");
    for case in expected.networks.maps {
        let image = picture(&expected.images[case.image]);
        let map = reader.pools.with(|pool| {
            detect::probability(&image, &reader.detector, options.resize, pool).expect("map")
        });
        let rows = map.numbers.chunks(map.width).step_by(2);
        let ours: Vec<f32> = rows.flat_map(|row| row.iter().step_by(2).copied()).collect();
        assert_eq!(ours.len(), case.numbers.len());
        ours.into_iter().zip(case.numbers).for_each(|(ours, theirs)| near(ours, theirs));
    }
    for case in expected.networks.labels {
        let image = picture(&expected.images[case.image]);
        let output = reader.pools.with(|pool| {
            reader.recogniser.probabilities(&image, 320, pool).expect("probabilities")
        });
        assert_eq!(output.shape[1], case.labels.len());
        let steps = output.numbers.chunks(output.shape[2]);
        for (step, (labels, numbers)) in steps.zip(case.labels.iter().zip(case.numbers)) {
            labels.iter().zip(numbers).for_each(|(label, theirs)| near(step[*label], theirs));
        }
    }
}
