//! A block of the transformer: joint attention of image and text, a second attention where there is
//! one, and the MLPs.

use burn::{module::Module, prelude::*};
use kernels::Kernels;

use super::TransformerConfig;
use crate::{
    layers::{attend, join_heads, modulation},
    linear::{Linear, Product},
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
    norm1: Linear<B>,
    norm1_context: Linear<B>,
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
        Self {
            norm1: source.linear(&at("norm1.linear"), d, if dual { 9 * d } else { 6 * d }),
            norm1_context: source.linear(
                &at("norm1_context.linear"),
                d,
                if last { 2 * d } else { 6 * d },
            ),
            image: Projections::load(sizes, &at("attn"), IMAGE, true, source),
            text: Projections::load(sizes, &at("attn"), TEXT, !last, source),
            second: dual.then(|| Projections::load(sizes, &at("attn2"), IMAGE, true, source)),
            ff: FeedForward::load(&at("ff"), d, source),
            ff_context: (!last).then(|| FeedForward::load(&at("ff_context"), d, source)),
        }
    }

    /// Shift, scale and gate of the joint attention and of the MLP, and of the second attention if
    /// there is one.
    fn modulations(
        &self,
        conditioning: Tensor<B, 2>,
    ) -> ([Tensor<B, 3>; 6], Option<[Tensor<B, 3>; 3]>) {
        if self.second.is_none() {
            return (modulation(&self.norm1, conditioning), None);
        }
        let [a, b, c, d, e, f, g, h, i] = modulation(&self.norm1, conditioning);
        ([a, b, c, d, e, f], Some([g, h, i]))
    }

    /// Shift, scale and gate of the text's attention and MLP. The last block has only shift and
    /// scale of the attention, stored with scale first.
    fn text_modulations(&self, conditioning: Tensor<B, 2>) -> Vec<Tensor<B, 3>> {
        if self.ff_context.is_some() {
            return modulation::<B, 6>(&self.norm1_context, conditioning).into();
        }
        let [scale, shift] = modulation(&self.norm1_context, conditioning);
        vec![shift, scale]
    }

    pub fn products(&mut self) -> Vec<(String, Product<'_, B>)> {
        let mut all = vec![
            ("norm1.linear".to_owned(), Product::Single(&mut self.norm1)),
            ("norm1_context.linear".to_owned(), Product::Single(&mut self.norm1_context)),
        ];
        all.extend(self.image.products("attn", IMAGE));
        all.extend(self.text.products("attn", TEXT));
        all.extend(self.second.iter_mut().flat_map(|second| second.products("attn2", IMAGE)));
        all.extend(self.ff.products("ff"));
        all.extend(self.ff_context.iter_mut().flat_map(|ff| ff.products("ff_context")));
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
        let (first, second) = self.modulations(conditioning.clone());
        let [shift, scale, gate, mlp_shift, mlp_scale, mlp_gate] = first;
        let of_text = self.text_modulations(conditioning);
        let [text_shift, text_scale] = [of_text[0].clone(), of_text[1].clone()];

        let image_in = B::modulated_layer_norm(image.clone(), shift, scale);
        let text_in = B::modulated_layer_norm(text.clone(), text_shift, text_scale);
        let (image_out, text_out) = joint_attention(&self.image, &self.text, image_in, text_in);
        let attended = B::add_gated(image.clone(), image_out, gate);
        let image = match (&self.second, second) {
            (Some(attention), Some([shift, scale, gate])) => {
                let second_in = B::modulated_layer_norm(image, shift, scale);
                B::add_gated(attended, attention.attention(second_in), gate)
            }
            _ => attended,
        };
        let hidden = B::modulated_layer_norm(image.clone(), mlp_shift, mlp_scale);
        let image = B::add_gated(image, self.ff.forward(hidden), mlp_gate);

        let (Some(feed_forward), Some(text_out), [_, _, gate, mlp_shift, mlp_scale, mlp_gate]) =
            (&self.ff_context, text_out, &of_text[..])
        else {
            return Tokens { image, text }; // The text is not used after the last block.
        };
        let text = B::add_gated(text, text_out, gate.clone());
        let hidden = B::modulated_layer_norm(text.clone(), mlp_shift.clone(), mlp_scale.clone());
        let text = B::add_gated(text, feed_forward.forward(hidden), mlp_gate.clone());
        Tokens { image, text }
    }
    // ANCHOR_END: block
}

/// Joint attention over both streams; the text's output is `None` if it has no output layer.
fn joint_attention<B: Kernels>(
    image: &Projections<B>,
    text: &Projections<B>,
    image_tokens: Tensor<B, 3>,
    text_tokens: Tensor<B, 3>,
) -> (Tensor<B, 3>, Option<Tensor<B, 3>>) {
    let [patches, words] = [image_tokens.dims()[1], text_tokens.dims()[1]];
    let both = Projections::joint([image, text], [image_tokens, text_tokens]);
    let mixed = join_heads(attend(both)); // [B, P + T, D]
    let [of_image, of_text] = B::split(mixed, 1, [patches, words]);
    let output = image.output.as_ref().expect("the image's stream continues after every block");
    (output.forward(of_image), text.output.as_ref().map(|output| output.forward(of_text)))
}
