//! Two hundred rendered images against onnxruntime, OpenCV and Clipper.

use std::path::Path;

use image::{RgbImage, imageops::crop_imm};
use ocr::{Channels, Line, Options, Reader};
use serde::Deserialize;

use crate::reader;

#[derive(Deserialize)]
struct Expected {
    images: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
    close: Vec<String>,
    pp_ocr_v6: Vec<Found>,
    paddle_2_9: Vec<Found>,
    swapped: Vec<Found>,
}

#[derive(Debug, Deserialize)]
struct Found {
    text: String,
    score: f32,
    polygon: [[f32; 2]; 4],
}

fn golden() -> (RgbImage, Vec<Case>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/ocr");
    let sheet = image::open(folder.join("sheet.png")).expect("sheet").into_rgb8();
    let json = std::fs::read_to_string(folder.join("expected.json")).expect("read");
    let expected: Expected = serde_json::from_str(&json).expect("parse");
    assert_eq!(expected.images.len(), 200);
    (sheet, expected.images)
}

fn read(reader: &Reader, sheet: &RgbImage, case: &Case) -> Vec<Line> {
    let image = crop_imm(sheet, case.x, case.y, case.width, case.height).to_image();
    reader.read(image.as_raw(), case.width as usize, case.height as usize).expect("lines")
}

/// Compares every image, on two threads, and gives the number of lines.
///
/// Where an error of 1e-4 in the detector's output moves a box, only the texts are compared.
fn compare(options: Options, name: &str, theirs: fn(&Case) -> &[Found]) -> usize {
    let reader = Reader::built_in(options).expect("reader");
    let (sheet, cases) = golden();
    let check = |cases: &[Case]| {
        for case in cases {
            let (ours, theirs) = (read(&reader, &sheet, case), theirs(case));
            let place = format!("the image at {}, {}: {ours:?}\nnot {theirs:?}", case.x, case.y);
            let texts: Vec<_> = ours.iter().map(|line| &line.text).collect();
            assert_eq!(texts, theirs.iter().map(|line| &line.text).collect::<Vec<_>>(), "{place}");
            if case.close.iter().any(|close| close == name) {
                continue;
            }
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert_eq!(ours.polygon, theirs.polygon, "{place}");
                assert!((ours.score - theirs.score).abs() < 1e-4, "{place}");
            }
        }
    };
    let (first, second) = cases.split_at(170);
    std::thread::scope(|scope| {
        scope.spawn(|| check(first));
        scope.spawn(|| check(second));
    });
    let close = cases.iter().filter(|case| case.close.iter().any(|close| close == name));
    assert!(close.count() <= 12);
    cases.iter().map(|case| theirs(case).len()).sum()
}

#[test]
fn lines_equal_those_of_the_python_pipeline() {
    let lines = compare(Options::default(), "pp_ocr_v6", |case| &case.pp_ocr_v6);
    assert!(lines > 180, "{lines}");
}

#[test]
fn lines_equal_those_of_the_python_pipeline_with_the_constants_of_paddle_2_9() {
    let lines = compare(Options::paddle_2_9(), "paddle_2_9", |case| &case.paddle_2_9);
    assert!(lines > 120, "{lines}");
}

#[test]
fn swapped_channels_equal_those_of_the_python_pipeline() {
    let options = Options { channels: Channels::Rgb, ..Options::default() };
    let lines = compare(options, "swapped", |case| &case.swapped);
    assert!(lines > 180, "{lines}");
}

#[test]
fn threads_change_nothing() {
    let many = Reader::built_in(Options { threads: 3, ..Options::default() }).expect("reader");
    let (one, (sheet, cases)) = (reader(), golden());
    for case in cases.iter().step_by(25) {
        assert_eq!(read(&one, &sheet, case), read(&many, &sheet, case));
    }
}

#[test]
fn simultaneous_calls_give_what_single_calls_give() {
    let (reader, (sheet, cases)) = (reader(), golden());
    let case = cases.iter().find(|case| case.pp_ocr_v6.len() == 2).expect("two lines");
    let alone = read(&reader, &sheet, case);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(read(&reader, &sheet, case), alone));
        }
    });
}
