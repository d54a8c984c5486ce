//! CLIP's text encoders: causal transformers over 77 tokens (arXiv 2103.00020, section 2.4).

use burn::{
    module::{Module, Param},
    prelude::*,
    tensor::{
        FloatDType, TensorData, activation,
        module::{attention, embedding},
        ops::AttentionModuleOptions,
    },
};
use kernels::{Kernels, product};
use serde::{Deserialize, Serialize};

use crate::{
    layers::{LayerNorm, join_heads, split_heads},
    linear::Linear,
    sizes::{not_an_epsilon, out_of_range},
    storage::{Source, TensorFiles},
};

/// `config.json` of a `CLIPTextModel` or a `CLIPTextModelWithProjection`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClipConfig {
    /// [`WITH_PROJECTION`] or [`PLAIN`].
    pub architectures: Vec<String>,
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Features of a token.
    pub hidden_size: usize,
    /// Hidden features of the MLPs.
    pub intermediate_size: usize,
    /// Transformer layers, at least two.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Tokens per prompt, 77.
    pub max_position_embeddings: usize,
    /// Features of the projected output; without a meaning if there is no projection.
    pub projection_dim: usize,
    /// The activation of the MLPs.
    pub hidden_act: Activation,
    /// Added to a variance before the square root.
    #[serde(default = "epsilon")]
    pub layer_norm_eps: f64,
    /// Token at which the pooled output is taken; older files say 2 and mean the token with the
    /// highest id.
    pub eos_token_id: i64,
}

fn epsilon() -> f64 {
    1e-5
}

/// The activation of an MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x·σ(1.702·x)`
    QuickGelu,
    /// `x·Φ(x)`
    Gelu,
}

/// The class of an encoder whose pooled output is projected, as in SD3.
pub const WITH_PROJECTION: &str = "CLIPTextModelWithProjection";
/// The class of an encoder without a projection, as in FLUX.1.
pub const PLAIN: &str = "CLIPTextModel";
/// End-of-text id in older files, a placeholder for the highest id.
const LEGACY_EOS: i64 = 2;

impl ClipConfig {
    /// The encoder of CLIP ViT-L/14, SD3's first.
    pub fn clip_l() -> Self {
        Self {
            architectures: vec![WITH_PROJECTION.to_owned()],
            vocab_size: 49408,
            hidden_size: 768,
            intermediate_size: 3072,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            max_position_embeddings: 77,
            projection_dim: 768,
            hidden_act: Activation::QuickGelu,
            layer_norm_eps: epsilon(),
            eos_token_id: LEGACY_EOS,
        }
    }

    /// The encoder of OpenCLIP `ViT-bigG/14`, SD3's second.
    pub fn clip_g() -> Self {
        Self {
            hidden_size: 1280,
            intermediate_size: 5120,
            num_hidden_layers: 32,
            num_attention_heads: 20,
            projection_dim: 1280,
            hidden_act: Activation::Gelu,
            ..Self::clip_l()
        }
    }

    /// Whether the encoder is of this class.
    pub fn is(&self, class: &str) -> bool {
        self.architectures.iter().any(|of_file| of_file == class)
    }

    fn layer_sizes(&self) -> LayerSizes {
        LayerSizes {
            width: self.hidden_size,
            inner: self.intermediate_size,
            heads: self.num_attention_heads,
            activation: self.hidden_act,
            epsilon: self.layer_norm_eps,
        }
    }

    /// Features of the pooled output.
    pub fn pooled_features(&self) -> usize {
        if self.is(WITH_PROJECTION) { self.projection_dim } else { self.hidden_size }
    }

