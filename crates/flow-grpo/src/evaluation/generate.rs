//! Images for inference, made by the ODE.

use anyhow::Result;
use burn::tensor::{Tensor, backend::Backend};
use flow::{GridKind, Guidance, Sampler};
use grpo::evaluate::{Generator, Row, Start};
use pipelines::Pipeline;
use tasks::image::Image;
use training::{noise::Key, workers::Workers};

use crate::{
    backend::{Device, Plain, Training},
    evaluation::prompts::Prompts,
    machine::memory,
    terminal::progress::Progress,
};

/// Sampling settings that make images reproducible.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// Key of the noise.
    pub key: Key,
    /// The time grid.
    pub grid: GridKind,
    /// Number of ODE steps.
    pub steps: usize,
    /// Scale of classifier-free guidance; 1 turns it off.
    pub guidance: f64,
}

/// Generates images for inference by the ODE; equal settings give equal images.
pub struct Evaluator<'a, P> {
    /// The pipeline of the network.
    pub pipeline: &'a P,
    /// The threads that do the work.
    pub workers: &'a Workers,
    /// The device of the network.
    pub device: &'a Device,
    /// Sampling settings.
    pub sampling: Sampling,
}

impl<P: Pipeline<Training>> Evaluator<'_, P> {
    /// Generates an image for every row.
    ///
    /// # Errors
    /// If the empty prompt, which guidance needs, cannot be encoded, the grid is invalid, or the
    /// work was stopped.
    pub fn generate(
        &self,
        network: P::Network,
        prompts: &Prompts<P::Condition>,
        rows: &[Row],
    ) -> Result<Vec<Image>> {
        let decoder = self.pipeline.decoder()?;
        // Memory that sampling has left is given back to decoding, and the other way round.
        let give_back = || {
            memory::note();
            Plain::memory_cleanup(self.device);
        };
        give_back();
        let decode = |latents| {
            give_back();
            let images = decoder.decode(latents);
            give_back();
            images
        };
        self.sample(network, prompts, rows, None, decode)
            .map(|batches| batches.into_iter().flatten().collect())
    }

    /// The latents at t = 0 of every row, `[B, C, H, W]`, from given initial latents or from noise.
    ///
    /// # Errors
    /// As [`Self::generate`].
    pub fn latents(
        &self,
        network: P::Network,
        prompts: &Prompts<P::Condition>,
        rows: &[Row],
        initial: Option<Tensor<Plain, 4>>,
    ) -> Result<Tensor<Plain, 4>> {
        Ok(Tensor::cat(self.sample(network, prompts, rows, initial, |latents| latents)?, 0))
    }

    /// Samples the rows in batches and returns the results of `finish`, which gets the final
    /// latents of a batch.
    fn sample<R: Send>(
        &self,
        network: P::Network,
        prompts: &Prompts<P::Condition>,
        rows: &[Row],
        initial: Option<Tensor<Plain, 4>>,
        finish: impl Fn(Tensor<Plain, 4>) -> R + Sync,
    ) -> Result<Vec<R>> {
        let generator = Generator {
            sampler: Sampler::ode(self.sampling.grid.grid(self.sampling.steps)?),
            shape: self.pipeline.latent_shape(),
            batch: self.pipeline.footprint().rows_together,
            workers: self.workers,
        };
        let start = Start { key: self.sampling.key, initial: initial.as_ref() };
        let network = self.pipeline.guide(network, self.sampling.guidance);
        let scale = self.pipeline.classifier_free(self.sampling.guidance);
        let progress = Progress::new("sampling", rows.len(), "images");
        let finish = |latents: Tensor<Plain, 4>| {
            progress.advance(latents.dims()[0]);
            finish(latents)
        };
        let batches = if scale == 1.0 {
            generator.generate(&network, &prompts.0, rows, start, self.device, finish)?
        } else {
            let unconditional = self.pipeline.conditions(&[""])?.remove(0);
            let field = Guidance { unconditional, scale }.around(network);
            generator.generate(&field, &prompts.0, rows, start, self.device, finish)?
        };
        progress.finish();
        Ok(batches)
    }
}
