//! An NVIDIA machine, before CubeCL touches it: what a look at it found, and what that means.
//!
//! [`Found`] in, a [`Gpu`] or a message for the person at the machine out. The judgement is pure
//! and compiled in every test build; only `look` calls the driver and the compiler. CubeCL itself
//! panics where something is missing, once per kernel.

pub mod advice;
#[cfg(feature = "cuda")]
mod look;
pub mod versions;

use std::path::PathBuf;

use self::{
    advice::{install, packages_of},
    versions::{Version, cuda_of_driver, nvrtc_of_ptx},
};

#[cfg(feature = "cuda")]
pub use self::look::{free_memory, prepare, taken_memory};

/// The headers that kernels of CubeCL 0.10 include, apart from those of floats below 16 bits, of
/// which this program has none, and one of each package that these need.
pub const HEADERS: [&str; 12] = [
    "cuda_runtime.h",
    "crt/host_config.h",
    "crt/mma.h",
    "nv/target",
    "cuda_fp16.h",
    "cuda_bf16.h",
    "mma.h",
    "cooperative_groups.h",
    "cooperative_groups/memcpy_async.h",
    "cuda/barrier",
    "cuda/pipeline",
    "cuda/ptx",
];

/// The answer of a library to a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answer<T> {
    /// The call was not made, because an earlier one failed.
    #[default]
    NotAsked,
    /// The library cannot be loaded.
    NoLibrary,
    /// The library's error.
    Failed(String),
    /// The result.
    Gave(T),
}

/// What a look at the machine found, in the order in which it looked.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Version of the driver in the kernel, for example 580.65.06, if known.
    pub driver: Option<String>,
    /// `CUDA_VISIBLE_DEVICES`, if it is set.
    pub visible: Option<String>,
    /// Number of devices.
    pub devices: Answer<usize>,
    /// The first device.
    pub gpu: Answer<Gpu>,
    /// The toolkit's directory, `CUDA_PATH` or a usual place, if there is one.
    pub toolkit: Option<PathBuf>,
    /// Those of [`HEADERS`] that are not below it.
    pub missing: Vec<&'static str>,
    /// The probe kernel, compiled to PTX.
    pub ptx: Answer<String>,
    /// Whether the driver takes it.
    pub loaded: Answer<()>,
}

/// A device that kernels can be compiled for and loaded on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpu {
    /// The name that the driver gives it.
    pub name: String,
    /// Compute capability, for example 9.0.
    pub capability: (i32, i32),
    /// Bytes of memory that no program holds, with this program's context made.
    pub free: u64,
    /// Bytes of memory.
    pub total: u64,
}

impl Gpu {
    /// The architecture that CubeCL asks NVRTC for: `sm_90a`, without the `a` below 9.0.
    pub fn architecture(&self) -> String {
        let (major, minor) = self.capability;
        format!("sm_{major}{minor}{}", if major >= 9 { "a" } else { "" })
    }
}

impl Found {
    /// The device, if all of the look succeeded.
    ///
    /// # Errors
    /// The first thing that is wrong, and what to install or change.
    pub fn judge(&self) -> Result<Gpu, String> {
        self.judge_driver()?;
        let gpu = match &self.gpu {
            Answer::Gave(gpu) => gpu,
            other => return Err(self.no_context(other)),
        };
        self.judge_toolkit(gpu)?;
        match &self.loaded {
            Answer::Gave(()) => Ok(gpu.clone()),
            other => Err(self.not_loaded(other)),
        }
    }

    /// The version of NVRTC, if it compiled anything.
    pub fn nvrtc(&self) -> Option<Version> {
        match &self.ptx {
            Answer::Gave(ptx) => nvrtc_of_ptx(ptx),
            _ => None,
        }
    }

    /// The driver in words: its version, if known, and the CUDA version that it knows.
    fn driver_name(&self) -> String {
        let Some(driver) = &self.driver else { return "driver".to_owned() };
        cuda_of_driver(driver).map_or_else(
            || format!("driver {driver}"),
            |cuda| format!("driver {driver} (CUDA {cuda})"),
        )
    }