    /// Lists everything that is out of range or that this code does not support, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("max_position_embeddings", self.max_position_embeddings),
            ("projection_dim", self.pooled_features()),
        ];
        let mut problems = out_of_range(&sizes, ("num_hidden_layers", self.num_hidden_layers));
        problems.extend(not_an_epsilon("layer_norm_eps", self.layer_norm_eps));
        if !self.is(WITH_PROJECTION) && !self.is(PLAIN) {
            problems.push(format!(
                "architectures is {:?}, not {WITH_PROJECTION} or {PLAIN}",
                self.architectures
            ));
        }
        if self.num_hidden_layers == 1 {
            problems.push(
                "num_hidden_layers must be at least 2: the second to last layer is what is read"
                    .to_owned(),
            );
        }
        if self.num_attention_heads == 0
            || !self.hidden_size.is_multiple_of(self.num_attention_heads)
        {
            problems.push(format!(
                "hidden_size ({}) must be a multiple of num_attention_heads ({})",
                self.hidden_size, self.num_attention_heads
            ));
        }
        problems
    }
}

/// A CLIP text encoder.
#[derive(Module, Debug)]
pub struct ClipText<B: Backend> {
    tokens: Param<Tensor<B, 2>>,
    positions: Param<Tensor<B, 2>>,
    layers: Vec<Layer<B>>,
    final_norm: LayerNorm<B>,
    projection: Option<Linear<B>>,
    #[module(skip)]
    config: ClipConfig,
    #[module(skip)]
    precision: FloatDType,
}

/// The published names of an encoder's tensors: newer files of a `CLIPTextModel` leave the prefix
/// `text_model.` out.
pub(crate) fn published_names(files: TensorFiles) -> TensorFiles {
    const PREFIX: &str = "text_model.";
    if files.names().any(|name| name.starts_with(PREFIX)) {
        return files;
    }
    let mut named = TensorFiles::default();
    for name in files.names() {
        let stored = files.stored(name).expect("it was just named");
        let is_inside = !name.starts_with("text_projection");
        named.insert(if is_inside { format!("{PREFIX}{name}") } else { name.to_owned() }, stored);
    }
    named
}

/// Prompts encoded by a CLIP text encoder.
#[derive(Clone, Debug)]
pub struct Encoded<B: Backend> {
    /// The output of the second to last layer, `[B, 77, D]`.
    pub hidden: Tensor<B, 3>,
    /// The output at the end of the text, projected if the encoder has a projection, `[B,
    /// pooled_features]`.
    pub pooled: Tensor<B, 2>,
}

impl<B: Kernels> ClipText<B> {
    /// Loads a network of these sizes from a source.
    pub fn load(config: &ClipConfig, source: &mut Source<'_, B>) -> Self {
        let d = config.hidden_size;
        let embeddings = "text_model.embeddings";
        Self {
            tokens: source
                .table(&format!("{embeddings}.token_embedding.weight"), [config.vocab_size, d]),
            positions: source.tensor(
                &format!("{embeddings}.position_embedding.weight"),
                [config.max_position_embeddings, d],
            ),
            layers: (0..config.num_hidden_layers)
                .map(|index| {
                    let name = format!("text_model.encoder.layers.{index}");
                    Layer::load(&name, config.layer_sizes(), source)
                })
                .collect(),
            final_norm: source.layer_norm("text_model.final_layer_norm", d, config.layer_norm_eps),
            projection: config
                .is(WITH_PROJECTION)
                .then(|| source.linear_without_bias("text_projection", d, config.projection_dim)),
            config: config.clone(),
            precision: source.precision(),
        }
    }

    /// Encodes token ids, `max_position_embeddings` for each prompt.
    pub fn encode(&self, ids: &[Vec<u32>]) -> Encoded<B> {
        let device = self.tokens.device();
        let length = self.config.max_position_embeddings;
        let flat: Vec<i32> = ids.iter().flatten().map(|&id| id as i32).collect();
        let flat =
            Tensor::<B, 2, Int>::from_data(TensorData::new(flat, [ids.len(), length]), &device);
        let mut hidden = embedding(self.tokens.val(), flat).cast(self.precision)
            + self.positions.val().unsqueeze_dim(0);
        let mut before_last = hidden.clone();
        for layer in &self.layers {
            before_last = hidden.clone();
            hidden = layer.forward(hidden, true);
        }
        let last = self.final_norm.forward(hidden);
        let ends = ids
            .iter()
            .enumerate()
            .map(|(row, ids)| last.clone().narrow(0, row, 1).narrow(1, self.end(ids), 1));
        let pooled = Tensor::cat(ends.collect(), 0).squeeze_dim::<2>(1);
        let pooled = match &self.projection {
            Some(projection) => projection.forward(pooled),
            None => pooled,
        };
        Encoded { hidden: before_last, pooled }
    }

