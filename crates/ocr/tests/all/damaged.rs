//! Bad images, bad options and bad model files are errors, never a panic.

use std::{fs, path::Path};

use ocr::{DETECTOR, MAX_SIDE, OcrError, Options, RECOGNISER, Reader, Resize};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::reader;

fn asset(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/ocr");
    fs::read(folder.join(name)).expect("asset")
}

/// Opens a directory with two model files.
fn open(detector: &[u8], recogniser: &[u8]) -> Result<Reader, OcrError> {
    let folder = tempfile::tempdir().expect("folder");
    fs::write(folder.path().join(DETECTOR), detector).expect("write");
    fs::write(folder.path().join(RECOGNISER), recogniser).expect("write");
    Reader::open(folder.path(), Options::default())
}

#[test]
fn the_networks_are_the_published_files() {
    let digest =
        |name| Sha256::digest(asset(name)).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let detector = "f42c0fbd294d95eac1a550e131b277dac97462c8025fa4b6c3cec1b7894bd3d5";
    let recogniser = "38cd559cb4b24c5056592d981b13e086f9472db9b3c8968296f0d0c2b4a65531";
    assert_eq!(
        (digest(DETECTOR), digest(RECOGNISER)),
        (detector.to_owned(), recogniser.to_owned())
    );
}

#[test]
fn images_of_any_shape_are_read() {
    let reader = reader();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for (width, height) in [(1, 1), (1, 2), (3, 3), (4, 5), (1, 300), (700, 2), (31, 33), (4096, 1)]
    {
        let noise: Vec<u8> = (0..3 * width * height).map(|_| random.random()).collect();
        reader.read(&noise, width, height).expect("lines");
        assert_eq!(reader.read(&vec![90; noise.len()], width, height).expect("lines"), []);
    }
}

#[test]
fn an_image_without_pixels_or_with_a_huge_side_is_refused() {
    let reader = reader();
    for (width, height) in
        [(0, 0), (0, 5), (5, 0), (MAX_SIDE + 1, 1), (1, usize::MAX), (usize::MAX, usize::MAX)]
    {
        let error = reader.read(&[], width, height).expect_err("refused");
        assert!(matches!(error, OcrError::Sides { .. }), "{error}");
    }
    let error = reader.read(&[0; 11], 2, 2).expect_err("refused").to_string();
    assert_eq!(error, "an RGB image of 2 x 2 pixels has 12 bytes, not 11");
}

#[test]
fn options_outside_their_range_are_refused() {
    let usual = Options::default;
    let resize = |shortest, longest| Options { resize: Resize { shortest, longest }, ..usual() };
    let bad = [
        Options { pixel_threshold: f32::NAN, ..usual() },
        Options { box_threshold: 1.5, ..usual() },
        Options { drop_score: -0.1, ..usual() },
        Options { unclip: f64::INFINITY, ..usual() },
        Options { unclip: 0.0, ..usual() },
        Options { candidates: 0, ..usual() },
        Options { lines_per_batch: 0, ..usual() },
        Options { threads: 0, ..usual() },
        resize(5000, 960),
        resize(0, 31),
        resize(0, 100_000),
    ];
    for options in bad {
        let error = Reader::built_in(options).expect_err("refused");
        assert!(matches!(error, OcrError::Option { .. }), "{error}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let error = Reader::open(folder.path(), Options::default()).expect_err("refused").to_string();
    assert!(error.contains(DETECTOR) && error.contains("needs"), "{error}");
}

#[test]
fn swapped_files_are_refused() {
    let (detector, recogniser) = (asset(DETECTOR), asset(RECOGNISER));
    let both_detectors = open(&detector, &detector).expect_err("refused").to_string();
    assert!(both_detectors.contains("alphabet"), "{both_detectors}");
    let both_recognisers = open(&recogniser, &recogniser).expect_err("refused").to_string();
    assert!(both_recognisers.contains(DETECTOR), "{both_recognisers}");
}

#[test]
fn a_copy_of_the_files_reads_as_the_built_in_networks_do() {
    open(&asset(DETECTOR), &asset(RECOGNISER)).expect("reader");
}

#[test]
fn cut_and_damaged_files_are_errors_or_readable() {
    let (detector, recogniser) = (asset(DETECTOR), asset(RECOGNISER));
    // The reader of the format accepts a file whose last weights are cut: that must not panic.
    let _ = open(&detector[..detector.len() - 1000], &recogniser);
    let _ = open(&detector, &recogniser[..recogniser.len() - 1000]);
    for length in [0, 1, 2, 10, 100, 5_000, 900_000] {
        assert!(open(&detector[..length], &recogniser).is_err(), "{length}");
    }
    for length in [0, 3, 20, 1_000, 600_000] {
        assert!(open(&detector, &recogniser[..length]).is_err(), "{length}");
    }
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut refused = 0;
    for _ in 0..60 {
        let (mut detector, mut recogniser) = (detector.clone(), recogniser.clone());
        for file in [&mut detector, &mut recogniser] {
            // Names, shapes and attributes are among the weights.
            for _ in 0..8 {
                let place = random.random_range(0..file.len());
                file[place] = random.random();
            }
        }
        refused += usize::from(open(&detector, &recogniser).is_err());
    }
    println!("refused: {refused} of 60");
}
