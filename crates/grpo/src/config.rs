//! The configuration of a Flow-GRPO run and its validation.

use flow::{FlowSde, GridError, GridKind, Reduction, Sampler, Transition};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use burn::tensor::backend::AutodiffBackend;
use training::{
    ema::EmaConfig,
    optimizer::{AdamWConfig, MuonConfig},
    ranges::{MOST, MOST_GUIDANCE},
};

use crate::{
    advantage::AdvantageConfig,
    algorithm::{Algorithm, Clipped, Nft, nft::NftConfig},
    objective::ObjectiveConfig,
    trajectories::KeptOn,
    update::Batches,
};

/// The settings of Flow-GRPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpoConfig {
    /// Groups per epoch; each has one prompt.
    #[schemars(range(min = 1, max = MOST))]
    pub groups: usize,
    /// Samples per prompt.
    #[schemars(range(min = 1, max = MOST))]
    pub group_size: usize,
    /// Optimiser updates per epoch; only the first is on-policy.
    #[schemars(range(min = 1, max = MOST))]
    pub updates_per_epoch: usize,
    /// Examples per forward and backward pass; changes speed and memory, and the update only by
    /// rounding. On a GPU (wgpu, cuda) the presets of small networks take more: their table `on_gpu`
    /// has the number.
    #[schemars(range(min = 1, max = MOST))]
    pub micro_batch: usize,
    /// Rows that are sampled together; changes speed and memory, and the samples only by rounding.
    /// On a GPU (wgpu, cuda) the presets of small networks take more: their table `on_gpu` has the
    /// number.
    #[schemars(range(min = 1, max = MOST))]
    pub rollout_batch: usize,
    /// Which rows share a forward pass in the replay.
    pub replay_batches: ReplayBatches,
    /// Number of epochs at the start in which the learning rate rises from 0.
    pub warm_up: usize,
    /// Number of epochs at the end in which the learning rate falls to 0; with 0 it stays constant.
    pub cool_down: usize,
    /// How trajectories are sampled.
    pub rollout: RolloutConfig,
    /// Which steps of a trajectory are trained.
    pub trained_steps: TrainedSteps,
    /// How rewards become advantages.
    pub advantage: AdvantageConfig,
    /// The algorithm and its loss.
    pub objective: Objective,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// The optimiser of the matrices of transformer blocks; without it AdamW optimises them, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub muon: Option<MuonConfig>,
    /// The exponential moving average of the weights; the averaged policy is evaluated and saved.
    pub ema: EmaConfig,
}

impl Default for GrpoConfig {
    /// The values of the reference code for GenEval (`config/grpo.py`); nested configurations have
    /// their own defaults.
    fn default() -> Self {
        Self {
            groups: 48,
            group_size: 24,
            updates_per_epoch: 2,
            micro_batch: 8,
            rollout_batch: 8,
            replay_batches: ReplayBatches::MicroBatch,
            warm_up: 0,
            cool_down: 0,
            rollout: RolloutConfig::default(),
            trained_steps: TrainedSteps::AllButLast {},
            advantage: AdvantageConfig::default(),
            objective: Objective::Clipped(ObjectiveConfig::default()),
            optimizer: AdamWConfig::default(),
            muon: None,
            ema: EmaConfig::default(),
        }
    }
}

/// How trajectories are sampled in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutConfig {
    /// Denoising steps `N`.
    #[schemars(range(min = 1, max = MOST_STEPS))]
    pub steps: usize,
    /// The time grid.
    pub grid: GridKind,
    /// The transition of the steps that draw noise.
    pub transition: Transition,
    /// Number of steps at the start of the trajectory that draw noise; later steps are ODE steps.
    pub random_steps: usize,
    /// How log-probabilities are reduced over the elements of a latent.
    pub log_prob: Reduction,
    /// Scale of classifier-free guidance in training; 1 turns guidance off.
    #[schemars(range(max = MOST_GUIDANCE), extend("exclusiveMinimum" = 0))]
    #[serde(default = "unguided")]
    pub guidance: f64,
    /// Where latents are stored until the updates.
    #[serde(default)]
    pub trajectories: KeptOn,
}

