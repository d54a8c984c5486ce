//! The encoder of T5 v1.1: no biases, relative positions, RMS norms and gated MLPs (arXiv
//! 1910.10683; arXiv 2002.05202 for the gates).

use burn::{
    module::{Module, Param},
    prelude::*,
    tensor::{FloatDType, TensorData, module::embedding},
};
use kernels::{Kernels, product::attention};
use serde::{Deserialize, Serialize};

use crate::{
    layers::{join_heads, rms_normalized, split_heads},
    linear::Linear,
    sizes::{not_an_epsilon, out_of_range},
    storage::Source,
};

/// `config.json` of a `T5EncoderModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct T5Config {
    /// `T5EncoderModel`.
    pub architectures: Vec<String>,
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Features of a token.
    pub d_model: usize,
    /// Features per head.
    pub d_kv: usize,
    /// Hidden features of the MLPs.
    pub d_ff: usize,
    /// Transformer layers.
    pub num_layers: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Number of buckets for the distance between two tokens.
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all distances share a bucket.
    pub relative_attention_max_distance: usize,
    /// Added to a mean square before the square root.
    pub layer_norm_epsilon: f64,
    /// `gated-gelu`.
    pub feed_forward_proj: String,
}

const CLASS: &str = "T5EncoderModel";
const GATED_GELU: &str = "gated-gelu";

impl T5Config {
    /// T5 v1.1 XXL, SD3's third encoder and FLUX.1's second.
    pub fn xxl() -> Self {
        Self {
            architectures: vec![CLASS.to_owned()],
            vocab_size: 32128,
            d_model: 4096,
            d_kv: 64,
            d_ff: 10240,
            num_layers: 24,
            num_heads: 64,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: GATED_GELU.to_owned(),
        }
    }

    /// Lists everything that is out of range or that this code does not support, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_heads", self.num_heads),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets),
            ("relative_attention_max_distance", self.relative_attention_max_distance),
        ];
        let mut problems = out_of_range(&sizes, ("num_layers", self.num_layers));
        problems.extend(not_an_epsilon("layer_norm_epsilon", self.layer_norm_epsilon));
        if !self.architectures.iter().any(|class| class == CLASS) {
            problems.push(format!("architectures is {:?}, not {CLASS}", self.architectures));
        }
        if self.feed_forward_proj != GATED_GELU {
            problems.push(format!(
                "feed_forward_proj is {}; only {GATED_GELU} (T5 v1.1) is known",
                self.feed_forward_proj
            ));
        }
        if self.relative_attention_num_buckets < 4
            || self.relative_attention_max_distance < self.relative_attention_num_buckets
        {
            problems.push("relative_attention_num_buckets must be at least 4 and not above the largest distance".to_owned());
        }
        problems
    }

    /// Bucket of the distance from a query to a key. Each direction has half of the buckets; half
    /// of these are exact, the others logarithmic.
    fn bucket(&self, (query, key): (usize, usize)) -> usize {
        let half = self.relative_attention_num_buckets / 2;
        let (direction, distance) =
            if key > query { (half, key - query) } else { (0, query - key) };
        let exact = half / 2;
        if distance < exact {
            return direction + distance;
        }
        // In f32, like PyTorch: its rounding decides where the boundaries lie.
        let ratio = (distance as f32 / exact as f32).ln()
            / (self.relative_attention_max_distance as f32 / exact as f32).ln();
        direction + (exact + (ratio * (half - exact) as f32) as usize).min(half - 1)
    }
}

/// A T5 encoder.
#[derive(Module, Debug)]
pub struct T5Encoder<B: Backend> {
    tokens: Param<Tensor<B, 2>>,
    distances: Param<Tensor<B, 2>>,
    layers: Vec<Layer<B>>,
    final_scale: Param<Tensor<B, 1>>,
    #[module(skip)]
    config: T5Config,
    #[module(skip)]
    precision: FloatDType,
}

impl<B: Kernels> T5Encoder<B> {
    /// Loads a network of these sizes from a source.
    pub fn load(config: &T5Config, source: &mut Source<'_, B>) -> Self {
        let buckets = [config.relative_attention_num_buckets, config.num_heads];
        Self {
            tokens: source.table("shared.weight", [config.vocab_size, config.d_model]),
            distances: source.tensor(
                "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
                buckets,
            ),
            layers: (0..config.num_layers)
                .map(|index| Layer::load(config, index, source))
                .collect(),
            final_scale: source.tensor("encoder.final_layer_norm.weight", [config.d_model]),
            config: config.clone(),
            precision: source.precision(),
        }
    }

