//! A diffusion transformer over pixels, with joint attention over text and image tokens.
//!
//! Kept from SD3's MMDiT (arXiv 2403.03206): joint attention over text and image, adaLN-zero from
//! the time and the pooled text, RMS-normalised queries and keys. Dropped: separate weights for the
//! two streams (one set serves both, because the network is too small for two) and the VAE (the
//! network works on pixels).

use burn::{
    module::{Module, ModuleMapper, Param},
    nn::Embedding,
    prelude::*,
    tensor::{FloatDType, activation},
};
use flow::VelocityField;
use kernels::Kernels;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    init::Initializer,
    linear::{Linear, Product},
    lora::Adaptable,
    time_embedding::Sinusoidal,
    vocabulary::TokenIds,
};

/// The sizes of a [`Dit`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DitConfig {
    /// Colour channels of an image.
    #[schemars(range(min = 1, max = LARGEST))]
    pub channels: usize,
    /// Height and width of an image in pixels, a multiple of `patch`.
    #[schemars(range(min = 1, max = LARGEST))]
    pub image_size: usize,
    /// Height and width of a patch in pixels; one patch is one token.
    #[schemars(range(min = 1, max = LARGEST))]
    pub patch: usize,
    /// Features of a token, a multiple of `heads`.
    #[schemars(range(min = 1, max = LARGEST))]
    pub width: usize,
    /// Number of transformer blocks.
    #[schemars(range(min = 1, max = LARGEST))]
    pub depth: usize,
    /// Attention heads.
    #[schemars(range(min = 1, max = LARGEST))]
    pub heads: usize,
    /// Hidden features of a block's MLP, in multiples of `width`.
    #[schemars(range(min = 1, max = LARGEST))]
    pub mlp_ratio: usize,
    /// Text tokens read from a prompt.
    #[schemars(range(min = 1, max = LARGEST))]
    pub text_length: usize,
    /// Number of neighbouring words, itself included, that a text token combines before any
    /// attention: an odd number; 1 means the word alone.
    #[serde(default = "itself_alone")]
    pub text_neighbours: usize,
    /// Prediction target of the last layer.
    pub prediction: Prediction,
}

/// Prediction target of the network; the field returns a velocity in either case.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Prediction {
    /// The velocity itself.
    Velocity {},
    /// The residual of the clean image after the best linear guess, scaled to unit variance:
    ///
    /// ```text
    /// x̂_0 = k·x_t + c·F(x_t)        k = (1 − t)·s²/var,  c = s·t/√var,  var = (1 − t)²·s² + t²
    /// v    = (x_t − x̂_0) / t
    /// ```
    ///
    /// Near the noise `F` is the clean image, near the data it is the noise: the easier of the two
    /// (arXiv 2206.00364, table 1, for the path of flow matching).
    Preconditioned {
        /// The standard deviation `s` of the data.
        data_std: f64,
    },
}

