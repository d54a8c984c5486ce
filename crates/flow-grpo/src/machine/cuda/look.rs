//! Looks at the machine through the driver and NVRTC, which are loaded here for the first time.
//!
//! A library that is missing is a panic in `cudarc`, so every call is caught. The context that is
//! made is CubeCL's, too: both use the primary context of the first device.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Error, Result};
use cubecl::cuda::install;
use cudarc::{
    driver::{CudaContext, DriverError},
    nvrtc::{CompileError, CompileOptions, Ptx, compile_ptx_with_opts},
};

use super::{Answer, Found, Gpu, HEADERS, line, versions::driver_of_proc};
use crate::{
    backend::PRECISION_NAME,
    machine::{caches, memory},
    terminal::output,
};

/// The device that the program found: its context, which must live as long as the program, and
/// the memory that was free at the start.
static DEVICE: OnceLock<(Arc<CudaContext>, u64)> = OnceLock::new();

/// Looks at the machine, prints what it found in a line and tells CubeCL where to keep kernels; at
/// a second call, does nothing.
///
/// # Errors
/// If the machine cannot compute; the message says what is wrong and what to install.
pub fn prepare() -> Result<()> {
    if DEVICE.get().is_some() {
        return Ok(());
    }
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let (found, context) = look();
    panic::set_hook(hook);
    let gpu = found.judge().map_err(Error::msg)?;
    output::log(line(&found, &gpu, PRECISION_NAME));
    if let Some(context) = context {
        DEVICE.get_or_init(|| (context, gpu.free));
    }
    caches::keep(&caches::name(&gpu, found.driver.as_deref(), found.nvrtc()))
}

/// Bytes of the device's memory that were free when the program began, if it has looked.
pub fn free_memory() -> Option<u64> {
    DEVICE.get().map(|(_, free)| *free)
}

/// The most that [`taken_memory`] has found.
static MOST_TAKEN: AtomicU64 = AtomicU64::new(0);

/// The most bytes of the device's memory that were taken since the program looked, if it has, at
/// any call.
pub fn taken_memory() -> Option<u64> {
    let (context, before) = DEVICE.get()?;
    let (free, _) = context.mem_get_info().ok()?;
    let taken = before.saturating_sub(free as u64);
    Some(taken.max(MOST_TAKEN.fetch_max(taken, Ordering::Relaxed)))
}

fn look() -> (Found, Option<Arc<CudaContext>>) {
    let proc = fs::read_to_string("/proc/driver/nvidia/version").ok();
    let mut found = Found {
        driver: proc.as_deref().and_then(driver_of_proc).or_else(memory::driver_version),
        visible: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
        toolkit: install::cuda_path(),
        ..Found::default()
    };
    found.devices = ask(|| {
        let count = CudaContext::device_count().map_err(|error| of_driver(&error))?;
        Ok(count.max(0) as usize)
    });
    if !matches!(found.devices, Answer::Gave(1..)) {
        return (found, None);
    }
    let mut context = None;
    found.gpu = ask(|| {
        let made = CudaContext::new(0).map_err(|error| of_driver(&error))?;
        let gpu = described(&made).map_err(|error| of_driver(&error))?;
        context = Some(made);
        Ok(gpu)
    });
    let (Answer::Gave(gpu), Some(made)) = (&found.gpu, &context) else { return (found, context) };
    let directories = include_directories(&found);
    let is_there = |header: &&str| directories.iter().any(|path| path.join(header).exists());
    found.missing = HEADERS.iter().filter(|header| !is_there(header)).copied().collect();
    let options = CompileOptions {
        options: vec![format!("--gpu-architecture={}", gpu.architecture())],
        include_paths: directories.iter().map(|path| path.display().to_string()).collect(),
        ..CompileOptions::default()
    };
    found.ptx = ask(|| match compile_ptx_with_opts(PROBE, options) {
        Ok(ptx) => Ok(ptx.to_src()),
        Err(CompileError::CompileError { log, .. }) => Err(log.to_string_lossy().into_owned()),
        Err(other) => Err(other.to_string()),
    });
    if let Answer::Gave(ptx) = &found.ptx {
        let load = || made.load_module(Ptx::from_src(ptx.as_str()));
        found.loaded = ask(|| load().map(drop).map_err(|error| of_driver(&error)));
    }
    (found, context)
}

/// A kernel that does nothing, with the headers that most kernels include. Those of pipelines and
/// barriers take ten times as long to compile: they are only looked for.
const PROBE: &str = "#include <cuda_runtime.h>\n#include <cuda_fp16.h>\n#include <cuda_bf16.h>\n#include <mma.h>\n\
                     extern \"C\" __global__ void probe() {}\n";

/// The directories that CubeCL gives NVRTC.
fn include_directories(found: &Found) -> Vec<std::path::PathBuf> {
    let Some(toolkit) = &found.toolkit else { return Vec::new() };
    let include = toolkit.join("include");
    let cccl = include.join("cccl");
    [include, cccl].into_iter().filter(|path| path.exists()).collect()
}

fn described(context: &CudaContext) -> Result<Gpu, DriverError> {
    let (free, total) = context.mem_get_info()?;
    Ok(Gpu {
        name: context.name()?,
        capability: context.compute_capability()?,
        free: free as u64,
        total: total as u64,
    })
}

/// Calls a library; its panics are answers.
fn ask<T>(call: impl FnOnce() -> Result<T, String>) -> Answer<T> {
    match panic::catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Answer::Gave(value),
        Ok(Err(error)) => Answer::Failed(error),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map_or("a panic without words", |text| text);
            if text.starts_with("Unable to dynamically load") {
                Answer::NoLibrary
            } else {
                Answer::Failed(text.to_owned())
            }
        }
    }
}

/// An error of the driver: its name, and its words if the driver has any.
fn of_driver(error: &DriverError) -> String {
    let name = format!("{:?}", error.0);
    match error.error_string() {
        Ok(words) => format!("{name} ({})", words.to_string_lossy()),
        Err(_) => name,
    }
}
