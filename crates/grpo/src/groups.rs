//! The prompts of an epoch: kinds of prompt are drawn by weight, then prompts of the kind.

use std::collections::BTreeMap;

use rand::{Rng, distr::weighted::WeightedIndex, prelude::Distribution, seq::SliceRandom};
use training::noise::Key;

use crate::evaluate::Row;

/// The weight of each kind of prompt, and the prompts of the kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    kinds: Vec<Kind>,
}

#[derive(Clone, Debug, PartialEq)]
struct Kind {
    weight: f64,
    prompts: Vec<usize>,
}

impl Mix {
    /// One kind with all of `count` prompts.
    pub fn even(count: usize) -> Self {
        Self { kinds: vec![Kind { weight: 1.0, prompts: (0..count).collect() }] }
    }

    /// Kinds with relative weights; `kinds` has the name of every prompt's kind. A kind without a
    /// weight is not drawn, and a kind of weight 0 needs no prompt.
    ///
    /// # Errors
    /// A sentence with the problem: a positive weight for a kind without prompts, a weight that is
    /// negative or not finite, or no positive weight.
    pub fn by_kind(kinds: &[&str], weights: &BTreeMap<String, f64>) -> Result<Self, String> {
        let mut mix = Vec::new();
        for (name, &weight) in weights {
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(format!("{name}: {weight} is no weight; it must be at least 0"));
            }
            if weight == 0.0 {
                continue;
            }
            let prompts: Vec<usize> =
                (0..kinds.len()).filter(|&prompt| kinds[prompt] == name).collect();
            if prompts.is_empty() {
                let known: std::collections::BTreeSet<&str> = kinds.iter().copied().collect();
                let known = known.into_iter().collect::<Vec<_>>().join(", ");
                return Err(format!("{name}: there is no prompt of this kind; there are: {known}"));
            }
            mix.push(Kind { weight, prompts });
        }
        if mix.is_empty() {
            return Err("no kind has a weight above 0".to_owned());
        }
        Ok(Self { kinds: mix })
    }
}

/// Draws the rows of an epoch, prompt-major: `group_size` samples for each of `groups` drawn
/// prompts.
///
/// For every group a kind is drawn by its weight, then a prompt of the kind, without replacement
/// until all of them have been drawn. An epoch therefore has the expected mix even if a kind has
/// few prompts. The draw depends on the key alone.
///
/// Deviation `groups-by-draw`: a prompt that is drawn twice makes two groups, each with its own
/// mean; the reference code takes the mean over all rows of equal text.
///
/// # Panics
/// If a kind has no prompt.
pub fn draw(mix: &Mix, groups: usize, group_size: usize, key: Key) -> Vec<Row> {
    let mut rng = key.rng();
    let by_weight = WeightedIndex::new(mix.kinds.iter().map(|kind| kind.weight))
        .expect("a mix has positive weights");
    let mut decks: Vec<Vec<usize>> = vec![Vec::new(); mix.kinds.len()];
    let mut groups_of: BTreeMap<usize, usize> = BTreeMap::new();
    let mut rows = Vec::with_capacity(groups * group_size);
    for _ in 0..groups {
        let kind = by_weight.sample(&mut rng);
        let prompt = deal(&mut decks[kind], &mix.kinds[kind].prompts, &mut rng);
        let before = groups_of.entry(prompt).or_default();
        // A prompt drawn again continues the sample indices of its previous group, so that no two
        // rows share noise.
        rows.extend(
            (0..group_size).map(|sample| Row { prompt, sample: *before * group_size + sample }),
        );
        *before += 1;
    }
    rows
}