impl DitConfig {
    /// Lists everything that is wrong with these sizes, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = settings::problems(self);
        if self.patch != 0 && !self.image_size.is_multiple_of(self.patch) {
            problems.push(format!(
                "image_size ({}) must be a multiple of patch ({})",
                self.image_size, self.patch
            ));
        }
        if self.heads != 0 && !self.width.is_multiple_of(self.heads) {
            problems.push(format!(
                "width ({}) must be a multiple of heads ({})",
                self.width, self.heads
            ));
        }
        if self.text_neighbours.is_multiple_of(2) || self.text_neighbours > LARGEST {
            problems.push(format!(
                "text_neighbours ({}) must be odd: a word and pairs of neighbours",
                self.text_neighbours
            ));
        }
        if !self.width.is_multiple_of(4) {
            problems.push(format!("width ({}) must be a multiple of 4", self.width));
        }
        if let Prediction::Preconditioned { data_std } = self.prediction
            && !(data_std > 0.0 && data_std.is_finite())
        {
            problems.push(format!("prediction.data_std ({data_std}) must be a positive number"));
        }
        problems
    }

    /// Number of parameters of a network for `vocabulary` token ids, to check a file before
    /// anything is allocated.
    pub fn count(&self, vocabulary: usize) -> usize {
        let (d, hidden) = (self.width, self.mlp_ratio * self.width);
        let linear = |inputs: usize, outputs: usize| (inputs + 1) * outputs;
        let neighbours = if self.text_neighbours > 1 {
            linear(self.text_neighbours * d, hidden) + linear(hidden, d)
        } else {
            0
        };
        let text = vocabulary * d + neighbours + self.text_length * d + linear(d, d);
        let time = linear(2 * TIME_HALF, d) + linear(d, d);
        let block = linear(d, 6 * d)
            + 4 * linear(d, d)
            + linear(d, hidden)
            + linear(hidden, d)
            + 2 * (d / self.heads);
        let ends =
            linear(self.patch_elements(), d) + linear(d, 2 * d) + linear(d, self.patch_elements());
        text + time + self.depth * block + ends
    }

    /// Creates a network for `vocabulary` token ids, with weights drawn from `seed`.
    ///
    /// # Panics
    /// If [`Self::problems`] finds any.
    pub fn init<B: Kernels>(&self, vocabulary: usize, seed: u64, device: &B::Device) -> Dit<B> {
        assert_eq!(self.problems(), Vec::<String>::new(), "an invalid configuration");
        let mut init = Initializer::new(seed, device);
        let d = self.width;
        let knows_neighbours = self.text_neighbours > 1;
        Dit {
            text: init.embedding(vocabulary, d),
            text_in: knows_neighbours
                .then(|| init.linear(self.text_neighbours * d, self.mlp_ratio * d)),
            text_out: knows_neighbours.then(|| init.linear(self.mlp_ratio * d, d)),
            text_positions: init.normal([self.text_length, d], 0.02),
            patches: init.linear(self.patch_elements(), d),
            time_in: init.linear(2 * TIME_HALF, d),
            time_out: init.linear(d, d),
            pooled: init.linear(d, d),
            blocks: (0..self.depth).map(|_| Block::init(self, &mut init)).collect(),
            modulation: init.zero_linear(d, 2 * d),
            output: init.zero_linear(d, self.patch_elements()),
            time: Sinusoidal::new(TIME_HALF, 1000.0, device),
            positions: self.positions(device),
            config: self.clone(),
            precision: FloatDType::F32,
        }
    }

    /// Number of values per row that a forward pass keeps for its backward pass, with fused
    /// kernels.
    ///
    /// Per token, a block keeps ten widths (both norms, query, key, value, the attention output,
    /// the output of each branch and of each residual sum) and the MLP's hidden features before and
    /// after the activation. The layers before and after the blocks count as two more widths.
    pub fn kept_per_row(&self) -> usize {
        let tokens = self.text_length + self.patches_per_side().pow(2);
        tokens * self.width * (self.depth * (10 + 2 * self.mlp_ratio) + 2)
    }

    /// Fixed two-dimensional sine-cosine positions of unit scale, `[P, D]`: half the features for
    /// the row, half for the column.
    fn positions<B: Backend>(&self, device: &B::Device) -> Tensor<B, 2> {
        let (side, d) = (self.patches_per_side(), self.width);
        let quarter = d / 4;
        let frequency = |i: usize| 100_f32.powf(-(i as f32) / quarter as f32);
        let of_place = |place: usize| {
            (0..quarter)
                .flat_map(move |i| <[f32; 2]>::from((place as f32 * frequency(i)).sin_cos()))
        };
        let of_patch = |patch: usize| of_place(patch / side).chain(of_place(patch % side));
        let values: Vec<f32> = (0..side * side).flat_map(of_patch).collect();
        Tensor::from_data(TensorData::new(values, [side * side, d]), device)
    }

    fn patch_elements(&self) -> usize {
        self.channels * self.patch * self.patch
    }

    fn patches_per_side(&self) -> usize {
        self.image_size / self.patch
    }
}

/// Upper bound on every size of a network: image size, width, number of layers.
const LARGEST: usize = 4096;

fn itself_alone() -> usize {
    1
}

/// Half the number of time features.
const TIME_HALF: usize = 32;

