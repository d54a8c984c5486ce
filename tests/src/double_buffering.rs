//! `CubeCL`'s double-buffered products read beyond the end of the inner dimension; padded products
//! do not let them.
//!
//! The products are launched by name, because a build without autotune takes others, and autotune
//! takes the fastest, which differs from machine to machine.

use burn::{prelude::*, tensor::TensorPrimitive};
use burn_cubecl::{kernel::matmul::init_matmul_output, tensor::CubeTensor};
use cubek::{
    matmul::{
        definition::{MatmulElems, MatmulGlobalElems},
        launch::{Strategy, launch_ref},
        routines::{BlueprintStrategy, TileSizeSelection, double_unit::DoubleUnitSelectionArgs},
    },
    std::InputBinding,
};
use kernels::product;

use crate::{
    backend::{Plain, Runtime, distance, numbers},
    closed_forms::noise,
};

/// The product `a·b` by `CubeCL`'s double-buffered kernel without tensor cores.
fn double_buffered(
    a: Tensor<Plain, 2>,
    b: Tensor<Plain, 2>,
    tile_size: TileSizeSelection,
) -> Tensor<Plain, 2> {
    let strategy =
        Strategy::DoubleUnit(BlueprintStrategy::Inferred(DoubleUnitSelectionArgs { tile_size }));
    let [a, b] = [a, b].map(|x| x.into_primitive().tensor());
    let dtype = a.dtype.into();
    let out: CubeTensor<Runtime> = init_matmul_output(&a, &b, a.dtype);
    let mut types =
        MatmulElems::from_globals(&MatmulGlobalElems { lhs: dtype, rhs: dtype, out: dtype });
    let client = out.client.clone();
    let [a, b] = [a, b].map(|x| InputBinding::new(x.binding(), dtype));
    launch_ref(&strategy, &client, a, b, out.clone().binding(), &mut types).expect("a product");
    Tensor::from_primitive(TensorPrimitive::Float(out))
}

/// Largest error of the double-buffered product of `[m, k]` and `[k, n]`, with and without padding.
fn errors([m, k, n]: [usize; 3], tile_size: TileSizeSelection) -> [f64; 2] {
    let a: Tensor<Plain, 2> = noise(m, [k, 1, 1], 1).reshape([m, k]);
    // Transposed in memory, so what lies beyond the inner dimension's end is the next column.
    let b = noise(n, [k, 1, 1], 2).reshape([n, k]).transpose();
    let want = numbers((a.clone().unsqueeze_dim::<3>(2) * b.clone().unsqueeze()).sum_dim(1));
    let as_it_is = double_buffered(a.clone(), b.clone(), tile_size);
    let padded = product::filled(a, b, |a, b| double_buffered(a, b, tile_size));
    [as_it_is, padded].map(|got| distance(&numbers(got), &want))
}

#[test]
fn double_buffered_products_are_right_only_with_padding() {
    let mut wrong = 0;
    for tile_size in [TileSizeSelection::MinTileSize, TileSizeSelection::MaxTileSize] {
        for k in [8, 16, 24, 32, 64, 96] {
            let [as_it_is, padded] = errors([64, k, 64], tile_size);
            assert!(padded < 1e-5, "K = {k}, {tile_size}: {padded:e}");
            wrong += usize::from(as_it_is > 0.1);
        }
    }
    assert!(wrong > 0, "no product is wrong any more: the padding in kernels::product can go");
}