    fn judge_driver(&self) -> Result<(), String> {
        match &self.devices {
            Answer::Gave(count) if *count > 0 => Ok(()),
            Answer::NoLibrary | Answer::NotAsked => Err(match &self.driver {
                None => advice::NO_DRIVER.to_owned(),
                Some(driver) => format!(
                    "the kernel has NVIDIA's driver {driver}, but its library libcuda.so.1 cannot be loaded: {}",
                    advice::LIBCUDA
                ),
            }),
            Answer::Failed(error) if !error.contains("NO_DEVICE") => {
                Err(format!("NVIDIA's driver does not start: {error}. {}", advice::RESTART))
            }
            Answer::Gave(_) | Answer::Failed(_) => Err(format!(
                "NVIDIA's driver sees no GPU. {}{}",
                self.visible.as_ref().map_or_else(String::new, |visible| format!(
                    "CUDA_VISIBLE_DEVICES is `{visible}`, which may hide it. "
                )),
                advice::NO_DEVICE
            )),
        }
    }

    fn no_context(&self, answer: &Answer<Gpu>) -> String {
        let Answer::Failed(error) = answer else {
            return format!("the {} did not answer", self.driver_name());
        };
        let advice = if error.contains("OUT_OF_MEMORY") {
            "other programs hold its memory: `nvidia-smi` lists them"
        } else if error.contains("UNAVAILABLE") || error.contains("DEVICE_IN_USE") {
            "another program holds it for itself: end that program, or allow several with `nvidia-smi --compute-mode=0`"
        } else {
            advice::RESTART
        };
        format!("the GPU cannot be used: {error}; {advice}")
    }

    fn judge_toolkit(&self, gpu: &Gpu) -> Result<(), String> {
        let driver = self.driver.as_deref().and_then(cuda_of_driver);
        if self.ptx == Answer::NoLibrary {
            return Err(format!(
                "NVRTC, which compiles the kernels, cannot be loaded: there is no libnvrtc.so.13 or libnvrtc.so.12 where the system \
                 looks for libraries. {}; if it is installed, add its directory to LD_LIBRARY_PATH",
                install(&["nvrtc"], driver)
            ));
        }
        let Some(toolkit) = &self.toolkit else {
            return Err(format!(
                "CUDA's headers are not there: CUDA_PATH is not set, and there is no /usr/local/cuda, /opt/cuda or /usr/bin/nvcc. {}, \
                 and set CUDA_PATH to the directory that has `include`",
                install(&packages_of(&HEADERS), driver)
            ));
        };
        if !self.missing.is_empty() {
            return Err(format!(
                "CUDA's headers are incomplete: {} has no {}. {}; if they are elsewhere, set CUDA_PATH to the directory that has \
                 `include`",
                toolkit.join("include").display(),
                advice::some_of(&self.missing),
                install(&packages_of(&self.missing), driver)
            ));
        }
        match &self.ptx {
            Answer::Gave(_) => Ok(()),
            Answer::Failed(log) => Err(advice::not_compiled(log, gpu, toolkit, driver)),
            Answer::NoLibrary | Answer::NotAsked => Err("NVRTC did not answer".to_owned()),
        }
    }

    fn not_loaded(&self, answer: &Answer<()>) -> String {
        let error = match answer {
            Answer::Failed(error) => error,
            _ => "no answer",
        };
        let nvrtc = self.nvrtc();
        let compiler =
            nvrtc.map_or_else(|| "NVRTC".to_owned(), |version| format!("NVRTC {version}"));
        if !error.contains("PTX") {
            return format!("the {} refuses a kernel of {compiler}: {error}", self.driver_name());
        }
        advice::older_nvrtc(&self.driver_name(), &compiler, error, self.driver.as_deref(), nvrtc)
    }
}

/// The line that says where a run computes.
pub fn line(found: &Found, gpu: &Gpu, precision: &str) -> String {
    let (major, minor) = gpu.capability;
    let nvrtc = found.nvrtc().map_or_else(|| "NVRTC".to_owned(), |nvrtc| format!("NVRTC {nvrtc}"));
    // Tensor cores multiply f32 as tf32, from compute capability 8.0.
    let products = match (precision, major >= 8) {
        ("tf32", true) => "f32, products partly in tf32".to_owned(),
        (other, true) => format!("layers in {other}, products of f32 partly in tf32"),
        ("tf32", false) => "f32".to_owned(),
        (other, false) => format!("layers in {other}"),
    };
    let driver = match &found.driver {
        Some(_) => found.driver_name(),
        None => "driver of unknown version".to_owned(),
    };
    let gibibytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    format!(
        "cuda: {}, compute capability {major}.{minor}, {driver}, {nvrtc}; {:.1} of {:.1} GiB free; {products}",
        gpu.name,
        gibibytes(gpu.free),
        gibibytes(gpu.total),
    )
}

#[cfg(test)]
mod tests;
