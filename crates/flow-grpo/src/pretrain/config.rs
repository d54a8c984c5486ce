//! Configuration of pre-training.

use flow::matching::TimeDistribution;
use pipelines::Architecture;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tasks::shapes;
use training::{
    ema::EmaConfig,
    optimizer::{AdamWConfig, MuonConfig},
    ranges::MOST,
    schedule::{self, Setting},
};

use crate::{
    config::Checked,
    pretrain::examples::{Data, ExampleConfig},
};

/// Configuration of pre-training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PretrainConfig {
    /// Seed of the weights and of all random numbers.
    pub seed: u64,
    /// Number of optimiser updates.
    #[schemars(range(min = 1, max = MOST))]
    pub steps: usize,
    /// Images per update.
    #[schemars(range(min = 1, max = MOST))]
    pub batch_size: usize,
    /// Images per forward and backward pass. On a GPU (wgpu, cuda) presets take more: their table
    /// `on_gpu` has the number.
    #[schemars(range(min = 1, max = MOST))]
    pub micro_batch: usize,
    /// Number of updates at the start in which the learning rate rises from 0.
    pub warm_up: usize,
    /// Share of `steps` at the end in which the learning rate falls to 0.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub cool_down: f64,
    /// Updates between two checkpoints.
    #[schemars(range(min = 1, max = MOST))]
    pub checkpoint_every: usize,
    /// Updates between two evaluations.
    #[schemars(range(min = 1, max = MOST))]
    pub evaluate_every: usize,
    /// Images per kind of prompt in an evaluation.
    #[schemars(range(min = 1, max = MOST))]
    pub evaluation_samples: usize,
    /// The initial weights: the name of a built-in checkpoint or the path of a checkpoint. Without it
    /// training starts from random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// The layers that are trained, by their paths in the network, as `output` or `blocks.0`; all, if
    /// none is named. The others stay as they are in `base`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<String>>,
    /// Kind and sizes of the network: a `dit` learns the images of `data`, an `mlp` the points of
    /// the toy task.
    pub model: Architecture,
    /// The images that a `dit` learns.
    #[serde(default)]
    pub data: Data,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// The optimiser of the matrices of transformer blocks; without it AdamW optimises them, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon: Option<MuonConfig>,
    /// The distribution of times in the loss.
    pub times: TimeDistribution,
    /// The composition of the images and captions.
    pub examples: ExampleConfig,
    /// The exponential moving average of the weights, which is saved.
    pub ema: EmaConfig,
}

impl PretrainConfig {
    /// The learning rate of an update relative to its peak.
    pub fn rate(&self, step: usize) -> f64 {
        schedule::rate(step, self.steps, self.warm_up, self.cooling())
    }

    /// Updates over which the learning rate falls.
    fn cooling(&self) -> usize {
        (self.steps as f64 * self.cool_down) as usize
    }
}

impl Checked for PretrainConfig {
    const MAY_CHANGE: &'static [&'static str] =
        &["steps", "checkpoint_every", "evaluate_every", "evaluation_samples"];

    fn problems(&self) -> Vec<String> {
        let mut problems = settings::problems(self);
        if self.layers.is_some() && self.base.is_none() {
            problems
                .push("layers needs a base: weights that are not trained stay random".to_owned());
        }
        // Relations between the sizes; their ranges are checked above.
        let mut of_model: Vec<String> =
            self.model.problems().into_iter().map(|problem| format!("model.{problem}")).collect();
        of_model.retain(|problem| !problems.contains(problem));
        problems.extend(of_model);
        match &self.model {
            Architecture::Dit(sizes)
                if self.data == Data::Emoji && sizes.image_size != emoji::SIDE =>
            {
                problems.push(format!(
                    "model.image_size ({}) must be {}, the side of the emoji",
                    sizes.image_size,
                    emoji::SIDE
                ));
            }
            Architecture::Dit(sizes) if sizes.image_size < shapes::SMALLEST_IMAGE => problems.push(format!(
                "model.image_size ({}) must be at least {}: the objects of smaller scenes cannot be told apart",
                sizes.image_size,
                shapes::SMALLEST_IMAGE
            )),
            Architecture::Dit(sizes) if sizes.channels != 3 => {
                problems.push(format!("model.channels ({}) must be 3: scenes are RGB images", sizes.channels));
            }
            Architecture::Mlp(sizes) if sizes.elements != 2 => {
                problems.push(format!("model.elements ({}) must be 2: the toy task draws points of the plane", sizes.elements));
            }
            Architecture::Dit(_) | Architecture::Mlp(_) => {}
        }
        if (0.0..=1.0).contains(&self.cool_down) {
            let cool_down = format!("cool_down ({}) of steps", self.cool_down);
            problems.extend(schedule::problem(
                Setting { key: "warm_up", value: self.warm_up },
                Setting { key: &cool_down, value: self.cooling() },
                Setting { key: "steps", value: self.steps },
            ));
        }
        problems
    }
}
