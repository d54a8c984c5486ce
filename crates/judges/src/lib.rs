//! Rewards behind HTTP: images and prompts go to a judge, one number per image comes back.
//!
//! [`Client`] asks a judge in one of three protocols ([`Protocol`]), with bounded retries. [`serve`]
//! offers any [`Scorer`] to such clients. Knows 8-bit RGB images; no tensors, no training loop, no
//! files. A judge's answer is data: no answer can run code or make the program panic.
//!
//! ```
//! use std::{collections::BTreeMap, sync::Arc};
//!
//! use image::RgbImage;
//! use judges::{Client, Options, Protocol, Sample, Scorer, ScorerError, Settings, serve};
//! use serde_json::Value;
//!
//! struct Width;
//!
//! impl Scorer for Width {
//!     fn names(&self) -> Vec<String> {
//!         vec!["width".to_owned()]
//!     }
//!
//!     fn score(&self, samples: &[Sample]) -> Result<BTreeMap<String, Vec<f32>>, ScorerError> {
//!         let widths = samples.iter().map(|sample| sample.image.width() as f32).collect();
//!         Ok([("width".to_owned(), widths)].into())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let any_port = Options { address: "127.0.0.1:0".parse()?, ..Options::default() };
//! let server = serve(Arc::new(Width), any_port)?;
//!
//! let url = format!("http://{}", server.address());
//! let client = Client::new(Settings::new(&url, Protocol::json("width")))?;
//! client.check()?;
//! let image = RgbImage::new(7, 5);
//! let sample = Sample { image: &image, prompt: "a red cube", metadata: &Value::Null };
//! assert_eq!(client.score(&[sample])?, [7.0]);
//! server.stop()?;
//! # Ok(())
//! # }
//! ```

mod client;
mod codec;
mod fault;
mod flow_grpo;
mod json;
mod openai;
pub mod pickle;
mod retry;
mod rubric;
mod sample;
mod server;
mod settings;
mod token;
mod transport;
mod wire;

pub use client::{Client, Counts};
pub use fault::{CheckError, Fault, JudgeError};
pub use image::RgbImage;
pub use rubric::{Question, Rubric};
pub use sample::Sample;
pub use server::{Options, Scorer, ScorerError, ServeError, Server, serve};
pub use settings::{ImageFormat, Protocol, Service, Settings, SettingsError};
pub use token::{Token, TokenError};
