//! Kernels that CubeCL launches, compiles and finds in its cache, counted.
//!
//! CubeCL has no public counters. It reports every kernel to the `log` crate, which the program uses
//! for nothing else: the logger here counts the reports and keeps none. On backends without CubeCL,
//! and on wgpu, nothing is counted.

#[cfg(feature = "cuda")]
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Numbers of kernels since the start of the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Launches.
    pub launched: usize,
    /// Kernels that NVRTC compiled.
    pub compiled: usize,
    /// Kernels that an earlier start had compiled.
    pub cached: usize,
}

impl Counts {
    /// What was counted after `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            launched: self.launched - before.launched,
            compiled: self.compiled - before.compiled,
            cached: self.cached - before.cached,
        }
    }
}

/// Starts to count; must be called before the first tensor is made.
#[cfg(feature = "cuda")]
pub fn start() {
    if log::set_logger(&Counter).is_ok() {
        log::set_max_level(log::LevelFilter::Trace);
        STARTED.store(true, Ordering::Relaxed);
    }
}

/// Starts to count, which this build cannot.
#[cfg(not(feature = "cuda"))]
pub fn start() {}

/// The counts so far, if this build counts. CubeCL reports launches from a thread of its own, so
/// this waits until no report has come for a moment.
pub fn settled() -> Option<Counts> {
    let mut last = so_far()?;
    loop {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = so_far()?;
        if now == last {
            return Some(now);
        }
        last = now;
    }
}

/// The counts at this moment, if this build counts.
#[cfg(feature = "cuda")]
pub fn so_far() -> Option<Counts> {
    let number = |count: &AtomicUsize| count.load(Ordering::Relaxed);
    started().then(|| Counts {
        launched: number(&LAUNCHED),
        compiled: number(&COMPILED),
        cached: number(&CACHED),
    })
}

/// The counts at this moment, which this build has not.
#[cfg(not(feature = "cuda"))]
pub fn so_far() -> Option<Counts> {
    None
}

/// Whether kernels are counted, so that CubeCL must be asked to report launches.
#[cfg(feature = "cuda")]
pub fn started() -> bool {
    STARTED.load(Ordering::Relaxed)
}

#[cfg(feature = "cuda")]
static STARTED: AtomicBool = AtomicBool::new(false);
#[cfg(feature = "cuda")]
static LAUNCHED: AtomicUsize = AtomicUsize::new(0);
#[cfg(feature = "cuda")]
static COMPILED: AtomicUsize = AtomicUsize::new(0);
#[cfg(feature = "cuda")]
static CACHED: AtomicUsize = AtomicUsize::new(0);

#[cfg(feature = "cuda")]
struct Counter;

#[cfg(feature = "cuda")]
impl log::Log for Counter {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("cubecl")
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let report = record.args().to_string();
        let count = if report.starts_with("Executing ") {
            &LAUNCHED
        } else if report == "Compiling kernel" {
            &COMPILED
        } else if report == "Using PTX cache" {
            &CACHED
        } else {
            return;
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn flush(&self) {}
}