/// The diffusion transformer described by a [`DitConfig`].
///
/// Tokens are `[L·B, D]` inside, text before patches. Shift, scale and gate of all rows are then
/// one run of `B·D` numbers, the same for every token, and the CPU backends have fast loops for
/// this broadcast.
#[derive(Module, Debug)]
pub struct Dit<B: Backend> {
    text: Embedding<B>,
    text_in: Option<Linear<B>>,
    text_out: Option<Linear<B>>,
    text_positions: Param<Tensor<B, 2>>,
    patches: Linear<B>,
    time_in: Linear<B>,
    time_out: Linear<B>,
    pooled: Linear<B>,
    blocks: Vec<Block<B>>,
    modulation: Linear<B>,
    output: Linear<B>,
    time: Sinusoidal<B>,
    positions: Tensor<B, 2>,
    #[module(skip)]
    config: DitConfig,
    #[module(skip)]
    precision: FloatDType,
}

impl<B: Kernels> Dit<B> {
    /// The sizes of the network.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// Sets the precision in which the layers compute. Weights, gradients, latents and velocities
    /// stay f32: weights are cast on the way in, the last layer's output on the way out.
    #[must_use]
    pub fn computing_in(mut self, precision: FloatDType) -> Self {
        self.precision = precision;
        self
    }

    /// The raw output of the last layer, as an image, `[B, C, H, W]`, f32.
    fn output(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[TokenIds],
    ) -> Tensor<B, 4> {
        if self.precision == FloatDType::F32 {
            return self.forward(latent, time, conditions);
        }
        let network = self.clone().map(&mut Cast(self.precision));
        network.forward(latent.cast(self.precision), time, conditions).cast(FloatDType::F32)
    }

    /// Forward pass, with `latent` and the weights in the network's precision and `time` in f32.
    fn forward(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[TokenIds],
    ) -> Tensor<B, 4> {
        let (rows, d) = (conditions.len(), self.config.width);
        let text = self.embed_text(conditions, &latent.device()); // [T, B, D]
        let condition = self.condition(time, text.clone()); // [B, D]
        let text = text + self.text_positions.val().unsqueeze_dim(1);
        let image = self.patches.forward(self.patchify(latent)); // [P·B, D]
        let image = image + self.positions(rows);
        let tokens = Tensor::cat(vec![text.reshape([-1, d as i32]), image], 0); // [L·B, D]
        let tokens = self
            .blocks
            .iter()
            .fold(tokens, |tokens, block| block.forward(tokens, condition.clone()));
        let text_tokens = rows * self.config.text_length;
        let patches = tokens.dims()[0] - text_tokens;
        let image = tokens.narrow(0, text_tokens, patches); // [P·B, D]
        let [shift, scale] = modulation(&self.modulation, condition);
        self.unpatchify(self.output.forward(B::modulated_norm(image, shift, scale)), rows)
    }

    /// Embeds the text of every row, `[T, B, D]`; neighbouring rows with equal prompts, as in a
    /// group, are embedded once.
    fn embed_text(&self, conditions: &[TokenIds], device: &B::Device) -> Tensor<B, 3> {
        let prompts: Vec<&[TokenIds]> = conditions.chunk_by(|a, b| a == b).collect();
        let distinct: Vec<&TokenIds> = prompts.iter().map(|rows| &rows[0]).collect();
        let text = self.embed_words(&distinct, device); // [T, prompts, D]
        if distinct.len() == conditions.len() {
            return text;
        }
        let (length, d) = (self.config.text_length, self.config.width);
        let rows = |(i, rows): (usize, &&[TokenIds])| {
            text.clone().narrow(1, i, 1).expand([length, rows.len(), d])
        };
        Tensor::cat(prompts.iter().enumerate().map(rows).collect(), 1)
    }

    /// Embeds words, combined with their neighbours if the network has layers for it, `[T, B, D]`.
    fn embed_words(&self, conditions: &[&TokenIds], device: &B::Device) -> Tensor<B, 3> {
        let length = self.config.text_length;
        let ids: Vec<i32> =
            (0..length).flat_map(|token| conditions.iter().map(move |ids| ids[token])).collect();
        let words = self
            .text
            .forward(Tensor::from_data(TensorData::new(ids, [length, conditions.len()]), device)); // [T, B, D]
        let (Some(text_in), Some(text_out)) = (&self.text_in, &self.text_out) else { return words };
        let neighbours = self.config.text_neighbours;
        let margin = Tensor::zeros(
            [neighbours / 2, conditions.len(), self.config.width],
            (device, words.dtype()),
        );
        let padded = Tensor::cat(vec![margin.clone(), words.clone(), margin], 0);
        let around =
            (0..neighbours).map(|offset| padded.clone().narrow(0, offset, length)).collect();
        let hidden = activation::relu(text_in.forward(Tensor::cat(around, 2))); // [T, B, hidden]
        words + text_out.forward(hidden.clone() * hidden)
    }

