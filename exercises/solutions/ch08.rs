// ANCHOR: guided_velocity
/// 8.1: from the velocity without the prompt, `scale` times the way to the one with it.
pub fn guided_velocity(with: &[f64], without: &[f64], scale: f64) -> Vec<f64> {
    with.iter().zip(without).map(|(with, without)| without + scale * (with - without)).collect()
}
// ANCHOR_END: guided_velocity

// ANCHOR: merged
/// 8.2: the rank is the number of rows of `up`.
pub fn merged(
    weights: &[Vec<f64>],
    down: &[Vec<f64>],
    up: &[Vec<f64>],
    alpha: f64,
) -> Vec<Vec<f64>> {
    let scale = alpha / up.len() as f64;
    let entry = |i: usize, j: usize| -> f64 {
        weights[i][j] + scale * down[i].iter().zip(up).map(|(d, up)| d * up[j]).sum::<f64>()
    };
    (0..weights.len()).map(|i| (0..weights[i].len()).map(|j| entry(i, j)).collect()).collect()
}
// ANCHOR_END: merged

// ANCHOR: lag
/// 8.3: `lag ← decay·(lag + 1)` stands still at `decay/(1 − decay)`.
pub fn lag(decay: f64) -> f64 {
    decay / (1.0 - decay)
}
// ANCHOR_END: lag
