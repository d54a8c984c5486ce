//! Networks for velocity fields, with text encoding, LoRA adapters and weights files.
//!
//! Knows nothing of reinforcement learning, tasks or the command line.

mod checkpointing;
mod classifier;
pub mod clip;
pub mod directory;
mod dit;
pub mod flux;
mod init;
pub mod layers;
mod linear;
pub mod lora;
mod mlp;
pub mod preference;
pub mod resize;
pub mod rgb8;
pub mod sd3;
mod sizes;
pub mod storage;
mod streams;
pub mod text;
mod time_embedding;
mod vae;
mod vocabulary;
pub mod weights;

pub use classifier::{Classifier, ClassifierConfig};
pub use directory::{Choices, Family, ModelDirectory};
pub use dit::{Dit, DitConfig, Prediction};
pub use linear::{Joined, Layer, Linear, LowRank, Part, Product};
pub use lora::{Adaptable, Adapter, LoraConfig};
pub use mlp::{MlpConfig, MlpField};
pub use storage::ModelError;
pub use vae::{Posterior, Vae, VaeConfig};
pub use vocabulary::{TokenIds, Vocabulary, VocabularyError};
pub use weights::{WeightsError, WeightsFile};
