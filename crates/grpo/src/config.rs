//! The numbers of Flow-GRPO, and which of them make no sense.

use flow::{GridError, GridKind, NoiseLevel, Reduction, Sampler};
use serde::{Deserialize, Serialize};

use crate::{
    advantage::AdvantageConfig,
    ema::EmaConfig,
    objective::{KlController, ObjectiveConfig},
    optimizer::{AdamWConfig, MuonConfig},
};

/// The numbers of Flow-GRPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrpoConfig {
    /// Prompts per epoch; each is one group.
    pub groups: usize,
    /// Samples per prompt.
    pub group_size: usize,
    /// Optimiser updates per epoch; the first is on-policy, the others are not.
    pub updates_per_epoch: usize,
    /// Transitions per forward and backward pass; changes the speed, not the update.
    pub micro_batch: usize,
    /// Rows sampled together; changes the speed, not the samples.
    pub rollout_batch: usize,
    /// Epochs over which the learning rate rises from 0.
    pub warm_up: usize,
    /// Epochs at the end over which the learning rate falls to 0; 0 is a constant rate.
    pub cool_down: usize,
    /// How trajectories are sampled.
    pub rollout: RolloutConfig,
    /// Which steps of a trajectory are trained.
    pub trained_steps: TrainedSteps,
    /// How rewards become advantages.
    pub advantage: AdvantageConfig,
    /// What is minimised.
    pub objective: ObjectiveConfig,
    /// The optimiser.
    pub optimizer: AdamWConfig,
    /// The optimiser of the matrices of transformer blocks.
    pub muon: MuonConfig,
    /// The average of the weights, which is what is evaluated and kept.
    pub ema: EmaConfig,
}

/// How trajectories are sampled in training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RolloutConfig {
    /// Denoising steps `N`.
    pub steps: usize,
    /// The time grid.
    pub grid: GridKind,
    /// The noise level `a`.
    pub noise_level: NoiseLevel,
    /// Steps that draw noise, from the start of the trajectory on; the others are ODE steps.
    pub random_steps: usize,
    /// How log-probabilities are reduced.
    pub log_prob: Reduction,
}

impl RolloutConfig {
    /// The sampler that these numbers describe.
    pub fn sampler(&self) -> Result<Sampler, GridError> {
        Ok(Sampler::flow_sde(self.grid.grid(self.steps)?, self.noise_level).with_ode_after(self.random_steps))
    }
}

/// Which of the random steps of a trajectory are trained. The last step of the grid never is: it is nearly deterministic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum TrainedSteps {
    /// All but the last, as in the reference code.
    AllButLast,
    /// Some of those, drawn anew for every row: less work per sample.
    Random {
        /// How many.
        count: usize,
    },
}

impl GrpoConfig {
    /// All that is out of range, one sentence each, beginning with the key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, value) in [
            ("groups", self.groups),
            ("group_size", self.group_size),
            ("updates_per_epoch", self.updates_per_epoch),
            ("micro_batch", self.micro_batch),
            ("rollout_batch", self.rollout_batch),
            ("ema.every", self.ema.every),
        ] {
            if value == 0 {
                problems.push(format!("{key} must be at least 1"));
            }
        }
        for (key, value) in [
            ("optimizer.learning_rate", self.optimizer.learning_rate),
            ("optimizer.epsilon", self.optimizer.epsilon),
            ("optimizer.max_gradient_norm", self.optimizer.max_gradient_norm),
            ("objective.clip_range", self.objective.clip_range),
            ("advantage.clip", self.advantage.clip),
            ("advantage.epsilon", self.advantage.epsilon),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                problems.push(format!("{key} ({value}) must be a positive number"));
            }
        }
        for (key, value) in [
            ("optimizer.beta1", self.optimizer.beta1),
            ("optimizer.beta2", self.optimizer.beta2),
            ("muon.momentum", self.muon.momentum),
            ("ema.decay", self.ema.decay),
        ] {
            if !(0.0..1.0).contains(&value) {
                problems.push(format!("{key} ({value}) must be at least 0 and below 1"));
            }
        }
        for (key, value) in [
            ("objective.kl_weight", self.objective.kl_weight),
            ("muon.learning_rate", self.muon.learning_rate),
            ("optimizer.weight_decay", self.optimizer.weight_decay),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                problems.push(format!("{key} ({value}) must be at least 0"));
            }
        }
        if let KlController::Adaptive { target, rate } = self.objective.kl_controller {
            for (key, value) in [("target", target), ("rate", rate), ("kl_weight, where it starts,", self.objective.kl_weight)] {
                if !(value > 0.0 && value.is_finite()) {
                    problems.push(format!("objective.kl_controller: {key} ({value}) must be a positive number"));
                }
            }
        }
        match self.rollout.sampler() {
            Ok(sampler) => {
                let trainable = trainable_steps(&sampler).len();
                if trainable == 0 {
                    problems.push("rollout: no step can be trained; use at least two steps and a noise_level above 0".to_owned());
                }
                if let TrainedSteps::Random { count } = self.trained_steps
                    && !(1..=trainable).contains(&count)
                {
                    problems.push(format!("trained_steps.count ({count}) must lie between 1 and {trainable}"));
                }
            }
            Err(error) => problems.push(format!("rollout: {error}")),
        }
        problems
    }

    /// Transitions that an epoch trains if every group has spread.
    pub fn transitions_per_epoch(&self) -> usize {
        let per_row = match self.trained_steps {
            TrainedSteps::AllButLast => self.rollout.sampler().map_or(0, |sampler| trainable_steps(&sampler).len()),
            TrainedSteps::Random { count } => count,
        };
        self.groups * self.group_size * per_row
    }
}

/// The random steps of a sampler but for the last step of its grid.
pub(crate) fn trainable_steps(sampler: &Sampler) -> Vec<usize> {
    let last = sampler.grid().len() - 1;
    sampler.steps().filter(|(step, transition)| step.index < last && transition.is_random()).map(|(step, _)| step.index).collect()
}
