//! Everything around a network: the conditions of prompts, the shape of latents, decoding, memory
//! and saving; and the registry of the models that a program can run.
//!
//! A [`Pipeline`] surrounds one kind of network. [`open`] finds the pipeline of a model and hands it
//! to a [`Visitor`]: it has the only `match` over models, so code that samples, evaluates, trains or
//! times is written once, generic over the pipeline.
//!
//! Knows networks and the interfaces of the reinforcement learning; nothing of command lines, run
//! directories or configurations. The program that runs a pipeline passes the backend, the
//! precision, and itself as a [`Host`].

mod card;
mod embeddings;
mod error;
mod host;
mod own;
mod pipeline;
mod published;
mod registry;
pub mod sampled;

pub use card::{Architecture, Card};
pub use embeddings::Cache;
pub use error::PipelineError;
pub use host::{Host, Machine, Progress, Quiet};
pub use own::Own;
pub use pipeline::{Defaults, Footprint, Network, Pipeline, Trainable};
pub use published::{DirectorySettings, Published, Size, Sizes, footprint};
pub use registry::{Computes, ModelSource, OwnVisitor, Visitor, Weights, open, open_own};
