//! Layer norm with shift and scale: one kernel forward, one or two backward.
//!
//! ```text
//! n  = (x − mean)·r            r = 1 / √(variance + ε)            y = n·(1 + scale) + shift
//! dn = dy·(1 + scale)          dx = r·(dn − mean(dn) − n·mean(dn·n))
//! d shift = Σ dy               d scale = Σ dy·n                   sums over the tokens of a sample
//! ```
//!
//! Means are over the features of a token. A row is read once for its mean, once for its variance
//! and once to be written; all but the first come from a cache.

mod on_device;

use burn::tensor::{DType, Shape, Tensor, TensorMetadata, backend::Backend, ops::FloatTensor};
use burn_cubecl::{CubeRuntime, tensor::CubeTensor};

use super::{
    operation::{Differentiable, Operation, primitive, takes, tensor},
    rows::{Units, cubes, empty, readable, vector},
};
use crate::plain;

/// The operation; inputs `x` `[B, L, D]`, `shift` and `scale` `[B, 1, D]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct ModulatedLayerNorm;

/// [`Kernels::modulated_layer_norm`](crate::Kernels::modulated_layer_norm) by `run`, or by the
/// composition if the kernels do not take the inputs.
pub(super) fn modulated_layer_norm<K: Backend>(
    inputs: [Tensor<K, 3>; 3],
    run: impl FnOnce(ModulatedLayerNorm, [FloatTensor<K>; 3]) -> [FloatTensor<K>; 1],
) -> Tensor<K, 3> {
    let [x, shift, scale] = &inputs;
    plain::check_modulation(x, [shift, scale]);
    if inputs.iter().all(|input| takes(input) && input.dtype() == x.dtype()) {
        let [y] = run(ModulatedLayerNorm, inputs.map(primitive));
        return tensor(y);
    }
    let [x, shift, scale] = inputs;
    plain::modulated_layer_norm(x, shift, scale)
}

impl Operation<3, 1> for ModulatedLayerNorm {
    fn shapes(self, [x, ..]: [Shape; 3]) -> [Shape; 1] {
        [x]
    }

    fn forward<R: CubeRuntime>(self, inputs: [CubeTensor<R>; 3]) -> [CubeTensor<R>; 1] {
        let [samples, length, width] = inputs[0].shape().dims::<3>();
        let vector = vector(width);
        let [x, shift, scale] = inputs.map(|input| readable(input, vector));
        let y = empty(&x, [samples, length, width], x.dtype);
        let units = Units::of_rows(width / vector);
        on_device::forward::launch::<R>(
            &x.client.clone(),
            units.cubes(samples * length),
            units.dim(),
            vector,
            x.into_tensor_arg(),
            shift.into_tensor_arg(),
            scale.into_tensor_arg(),
            y.clone().into_tensor_arg(),
            units,
            y.dtype.into(),
        );
        [y]
    }
}

impl Differentiable<3, 1> for ModulatedLayerNorm {
    fn backward<R: CubeRuntime>(
        self,
        [x, _, scale]: [CubeTensor<R>; 3],
        [gradient]: [CubeTensor<R>; 1],
        [wants_x, wants_shift, wants_scale]: [bool; 3],
    ) -> [Option<CubeTensor<R>>; 3] {
        let [samples, length, width] = x.shape().dims::<3>();
        let vector = vector(width);
        let [x, scale, gradient] = [x, scale, gradient].map(|input| readable(input, vector));
        let of_x = empty(&x, [samples, length, width], x.dtype);
        let statistics = empty(&x, [samples, length, 2], DType::F32);
        let units = Units::of_rows(width / vector);
        on_device::of_rows::launch::<R>(
            &x.client,
            units.cubes(samples * length),
            units.dim(),
            vector,
            x.clone().into_tensor_arg(),
            scale.into_tensor_arg(),
            gradient.clone().into_tensor_arg(),
            of_x.clone().into_tensor_arg(),
            statistics.clone().into_tensor_arg(),
            units,
            x.dtype.into(),
        );
        let of_x = wants_x.then_some(of_x);
        if !wants_shift && !wants_scale {
            return [of_x, None, None];
        }
        let [of_shift, of_scale] = [(); 2].map(|()| empty(&x, [samples, 1, width], x.dtype));
        let (units, dtype) = (Units::SQUARE, x.dtype);
        on_device::of_columns::launch::<R>(
            &x.client.clone(),
            cubes(samples * (width / vector).div_ceil(units.across)),
            units.dim(),
            vector,
            x.into_tensor_arg(),
            gradient.into_tensor_arg(),
            statistics.into_tensor_arg(),
            of_shift.clone().into_tensor_arg(),
            of_scale.clone().into_tensor_arg(),
            units,
            dtype.into(),
        );
        [of_x, wants_shift.then_some(of_shift), wants_scale.then_some(of_scale)]
    }
}
