//! Flow-GRPO: groups, rollouts, advantages, algorithms and the trainer.
//!
//! Knows the velocity field and the reward trait, not the networks.
//!
//! A run from code: the policy is a flow of two clusters in closed form plus a learned offset, and it learns
//! to move the points to where the reward is high.
//!
//! ```
//! use burn::{module::Param, prelude::*};
//! use flow::{VelocityField, analytic::{Component, MixtureField}};
//! use grpo::{EncodedPrompt, GrpoConfig, Policy, Task, Trainer, images::Decoder, optimizer::AdamWConfig, workers::Workers};
//! use tasks::{prompts::Prompt, toy::FirstMode};
//!
//! #[derive(Module, Debug)]
//! struct Moved<B: Backend> { by: Param<Tensor<B, 4>>, #[module(skip)] clusters: MixtureField }
//!
//! impl<B: Backend> VelocityField<B> for Moved<B> {
//!     type Condition = ();
//!     fn velocity(&self, latent: Tensor<B, 4>, time: Tensor<B, 1>, conditions: &[()]) -> Tensor<B, 4> {
//!         self.clusters.velocity(latent, time, conditions) + self.by.val()
//!     }
//! }
//!
//! type Plain = burn_ndarray::NdArray;
//! let cluster = |y| Component { weight: 1.0, mean: vec![1.0, y], std: 0.2 };
//! let by = Param::from_tensor(Tensor::zeros([1, 2, 1, 1], &Default::default()));
//! let field = Moved::<Plain> { by, clusters: MixtureField::new(vec![cluster(-0.3), cluster(0.3)]) };
//! let prompt = EncodedPrompt { prompt: Prompt::plain("a point"), condition: () };
//! let task = Task::new(vec![prompt], (), FirstMode, [2, 1, 1], Decoder::Points);
//! let optimizer = AdamWConfig { learning_rate: 0.05, ..Default::default() };
//! let config = GrpoConfig { groups: 1, group_size: 512, rollout_batch: 512, micro_batch: 512, optimizer, ..Default::default() };
//! type Field = Moved<burn::backend::Autodiff<Plain>>;
//! let mut trainer = Trainer::<_, Field, _>::new(config, 20, 1, task, Policy::full(field), Workers::new(1)?);
//! let rewards = (0..20).map(|_| Ok(trainer.iterate()?.metrics.reward)).collect::<Result<Vec<_>, grpo::TrainError>>()?;
//! assert!(rewards[19] > rewards[0] + 0.1, "{rewards:?}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod advantage;
pub mod algorithm;
pub mod config;
pub mod ema;
pub mod evaluate;
pub mod groups;
pub mod images;
pub mod loss_scale;
pub mod metrics;
pub mod noise;
pub mod objective;
pub mod optimizer;
pub mod parameters;
pub mod ranges;
pub mod rollout;
pub mod schedule;
pub mod trainer;
pub mod trajectories;
pub mod update;
pub mod workers;

pub use config::{GrpoConfig, Objective, ReplayBatches, RolloutConfig, TrainedSteps};
pub use evaluate::EncodedPrompt;
pub use metrics::{EpochMetrics, EpochTimes, Summary};
pub use trainer::{Iteration, Policy, Task, TrainError, Trainer, TrainerState};