/// Deals the next prompt of a shuffled deck, which is refilled when it is empty.
fn deal(deck: &mut Vec<usize>, prompts: &[usize], rng: &mut impl Rng) -> usize {
    if deck.is_empty() {
        deck.extend(prompts);
        deck.shuffle(rng);
    }
    deck.pop().expect("a kind has prompts")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use training::noise::Purpose;

    fn weights(weights: &[(&str, f64)]) -> BTreeMap<String, f64> {
        weights.iter().map(|&(name, weight)| (name.to_owned(), weight)).collect()
    }

    #[test]
    fn no_row_stands_twice_in_an_epoch_and_a_group_is_of_one_prompt() {
        for (prompts, groups, size) in [(1, 5, 3), (4, 4, 2), (4, 11, 2), (50, 7, 1)] {
            let rows = draw(&Mix::even(prompts), groups, size, Key::new(1, Purpose::Prompts));
            assert_eq!(rows.len(), groups * size);
            let distinct: HashSet<(usize, usize)> =
                rows.iter().map(|row| (row.prompt, row.sample)).collect();
            assert_eq!(distinct.len(), rows.len());
            assert!(
                rows.chunks(size)
                    .all(|group| group.iter().all(|row| row.prompt == group[0].prompt))
            );
        }
    }

    #[test]
    fn the_mix_that_is_asked_for_is_the_mix_that_is_drawn() {
        // Three prompts of the first kind, many of the others: the kind's share does not saturate.
        let kinds: Vec<&str> = [vec!["few"; 3], vec!["many"; 40], vec!["rest"; 20]].concat();
        let mix = Mix::by_kind(&kinds, &weights(&[("few", 4.0), ("many", 3.0), ("rest", 1.0)]))
            .expect("a mix");
        let (epochs, groups) = (2000, 32);
        let mut drawn: BTreeMap<&str, usize> = BTreeMap::new();
        for epoch in 0..epochs {
            for group in draw(&mix, groups, 2, Key::new(7, Purpose::Prompts).epoch(epoch)).chunks(2)
            {
                *drawn.entry(kinds[group[0].prompt]).or_default() += 1;
            }
        }
        let n = (epochs * groups) as f64;
        for (kind, share) in [("few", 0.5), ("many", 0.375), ("rest", 0.125)] {
            let bound = 4.0 * (share * (1.0 - share) / n).sqrt();
            let found = drawn[kind] as f64 / n;
            assert!(
                (found - share).abs() < bound,
                "{kind}: {found} instead of {share}, bound {bound}"
            );
        }
    }

    #[test]
    fn all_prompts_of_a_kind_come_before_one_comes_again() {
        for epoch in 0..50 {
            let rows = draw(&Mix::even(6), 15, 1, Key::new(3, Purpose::Prompts).epoch(epoch));
            let count = |prompt: usize| rows.iter().filter(|row| row.prompt == prompt).count();
            assert!((0..6).all(|prompt| (2..=3).contains(&count(prompt))));
        }
        let orders: HashSet<Vec<usize>> = (0..50)
            .map(|epoch| draw(&Mix::even(6), 6, 1, Key::new(3, Purpose::Prompts).epoch(epoch)))
            .map(|rows| rows.iter().map(|row| row.prompt).collect())
            .collect();
        assert!(orders.len() > 40, "an order of its own for every epoch");
    }

    #[test]
    fn a_kind_of_weight_zero_is_never_drawn_and_needs_no_prompt() {
        let mix = Mix::by_kind(&["a", "b"], &weights(&[("a", 1.0), ("b", 0.0), ("c", 0.0)]))
            .expect("a mix");
        for epoch in 0..200 {
            assert!(
                draw(&mix, 2, 1, Key::new(3, Purpose::Prompts).epoch(epoch))
                    .iter()
                    .all(|row| row.prompt == 0)
            );
        }
    }

    #[test]
    fn a_mix_that_cannot_be_drawn_is_refused() {
        let refused =
            |given: &[(&str, f64)]| Mix::by_kind(&["a", "b"], &weights(given)).expect_err("no mix");
        assert_eq!(refused(&[("c", 1.0)]), "c: there is no prompt of this kind; there are: a, b");
        assert!(
            refused(&[("a", -1.0)]).contains("at least 0")
                && refused(&[("a", f64::NAN)]).contains("at least 0")
        );
        assert!(refused(&[("a", 0.0)]).contains("above 0"));
    }
}