    /// Conditioning vector of the time and the pooled text, `[B, D]`, after the activation that all
    /// blocks share.
    fn condition(&self, time: Tensor<B, 1>, text: Tensor<B, 3>) -> Tensor<B, 2> {
        let time = self.time_out.forward(activation::silu(
            self.time_in.forward(self.time.features(time).cast(self.precision)),
        ));
        let pooled = self.pooled.forward(text.mean_dim(0).squeeze_dim::<2>(0));
        activation::silu(time + pooled)
    }

    /// `[B, C, H, W]` to `[P·B, C·p·p]`
    fn patchify(&self, latent: Tensor<B, 4>) -> Tensor<B, 2> {
        let [rows, channels, _, _] = latent.dims();
        let (side, p) = (self.config.patches_per_side(), self.config.patch);
        let split = latent.reshape([rows, channels, side, p, side, p]);
        split
            .permute([2, 4, 0, 1, 3, 5])
            .reshape([side * side * rows, self.config.patch_elements()])
    }

    /// `[P·B, C·p·p]` to `[B, C, H, W]`
    fn unpatchify(&self, patches: Tensor<B, 2>, rows: usize) -> Tensor<B, 4> {
        let (side, p, channels) =
            (self.config.patches_per_side(), self.config.patch, self.config.channels);
        let split = patches.reshape([side, side, rows, channels, p, p]);
        split.permute([2, 3, 0, 4, 1, 5]).reshape([rows, channels, side * p, side * p])
    }

    /// The position of every patch for every row, `[P·B, D]`.
    fn positions(&self, rows: usize) -> Tensor<B, 2> {
        let (d, patches) = (self.config.width, self.config.patches_per_side().pow(2));
        let positions = self.positions.clone().cast(self.precision).reshape([patches, 1, d]);
        positions.expand([patches, rows, d]).reshape([patches * rows, d])
    }
}

impl<B: Kernels> VelocityField<B> for Dit<B> {
    type Condition = TokenIds;

    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[TokenIds],
    ) -> Tensor<B, 4> {
        match self.config.prediction {
            Prediction::Velocity {} => self.output(latent, time, conditions),
            Prediction::Preconditioned { data_std } => {
                let output = self.output(latent.clone(), time.clone(), conditions);
                let t: Tensor<B, 4> = time.reshape([-1, 1, 1, 1]); // [B, 1, 1, 1]
                let data_variance = data_std * data_std;
                let rest = t.clone().neg() + 1.0;
                let variance =
                    rest.clone().powi_scalar(2) * data_variance + t.clone().powi_scalar(2);
                // (1 − k)/t and c/t, written so that nothing is divided by t.
                let of_latent = (t - rest * data_variance) / variance.clone();
                let of_output = variance.sqrt().recip() * data_std;
                latent * of_latent - output * of_output
            }
        }
    }

    fn blocks(&self) -> &'static [&'static str] {
        &["blocks."]
    }
}

impl<B: Backend> Adaptable<B> for Dit<B> {
    fn products(&mut self) -> Vec<(String, Product<'_, B>)> {
        let text = [("text_in", &mut self.text_in), ("text_out", &mut self.text_out)];
        let text = text.into_iter().filter_map(|(name, layer)| Some((name, layer.as_mut()?)));
        let input = [
            ("patches", &mut self.patches),
            ("time_in", &mut self.time_in),
            ("time_out", &mut self.time_out),
            ("pooled", &mut self.pooled),
        ];
        let output = [("modulation", &mut self.modulation), ("output", &mut self.output)];
        let blocks = self.blocks.iter_mut().enumerate().flat_map(|(i, block)| {
            block
                .linears()
                .into_iter()
                .map(move |(name, layer)| (format!("blocks.{i}.{name}"), Product::Single(layer)))
        });
        let named = |(name, layer): (&str, _)| (name.to_owned(), Product::Single(layer));
        text.chain(input).map(named).chain(blocks).chain(output.map(named)).collect()
    }
}

