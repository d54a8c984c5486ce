//! Options of `sample` for a model directory.

use std::path::PathBuf;

use anyhow::{Context, Result};
use burn::tensor::Tensor;
use clap::{Args, ValueEnum};
use flow::GridKind;
use models::Choices;
use pipelines::{DirectorySettings, Pipeline, Size};

use crate::{
    backend::{Plain, Training},
    terminal::output::log,
    train::model_config::ModelConfig,
};

/// Options for a model directory only.
#[derive(Args, Clone, Debug)]
pub struct DirectoryArgs {
    /// A model in the layout of diffusers (Stable Diffusion 3, 3.5 or FLUX.1): a directory, or
    /// hub:OWNER/NAME, which is downloaded [default: the base model of --adapter].
    #[arg(long, value_name = "DIR", conflicts_with = "checkpoint")]
    pub model: Option<PathBuf>,
    /// Height of the images in pixels [default: the resolution that the model was trained on].
    #[arg(long, conflicts_with = "latents")]
    pub height: Option<usize>,
    /// Width of the images in pixels [default: the resolution that the model was trained on].
    #[arg(long, conflicts_with = "latents")]
    pub width: Option<usize>,
    /// Number of tokens of a prompt that T5 reads [default: `model.max_sequence_length` of the run
    /// that trained --adapter, otherwise 256, or 512 for FLUX.1].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub max_sequence_length: Option<u32>,
    /// Leaves out T5: its features are zeros, as in diffusers. FLUX.1 needs T5.
    #[arg(long)]
    pub without_t5: bool,
    /// A single file of weights in the publisher's layout, as ComfyUI reads it. It replaces the
    /// transformer of the directory, and the autoencoder if the file has one.
    #[arg(long, value_name = "FILE")]
    pub single_file: Option<PathBuf>,
    /// The time grid [default: the grid of diffusers, double-shift, or shifted for FLUX.1].
    #[arg(long, value_enum)]
    pub grid: Option<Grid>,
    /// A safetensors file with initial latents instead of noise: a tensor `latents` of shape
    /// `[B, C, H, W]`, one row per image.
    #[arg(long, value_name = "FILE")]
    pub latents: Option<PathBuf>,
    /// Writes `tensors.safetensors` beside the images, with `final_latents`, and with `decoded`, the
    /// output of the autoencoder before clamping.
    #[arg(long)]
    pub save_latents: bool,
}

impl DirectoryArgs {
    /// The first given option that needs a model directory.
    pub fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--height", self.height.is_some()),
            ("--width", self.width.is_some()),
            ("--max-sequence-length", self.max_sequence_length.is_some()),
            ("--without-t5", self.without_t5),
            ("--single-file", self.single_file.is_some()),
            ("--grid", self.grid.is_some()),
        ];
        given.into_iter().find_map(|(option, given)| given.then_some(option))
    }

    /// The settings of the directory: those of the options, otherwise those of the run that trained
    /// the adapter.
    pub fn settings(
        &self,
        trained: Option<&ModelConfig>,
        latents: Option<&Tensor<Plain, 4>>,
    ) -> DirectorySettings {
        let size = match latents.map(burn::Tensor::dims) {
            Some([_, _, height, width]) => Size::Latents([height, width]),
            None => Size::Pixels { height: self.height, width: self.width },
        };
        let of_run = trained.map(|trained| trained.max_sequence_length);
        if let (Some(length), None) = (of_run, self.max_sequence_length) {
            log(format!(
                "note: T5 reads {length} tokens of a prompt, as in the run that trained the adapter"
            ));
        }
        let without_t5 = self.without_t5 || trained.is_some_and(|trained| !trained.t5);
        DirectorySettings {
            size,
            max_sequence_length: self.max_sequence_length.map(|length| length as usize).or(of_run),
            choices: Choices { single_file: self.single_file.clone(), without_t5 },
            recompute: false,
            cache: None,
        }
    }

    /// The time grid of the options, or the model's own.
    pub fn grid<P: Pipeline<Training>>(&self, pipeline: &P) -> Result<GridKind> {
        let shift = || {
            let shift = pipeline.shift()?;
            shift.context("--grid: this model has no shift")
        };
        Ok(match self.grid {
            None => pipeline.grid()?,
            Some(Grid::Linear) => GridKind::Linear {},
            Some(Grid::Shifted) => GridKind::Shifted { shift: shift()? },
            Some(Grid::SingleShift) => GridKind::Sd3SingleShift { shift: shift()? },
            Some(Grid::DoubleShift) => GridKind::Sd3DoubleShift { shift: shift()? },
        })
    }
}

/// A time grid by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Grid {
    /// The grid of diffusers for SD3: the shift of the scheduler's configuration is applied twice.
    DoubleShift,
    /// The grid intended for SD3: the shift is applied once.
    SingleShift,
    /// The linear grid, shifted once: the grid of diffusers for FLUX.1.
    Shifted,
    /// The linear grid, without a shift.
    Linear,
}