    /// Encodes token ids, the same number for every prompt; padding is read like any token, as in
    /// SD3 and FLUX.1.
    ///
    /// # Shapes
    /// - the result: `[B, L, D]`
    pub fn encode(&self, ids: &[Vec<u32>]) -> Tensor<B, 3> {
        let device = self.tokens.device();
        let length = ids[0].len();
        let flat: Vec<i32> = ids.iter().flatten().map(|&id| id as i32).collect();
        let flat =
            Tensor::<B, 2, Int>::from_data(TensorData::new(flat, [ids.len(), length]), &device);
        let bias = self.bias(ids.len(), length);
        let tokens = embedding(self.tokens.val(), flat).cast(self.precision);
        let tokens = self.layers.iter().fold(tokens, |tokens, layer| layer.forward(tokens, &bias));
        rms_normalized(tokens, self.final_scale.val(), self.config.layer_norm_epsilon)
    }

    /// Position bias of the attention scores, `[B, heads, L, L]`.
    fn bias(&self, rows: usize, length: usize) -> Tensor<B, 4> {
        let buckets: Vec<i32> = (0..length)
            .flat_map(|query| (0..length).map(move |key| (query, key)))
            .map(|at| self.config.bucket(at) as i32)
            .collect();
        let buckets = Tensor::<B, 1, Int>::from_ints(buckets.as_slice(), &self.distances.device());
        let bias = self.distances.val().select(0, buckets).reshape([
            length,
            length,
            self.config.num_heads,
        ]);
        bias.permute([2, 0, 1]).unsqueeze_dim::<4>(0).expand([
            rows,
            self.config.num_heads,
            length,
            length,
        ])
    }
}

#[derive(Module, Debug)]
struct Layer<B: Backend> {
    attention_scale: Param<Tensor<B, 1>>,
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    output: Linear<B>,
    mlp_scale: Param<Tensor<B, 1>>,
    gate: Linear<B>,
    input: Linear<B>,
    mlp_out: Linear<B>,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    epsilon: f64,
}

impl<B: Kernels> Layer<B> {
    fn load(config: &T5Config, index: usize, source: &mut Source<'_, B>) -> Self {
        let (d, inner, wide) = (config.d_model, config.num_heads * config.d_kv, config.d_ff);
        let at = |name: &str| format!("encoder.block.{index}.layer.{name}");
        Self {
            attention_scale: source.tensor(&at("0.layer_norm.weight"), [d]),
            query: source.linear_without_bias(&at("0.SelfAttention.q"), d, inner),
            key: source.linear_without_bias(&at("0.SelfAttention.k"), d, inner),
            value: source.linear_without_bias(&at("0.SelfAttention.v"), d, inner),
            output: source.linear_without_bias(&at("0.SelfAttention.o"), inner, d),
            mlp_scale: source.tensor(&at("1.layer_norm.weight"), [d]),
            gate: source.linear_without_bias(&at("1.DenseReluDense.wi_0"), d, wide),
            input: source.linear_without_bias(&at("1.DenseReluDense.wi_1"), d, wide),
            mlp_out: source.linear_without_bias(&at("1.DenseReluDense.wo"), wide, d),
            heads: config.num_heads,
            epsilon: config.layer_norm_epsilon,
        }
    }

    fn forward(&self, tokens: Tensor<B, 3>, bias: &Tensor<B, 4>) -> Tensor<B, 3> {
        let normed = rms_normalized(tokens.clone(), self.attention_scale.val(), self.epsilon);
        let [query, key, value] = [&self.query, &self.key, &self.value]
            .map(|layer| split_heads(layer.forward(normed.clone()), self.heads));
        // T5 does not divide scores by √w: its initial weights are smaller by this factor.
        let mixed = join_heads(attention(query, key, value, Some(bias.clone()), Some(1.0)));
        let tokens = tokens + self.output.forward(mixed);
        let normed = rms_normalized(tokens.clone(), self.mlp_scale.val(), self.epsilon);
        let hidden = B::gelu_tanh(self.gate.forward(normed.clone())) * self.input.forward(normed);
        tokens + self.mlp_out.forward(hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_fall_into_the_classes_of_transformers() {
        // Smallest distance of each bucket, by T5Attention._relative_position_bucket of
        // transformers 5.24.0, up to a distance of 511.
        let small = T5Config {
            relative_attention_num_buckets: 8,
            relative_attention_max_distance: 20,
            ..T5Config::xxl()
        };
        let cases: [(T5Config, &[usize]); 2] = [
            (T5Config::xxl(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91]),
            (small, &[0, 1, 2, 7]),
        ];
        for (config, begins) in cases {
            let half = config.relative_attention_num_buckets / 2;
            for distance in 0..512 {
                let class = begins
                    .iter()
                    .rposition(|begin| *begin <= distance)
                    .expect("the first begins at 0");
                assert_eq!(config.bucket((distance, 0)), class, "{distance} places back");
                let ahead = if distance == 0 { 0 } else { half + class };
                assert_eq!(config.bucket((0, distance)), ahead, "{distance} places ahead");
            }
        }
    }
}
