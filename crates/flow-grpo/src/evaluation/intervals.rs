//! Intervals for accuracies by prompt, because the images of one prompt are not independent: a
//! prompt that a model cannot draw fails every time.

use rand::Rng;
use training::noise::{Key, Purpose};

/// The numbers of correct and of all images of one prompt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number of correct images.
    pub right: usize,
    /// Number of images, at least one.
    pub images: usize,
}

/// The share of correct images over some prompts.
pub fn share(prompts: &[Tally]) -> f64 {
    let sum = |count: fn(&Tally) -> usize| prompts.iter().map(count).sum::<usize>() as f64;
    sum(|tally| tally.right) / sum(|tally| tally.images).max(1.0)
}

/// The mean of the shares of correct images over kinds of prompt.
pub fn mean_share(kinds: &[&[Tally]]) -> f64 {
    kinds.iter().map(|prompts| share(prompts)).sum::<f64>() / kinds.len().max(1) as f64
}

const RESAMPLES: usize = 2000;

/// The 95 % interval of [`mean_share`]: the wider of two intervals on either side.
///
/// - the bootstrap over prompts: the prompts of every kind are resampled with replacement, 2000
///   times; the 2.5 and 97.5 percentiles (Efron 1979). It accounts for the dependence between
///   images of one prompt.
/// - Wilson's interval, as if all images were independent. It stays honest if every prompt is
///   always right, or there is one prompt.
///
/// With few prompts per kind, say below ten, the interval is too narrow even so, because the
/// prompts say nothing about other prompts. Equal tallies always give equal intervals.
// ANCHOR: interval
pub fn interval(kinds: &[&[Tally]]) -> [f64; 2] {
    let mut rng = Key::new(0, Purpose::Sampling).rng();
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let resampled = kinds.iter().map(|prompts| {
                let drawn: Vec<Tally> =
                    prompts.iter().map(|_| prompts[rng.random_range(0..prompts.len())]).collect();
                share(&drawn)
            });
            resampled.sum::<f64>() / kinds.len().max(1) as f64
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    let percentile = |share: f64| means[(share * (RESAMPLES - 1) as f64).round() as usize];
    let (low, high) = independent(kinds);
    [percentile(0.025).min(low), percentile(0.975).max(high)]
}
// ANCHOR_END: interval

/// The interval of a mean of shares of independent images: Wilson's interval of each kind, with
/// half-widths added in squares.
fn independent(kinds: &[&[Tally]]) -> (f64, f64) {
    let (mut center, mut below, mut above) = (0.0, 0.0, 0.0);
    for prompts in kinds {
        let own = share(prompts);
        let (low, high) = wilson(own, prompts.iter().map(|tally| tally.images).sum());
        center += own;
        below += (own - low).powi(2);
        above += (high - own).powi(2);
    }
    let n = kinds.len().max(1) as f64;
    ((center - f64::sqrt(below)) / n, (center + f64::sqrt(above)) / n)
}

/// The Wilson score interval at 95 % for a share of `n` trials (Wilson 1927).
fn wilson(share: f64, n: usize) -> (f64, f64) {
    let (n, z) = (n as f64, 1.96);
    let denominator = 1.0 + z * z / n;
    let center = (share + z * z / (2.0 * n)) / denominator;
    let half = z / denominator * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    ((center - half).max(0.0), (center + half).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_independent_images_is_wilsons() {
        // Newcombe 1998, table I: 81 of 263 gives .2553 to .3662; 0 of 20 gives 0 to .1611.
        let (low, high) = wilson(81.0 / 263.0, 263);
        assert!((low - 0.2553).abs() < 1e-4 && (high - 0.3662).abs() < 1e-4, "{low} {high}");
        let (low, high) = wilson(0.0, 20);
        assert!(low == 0.0 && (high - 0.1611).abs() < 1e-4, "{low} {high}");
        // One prompt, always right: nothing to resample, and yet no certainty.
        let [low, high] = interval(&[&[Tally { right: 20, images: 20 }]]);
        assert!((low - (1.0 - 0.1611)).abs() < 1e-4 && high == 1.0, "{low} {high}");
    }

    /// Prompts that are nearly always right or nearly always wrong, 20 images of each.
    fn prompts(count: usize, seed: usize) -> Vec<Tally> {
        let mut rng = Key::new(seed as u64, Purpose::Evaluation).rng();
        let mut prompt = || {
            let chance = if rng.random_bool(0.7) { 0.95 } else { 0.1 };
            Tally { right: (0..20).filter(|_| rng.random_bool(chance)).count(), images: 20 }
        };
        (0..count).map(|_| prompt()).collect()
    }

    #[test]
    fn the_true_mean_over_prompts_lies_inside_about_as_often_as_it_should() {
        let truth = 0.7 * 0.95 + 0.3 * 0.1;
        let (mut inside, mut inside_independent) = (0, 0);
        for seed in 0..200 {
            let (one, other) = (prompts(25, 2 * seed), prompts(25, 2 * seed + 1));
            let kinds = [&one[..], &other[..]];
            let [low, high] = interval(&kinds);
            inside += usize::from((low..=high).contains(&truth));
            let (low, high) = independent(&kinds);
            inside_independent += usize::from((low..=high).contains(&truth));
        }
        println!("{inside} of 200, {inside_independent} as if images were independent");
        assert!((180..=199).contains(&inside), "{inside} of 200");
        assert!(inside_independent < 120, "the test can tell them apart: {inside_independent}");
    }
}