impl Default for RolloutConfig {
    /// Ten steps of the Flow-GRPO SDE on a linear grid, with noise at every step and no guidance.
    fn default() -> Self {
        Self {
            steps: 10,
            grid: GridKind::Linear {},
            transition: FlowSde::default().into(),
            random_steps: 10,
            log_prob: Reduction::Mean,
            guidance: unguided(),
            trajectories: KeptOn::Device,
        }
    }
}

fn unguided() -> f64 {
    1.0
}

impl RolloutConfig {
    /// Builds the sampler of this configuration, which keeps no latents at ODE steps.
    pub fn sampler(&self) -> Result<Sampler, GridError> {
        Ok(Sampler::new(self.grid.grid(self.steps)?, self.transition)
            .with_ode_after(self.random_steps))
    }
}

/// Which rows share a forward pass in the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReplayBatches {
    /// Any examples of one step, `micro_batch` at a time. Matrix products of another shape round
    /// differently: negligible in f32, but in 16 bits the difference can exceed a clip range.
    MicroBatch,
    /// The rows that were sampled together, in the same order, `rollout_batch` at a time. The
    /// rollout uses the kernels of the replay, so an on-policy replay repeats the rollout bit by
    /// bit. An update takes whole batches, rows without a gradient also pass through the network, and
    /// random steps are drawn per batch.
    Rollout,
}

/// Which random steps of a trajectory are trained. The last step of the grid is excluded, because
/// it is nearly deterministic. `DiffusionNFT` uses only the number of steps: it draws that many
/// start times of the grid's `N` steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TrainedSteps {
    /// All but the last, as in the reference code.
    AllButLast {},
    /// Some of the trainable steps, drawn again for every row, or for every rollout batch with
    /// [`ReplayBatches::Rollout`]. Fewer steps mean less work per sample.
    Random {
        /// Number of steps per row.
        count: usize,
    },
}

impl TrainedSteps {
    /// Number of steps per row that an epoch trains, out of `trainable` steps.
    pub fn count(self, trainable: usize) -> usize {
        match self {
            Self::AllButLast {} => trainable,
            Self::Random { count } => count,
        }
    }
}

/// The algorithm and its settings: `objective = { kind = "clipped", … }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Objective {
    /// Flow-GRPO: the clipped policy gradient of the sampled transitions.
    Clipped(ObjectiveConfig),
    /// `DiffusionNFT`: adds noise to the samples and compares the velocity with an old policy.
    Nft(NftConfig),
}

impl Objective {
    /// Builds the algorithm for rollouts of `sampler`.
    pub fn algorithm<B: AutodiffBackend, C: Clone>(
        self,
        config: &GrpoConfig,
        sampler: &Sampler,
    ) -> Box<dyn Algorithm<B, C>> {
        match self {
            Self::Clipped(objective) => Box::new(Clipped::new(
                objective,
                config.rollout.log_prob,
                config.trained_steps,
                sampler,
            )),
            Self::Nft(nft) => Box::new(Nft::new(nft, config.trained_steps, sampler)),
        }
    }

    /// Lists all settings that contradict each other, in one sentence each that begins with the key.
    pub fn problems(self) -> Vec<String> {
        match self {
            Self::Clipped(objective) => objective.problems(),
            Self::Nft(_) => Vec::new(),
        }
    }

    /// The initial weight of the KL penalty.
    pub fn kl_weight(self) -> f64 {
        match self {
            Self::Clipped(objective) => objective.kl_weight,
            Self::Nft(nft) => nft.kl_weight,
        }
    }

    /// Number of ODE steps per row that are replayed for the KL penalty alone.
    pub fn kl_ode_steps(self) -> usize {
        match self {
            Self::Clipped(objective) => objective.kl_ode_steps,
            Self::Nft(_) => 0,
        }
    }

