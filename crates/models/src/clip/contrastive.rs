//! The loss by which CLIP's towers are trained.

use burn::{prelude::*, tensor::activation::log_softmax};
use kernels::product::matmul;

use super::unit;

/// The mean cross-entropy of choosing the text of an image among all texts of the batch, and the
/// image of a text among all images.
///
/// ```text
/// z_ij = s·⟨v_i/|v_i|, t_j/|t_j|⟩
/// loss = −1/(2B) · Σ_i ( log softmax_j(z_ij)|_{j=i} + log softmax_j(z_ji)|_{j=i} )
/// ```
///
/// Source: arXiv 2103.00020, figure 3. With equal embeddings everywhere it is `ln B`.
///
/// # Shapes
/// `images`, `texts`: `[B, D]`, row `i` of one belongs to row `i` of the other; `scale`: `s`, `[1]`;
/// the result: `[1]`
// ANCHOR: loss
pub fn contrastive_loss<B: Backend>(
    images: Tensor<B, 2>,
    texts: Tensor<B, 2>,
    scale: Tensor<B, 1>,
) -> Tensor<B, 1> {
    let [rows, _] = images.dims();
    let of_pair = Tensor::<B, 2>::eye(rows, &images.device());
    let logits = matmul(unit(images), unit(texts).transpose()) * scale.unsqueeze::<2>(); // [B, B]
    let right = log_softmax(logits.clone(), 1) + log_softmax(logits, 0);
    (right * of_pair).sum() / -(2.0 * rows as f64)
}
// ANCHOR_END: loss
