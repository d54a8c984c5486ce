//! The one place that names a backend. Exactly one is compiled in.

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

/// The backend with automatic differentiation on top.
pub type Training = burn::backend::Autodiff<Plain>;

/// The device everything runs on: the first of its kind.
pub type Device = <Plain as burn::tensor::backend::BackendTypes>::Device;

/// Threads that work on whole micro-batches: the cores for a CPU backend, one for a GPU, which is parallel by itself.
pub fn workers() -> usize {
    if cfg!(any(feature = "flex", feature = "ndarray")) {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    } else {
        1
    }
}