    /// Number of steps per row that can be trained.
    fn trainable_steps(self, sampler: &Sampler) -> usize {
        match self {
            Self::Clipped(_) => trainable_steps(sampler).len(),
            Self::Nft(_) => sampler.grid().len().saturating_sub(1).max(1),
        }
    }
}

/// Upper bound on the denoising steps of a grid.
const MOST_STEPS: usize = 10_000;

impl GrpoConfig {
    /// Lists all wrong or contradictory values, in one sentence each that begins with the key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = settings::problems(self);
        let rows = self.groups.max(1).saturating_mul(self.group_size.max(1));
        if rows > MOST {
            problems.push(format!("groups x group_size ({rows}) must be at most {MOST}"));
        }
        problems.extend(
            self.objective.problems().into_iter().map(|problem| format!("objective.{problem}")),
        );
        if !problems.is_empty() {
            return problems; // A grid of wrong values cannot be built.
        }
        // The model's own grid is known only when the model is opened; it has as many steps.
        let mut rollout = self.rollout.clone();
        if rollout.grid == (GridKind::OfModel {}) {
            rollout.grid = GridKind::Linear {};
        }
        match rollout.sampler() {
            Ok(sampler) => {
                let trainable = self.objective.trainable_steps(&sampler);
                if trainable == 0 {
                    problems
                        .push("rollout: no step can be trained; use at least two steps and a transition with noise".to_owned());
                }
                if let TrainedSteps::Random { count } = self.trained_steps
                    && !(1..=trainable).contains(&count)
                {
                    problems.push(format!(
                        "trained_steps.count ({count}) must lie between 1 and {trainable}"
                    ));
                }
                let (wanted, held) =
                    (self.objective.kl_ode_steps(), holdable_steps(&sampler).len());
                if wanted > held {
                    problems.push(format!(
                        "objective.kl_ode_steps ({wanted}) must be at most {held}, the number of ODE steps that could draw noise"
                    ));
                }
            }
            Err(error) => problems.push(format!("rollout: {error}")),
        }
        problems
    }

    /// How the replay forms batches.
    pub fn batches(&self) -> Batches {
        match self.replay_batches {
            ReplayBatches::MicroBatch => Batches::Of(self.micro_batch),
            ReplayBatches::Rollout => Batches::AsSampled(self.rollout_batch),
        }
    }

    /// Builds the sampler of the rollout, which keeps every latent that the algorithm replays.
    pub fn sampler(&self) -> Result<Sampler, GridError> {
        let sampler = self.rollout.sampler()?;
        Ok(if self.objective.kl_ode_steps() > 0 { sampler.keeping_ode_steps() } else { sampler })
    }

    /// Upper bound on the latents per row that a trajectory keeps.
    pub fn kept_latents(&self) -> usize {
        let RolloutConfig { steps, random_steps, .. } = self.rollout;
        if self.objective.kl_ode_steps() > 0 { steps + 1 } else { random_steps.min(steps) + 2 }
    }

    /// Number of examples that an epoch replays if every group has spread, including ODE steps that
    /// only the KL penalty uses.
    pub fn transitions_per_epoch(&self) -> usize {
        let trainable =
            self.rollout.sampler().map_or(0, |sampler| self.objective.trainable_steps(&sampler));
        self.groups
            * self.group_size
            * (self.trained_steps.count(trainable) + self.objective.kl_ode_steps())
    }
}

/// The ODE steps of a sampler at which its transition would draw noise, so that a KL divergence
/// exists.
pub(crate) fn holdable_steps(sampler: &Sampler) -> Vec<usize> {
    let ode = sampler.steps().filter(|(step, transition)| !transition.is_random(*step));
    ode.filter(|(step, _)| sampler.stochastic().is_random(*step))
        .map(|(step, _)| step.index)
        .collect()
}

/// The random steps of a sampler without the last step of its grid.
pub(crate) fn trainable_steps(sampler: &Sampler) -> Vec<usize> {
    let last = sampler.grid().len() - 1;
    sampler
        .steps()
        .filter(|(step, transition)| step.index < last && transition.is_random(*step))
        .map(|(step, _)| step.index)
        .collect()
}
