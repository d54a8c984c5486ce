//! Activation checkpointing: the forward pass keeps the inputs of every block, the backward pass
//! computes one block at a time again.

use burn::{prelude::*, tensor::backend::AutodiffBackend};
use flow::{Checkpointed, Query};
use kernels::Kernels;

use super::Transformer;
use crate::{
    checkpointing::{Shared, gradient_of, is_trained, leaf, pulled},
    streams::Tokens,
    text::Embedding,
};

/// Values that a forward pass keeps for its backward pass: the inputs of every block, and nothing
/// from inside a block.
#[derive(Clone, Debug)]
pub struct Kept<B: Backend> {
    query: Query<B, Embedding>,
    conditioning: Tensor<B, 2>,
    blocks: Vec<Tokens<B>>,
    /// Image tokens after the last block, `[B, P, D]`.
    image: Tensor<B, 3>,
}

// ANCHOR: parts
impl<B> Checkpointed<B> for Transformer<B>
where
    B: AutodiffBackend<InnerBackend: Kernels> + Kernels,
{
    type Kept = Kept<B::InnerBackend>;

    fn forward_keeping(
        network: &Transformer<B::InnerBackend>,
        query: Query<B::InnerBackend, Embedding>,
    ) -> (Tensor<B::InnerBackend, 4>, Self::Kept) {
        let [_, _, height, width] = query.latent.dims();
        let (mut tokens, conditioning) =
            network.embed(query.latent.clone(), query.time.clone(), &query.conditions);
        let mut blocks = Vec::with_capacity(network.blocks.len());
        for block in &network.blocks {
            blocks.push(tokens.clone());
            tokens = block.forward(tokens, conditioning.clone());
        }
        let velocity = network.finish(tokens.image.clone(), conditioning.clone(), [height, width]);
        (velocity, Kept { query, conditioning, blocks, image: tokens.image })
    }

    fn backward(
        &self,
        kept: Self::Kept,
        gradient: Tensor<B::InnerBackend, 4>,
        mut take: impl FnMut(B::Gradients),
    ) {
        let Kept { query, conditioning: kept_conditioning, blocks, image } = kept;
        let [_, _, height, width] = query.latent.dims();
        // If no layer before the blocks is trained, nobody needs the conditioning vector's gradient.
        let before = [
            &self.patches,
            &self.time_in,
            &self.time_out,
            &self.pooled_in,
            &self.pooled_out,
            &self.context_embedder,
        ];
        let embeds = before.into_iter().any(is_trained) || self.positions.val().is_require_grad();
        let mut shared = Shared::<B, 2>::new(kept_conditioning, embeds);
        let (image, conditioning) = (leaf::<B, 3>(image), shared.read());
        let velocity = self.finish(image.clone(), conditioning.clone(), [height, width]);
        let mut gradients = pulled(velocity, gradient).backward();
        let mut of_image = gradient_of(&image, &mut gradients);
        shared.collect(&conditioning, &mut gradients);
        let mut of_text = None; // The text is not used after the last block.
        take(gradients);
        for (block, tokens) in self.blocks.iter().zip(blocks).rev() {
            let inputs =
                Tokens { image: leaf::<B, 3>(tokens.image), text: leaf::<B, 3>(tokens.text) };
            let conditioning = shared.read();
            let outputs = block.forward(inputs.clone(), conditioning.clone());
            let mut sum = pulled(outputs.image, of_image);
            if let Some(of_text) = of_text {
                sum = sum + pulled(outputs.text, of_text);
            }
            let mut gradients = sum.backward();
            of_image = gradient_of(&inputs.image, &mut gradients);
            of_text = Some(gradient_of(&inputs.text, &mut gradients));
            shared.collect(&conditioning, &mut gradients);
            take(gradients);
        }
        let Some(of_conditioning) = shared.gradient() else { return };
        let (tokens, conditioning) =
            self.embed(leaf(query.latent), Tensor::from_inner(query.time), &query.conditions);
        let of_text = of_text.expect("there is at least one block");
        let sum = pulled(tokens.image, of_image)
            + pulled(tokens.text, of_text)
            + pulled(conditioning, of_conditioning);
        take(sum.backward());
    }
}
// ANCHOR_END: parts
