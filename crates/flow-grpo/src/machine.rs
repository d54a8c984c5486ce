//! The machine that the program computes on, and its memory.

#[cfg(any(feature = "cuda", test))]
pub mod caches;
pub mod counts;
#[cfg(any(feature = "cuda", test))]
pub mod cuda;
pub mod host;
pub mod memory;
pub mod needs;

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use burn::tensor::backend::Backend;

use crate::{
    backend::{Device, Plain},
    terminal::outcome::BrokeRun,
};

/// Whether the program has asked for the device.
static OPENED: AtomicBool = AtomicBool::new(false);

/// The device of all tensors. On cuda, the first call looks at the machine and prints what it found.
///
/// # Errors
/// If the machine cannot compute on it; the message says what to install.
#[cfg_attr(
    not(feature = "cuda"),
    expect(clippy::unnecessary_wraps, reason = "only on cuda can something be missing")
)]
pub fn device() -> Result<Device> {
    #[cfg(feature = "cuda")]
    cuda::prepare()?;
    OPENED.store(true, Ordering::Relaxed);
    Ok(Device::default())
}

/// Waits until all kernels are compiled and launched. A process that ends while a thread of CubeCL
/// compiles a kernel frees NVRTC's memory under it, and crashes.
///
/// # Errors
/// If the device reports that something could not be computed.
pub fn finish() -> Result<()> {
    if OPENED.load(Ordering::Relaxed) {
        let finished = Plain::sync(&Device::default());
        finished.context("the device did not finish its work").context(BrokeRun)?;
    }
    Ok(())
}

/// The machine, for the record of a run: processor or GPU, number of threads, system.
pub fn description() -> String {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let gpu = memory::gpu().map(|name| format!("{name}, ")).unwrap_or_default();
    format!("{gpu}{}, {threads} threads, {}", processor(), std::env::consts::OS)
}

/// The name of the processor, if known.
pub fn processor() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| {
        line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name.to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}
