//! The words that signs show, and how they are split and misspelt.

use std::{collections::BTreeSet, sync::LazyLock};

use rand::Rng;

use super::Split;
use crate::hash::mixed;

/// Number of letters of the longest word.
pub const LONGEST: usize = 3;

/// The letters of the words: the reader takes O for a zero, Q for an O and W for two letters.
pub const LETTERS: &str = "ABCDEFGHIJKLMNPRSTUVXYZ";

/// Common English words of three such letters, listed for this task.
const WORDS: &str = "\
    ACE ACT AGE AID AIM AIR ALE AND ANY APE ARC ARE ARM ART ASH ASK ATE AXE BAG BAR BAT BAY BED \
    BEE BEG BET BIN BIT BUD BUG BUN BUS BYE CAB CAN CAP CAR CAT CRY CUB CUE CUP CUT DAB DAD DAM \
    DAY DEN DID DIG DIM DIP DRY DUG DYE EAR EAT EEL EGG ELF ELK ELM END EVE EYE FAD FAN FAR FAT \
    FED FEE FEZ FIB FIG FIN FIR FIT FIX FLY FRY FUN FUR GAG GAP GAS GEL GEM GET GIG GNU GUM GUT \
    GUY GYM HAD HAM HAT HAY HEM HEN HER HID HIM HIP HIS HIT HUB HUE HUG HUM HUT ICE IMP INK INN \
    ITS IVY JAB JAM JAR JAY JET JIB JUG KEG KEN KEY KID KIN KIT LAB LAD LAG LAP LAX LAY LED LEE \
    LEG LET LID LIE LIP LIT LYE MAD MAN MAP MAR MAT MAX MEN MET MID MIX MUD MUG NAB NAG NAP NET \
    NIL NIP NIX NUT PAD PAN PAY PEA PEN PER PET PIE PIG PIN PIT PUB PUN PUP PUT RAG RAM RAN RAT \
    RAY RED REV RIB RIM RIP RUB RUE RUG RUN RYE SAC SAD SAG SAP SAT SAX SAY SEA SEE SET SHE SHY \
    SIP SIR SIT SIX SKI SKY SLY SPA SUE SUM SUN TAB TAD TAG TAM TAN TAP TAR TAX TEA TEE TEN THE \
    TIC TIE TIN TIP TRY TUB TUG TUX URN USE VAN VAT VET VEX VIA VIE YAK YAM YEN YES YET ZAG ZAP \
    ZED ZEN ZIG ZIP";

/// One word in this many is held out for validation, and two for the test.
const PARTS: usize = 6;

/// The words of a split, in alphabetical order.
///
/// Words are distributed by the rank of a hash.
pub fn words(split: Split) -> Vec<&'static str> {
    let mut ranked: Vec<&str> = WORDS.split_whitespace().collect();
    ranked.sort_by_key(|word| mixed(word));
    let part = ranked.len() / PARTS;
    let (validation, rest) = ranked.split_at(part);
    let (test, train) = rest.split_at(2 * part);
    let mut own = match split {
        Split::Train => train.to_vec(),
        Split::Validation => validation.to_vec(),
        Split::Test => test.to_vec(),
    };
    own.sort_unstable();
    own
}

/// Number of random strings among the training prompts: as many as there are prompts with words.
const STRINGS: usize = 786;

/// Random strings of [`LONGEST`] letters, in alphabetical order; none is a word of the task.
///
/// They have every letter about equally often at every place. Of the training words, 17 end in E and
/// none in H. The strings with the lowest hashes are taken.
pub fn strings() -> Vec<String> {
    let words: BTreeSet<&str> = WORDS.split_whitespace().collect();
    let mut all = vec![String::new()];
    for _ in 0..LONGEST {
        let longer = |start: String| LETTERS.chars().map(move |letter| format!("{start}{letter}"));
        all = all.into_iter().flat_map(longer).collect();
    }
    all.retain(|string| !words.contains(string.as_str()));
    all.sort_by_key(|string| mixed(string));
    all.truncate(STRINGS);
    all.sort_unstable();
    all
}

/// The words of validation and test.
static HELD_OUT: LazyLock<BTreeSet<&str>> =
    LazyLock::new(|| [Split::Validation, Split::Test].into_iter().flat_map(words).collect());

/// Whether a word belongs to validation or test.
pub fn is_held_out(word: &str) -> bool {
    HELD_OUT.contains(word)
}

/// Draws three of the task's letters, each equally often, but no held-out word.
pub fn random_word(rng: &mut impl Rng) -> String {
    loop {
        let word: String = (0..LONGEST).map(|_| random_letter(rng)).collect();
        if !is_held_out(&word) {
            return word;
        }
    }
}

/// Exchanges every letter of a word with probability `share` for a random one; the result is no
/// held-out word.
///
/// # Panics
/// If the word is held out, or `share` lies outside `[0, 1]`.
pub fn misspelt(word: &str, share: f64, rng: &mut impl Rng) -> String {
    assert!(!is_held_out(word), "{word} is held out");
    loop {
        let spelt: String = word
            .chars()
            .map(|letter| if rng.random_bool(share) { random_letter(rng) } else { letter })
            .collect();
        if !is_held_out(&spelt) {
            return spelt;
        }
    }
}

fn random_letter(rng: &mut impl Rng) -> char {
    char::from(LETTERS.as_bytes()[rng.random_range(0..LETTERS.len())])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The share of a split's words that begin with each of [`LETTERS`].
    fn first_letters(split: Split) -> Vec<f64> {
        let words = words(split);
        let begin = |letter| words.iter().filter(|word| word.starts_with(letter)).count();
        LETTERS.chars().map(|letter| begin(letter) as f64 / words.len() as f64).collect()
    }

    /// A policy learns to draw a letter from words that have it: a split by first letters would
    /// measure something else.
    #[test]
    fn held_out_words_begin_like_training_words() {
        let train = first_letters(Split::Train);
        for split in [Split::Validation, Split::Test] {
            let pairs = train.iter().zip(first_letters(split));
            let distance = pairs.map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0;
            assert!(distance < 0.4, "{split:?}: total variation {distance:.2}");
        }
    }
}
