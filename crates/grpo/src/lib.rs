//! Flow-GRPO: groups, rollouts, advantages, algorithms and the trainer.
//!
//! Knows the velocity field and the reward trait, not the networks.
//!
//! The book derives the mathematics in its chapters *Policy gradients from zero*, *The sampler as a
//! policy*, *GRPO* and *KL, tilting, and what is optimal*.
//!
//! # A run from code
#![doc = include_str!("run_from_code.md")]

pub mod advantage;
pub mod algorithm;
mod config;
pub mod evaluate;
pub mod groups;
pub mod images;
mod metrics;
pub mod objective;
pub mod rollout;
mod scoring;
mod trainer;
pub mod trajectories;
pub mod update;

pub use config::{GrpoConfig, Objective, ReplayBatches, RolloutConfig, TrainedSteps};
pub use evaluate::EncodedPrompt;
pub use metrics::{EpochMetrics, EpochTimes, Summary};
pub use trainer::{Iteration, Policy, Task, TrainError, Trainer, TrainerState};
