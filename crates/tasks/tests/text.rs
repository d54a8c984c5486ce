//! The text task: its words, its prompts, and its signs.

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use tasks::{
    shapes::Color,
    text::{self, LETTERS, LONGEST, Sign, Split},
};

const SPLITS: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

#[test]
fn no_word_is_in_two_splits_or_twice_in_one() {
    let all: Vec<&str> = SPLITS.into_iter().flat_map(text::words).collect();
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    let sizes = SPLITS.map(|split| text::words(split).len());
    assert_eq!(sizes, [131, 42, 84]);
    for word in all {
        let known = word.chars().all(|letter| LETTERS.contains(letter));
        assert!(known && word.len() == LONGEST, "{word}");
        assert_eq!(text::is_held_out(word), !text::words(Split::Train).contains(&word), "{word}");
    }
}

#[test]
fn a_prompt_has_its_word_in_quotes_and_its_colour() {
    for split in SPLITS {
        let (words, mut prompts) = (text::words(split), text::prompts(split).prompts);
        let strings = prompts.split_off(words.len() * Color::ALL.len());
        for (word, prompts) in words.iter().zip(prompts.chunks(Color::ALL.len())) {
            let prompts: BTreeSet<&str> = prompts.iter().map(|prompt| &*prompt.text).collect();
            let expected =
                Color::ALL.map(|color| format!("a {} sign that says \"{word}\"", color.word()));
            assert_eq!(prompts, expected.iter().map(|prompt| &**prompt).collect());
        }
        let expected = if split == Split::Train { text::strings() } else { Vec::new() };
        let strings: Vec<_> = strings.iter().map(|prompt| ocr::target(&prompt.text)).collect();
        assert_eq!(strings, expected.iter().map(|string| Ok(&**string)).collect::<Vec<_>>());
    }
}

/// Evaluations take every n-th prompt.
#[test]
fn every_sixth_prompt_has_every_colour() {
    for split in SPLITS {
        let prompts = text::prompts(split).prompts;
        let mut seen = [0; Color::ALL.len()];
        for prompt in prompts.iter().step_by(Color::ALL.len()) {
            let has = |color: &Color| prompt.text.starts_with(&format!("a {} ", color.word()));
            seen[Color::ALL.iter().position(has).expect("a colour")] += 1;
        }
        let fewest = prompts.len() / Color::ALL.len() / Color::ALL.len();
        assert!(seen.iter().all(|count| *count >= fewest), "{split:?}: {seen:?}");
    }
}

#[test]
fn training_strings_have_every_letter_equally_often_and_hold_no_word() {
    let strings = text::strings();
    assert_eq!(strings.iter().collect::<BTreeSet<_>>().len(), 131 * Color::ALL.len());
    for split in SPLITS {
        assert!(text::words(split).iter().all(|word| !strings.iter().any(|string| string == word)));
    }
    // 786 strings with 23 letters: 34 of each at every place, with a standard deviation of 6.
    for (place, letter) in (0..LONGEST).flat_map(|place| LETTERS.chars().map(move |c| (place, c))) {
        let count =
            strings.iter().filter(|string| string.chars().nth(place) == Some(letter)).count();
        assert!((14..=54).contains(&count), "{letter} at {place}: {count}");
    }
}

/// Otherwise a base model would have seen what reinforcement learning is tested on.
#[test]
fn random_and_misspelt_words_are_never_held_out() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut kept = 0;
    for _ in 0..20_000 {
        let word = text::random_word(&mut rng);
        let spelt = text::misspelt(&word, 0.4, &mut rng);
        for word in [&word, &spelt] {
            assert!(!text::is_held_out(word), "{word}");
            assert!(word.len() == LONGEST && word.chars().all(|c| LETTERS.contains(c)), "{word}");
        }
        kept += word.chars().zip(spelt.chars()).filter(|(a, b)| a == b).count();
    }
    // An exchanged letter is the old one once in 23 times.
    let share = kept as f64 / 60_000.0;
    let expected = 1.0 - 0.4 * 22.0 / 23.0;
    assert!((share - expected).abs() < 0.01, "{share}, not {expected}");
    let word = text::words(Split::Train)[0];
    assert_eq!(text::misspelt(word, 0.0, &mut rng), word);
}

#[test]
fn a_sign_lies_inside_the_picture_and_its_word_on_the_board() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..2_000 {
        let sign = Sign::sample("MUM", Color::Blue, &mut rng);
        for (center, length) in [(sign.center.0, sign.board.0), (sign.center.1, sign.board.1)] {
            assert!(center - length / 2.0 >= 0.0 && center + length / 2.0 <= 1.0, "{sign:?}");
        }
        assert!(3.0 * sign.pitch < sign.board.0 && sign.height < sign.board.1, "{sign:?}");
    }
}

/// White letters on a blue board, black ones on a yellow board, and grey around them.
#[test]
fn the_letters_contrast_with_the_board() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for (color, dark) in [(Color::Blue, false), (Color::Yellow, true)] {
        let sign = Sign { center: (0.5, 0.5), ..Sign::sample("EEE", color, &mut rng) };
        let image = text::render(&sign, 96);
        let (mut ink, mut board) = (0, 0);
        for row in 0..96 {
            for column in 0..96 {
                let [r, g, b] = image.rgb(row, column);
                ink +=
                    usize::from(if dark { r.max(g).max(b) < 0.06 } else { r.min(g).min(b) > 0.96 });
                board += usize::from([r, g, b] == color.rgb());
            }
        }
        assert!(ink > 300 && board > 2000, "{color:?}: {ink} pixels of ink, {board} of the board");
        assert_eq!(image.rgb(0, 0), [sign.background; 3]);
    }
}