/// Casts every parameter; gradients flow back through the cast.
struct Cast(FloatDType);

impl<B: Backend> ModuleMapper<B> for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        param.map(|values| values.cast(self.0))
    }
}

/// A transformer block whose norms and residuals are modulated by the conditioning vector
/// (adaLN-zero, arXiv 2212.09748).
///
/// The MLP's activation is the squared ReLU (arXiv 2109.08668), which is cheap; the tanh of GELU
/// took a fifth of all time on a CPU.
#[derive(Module, Debug)]
struct Block<B: Backend> {
    modulation: Linear<B>,
    to_q: Linear<B>,
    to_k: Linear<B>,
    to_v: Linear<B>,
    query_scale: Param<Tensor<B, 1>>,
    key_scale: Param<Tensor<B, 1>>,
    to_out: Linear<B>,
    mlp_in: Linear<B>,
    mlp_out: Linear<B>,
    heads: usize,
}

impl<B: Backend> Block<B> {
    fn linears(&mut self) -> [(&'static str, &mut Linear<B>); 7] {
        [
            ("modulation", &mut self.modulation),
            ("to_q", &mut self.to_q),
            ("to_k", &mut self.to_k),
            ("to_v", &mut self.to_v),
            ("to_out", &mut self.to_out),
            ("mlp_in", &mut self.mlp_in),
            ("mlp_out", &mut self.mlp_out),
        ]
    }
}

impl<B: Kernels> Block<B> {
    fn init(config: &DitConfig, init: &mut Initializer<'_, B>) -> Self {
        let d = config.width;
        Self {
            modulation: init.zero_linear(d, 6 * d),
            to_q: init.linear(d, d),
            to_k: init.linear(d, d),
            to_v: init.linear(d, d),
            query_scale: init.ones(d / config.heads),
            key_scale: init.ones(d / config.heads),
            to_out: init.linear(d, d),
            mlp_in: init.linear(d, config.mlp_ratio * d),
            mlp_out: init.linear(config.mlp_ratio * d, d),
            heads: config.heads,
        }
    }

    // ANCHOR: block
    /// Runs the block; `tokens`: `[L·B, D]`; `condition`: `[B, D]`.
    fn forward(&self, tokens: Tensor<B, 2>, condition: Tensor<B, 2>) -> Tensor<B, 2> {
        let rows = condition.dims()[0];
        let [shift1, scale1, gate1, shift2, scale2, gate2] =
            modulation(&self.modulation, condition);
        let attended = self.attention(B::modulated_norm(tokens.clone(), shift1, scale1), rows);
        let tokens = B::gated_residual(tokens, attended, gate1);
        let hidden =
            B::squared_relu(self.mlp_in.forward(B::modulated_norm(tokens.clone(), shift2, scale2)));
        B::gated_residual(tokens, self.mlp_out.forward(hidden), gate2)
    }
    // ANCHOR_END: block

    /// Softmax attention with RMS-normalised queries and keys, `[L·B, D]`.
    fn attention(&self, tokens: Tensor<B, 2>, rows: usize) -> Tensor<B, 2> {
        let [query, key, value] =
            [&self.to_q, &self.to_k, &self.to_v].map(|layer| layer.forward(tokens.clone()));
        let mixed = B::normalized_attention(
            query,
            key,
            value,
            self.query_scale.val(),
            self.key_scale.val(),
            rows,
        );
        self.to_out.forward(mixed)
    }
}

/// Computes the `N` modulations (shifts, scales, gates) of a layer, each `[1, B·D]`.
fn modulation<B: Kernels, const N: usize>(
    layer: &Linear<B>,
    condition: Tensor<B, 2>,
) -> [Tensor<B, 2>; N] {
    let [rows, d] = condition.dims();
    let all = layer.forward(condition).reshape([rows, N, d]).swap_dims(0, 1).reshape([N, rows * d]);
    std::array::from_fn(|i| all.clone().narrow(0, i, 1))
}