    /// Position of the first end-of-text token.
    fn end(&self, ids: &[u32]) -> usize {
        let eos = match self.config.eos_token_id {
            LEGACY_EOS => ids.iter().copied().max(),
            eos => u32::try_from(eos).ok(),
        };
        ids.iter().position(|id| Some(*id) == eos).unwrap_or(0)
    }
}

/// The sizes of a layer of either tower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerSizes {
    /// Features of a token.
    pub width: usize,
    /// Hidden features of the MLP.
    pub inner: usize,
    /// Attention heads.
    pub heads: usize,
    /// The activation of the MLP.
    pub activation: Activation,
    /// Added to a variance before the square root.
    pub epsilon: f64,
}

/// A layer of either tower: attention and an MLP, each after a normalisation and added to its
/// input.
#[derive(Module, Debug)]
pub(crate) struct Layer<B: Backend> {
    norm1: LayerNorm<B>,
    query: Linear<B>,
    key: Linear<B>,
    value: Linear<B>,
    output: Linear<B>,
    norm2: LayerNorm<B>,
    mlp_in: Linear<B>,
    mlp_out: Linear<B>,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    activation: Activation,
}

impl<B: Kernels> Layer<B> {
    /// Loads a layer whose tensors have names that begin with `name`.
    pub(crate) fn load(name: &str, sizes: LayerSizes, source: &mut Source<'_, B>) -> Self {
        let LayerSizes { width: d, inner, heads, activation, epsilon } = sizes;
        let at = |part: &str| format!("{name}.{part}");
        Self {
            norm1: source.layer_norm(&at("layer_norm1"), d, epsilon),
            query: source.linear(&at("self_attn.q_proj"), d, d),
            key: source.linear(&at("self_attn.k_proj"), d, d),
            value: source.linear(&at("self_attn.v_proj"), d, d),
            output: source.linear(&at("self_attn.out_proj"), d, d),
            norm2: source.layer_norm(&at("layer_norm2"), d, epsilon),
            mlp_in: source.linear(&at("mlp.fc1"), d, inner),
            mlp_out: source.linear(&at("mlp.fc2"), inner, d),
            heads,
            activation,
        }
    }

    /// Applies the layer; in a causal one, a token sees itself and those before it.
    ///
    /// # Shapes
    /// `tokens` and the result: `[B, L, D]`
    pub(crate) fn forward(&self, tokens: Tensor<B, 3>, causal: bool) -> Tensor<B, 3> {
        let normed = self.norm1.forward(tokens.clone());
        let [query, key, value] = [&self.query, &self.key, &self.value]
            .map(|layer| split_heads(layer.forward(normed.clone()), self.heads));
        let mixed = if causal {
            let options =
                AttentionModuleOptions { is_causal: true, ..AttentionModuleOptions::default() };
            attention(query, key, value, None, None, options)
        } else {
            product::attention(query, key, value, None, None)
        };
        let mixed = join_heads(mixed);
        let tokens = tokens + self.output.forward(mixed);
        let hidden = self.mlp_in.forward(self.norm2.forward(tokens.clone()));
        let hidden = match self.activation {
            Activation::QuickGelu => hidden.clone() * activation::sigmoid(hidden * 1.702),
            Activation::Gelu => activation::gelu(hidden),
        };
        tokens + self.mlp_out.forward(hidden)
    }
}
