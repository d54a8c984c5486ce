//! Rows of numbers on the device: how the units of a cube share them, and sums over units.
//!
//! A cube has units side by side for one row, and several rows below each other. Where there are
//! more rows than cubes, a cube takes several. Sums go through shared memory in a fixed order.

use burn::tensor::{DType, Shape};
use burn_cubecl::{
    CubeRuntime, kernel::into_contiguous, ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};
use cubecl::prelude::*;

use super::MOST_CUBES;

/// Units of a cube.
const COUNT: usize = 256;

/// Most units side by side: with more, the synchronisation would take longer than the reading.
const MOST_ACROSS: usize = 128;

/// Arrangement of the units of a cube.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Units {
    /// Units side by side, a power of two.
    pub across: usize,
    /// Rows of units below each other.
    pub down: usize,
}

impl Units {
    /// Units for sums over columns: few columns per cube, so that there are many cubes.
    pub const SQUARE: Self = Self { across: 16, down: COUNT / 16 };

    /// Units for rows of so many vectors.
    pub fn of_rows(vectors: usize) -> Self {
        let across = vectors.next_power_of_two().clamp(8, MOST_ACROSS);
        Self { across, down: COUNT / across }
    }

    /// Number of units.
    pub fn count(self) -> usize {
        self.across * self.down
    }

    pub fn dim(self) -> CubeDim {
        CubeDim::new_2d(self.across as u32, self.down as u32)
    }

    /// Cubes along `x` for so many rows, as often as wanted along `y` and `z`.
    pub fn cubes(self, rows: usize, [y, z]: [usize; 2]) -> CubeCount {
        CubeCount::Static(rows.div_ceil(self.down).min(MOST_CUBES) as u32, y as u32, z as u32)
    }
}

/// As many cubes as wanted, or as many as every API allows.
pub(super) fn cubes(wanted: usize) -> CubeCount {
    CubeCount::Static(wanted.min(MOST_CUBES) as u32, 1, 1)
}

/// Numbers per access to memory, for rows of so many numbers.
pub(super) fn vector(width: usize) -> usize {
    if width.is_multiple_of(4) { 4 } else { 1 }
}

/// The tensor, copied unless its last dimension lies in neighbouring places and every row begins
/// where a vector may begin.
pub(super) fn readable<R: CubeRuntime>(tensor: CubeTensor<R>, vector: usize) -> CubeTensor<R> {
    let readable = match tensor.meta.strides().split_last() {
        Some((last, others)) => {
            *last == 1 && others.iter().all(|stride| stride.is_multiple_of(vector))
        }
        None => true,
    };
    if readable { tensor } else { into_contiguous(tensor) }
}

/// An uninitialised row-major tensor on the same device.
pub(super) fn empty<R: CubeRuntime, const D: usize>(
    beside: &CubeTensor<R>,
    shape: [usize; D],
    dtype: DType,
) -> CubeTensor<R> {
    let (client, device) = (beside.client.clone(), beside.device.clone());
    empty_device_contiguous_dtype(client, device, Shape::new(shape), dtype)
}

/// First row of this cube.
#[cube]
pub(super) fn first_row(#[comptime] units: Units) -> usize {
    CUBE_POS * units.down
}

/// Rows that all cubes take together before each takes its next.
#[cube]
pub(super) fn step(#[comptime] units: Units) -> usize {
    CUBE_COUNT * units.down
}

/// Sum of a value over the units side by side.
#[cube]
pub(super) fn sum_across(
    scratch: &mut SharedMemory<f32>,
    value: f32,
    #[comptime] units: Units,
) -> f32 {
    let row = UNIT_POS_Y as usize * units.across;
    let at = row + UNIT_POS_X as usize;
    sync_cube(); // Every unit has read the sum before.
    scratch[at] = value;
    #[unroll]
    for halving in 0..comptime!(units.across.ilog2() as usize) {
        let half = comptime!(units.across >> (halving + 1));
        sync_cube();
        if (UNIT_POS_X as usize) < half {
            let sum = scratch[at] + scratch[at + half];
            scratch[at] = sum;
        }
    }
    sync_cube();
    scratch[row]
}

/// Sum of a value over the units below each other.
#[cube]
pub(super) fn sum_down<N: Size>(
    scratch: &mut SharedMemory<Vector<f32, N>>,
    value: Vector<f32, N>,
    #[comptime] units: Units,
) -> Vector<f32, N> {
    sync_cube(); // Every unit has read the sum before.
    scratch[UNIT_POS_Y as usize * units.across + UNIT_POS_X as usize] = value;
    sync_cube();
    let mut sum = Vector::<f32, N>::new(0.0);
    for y in 0..comptime!(units.down) {
        sum += scratch[y * units.across + UNIT_POS_X as usize];
    }
    sum
}

/// Sum of the numbers of a vector.
#[cube]
pub(super) fn total<N: Size>(of: Vector<f32, N>) -> f32 {
    let ones = Vector::<f32, N>::new(1.0);
    of.dot(ones)
}
