//! The one place that names a backend. Exactly one is compiled in.

use burn::tensor::FloatDType;

#[cfg(not(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda")))]
compile_error!("choose a backend: cargo xtask VERB --backend flex|ndarray|wgpu|cuda");

#[cfg(any(
    all(feature = "flex", any(feature = "ndarray", feature = "wgpu", feature = "cuda")),
    all(feature = "ndarray", any(feature = "wgpu", feature = "cuda")),
    all(feature = "wgpu", feature = "cuda"),
))]
compile_error!(
    "one backend per build: use `cargo xtask VERB --backend X`, or `--no-default-features --features X` with plain cargo"
);

#[cfg(feature = "flex")]
mod chosen {
    pub type Plain = burn_flex::Flex;
    pub const NAME: &str = "flex";
}
#[cfg(feature = "ndarray")]
mod chosen {
    pub type Plain = burn_ndarray::NdArray<f32>;
    pub const NAME: &str = "ndarray";
}
#[cfg(feature = "wgpu")]
mod chosen {
    pub type Plain = burn_wgpu::Wgpu<f32, i32>;
    pub const NAME: &str = "wgpu";
}
#[cfg(feature = "cuda")]
mod chosen {
    pub type Plain = burn_cuda::Cuda<f32, i32>;
    pub const NAME: &str = "cuda";
}

pub use chosen::{NAME, Plain};

#[cfg(all(feature = "bf16", not(any(feature = "wgpu", feature = "cuda"))))]
compile_error!("bf16 is for GPUs: cargo xtask VERB --backend cuda|wgpu --precision bf16");

/// What the layers of a transformer compute in; everything else is f32.
pub const PRECISION: FloatDType = if cfg!(feature = "bf16") { FloatDType::BF16 } else { FloatDType::F32 };

/// What that is called.
pub const PRECISION_NAME: &str = if cfg!(feature = "bf16") { "bf16" } else { "f32" };

/// How far a replayed log-probability may lie from the sampled one; bf16 has 8 bits where f32 has 24.
pub const ON_POLICY_TOLERANCE: f64 = if cfg!(feature = "bf16") { 1e-2 } else { 1e-4 };

/// The backend with automatic differentiation on top.
pub type Training = burn::backend::Autodiff<Plain>;

/// The device everything runs on: the first of its kind.
pub type Device = <Plain as burn::tensor::backend::BackendTypes>::Device;

/// Whether the backend computes on the CPU, with tensors in the process's own memory.
pub const ON_CPU: bool = cfg!(any(feature = "flex", feature = "ndarray"));

/// Threads that work on whole micro-batches: the cores for a CPU backend, one for a GPU, which is parallel by itself.
pub fn workers() -> usize {
    if ON_CPU { std::thread::available_parallelism().map_or(1, std::num::NonZero::get) } else { 1 }
}
