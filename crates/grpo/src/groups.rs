//! Which prompts an epoch trains on.

use rand::seq::index::sample_weighted;

use crate::{evaluate::Row, noise::Key};

/// The rows of an epoch, prompt-major: `group_size` samples for each of `groups` drawn prompts.
///
/// Prompts are drawn by weight without repetition; if there are fewer than `groups` with a positive weight, all of them are
/// taken as often as fits before the rest is drawn. The draw depends on the key alone.
///
/// # Panics
/// If no weight is positive, or one is negative or not finite.
pub fn draw(weights: &[f64], groups: usize, group_size: usize, key: Key) -> Vec<Row> {
    let drawable: Vec<usize> = (0..weights.len()).filter(|&prompt| weights[prompt] > 0.0).collect();
    assert!(!drawable.is_empty(), "no prompt can be drawn");
    let mut rng = key.rng();
    let mut prompts = Vec::with_capacity(groups);
    while prompts.len() + drawable.len() <= groups {
        prompts.extend(&drawable);
    }
    let rest = groups - prompts.len();
    let drawn = sample_weighted(&mut rng, drawable.len(), |i| weights[drawable[i]], rest).expect("weights are positive numbers");
    prompts.extend(drawn.iter().map(|i| drawable[i]));
    let repeated = |index: usize| prompts[..index].iter().filter(|&&other| other == prompts[index]).count();
    let group = |index: usize| {
        // A prompt drawn twice goes on where its first group ended, so that no two rows share their noise.
        let first = repeated(index) * group_size;
        let prompt = prompts[index];
        (first..first + group_size).map(move |sample| Row { prompt, sample })
    };
    (0..prompts.len()).flat_map(group).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::noise::Purpose;

    #[test]
    fn no_row_stands_twice_in_an_epoch() {
        for (prompts, groups, size) in [(1, 5, 3), (4, 4, 2), (4, 11, 2), (50, 7, 1)] {
            let rows = draw(&vec![1.0; prompts], groups, size, Key::new(1, Purpose::Prompts));
            assert_eq!(rows.len(), groups * size);
            let distinct: HashSet<(usize, usize)> = rows.iter().map(|row| (row.prompt, row.sample)).collect();
            assert_eq!(distinct.len(), rows.len());
        }
    }

    #[test]
    fn a_prompt_of_weight_zero_is_never_drawn() {
        for epoch in 0..200 {
            let rows = draw(&[1.0, 0.0, 5.0, 1.0], 2, 1, Key::new(3, Purpose::Prompts).epoch(epoch));
            assert!(rows.iter().all(|row| row.prompt != 1));
        }
    }
}
