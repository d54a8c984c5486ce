//! Stable Diffusion 3 and 3.5.
//!
//! Sizes come from the configurations beside the weights: SD3-Medium, SD3.5-Medium and SD3.5-Large
//! share the same code. `tests/src/sd3.rs` compares it with diffusers number by number.

use std::path::Path;

use burn::prelude::*;
use flow::GridKind;
use kernels::Kernels;

pub mod random;
mod single_file;
pub mod transformer;

pub use transformer::{Transformer, TransformerConfig};

use crate::{
    directory::{EncoderPlace, Family, SingleFile},
    storage::{ModelError, Source, scheduler::Shift},
    text::clip,
};

/// Stable Diffusion 3 and 3.5.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sd3;

/// A model of this family on disk.
pub type ModelDirectory = crate::directory::ModelDirectory<Sd3>;

impl Family for Sd3 {
    type Config = TransformerConfig;
    type Transformer<B: Backend> = Transformer<B>;

    const CLASS: &'static str = "StableDiffusion3Pipeline";
    const NAME: &'static str = "sd3";
    const CLIP: &'static [EncoderPlace] = &[
        EncoderPlace { network: "text_encoder", tokenizer: "tokenizer" },
        EncoderPlace { network: "text_encoder_2", tokenizer: "tokenizer_2" },
    ];
    const CLIP_CLASS: &'static str = clip::WITH_PROJECTION;
    const T5: EncoderPlace = EncoderPlace { network: "text_encoder_3", tokenizer: "tokenizer_3" };
    const READS_CLIP_TOKENS: bool = true;
    const SHIFT: Shift = Shift::Static(3.0);
    const SEQUENCE_LENGTH: usize = 256;

    fn grid(shift: f64) -> GridKind {
        GridKind::Sd3DoubleShift { shift }
    }

    /// That of SD3.5-Medium.
    fn guidance(_config: &TransformerConfig) -> f64 {
        4.5
    }

    fn reads_guidance(_config: &TransformerConfig) -> bool {
        false
    }

    fn guided<B: Backend>(transformer: Transformer<B>, _scale: f64) -> Transformer<B> {
        transformer
    }

    fn load<B: Kernels>(config: &TransformerConfig, source: &mut Source<'_, B>) -> Transformer<B> {
        Transformer::load(config, source)
    }

    fn single_file(path: &Path) -> Result<SingleFile, ModelError> {
        single_file::open(path)
    }
}
