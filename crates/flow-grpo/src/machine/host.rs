//! The program as the host of pipelines: log, progress, interruption, memory and precision.

use std::sync::Arc;

use pipelines::{Host, Machine};

use crate::{
    backend::{self, Device, Plain},
    machine::needs,
    terminal::{interrupt, output, progress::Progress},
};

/// The program.
struct Program;

impl Host for Program {
    fn note(&self, line: &str) {
        output::log(line);
    }

    fn progress(&self, name: &str, total: usize, unit: &str) -> Box<dyn pipelines::Progress> {
        Box::new(Progress::new(name, total, unit))
    }

    fn interrupted(&self) -> bool {
        interrupt::requested()
    }

    fn check_room(&self, what: &str, bytes: u64, advice: &str) -> Result<(), String> {
        needs::check_room(what, bytes, advice).map_err(|error| format!("{error:#}"))
    }
}

impl pipelines::Progress for Progress {
    fn advance(&self, units: usize) {
        Self::advance(self, units);
    }

    fn finish(&self) {
        Self::finish(self);
    }
}

/// The machine that pipelines compute on.
pub fn machine(device: &Device) -> Machine<Plain> {
    Machine {
        device: device.clone(),
        precision: backend::PRECISION,
        t5_precision: backend::T5_PRECISION,
        on_cpu: backend::ON_CPU,
        host: Arc::new(Program),
    }
}
