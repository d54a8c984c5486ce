//! The only file of the application that names backend types. A build has exactly one backend.

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

#[cfg(all(any(feature = "bf16", feature = "fp16"), not(any(feature = "wgpu", feature = "cuda"))))]
compile_error!("16 bits are for GPUs: cargo xtask VERB --backend cuda|wgpu --precision fp16|bf16");

#[cfg(all(feature = "bf16", feature = "fp16"))]
compile_error!("one precision per build: --precision fp16 or --precision bf16");

/// The precision in which the layers of a transformer compute; trained weights stay f32.
pub const PRECISION: FloatDType = if cfg!(feature = "fp16") {
    FloatDType::F16
} else if cfg!(feature = "bf16") {
    FloatDType::BF16
} else {
    FloatDType::F32
};

/// The name of the precision. On cuda it is `tf32`: matrices of f32 whose product autotune gives to
/// tensor cores are rounded to the 10 bits of fraction of tf32, and neither Burn 0.21 nor CubeCL can
/// be told not to (the book's page on NVIDIA machines). All else is f32.
pub const PRECISION_NAME: &str = if cfg!(feature = "fp16") {
    "fp16"
} else if cfg!(feature = "bf16") {
    "bf16"
} else if cfg!(feature = "cuda") {
    "tf32"
} else {
    "f32"
};

/// The precision of T5, whose activations exceed the range of f16 but not of bf16.
pub const T5_PRECISION: FloatDType =
    if cfg!(feature = "fp16") { FloatDType::BF16 } else { PRECISION };

/// Whether the loss must be scaled, because gradients of layers underflow: f16 has no number below
/// 6e-8.
pub const SCALES_LOSS: bool = cfg!(feature = "fp16");

/// The largest deviation of a replayed log-probability from the sampled one that rounding explains,
/// in clip ranges, for [`PRECISION_NAME`]. Peers report up to 5 in 16 bits (the book's chapter on
/// metrics). In tf32 it is as in 16 bits: tf32 has the fraction of fp16, and rollout and replay may
/// round different products, because autotune chooses by the shape of a batch.
pub const ON_POLICY_LIMIT: f64 =
    if cfg!(any(feature = "bf16", feature = "fp16", feature = "cuda")) { 10.0 } else { 1.0 };

/// The backend with automatic differentiation on top.
pub type Training = burn::backend::Autodiff<Plain>;

/// The device of all tensors: the first of its kind.
pub type Device = <Plain as burn::tensor::backend::BackendTypes>::Device;

/// Whether the backend computes on the CPU, with tensors in the process's own memory.
pub const ON_CPU: bool = cfg!(any(feature = "flex", feature = "ndarray"));

/// Number of workers for whole micro-batches: the cores for a CPU backend, 1 for a GPU, which is
/// parallel by itself.
pub fn workers() -> usize {
    if ON_CPU { std::thread::available_parallelism().map_or(1, std::num::NonZero::get) } else { 1 }
}
