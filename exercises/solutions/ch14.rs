use crate::attention::Stream;

// ANCHOR: latent_of_tokens
/// 14.1: the token of the patch, then the place in it, then the channel.
pub fn latent_of_tokens(
    tokens: &[Vec<f64>],
    [channels, height, width]: [usize; 3],
    patch: usize,
) -> Vec<Vec<Vec<f64>>> {
    let number = |channel: usize, row: usize, column: usize| {
        let token = row / patch * (width / patch) + column / patch;
        let place = row % patch * patch + column % patch;
        tokens[token][place * channels + channel]
    };
    let line = |channel, row| (0..width).map(|column| number(channel, row, column)).collect();
    let plane = |channel| (0..height).map(|row| line(channel, row)).collect();
    (0..channels).map(plane).collect()
}
// ANCHOR_END: latent_of_tokens

// ANCHOR: shifted_twice
/// 14.2: the first shift moves the smallest time alone.
pub fn shifted_twice(steps: usize, shift: f64) -> Vec<f64> {
    let shifted = |t: f64| shift * t / (1.0 + (shift - 1.0) * t);
    let least = shifted(0.001);
    let gaps = (steps.max(2) - 1) as f64;
    let spread = (0..steps).map(|i| 1.0 - (1.0 - least) * i as f64 / gaps);
    spread.map(shifted).chain([0.0]).collect()
}
// ANCHOR_END: shifted_twice

// ANCHOR: joint_attention
/// 14.3: one softmax over the keys of both streams.
pub fn joint_attention(image: &Stream, text: &Stream) -> [Vec<Vec<f64>>; 2] {
    let keys: Vec<&Vec<f64>> = image.keys.iter().chain(&text.keys).collect();
    let values: Vec<&Vec<f64>> = image.values.iter().chain(&text.values).collect();
    let answer = |query: &Vec<f64>| -> Vec<f64> {
        let dot = |key: &&Vec<f64>| query.iter().zip(*key).map(|(q, k)| q * k).sum::<f64>();
        let scores: Vec<f64> =
            keys.iter().map(|key| dot(key) / (query.len() as f64).sqrt()).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let feature = |i: usize| weights.iter().zip(&values).map(|(w, v)| w / sum * v[i]).sum();
        (0..values[0].len()).map(feature).collect()
    };
    [image, text].map(|stream| stream.queries.iter().map(answer).collect())
}
// ANCHOR_END: joint_attention

// ANCHOR: gradients_of_rows
/// 14.4: `v_g = g·v_c + (1 − g)·v_∅`, so the row without a prompt gets a negative share.
pub fn gradients_of_rows(gradient: &[f64], scale: f64) -> [Vec<f64>; 2] {
    [scale, 1.0 - scale].map(|share| gradient.iter().map(|g| share * g).collect())
}
// ANCHOR_END: gradients_of_rows

// ANCHOR: best_segment
/// 14.5: about `√(blocks·input/inside)`; the number of segments is whole, so all are tried.
pub fn best_segment(blocks: usize, input: f64, inside: f64) -> usize {
    let memory = |k: &usize| blocks.div_ceil(*k) as f64 * input + *k as f64 * inside;
    (1..=blocks).min_by(|a, b| memory(a).total_cmp(&memory(b))).unwrap_or(1)
}
// ANCHOR_END: best_segment
