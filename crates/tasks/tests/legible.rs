//! The reader reads what the renderer writes.

use ocr::{Lines, Options, Reader};
use rand::{SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tasks::{
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
