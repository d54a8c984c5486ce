//! Activation checkpointing: the forward pass keeps the inputs of every block, the backward pass
//! computes one block at a time again.

use burn::{prelude::*, tensor::backend::AutodiffBackend};
use flow::{Checkpointed, Query};
use kernels::Kernels;

use super::FluxTransformer;
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
    double_blocks: Vec<Tokens<B>>,
    single_blocks: Vec<Tensor<B, 3>>,
    /// Tokens of text and image after the last block, `[B, T + P, D]`.
    both: Tensor<B, 3>,
}

impl<B> Checkpointed<B> for FluxTransformer<B>
where
    B: AutodiffBackend<InnerBackend: Kernels> + Kernels,
{
    type Kept = Kept<B::InnerBackend>;

    fn forward_keeping(
        network: &FluxTransformer<B::InnerBackend>,
        query: Query<B::InnerBackend, Embedding>,
    ) -> (Tensor<B::InnerBackend, 4>, Self::Kept) {
        let [_, _, height, width] = query.latent.dims();
        let (mut tokens, conditioning) =
            network.embed(query.latent.clone(), query.time.clone(), &query.conditions);
        let rope = network.rope(tokens.text.dims()[1], [height, width]);
        let mut double_blocks = Vec::with_capacity(network.double_blocks.len());
        for block in &network.double_blocks {
            double_blocks.push(tokens.clone());
            tokens = block.forward(tokens, conditioning.clone(), &rope);
        }
        let mut both = joined(tokens);
        let mut single_blocks = Vec::with_capacity(network.single_blocks.len());
        for block in &network.single_blocks {
            single_blocks.push(both.clone());
            both = block.forward(both, conditioning.clone(), &rope);
        }
        let velocity = network.finish(both.clone(), conditioning.clone(), [height, width]);
        (velocity, Kept { query, conditioning, double_blocks, single_blocks, both })
    }

    fn backward(
        &self,
        kept: Self::Kept,
        gradient: Tensor<B::InnerBackend, 4>,
        mut take: impl FnMut(B::Gradients),
    ) {
        let Kept { query, conditioning: kept_conditioning, double_blocks, single_blocks, both } =
            kept;
        let [_, _, height, width] = query.latent.dims();
        let patches = height / 2 * (width / 2);
        let words = both.dims()[1] - patches;
        // If no layer before the blocks is trained, nobody needs the conditioning vector's gradient.
        let embeds = [&self.tokens, &self.context].into_iter().any(is_trained)
            || [&self.time, &self.pooled].into_iter().chain(&self.guidance).any(is_trained);
        let mut shared = Shared::<B, 2>::new(kept_conditioning, embeds);
        let (both, conditioning) = (leaf::<B, 3>(both), shared.read());
        let velocity = self.finish(both.clone(), conditioning.clone(), [height, width]);
        let mut gradients = pulled(velocity, gradient).backward();
        let mut of_both = gradient_of(&both, &mut gradients);
        shared.collect(&conditioning, &mut gradients);
        take(gradients);

        let rope = self.rope(words, [height, width]);
        for (block, both) in self.single_blocks.iter().zip(single_blocks).rev() {
            let both = leaf::<B, 3>(both);
            let conditioning = shared.read();
            let output = block.forward(both.clone(), conditioning.clone(), &rope);
            let mut gradients = pulled(output, of_both).backward();
            of_both = gradient_of(&both, &mut gradients);
            shared.collect(&conditioning, &mut gradients);
            take(gradients);
        }
        let mut of_text = of_both.clone().narrow(1, 0, words);
        let mut of_image = of_both.narrow(1, words, patches);
        for (block, tokens) in self.double_blocks.iter().zip(double_blocks).rev() {
            let inputs =
                Tokens { image: leaf::<B, 3>(tokens.image), text: leaf::<B, 3>(tokens.text) };
            let conditioning = shared.read();
            let outputs = block.forward(inputs.clone(), conditioning.clone(), &rope);
            let sum = pulled(outputs.image, of_image) + pulled(outputs.text, of_text);
            let mut gradients = sum.backward();
            of_image = gradient_of(&inputs.image, &mut gradients);
            of_text = gradient_of(&inputs.text, &mut gradients);
            shared.collect(&conditioning, &mut gradients);
            take(gradients);
        }
        let Some(of_conditioning) = shared.gradient() else { return };
        let (tokens, conditioning) =
            self.embed(leaf(query.latent), Tensor::from_inner(query.time), &query.conditions);
        let sum = pulled(tokens.image, of_image)
            + pulled(tokens.text, of_text)
            + pulled(conditioning, of_conditioning);
        take(sum.backward());
    }
}

/// Text tokens and, after them, image tokens, `[B, T + P, D]`.
pub(super) fn joined<B: Backend>(Tokens { image, text }: Tokens<B>) -> Tensor<B, 3> {
    Tensor::cat(vec![text, image], 1)
}
