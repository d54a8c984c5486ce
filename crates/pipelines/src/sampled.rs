//! Latents in and out of files, and the results of sampling.

use std::path::Path;

use burn::{prelude::*, tensor::TensorData};
use models::{
    WeightsFile,
    weights::{self, StoredAs},
};
use tasks::image::Image;

use crate::PipelineError;

/// Results of sampling, on the host.
#[derive(Clone, Debug)]
pub struct Sampled {
    /// The images, in the order of the latents.
    pub images: Vec<Image>,
    /// The latents at t = 0, `[B, C, h, w]`.
    pub final_latents: TensorData,
    /// The decoder's output before clamping, `[B, 3, H, W]`.
    pub decoded: TensorData,
}

impl Sampled {
    /// Writes latents and decoder output to a safetensors file.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(self, path: &Path) -> Result<(), PipelineError> {
        let tensors = [("final_latents", self.final_latents), ("decoded", self.decoded)];
        let tensors = tensors.into_iter().map(|(name, data)| (name.to_owned(), data)).collect();
        let metadata = ("format", "pt".to_owned());
        Ok(weights::write_tensors(&tensors, metadata, StoredAs::F32, path)?)
    }
}

/// Reads initial latents, `[B, C, H, W]` under the name `latents`.
///
/// # Errors
/// If there are none, or one is not a finite number.
pub fn read_latents<B: Backend>(
    path: &Path,
    device: &B::Device,
) -> Result<Tensor<B, 4>, PipelineError> {
    let refused = |reason: String| PipelineError::Refused(format!("{}{reason}", path.display()));
    let data = WeightsFile::read(path)?.tensors()?.remove("latents");
    let data = data.ok_or_else(|| refused(" has no tensor `latents`".to_owned()))?;
    let shape = data.shape.to_vec();
    if shape.len() != 4 {
        return Err(refused(format!(": latents must be [B, C, H, W], they are {shape:?}")));
    }
    if !data.iter::<f32>().all(f32::is_finite) {
        return Err(refused(": latents must be finite numbers".to_owned()));
    }
    Ok(Tensor::from_data(data, device))
}
