//! Layer norm with shift and scale, of one or several tensors: one kernel forward, one or more backward.
//!
//! ```text
//! n  = (x − mean)·r            r = 1 / √(variance + ε)            y = n·(1 + scale) + shift
//! dn = dy·(1 + scale)          dx = r·(dn − mean(dn) − n·mean(dn·n))
//! d shift = Σ dy               d scale = Σ dy·n                   sums over the tokens of a sample
//! ```
//!
//! Means are over the features of a token. A row is read once for its mean, once for its variance
//! and once to be written; all but the first come from a cache. Cubes with another `y` take another
//! tensor. Gradients of shift and scale, where they are wanted, take another launch for each tensor.

mod on_device;

use burn::tensor::{DType, Shape, Tensor, TensorMetadata, backend::Backend, ops::FloatTensor};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};
use cubecl::prelude::CubeCount;

use super::{
    operation::{Differentiable, Operation, primitive, takes},
    rows::{Units, cubes, empty, readable, vector},
};
use crate::plain;

/// The operation; inputs `x` `[B, L, D]`, `shift` and `scale` `[B, 1, D]` of each output.
#[derive(Clone, Copy, Debug)]
pub(super) struct LayerNorms;

/// The inputs of [`Kernels::modulated_layer_norms`](crate::Kernels::modulated_layer_norms), if the
/// kernels take them.
pub(super) fn inputs<K: Backend, const S: usize>(
    norms: &[[Tensor<K, 3>; 3]; S],
) -> Option<Vec<FloatTensor<K>>> {
    for [x, shift, scale] in norms {
        plain::check_modulation(x, [shift, scale]);
    }
    let (dtype, width) = (norms[0][0].dtype(), norms[0][0].dims()[2]);
    let alike = |x: &Tensor<K, 3>| takes(x) && x.dtype() == dtype && x.dims()[2] == width;
    let all = norms.as_flattened();
    all.iter().all(alike).then(|| all.iter().cloned().map(primitive).collect())
}

impl<const N: usize, const M: usize> Operation<N, M> for LayerNorms {
    fn shapes(self, inputs: [Shape; N]) -> [Shape; M] {
        std::array::from_fn(|i| inputs[3 * i].clone())
    }

    fn forward<R: CubeRuntime>(self, inputs: [CubeTensor<R>; N]) -> [CubeTensor<R>; M] {
        let norms = Norms::new(inputs);
        let y: [_; M] = std::array::from_fn(|i| norms.empty(i));
        on_device::forward::launch::<R>(
            &norms.x[0].client.clone(),
            norms.cubes(),
            norms.units.dim(),
            norms.vector,
            norms.x.into_iter().map(CubeTensor::into_tensor_arg).collect(),
            norms.shift.into_iter().map(CubeTensor::into_tensor_arg).collect(),
            norms.scale.into_iter().map(CubeTensor::into_tensor_arg).collect(),
            y.iter().cloned().map(CubeTensor::into_tensor_arg).collect(),
            norms.units,
            y[0].dtype.into(),
        );
        y
    }
}

impl<const N: usize, const M: usize> Differentiable<N, M> for LayerNorms {
    fn backward<R: CubeRuntime>(
        self,
        inputs: [CubeTensor<R>; N],
        gradients: [CubeTensor<R>; M],
        wanted: [bool; N],
    ) -> [Option<CubeTensor<R>>; N] {
        let norms = Norms::new(inputs);
        let gradients = gradients.map(|gradient| readable(gradient, norms.vector));
        let wants_columns = (0..N).any(|i| i % 3 > 0 && wanted[i]);
        let (of_x, statistics) = norms.of_rows(&gradients, wants_columns);
        let mut results = [const { None }; N];
        for i in 0..M {
            results[3 * i] = wanted[3 * i].then(|| of_x[i].clone());
            if wanted[3 * i + 1] || wanted[3 * i + 2] {
                let [shift, scale] = norms.of_columns(i, &gradients[i], &statistics[i]);
                results[3 * i + 1] = wanted[3 * i + 1].then_some(shift);
                results[3 * i + 2] = wanted[3 * i + 2].then_some(scale);
            }
        }
        results
    }
}

