//! The reader reads what the renderer writes.

use std::{path::Path, process::Command};

use ocr::{Lines, Options, Reader};
use rand::{SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tasks::{
    image::Image,
    shapes::Color,
    text::{self, Sign, Split},
};

/// The side of the pictures of the shipped base model, in pixels.
const SIDE: usize = 24;

/// Without this, a reward below 1 could be the reader's fault.
#[test]
fn rendered_words_are_read_with_a_reward_of_98_percent() {
    let whole = Options { lines: Lines::Whole, ..Options::default() };
    for (name, options, per_word) in [("whole", whole, 3), ("detected", Options::default(), 1)] {
        let reader = Reader::built_in(options).expect("a reader");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut total, mut signs, mut misread) = (0.0, 0, Vec::new());
        for word in [Split::Train, Split::Validation, Split::Test].into_iter().flat_map(text::words)
        {
            for color in Color::ALL.choose_multiple(&mut rng, per_word) {
                let image = text::render(&Sign::sample(word, *color, &mut rng), SIDE);
                let lines = reader.read(&image.rgb8(), SIDE, SIDE).expect("an image");
                let read = ocr::text(&lines);
                total += ocr::reward(&read, word);
                signs += 1;
                if ocr::reward(&read, word) < 1.0 {
                    misread.push(format!("{word} as {read}"));
                }
            }
        }
        let mean = total / signs as f32;
        println!("{name}: mean reward {mean} of {signs} signs; {}", misread.join(", "));
        assert!(mean > 0.98, "{name}: mean reward {mean}: {}", misread.join(", "));
    }
}

/// Another reader, of another make, reads the same pictures: Tesseract, where it is installed.
#[test]
fn tesseract_reads_rendered_words_too() {
    if Command::new("tesseract").arg("--version").output().is_err() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let words: Vec<&str> = text::words(Split::Test).into_iter().step_by(2).collect();
    let mut total = 0.0;
    for word in &words {
        let color = *Color::ALL.choose(&mut rng).expect("six colours");
        let file = directory.path().join(format!("{word}.pgm"));
        write_enlarged(&text::render(&Sign::sample(word, color, &mut rng), SIDE), &file);
        let read = Command::new("tesseract")
            .arg(&file)
            .args(["-", "--psm", "8", "--dpi", "150"])
            .env("OMP_THREAD_LIMIT", "1")
            .output()
            .expect("it runs");
        let read: String = String::from_utf8_lossy(&read.stdout).split_whitespace().collect();
        total += ocr::reward(&read, word);
    }
    let mean = total / words.len() as f32;
    println!("tesseract: mean reward {mean}");
    assert!(mean > 0.9, "mean reward {mean}");
}

/// Writes the brightness of an image, enlarged eight times by linear interpolation.
fn write_enlarged(image: &Image, file: &Path) {
    const TIMES: usize = 8;
    let brightness = |row: usize, column: usize| {
        let [r, g, b] = image.rgb(row.min(image.height - 1), column.min(image.width - 1));
        0.299 * r + 0.587 * g + 0.114 * b
    };
    let mut bytes =
        format!("P5 {} {} 255\n", TIMES * image.width, TIMES * image.height).into_bytes();
    for y in 0..TIMES * image.height {
        for x in 0..TIMES * image.width {
            let (row, column) = (y / TIMES, x / TIMES);
            let [down, right] = [y, x].map(|at| (at % TIMES) as f32 / TIMES as f32);
            let along =
                |row| brightness(row, column) * (1.0 - right) + brightness(row, column + 1) * right;
            let value = along(row) * (1.0 - down) + along(row + 1) * down;
            bytes.push((255.0 * value).round() as u8);
        }
    }
    std::fs::write(file, bytes).expect("written");
}
