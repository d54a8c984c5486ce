// ANCHOR: best_pressure
/// 11.1: at the pressure `ψ = 1/β`, the means move by `ψ` and `liking·ψ`. Gold is
/// `ψ − (liking²ψ² + 1)/4` and largest at `2/liking²`.
pub fn best_pressure(liking: f64) -> f64 {
    2.0 / liking.powi(2)
}
// ANCHOR_END: best_pressure

// ANCHOR: next_weight
/// 11.2: a factor near 1, from the relative distance to the target, within ±0.2.
pub fn next_weight(weight: f64, divergence: f64, target: f64, rate: f64) -> f64 {
    weight * (1.0 + rate * (divergence / target - 1.0).clamp(-0.2, 0.2))
}
// ANCHOR_END: next_weight

// ANCHOR: stops_at
/// 11.3: the highest value so far, and not the one before.
pub fn stops_at(gold: &[f64], by: f64) -> Option<usize> {
    let mut best = f64::NEG_INFINITY;
    gold.iter().position(|value| {
        best = best.max(*value);
        best - value >= by
    })
}
// ANCHOR_END: stops_at
