//! FLUX.1: the transformer, and what its model directories contain.
//!
//! `tests/src/flux.rs` compares it with diffusers number by number.

use std::path::Path;

use burn::prelude::*;
use flow::GridKind;
use kernels::Kernels;

mod blocks;
mod checkpointing;
mod config;
mod rope;
mod single_file;
mod transformer;

pub use config::FluxConfig;
pub use transformer::FluxTransformer;

use crate::{
    directory::{EncoderPlace, Family, SingleFile},
    storage::{
        ModelError, Source,
        scheduler::{Shift, ShiftByTokens},
    },
    text::clip,
};

/// FLUX.1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flux;

/// A model of this family on disk.
pub type FluxDirectory = crate::directory::ModelDirectory<Flux>;

impl Family for Flux {
    type Config = FluxConfig;
    type Transformer<B: Backend> = FluxTransformer<B>;

    const CLASS: &'static str = "FluxPipeline";
    const NAME: &'static str = "flux";
    const CLIP: &'static [EncoderPlace] =
        &[EncoderPlace { network: "text_encoder", tokenizer: "tokenizer" }];
    const CLIP_CLASS: &'static str = clip::PLAIN;
    const T5: EncoderPlace = EncoderPlace { network: "text_encoder_2", tokenizer: "tokenizer_2" };
    const READS_CLIP_TOKENS: bool = false;
    const SHIFT: Shift = Shift::ByTokens(ShiftByTokens::FLUX1);
    const SEQUENCE_LENGTH: usize = 512;

    fn grid(shift: f64) -> GridKind {
        GridKind::Shifted { shift }
    }

    /// That of FLUX.1-dev; a model that reads no guidance scale (FLUX.1-schnell) takes none.
    fn guidance(config: &FluxConfig) -> f64 {
        if config.guidance_embeds { 3.5 } else { 1.0 }
    }

    fn reads_guidance(config: &FluxConfig) -> bool {
        config.guidance_embeds
    }

    fn guided<B: Kernels>(transformer: FluxTransformer<B>, scale: f64) -> FluxTransformer<B> {
        transformer.with_guidance(scale)
    }

    fn load<B: Kernels>(config: &FluxConfig, source: &mut Source<'_, B>) -> FluxTransformer<B> {
        FluxTransformer::load(config, source)
    }

    fn single_file(path: &Path) -> Result<SingleFile, ModelError> {
        single_file::open(path)
    }
}
