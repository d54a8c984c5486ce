//! Laws of the reward, and what the reference gives for single texts.

use ocr::{Line, PromptError, reward, target, text};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

/// A text of up to `longest` characters of an alphabet.
fn random(random: &mut ChaCha8Rng, alphabet: &[char], longest: usize) -> String {
    let length = random.random_range(0..=longest);
    (0..length).map(|_| *alphabet.choose(random).expect("a character")).collect()
}

const LETTERS: [char; 12] = ['a', 'B', 'c', 'É', 'ß', '漢', 'д', ' ', '!', '\t', '🦀', 'I'];
const JUNK: [char; 5] = ['x', 'Y', '7', '字', 'ю'];

#[test]
fn a_reward_is_in_the_unit_interval() {
    for seed in 0..2000 {
        let mut seeded = ChaCha8Rng::seed_from_u64(seed);
        let recognised = random(&mut seeded, &LETTERS, 9);
        let wanted = random(&mut seeded, &LETTERS, 9) + "a";
        let reward = reward(&recognised, &wanted);
        assert!((0.0..=1.0).contains(&reward), "{recognised:?} {wanted:?} {reward}");
    }
}

#[test]
fn a_text_around_the_target_gives_one() {
    for seed in 0..2000 {
        let mut seeded = ChaCha8Rng::seed_from_u64(seed);
        let wanted = random(&mut seeded, &LETTERS, 9) + "a";
        let before = random(&mut seeded, &LETTERS, 5);
        let after = random(&mut seeded, &JUNK, 5);
        assert_eq!(
            reward(&format!("{before}{}{after}", wanted.to_uppercase()), &wanted.to_uppercase()),
            1.0
        );
        assert_eq!(reward(&format!("{before} {wanted} {after}"), &wanted), 1.0);
    }
}

#[test]
fn characters_that_the_target_lacks_never_raise_the_reward() {
    for seed in 0..2000 {
        let mut seeded = ChaCha8Rng::seed_from_u64(seed);
        let recognised = random(&mut seeded, &LETTERS, 9);
        let wanted = random(&mut seeded, &LETTERS, 9) + "a";
        let longer = format!("{recognised}{}", random(&mut seeded, &JUNK, 5));
        assert!(reward(&longer, &wanted) <= reward(&recognised, &wanted), "{longer} {wanted}");
    }
}

#[test]
fn single_rewards_are_those_of_the_reference() {
    let cases = [
        ("", "cat", 0.0),
        ("cat", "cat", 1.0),
        ("C A T", "cat", 1.0),
        ("the cat sat", "CAT", 1.0),
        ("cut", "cat", 2.0 / 3.0),
        ("ca", "cat", 2.0 / 3.0),
        ("a long text about dogs", "ox", 0.0),
        ("new york", "New  York", 1.0),
        ("new\tyork", "new york", 6.0 / 7.0),
        ("漢", "漢字", 0.5),
        ("ÉCOLE", "école", 1.0),
        ("kitten", "sitting", 1.0 - 3.0 / 7.0),
    ];
    for (recognised, wanted, expected) in cases {
        let reward = reward(recognised, wanted);
        assert!((reward - expected).abs() < 1e-6, "{recognised} {wanted}: {reward}");
    }
}

#[test]
fn the_target_stands_between_the_first_two_quotes() {
    assert_eq!(target(r#"a sign that says "Open" and "Late""#), Ok("Open"));
    assert_eq!(target(r#""New York""#), Ok("New York"));
    assert_eq!(target(r#"“curly” and "漢字""#), Ok("漢字"));
}

#[test]
fn a_prompt_without_a_text_in_quotes_is_refused() {
    for prompt in ["", "a cat", r#"a sign "Open"#, "“Open”"] {
        assert_eq!(target(prompt), Err(PromptError::NoQuotes(prompt.to_owned())));
    }
    for prompt in [r#"a sign """#, r#""  " says "hello""#] {
        assert_eq!(target(prompt), Err(PromptError::Empty(prompt.to_owned())));
    }
}

#[test]
fn lines_are_joined_with_nothing_in_between() {
    let line = |text: &str, score| Line { text: text.to_owned(), score, polygon: [[0.0; 2]; 4] };
    assert_eq!(text(&[line("New", 0.9), line("?", 0.0), line("York", 0.6)]), "NewYork");
    assert_eq!(text(&[]), "");
}
