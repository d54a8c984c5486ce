//! Networks for velocity fields, with text encoding, LoRA adapters and weights files.
//!
//! Knows nothing of reinforcement learning, tasks or the command line.

pub mod classifier;
pub mod clip;
pub mod dit;
pub mod flux;
mod init;
mod linear;
pub mod lora;
pub mod mlp;
pub mod preference;
pub mod resize;
pub mod rgb8;
pub mod sd3;
pub mod tensor_files;
mod time_embedding;
pub mod vocabulary;
pub mod weights;

pub use classifier::{Classifier, ClassifierConfig};
pub use dit::{Dit, DitConfig};
pub use linear::{Linear, LowRank};
pub use lora::{Adaptable, Adapter, LoraConfig};
pub use mlp::{MlpConfig, MlpField};
pub use vocabulary::{TokenIds, Vocabulary, VocabularyError};
pub use weights::{WeightsError, WeightsFile};
