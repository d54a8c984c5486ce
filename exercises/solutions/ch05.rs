use std::f64::consts::TAU;

// ANCHOR: step_log_prob
/// 5.1: a term per element.
pub fn step_log_prob(next: &[f64], mean: &[f64], std: f64) -> f64 {
    let term = |(x, m): (&f64, &f64)| -(x - m).powi(2) / (2.0 * std.powi(2)) - (std * TAU.sqrt()).ln();
    next.iter().zip(mean).map(term).sum()
}
// ANCHOR_END: step_log_prob

// ANCHOR: ratio
/// 5.2: the exponential of a difference, new minus old.
pub fn ratio(next: &[f64], mean: &[f64], old_mean: &[f64], std: f64) -> f64 {
    (step_log_prob(next, mean, std) - step_log_prob(next, old_mean, std)).exp()
}
// ANCHOR_END: ratio

// ANCHOR: at_the_clip
/// 5.3: the mean log-ratio has mean `−z²/2` and standard deviation `z/√d`, so `z⁴/4 + z²/d = clip²`,
/// a quadratic equation in `z²`. The sum over `d` elements has `d` times as many nats.
pub fn at_the_clip(clip: f64, elements: usize) -> [f64; 2] {
    let nats = clip * elements as f64;
    [(2.0 * (nats.hypot(1.0) - 1.0) / elements as f64).sqrt(), nats]
}
// ANCHOR_END: at_the_clip

// ANCHOR: step_kl
/// 5.4: `‖μ − μ_ref‖²/2s²`, where both means have the velocity with the factor `(1 + σ²(1−t)/2t)Δt`.
/// For Flow-GRPO's `σ_t` the bracket is `1 + a²/2`; at `t = 1` it is 1.
pub fn step_kl(velocity: &[f64], reference: &[f64], t: f64, next: f64, sigma: f64) -> f64 {
    let squared: f64 = velocity.iter().zip(reference).map(|(v, w)| (v - w).powi(2)).sum();
    let (push, variance) = (1.0 + sigma.powi(2) * (1.0 - t) / (2.0 * t), sigma.powi(2) * (t - next));
    (push * (t - next)).powi(2) / (2.0 * variance) * squared
}
// ANCHOR_END: step_kl

// ANCHOR: seen_share
/// 5.5: from the last step back, `after` is the product of the later gains.
pub fn seen_share(random: usize, level: f64, data: f64) -> f64 {
    let [mut seen, mut all, mut after] = [0.0, 0.0, 1.0];
    for i in (0..10).rev() {
        let (t, dt) = (1.0 - i as f64 / 10.0, -0.1);
        let slope = (t - (1.0 - t) * data) / ((1.0 - t).powi(2) * data + t * t);
        let sigma2 = if i >= random { 0.0 } else { level.powi(2) * t / if i == 0 { 0.1 } else { 1.0 - t } };
        let pull = sigma2 / (2.0 * t);
        let push = (1.0 + pull * (1.0 - t)) * dt;
        if i < random {
            seen += push * after;
        }
        all += push * after;
        after *= 1.0 + pull * dt + push * slope;
    }
    seen / all
}
// ANCHOR_END: seen_share
