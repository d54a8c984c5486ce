//! The program that runs a pipeline, and the machine it computes on.

use std::sync::Arc;

use burn::{prelude::*, tensor::FloatDType};

/// The program that runs a pipeline.
pub trait Host: Send + Sync {
    /// Shows a line to people.
    fn note(&self, line: &str);

    /// Starts to show the progress of long work, of `total` units.
    fn progress(&self, name: &str, total: usize, unit: &str) -> Box<dyn Progress>;

    /// Whether work shall end early; it is asked between pieces of work that are kept.
    fn interrupted(&self) -> bool;

    /// # Errors
    /// With a sentence, if `what` needs more than the available memory; `advice` ends the sentence.
    fn check_room(&self, what: &str, bytes: u64, advice: &str) -> Result<(), String>;
}

/// Progress of long work.
pub trait Progress: Send + Sync {
    /// Adds finished units.
    fn advance(&self, units: usize);

    /// Ends the work.
    fn finish(&self);
}

/// A host that shows nothing and has room for everything.
#[derive(Clone, Copy, Debug)]
pub struct Quiet;

impl Host for Quiet {
    fn note(&self, _line: &str) {}

    fn progress(&self, _name: &str, _total: usize, _unit: &str) -> Box<dyn Progress> {
        Box::new(Self)
    }

    fn interrupted(&self) -> bool {
        false
    }

    fn check_room(&self, _what: &str, _bytes: u64, _advice: &str) -> Result<(), String> {
        Ok(())
    }
}

impl Progress for Quiet {
    fn advance(&self, _units: usize) {}

    fn finish(&self) {}
}

/// Where a pipeline computes, and in which precision.
#[derive(Clone)]
pub struct Machine<B: Backend> {
    /// The device of all tensors.
    pub device: B::Device,
    /// The precision in which the layers of a transformer compute.
    pub precision: FloatDType,
    /// The precision of T5, whose activations exceed the range of f16 but not of bf16.
    pub t5_precision: FloatDType,
    /// Whether tensors are in the process's own memory.
    pub on_cpu: bool,
    /// The program.
    pub host: Arc<dyn Host>,
}

impl<B: Backend> Machine<B> {
    /// A machine that computes in f32, for programs that show nothing.
    pub fn quiet(device: B::Device) -> Self {
        let precision = FloatDType::F32;
        Self { device, precision, t5_precision: precision, on_cpu: true, host: Arc::new(Quiet) }
    }
}