/// The inputs as the kernels take them.
struct Norms<R: CubeRuntime> {
    /// `[B, L, D]` each
    x: Vec<CubeTensor<R>>,
    /// `[B, 1, D]` each
    shift: Vec<CubeTensor<R>>,
    /// `[B, 1, D]` each
    scale: Vec<CubeTensor<R>>,
    /// Numbers per access to memory.
    vector: usize,
    /// Units for the kernels that go through each row.
    units: Units,
}

impl<R: CubeRuntime> Norms<R> {
    fn new<const N: usize>(inputs: [CubeTensor<R>; N]) -> Self {
        let [_, _, width] = inputs[0].shape().dims::<3>();
        let vector = vector(width);
        let units = Units::of_rows(width / vector);
        let mut norms = Self { x: vec![], shift: vec![], scale: vec![], vector, units };
        let mut inputs = inputs.into_iter().map(|input| readable(input, vector));
        while let (Some(x), Some(shift), Some(scale)) =
            (inputs.next(), inputs.next(), inputs.next())
        {
            norms.x.push(x);
            norms.shift.push(shift);
            norms.scale.push(scale);
        }
        norms
    }

    /// An uninitialised tensor like the `x` of this index.
    fn empty(&self, i: usize) -> CubeTensor<R> {
        empty(&self.x[i], self.x[i].shape().dims::<3>(), self.x[i].dtype)
    }

    /// Cubes for the rows of each tensor.
    fn cubes(&self) -> CubeCount {
        let rows = |x: &CubeTensor<R>| {
            let [samples, length, _] = x.shape().dims::<3>();
            samples * length
        };
        let most = self.x.iter().map(rows).max().unwrap_or(0);
        self.units.cubes(most, [self.x.len(), 1])
    }

    /// Gradient of each `x`; mean and `r` of each row, `[B, L, 2]`, if `keeps` is set.
    fn of_rows(
        &self,
        gradients: &[CubeTensor<R>],
        keeps: bool,
    ) -> (Vec<CubeTensor<R>>, Vec<CubeTensor<R>>) {
        let of_x: Vec<_> = (0..self.x.len()).map(|i| self.empty(i)).collect();
        let statistics = |x: &CubeTensor<R>| {
            let [samples, length, _] = x.shape().dims::<3>();
            let rows = if keeps { [samples, length] } else { [1, 1] };
            empty(x, [rows[0], rows[1], 2], DType::F32)
        };
        let statistics: Vec<_> = self.x.iter().map(statistics).collect();
        let args = |tensors: &[CubeTensor<R>]| {
            tensors.iter().cloned().map(CubeTensor::into_tensor_arg).collect()
        };
        on_device::of_rows::launch::<R>(
            &self.x[0].client,
            self.cubes(),
            self.units.dim(),
            self.vector,
            args(&self.x),
            args(&self.scale),
            args(gradients),
            args(&of_x),
            statistics.iter().cloned().map(CubeTensor::into_tensor_arg).collect(),
            keeps,
            self.units,
            self.x[0].dtype.into(),
        );
        (of_x, statistics)
    }

    /// Gradients of the shift and the scale of this index.
    fn of_columns(
        &self,
        i: usize,
        gradient: &CubeTensor<R>,
        statistics: &CubeTensor<R>,
    ) -> [CubeTensor<R>; 2] {
        let x = &self.x[i];
        let [samples, _, width] = x.shape().dims::<3>();
        let results = [(); 2].map(|()| empty(x, [samples, 1, width], x.dtype));
        let [of_shift, of_scale] = results.clone();
        let units = Units::SQUARE;
        on_device::of_columns::launch::<R>(
            &x.client,
            cubes(samples * (width / self.vector).div_ceil(units.across)),
            units.dim(),
            self.vector,
            x.clone().into_tensor_arg(),
            gradient.clone().into_tensor_arg(),
            statistics.clone().into_tensor_arg(),
            of_shift.into_tensor_arg(),
            of_scale.into_tensor_arg(),
            units,
            x.dtype.into(),
        );
        results
    }
}
