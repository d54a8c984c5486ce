//! The backend under test.

#[cfg(not(any(feature = "ndarray", feature = "flex", feature = "wgpu")))]
compile_error!("choose a backend: cargo xtask test --backend ndarray|flex|wgpu");

#[cfg(feature = "ndarray")]
pub type Plain = burn_ndarray::NdArray<f32>;
#[cfg(all(feature = "flex", not(feature = "ndarray")))]
pub type Plain = burn_flex::Flex;
#[cfg(all(feature = "wgpu", not(any(feature = "ndarray", feature = "flex"))))]
pub type Plain = burn_wgpu::Wgpu<f32, i32>;

pub type Training = burn::backend::Autodiff<Plain>;
pub type Device = <Plain as burn::tensor::backend::BackendTypes>::Device;

use burn::tensor::Tensor;

/// The precision of all backends under test. Tolerances against references are for it; products in
/// tf32, cuda's form of f32, would need about 2e-3.
pub const PRECISION: &str = "f32";

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
