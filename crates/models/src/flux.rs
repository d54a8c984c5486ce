//! FLUX.1: the transformer, and what its model directories contain.
//!
//! `tests/src/flux.rs` compares it with diffusers number by number.

use std::path::Path;

use burn::prelude::*;

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
    files::{
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

    fn load<B: Backend>(config: &FluxConfig, source: &mut Source<'_, B>) -> FluxTransformer<B> {
        FluxTransformer::load(config, source)
    }

    fn single_file(path: &Path) -> Result<SingleFile, ModelError> {
        single_file::open(path)
    }
}
