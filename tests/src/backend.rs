//! The backend under test.

#[cfg(not(any(feature = "ndarray", feature = "flex", feature = "wgpu", feature = "cuda")))]
compile_error!("choose a backend: cargo xtask test --backend ndarray|flex|wgpu|cuda");

#[cfg(feature = "ndarray")]
pub type Plain = burn_ndarray::NdArray<f32>;
#[cfg(all(feature = "flex", not(feature = "ndarray")))]
pub type Plain = burn_flex::Flex;
#[cfg(all(on_gpu, feature = "wgpu"))]
pub type Plain = burn_wgpu::Wgpu<f32, i32>;
#[cfg(all(on_gpu, not(feature = "wgpu")))]
pub type Plain = burn_cuda::Cuda<f32, i32>;

/// The runtime that launches the kernels of the backend.
#[cfg(all(on_gpu, feature = "wgpu"))]
pub type Runtime = burn_wgpu::WgpuRuntime;
#[cfg(all(on_gpu, not(feature = "wgpu")))]
pub type Runtime = burn_cubecl::cubecl::cuda::CudaRuntime;

pub type Training = burn::backend::Autodiff<Plain>;
pub type Device = <Plain as burn::tensor::backend::BackendTypes>::Device;

use burn::tensor::Tensor;

/// Whether products read 10 bits of a number's fraction: cuda's form of f32.
const TF32: bool = cfg!(all(on_gpu, not(feature = "wgpu")));

/// The precision of the products of the backend under test.
pub const PRECISION: &str = if TF32 { "tf32" } else { "f32" };

/// Largest relative error of a result into which products go, where it is `in_f32` in f32.
pub const fn of_products(in_f32: f64) -> f64 {
    let in_tf32 = 3e-3;
    if TF32 && in_f32 < in_tf32 { in_tf32 } else { in_f32 }
}

/// The values of a tensor, row-major.
pub fn numbers<const D: usize>(tensor: Tensor<Plain, D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// The largest difference between two lists, relative to the largest number of the second.
pub fn distance(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let scale = want.iter().fold(1e-30_f64, |scale, x| scale.max(x.abs()));
    let worst = got
        .iter()
        .zip(want)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, d| if d.is_nan() { f64::INFINITY } else { f64::max(worst, d) });
    worst / scale
}
