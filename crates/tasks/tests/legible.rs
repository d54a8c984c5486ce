use ocr::{Options, Reader};
use rand::{SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use tasks::{shapes::Color, text::{self, Sign, Split}};
#[test]
fn legible() {
    let reader = Reader::built_in(Options::default()).unwrap();
    for size in [24, 28, 32] {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let words: Vec<&str> = [Split::Train, Split::Validation, Split::Test].into_iter().flat_map(text::words).collect();
        let (mut sum, mut n) = (0.0, 0);
        let mut bad = Vec::new();
        let t = std::time::Instant::now();
        for random in [true, false] {
            sum = 0.0; n = 0; bad.clear();
        for _ in 0..400 {
            let word = if random { text::random_word(&mut rng) } else { words.choose(&mut rng).unwrap().to_string() };
            let color = *Color::ALL.choose(&mut rng).unwrap();
            let sign = Sign::sample(&word, color, &mut rng);
            let image = text::render(&sign, size);
            let read = ocr::text(&reader.read(&image.rgb8(), size, size).unwrap());
            let r = ocr::reward(&read, &word);
            sum += r; n += 1;
            if r < 1.0 { bad.push(format!("{word}>{read}")); }
        }
        println!("{size} random={random} reward {} in {:?} {}: {}", sum / n as f32, t.elapsed()/n, bad.len(), bad[..bad.len().min(60)].join(" "));
        }
    }
}
