//! Chapter 14, Stable Diffusion 3.5: your answers.
//!
//! The book prints what stands between the ANCHOR lines.
#![allow(unused_variables, reason = "blanks use no arguments")]

use crate::attention::Stream;

// ANCHOR: latent_of_tokens
/// **14.1** From tokens back to a latent. A latent of `[channels, height, width]` was cut into patches of
/// `patch` × `patch`, row by row from the top left. The last layer writes a token of `patch·patch·channels`
/// numbers for each: first all channels of the upper left place, then those of the place to its right.
/// Returns the latent, as channels of rows.
pub fn latent_of_tokens(
    tokens: &[Vec<f64>],
    [channels, height, width]: [usize; 3],
    patch: usize,
) -> Vec<Vec<Vec<f64>>> {
    todo!("14.1: the number of every channel, row and column")
}
// ANCHOR_END: latent_of_tokens

// ANCHOR: shifted_twice
/// **14.2** The grid whose shift is applied twice. Returns `steps + 1` times from 1 to 0.
///
/// In the book: the smallest trained time, 1/1000, is shifted; `steps` times are spread evenly from 1 down
/// to it; all of them are shifted; 0 is appended.
pub fn shifted_twice(steps: usize, shift: f64) -> Vec<f64> {
    todo!("14.2: the times")
}
// ANCHOR_END: shifted_twice

// ANCHOR: joint_attention
/// **14.3** Joint attention. Every token of either stream asks the tokens of both. Returns what the tokens
/// of the image and of the text get. Scores may be as large as 10,000.
pub fn joint_attention(image: &Stream, text: &Stream) -> [Vec<Vec<f64>>; 2] {
    todo!("14.3: weighted means of all values")
}
// ANCHOR_END: joint_attention

// ANCHOR: gradients_of_rows
/// **14.4** What guidance teaches each row. `gradient` is the gradient of the loss with respect to the
/// guided velocity. Returns the gradients with respect to the velocity with the prompt, and to that
/// without.
pub fn gradients_of_rows(gradient: &[f64], scale: f64) -> [Vec<f64>; 2] {
    todo!("14.4: two gradients")
}
// ANCHOR_END: gradients_of_rows

// ANCHOR: best_segment
/// **14.5** How many blocks to a segment? Activation checkpointing may keep the input of every `k`-th block
/// alone. The backward pass then computes `k` blocks again at a time, and holds everything inside them. A
/// network has `blocks` blocks, an input has `input` numbers, and a block holds `inside` numbers more.
/// Returns the `k` from 1 to `blocks` that needs least memory.
pub fn best_segment(blocks: usize, input: f64, inside: f64) -> usize {
    todo!("14.5: k")
}
// ANCHOR_END: best_segment
