//! A block of the transformer: joint attention of image and text, a second attention where there is
//! one, and the MLPs.

use burn::{module::Module, prelude::*};
use kernels::Kernels;

use super::TransformerConfig;
use crate::{
    layers::modulations,
    linear::{Joined, Part, Product},
    storage::Source,
    streams::{AttentionSizes, FeedForward, IMAGE, Projections, TEXT, Tokens},
};

/// A block of the transformer.
///
/// ```text
/// image, text ← image, text + gate·attention(norm(image), norm(text))
/// image       ← image + gate·attention(norm(image))                     where there is a second attention
/// image       ← image + gate·mlp(norm(image))        likewise for the text, except in the last block
/// ```
///
/// Every norm is followed by a scale and a shift; shift, scale and gate are linear in the
/// conditioning vector (adaLN-zero, arXiv 2212.09748).
#[derive(Module, Debug)]
pub(super) struct Block<B: Backend> {
    modulation: Joined<B>,
    norm1: Part<B>,
    norm1_context: Part<B>,
    image: Projections<B>,
    text: Projections<B>,
    second: Option<Projections<B>>,
    ff: FeedForward<B>,
    ff_context: Option<FeedForward<B>>,
}

impl<B: Kernels> Block<B> {
    pub fn load(config: &TransformerConfig, index: usize, source: &mut Source<'_, B>) -> Self {
        let d = config.width();
        let last = index + 1 == config.num_layers;
        let dual = config.dual_attention_layers.contains(&index);
        let at = |name: &str| format!("transformer_blocks.{index}.{name}");
        let sizes = AttentionSizes {
            heads: config.num_attention_heads,
            features: config.attention_head_dim,
            normalised: config.qk_norm.is_some(),
        };
        let modulations = [
            (at("norm1.linear"), if dual { 9 * d } else { 6 * d }),
            (at("norm1_context.linear"), if last { 2 * d } else { 6 * d }),
        ];
        let (modulation, [norm1, norm1_context]) = source.joined(modulations, d);
        Self {
            modulation,
            norm1,
            norm1_context,
            image: Projections::load(sizes, &at("attn"), IMAGE, true, source),
            text: Projections::load(sizes, &at("attn"), TEXT, !last, source),
            second: dual.then(|| Projections::load(sizes, &at("attn2"), IMAGE, true, source)),
            ff: FeedForward::load(&at("ff"), d, source),
            ff_context: (!last).then(|| FeedForward::load(&at("ff_context"), d, source)),
        }
    }

    fn modulations(&self, conditioning: Tensor<B, 2>) -> Modulations<B> {
        let all = self.modulation.forward(conditioning, &[&self.norm1, &self.norm1_context]);
        let all: Vec<_> = match (self.second.is_some(), self.ff_context.is_some()) {
            (false, true) => modulations::<B, 12>(all).into(),
            (true, true) => modulations::<B, 15>(all).into(),
            (false, false) => modulations::<B, 8>(all).into(),
            (true, false) => modulations::<B, 11>(all).into(),
        };
        let mut all = all.into_iter();
        let image = next(&mut all);
        let second = self.second.is_some().then(|| next(&mut all));
        let mut text: Vec<_> = all.collect();
        if self.ff_context.is_none() {
            text.reverse(); // Stored with scale first.
        }
        Modulations { image, second, text }
    }

    pub fn products(&mut self, path: &str) -> Vec<(String, Product<'_, B>)> {
        let at = |name: &str| format!("{path}.{name}");
        let parts = vec![
            ("norm1.linear", &mut self.norm1),
            ("norm1_context.linear", &mut self.norm1_context),
        ];
        let modulation = Product::Joined { joined: &mut self.modulation, parts };
        let mut all = vec![(path.to_owned(), modulation)];
        all.extend(self.image.products(&at("attn"), IMAGE));
        all.extend(self.text.products(&at("attn"), TEXT));
        all.extend(self.second.iter_mut().flat_map(|second| second.products(&at("attn2"), IMAGE)));
        all.extend(self.ff.products(&at("ff")));
        all.extend(self.ff_context.iter_mut().flat_map(|ff| ff.products(&at("ff_context"))));
        all
    }
}

impl<B: Kernels> Block<B> {
    // ANCHOR: block
    /// Runs the block; `conditioning` is the conditioning vector, `[B, D]`.
    pub fn forward(
        &self,
        Tokens { image, text }: Tokens<B>,
        conditioning: Tensor<B, 2>,
    ) -> Tokens<B> {
        let Modulations { image: of_image, second: of_second, text: of_text } =
            self.modulations(conditioning);
        let [shift, scale, gate, mlp_shift, mlp_scale, mlp_gate] = of_image;
        let [text_shift, text_scale] = [of_text[0].clone(), of_text[1].clone()];

        // Norms of both streams are one step, so that a GPU starts one kernel for them.
        let image_norm = [image.clone(), shift, scale];
        let text_norm = [text.clone(), text_shift, text_scale];
        let second = self.second.as_ref().zip(of_second);
        let (image_in, text_in, second) = if let Some((attention, [shift, scale, gate])) = second {
            let second_norm = [image.clone(), shift, scale];
            let [image_in, text_in, second_in] =
                B::modulated_layer_norms([image_norm, text_norm, second_norm]);
            (image_in, text_in, Some((attention, second_in, gate)))
        } else {
            let [image_in, text_in] = B::modulated_layer_norms([image_norm, text_norm]);
            (image_in, text_in, None)
        };

        let streams = [&self.image, &self.text];
        let [image_mixed, text_mixed] = Projections::attended(streams, [image_in, text_in]);
        let mut image = B::add_gated(image, self.image.output(image_mixed), gate);
        if let Some((attention, second_in, gate)) = second {
            image = B::add_gated(image, attention.attention(second_in), gate);
        }
        let mlp_norm = [image.clone(), mlp_shift, mlp_scale];

        let (Some(text_ff), [_, _, gate, mlp_shift, mlp_scale, text_mlp_gate]) =
            (&self.ff_context, &of_text[..])
        else {
            let [hidden] = B::modulated_layer_norms([mlp_norm]);
            let image = B::add_gated(image, self.ff.forward(hidden), mlp_gate);
            return Tokens { image, text }; // The text is not used after the last block.
        };
        let text = B::add_gated(text, self.text.output(text_mixed), gate.clone());
        let text_mlp_norm = [text.clone(), mlp_shift.clone(), mlp_scale.clone()];
        let [hidden, text_hidden] = B::modulated_layer_norms([mlp_norm, text_mlp_norm]);
        Tokens {
            image: B::add_gated(image, self.ff.forward(hidden), mlp_gate),
            text: B::add_gated(text, text_ff.forward(text_hidden), text_mlp_gate.clone()),
        }
    }
    // ANCHOR_END: block
}

/// Shift, scale and gate of all that a block adds to its tokens.
struct Modulations<B: Backend> {
    /// Of the image's joint attention, and of its MLP.
    image: [Tensor<B, 3>; 6],
    /// Of the image's second attention, if there is one.
    second: Option<[Tensor<B, 3>; 3]>,
    /// Of the text's attention, and of its MLP; in the last block only shift and scale of the
    /// attention.
    text: Vec<Tensor<B, 3>>,
}

/// The next `N` modulations of a block.
fn next<T, const N: usize>(all: &mut impl Iterator<Item = T>) -> [T; N] {
    std::array::from_fn(|_| all.next().expect("no block has fewer"))
}
