use crate::epochs::{Ailment, Epoch};

// ANCHOR: diagnose
/// 10.1: means of the first and of the last ten epochs, because single epochs are noisy.
pub fn diagnose(run: &[Epoch]) -> Ailment {
    let mean = |epochs: &[Epoch], of: fn(&Epoch) -> f64| {
        epochs.iter().map(of).sum::<f64>() / epochs.len() as f64
    };
    let (first, last) = (&run[..10], &run[run.len() - 10..]);
    let risen = |of: fn(&Epoch) -> f64| mean(last, of) - mean(first, of);
    let best_gold = run.windows(10).map(|w| mean(w, |e| e.gold)).fold(0.0, f64::max);
    if mean(run, |e| e.on_policy) > 1e-3 {
        Ailment::ReplayDiffers
    } else if mean(last, |e| e.zero_spread) > 0.8 && mean(last, |e| e.reward) < 0.5 {
        Ailment::NoSpread
    } else if mean(run, |e| e.ratio_spread) > 10.0 {
        Ailment::RateTooHigh
    } else if mean(last, |e| e.diversity) < 0.4 * mean(first, |e| e.diversity) {
        Ailment::Collapsed
    } else if risen(|e| e.reward) > 0.1 && mean(last, |e| e.gold) < best_gold - 0.1 {
        Ailment::Hacked
    } else {
        Ailment::Healthy
    }
}
// ANCHOR_END: diagnose
