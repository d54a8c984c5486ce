//! A multilayer perceptron as a velocity field, for points in the plane.

use burn::{prelude::*, tensor::activation};
use flow::VelocityField;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    init::Initializer,
    linear::{Linear, Product},
    lora::Adaptable,
    time_embedding::Sinusoidal,
    vocabulary::TokenIds,
};

/// The sizes of an [`MlpField`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MlpConfig {
    /// The number of elements of a latent.
    #[schemars(range(min = 1, max = LARGEST))]
    pub elements: usize,
    /// The width of the hidden layers.
    #[schemars(range(min = 1, max = LARGEST))]
    pub width: usize,
    /// The number of hidden layers.
    #[schemars(range(min = 1, max = LARGEST))]
    pub depth: usize,
}

impl MlpConfig {
    /// Number of values per row that a forward pass keeps for its backward pass: two per hidden
    /// feature, before and after the activation.
    pub fn kept_per_row(&self) -> usize {
        2 * self.width * self.depth
    }

    /// Number of parameters of a network, to check a file before anything is allocated.
    pub fn count(&self) -> usize {
        let linear = |inputs: usize, outputs: usize| (inputs + 1) * outputs;
        let first = linear(self.elements + 2 * HALF, self.width);
        first
            + (self.depth - 1) * linear(self.width, self.width)
            + linear(self.width, self.elements)
    }

    /// Creates a network with weights drawn from `seed`.
    pub fn init<B: Backend>(&self, seed: u64, device: &B::Device) -> MlpField<B> {
        let mut init = Initializer::new(seed, device);
        let widths = std::iter::once(self.elements + 2 * HALF)
            .chain(std::iter::repeat_n(self.width, self.depth));
        let widths: Vec<usize> = widths.collect();
        MlpField {
            hidden: widths.windows(2).map(|pair| init.linear(pair[0], pair[1])).collect(),
            output: init.zero_linear(widths[widths.len() - 1], self.elements),
            time: Sinusoidal::new(HALF, 1000.0, device),
        }
    }
}

/// Upper bound on every size of a network.
const LARGEST: usize = 4096;

/// Half the number of time features.
const HALF: usize = 16;

/// Velocity field `v(x, t)`: an MLP on `x` and sinusoidal features of `t`. The text is ignored.
#[derive(Module, Debug)]
pub struct MlpField<B: Backend> {
    hidden: Vec<Linear<B>>,
    output: Linear<B>,
    time: Sinusoidal<B>,
}

impl<B: Backend> Adaptable<B> for MlpField<B> {
    fn products(&mut self) -> Vec<(String, Product<'_, B>)> {
        let hidden = self.hidden.iter_mut().enumerate();
        let hidden = hidden.map(|(i, layer)| (format!("hidden.{i}"), Product::Single(layer)));
        hidden.chain([("output".to_owned(), Product::Single(&mut self.output))]).collect()
    }
}

impl<B: Backend> VelocityField<B> for MlpField<B> {
    type Condition = TokenIds;

    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        _conditions: &[TokenIds],
    ) -> Tensor<B, 4> {
        let shape = latent.dims();
        let input = Tensor::cat(vec![latent.flatten(1, 3), self.time.features(time)], 1); // [B, elements + 2·HALF]
        let features =
            self.hidden.iter().fold(input, |x, layer| activation::silu(layer.composed(x)));
        self.output.composed(features).reshape(shape)
    }
}
