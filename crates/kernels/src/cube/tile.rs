//! Tiles in shared memory and the operations on them, on the device.
//!
//! A cube has [`ACROSS`] units side by side, each for some columns of a tile, and rows of units
//! below each other, each for [`PER_UNIT`] rows of the tile. Products and sums stay in registers:
//! arrays of `PER_UNIT` rows one after the other.

use cubecl::prelude::*;

/// Units of a cube side by side.
pub(super) const ACROSS: usize = 16;

/// Rows of a tile per unit.
pub(super) const PER_UNIT: usize = 4;

/// A unit's weights of one column, in one access to shared memory.
pub(super) type Weights = Vector<f32, Const<PER_UNIT>>;

/// Score of a query without any key so far; far below every finite score that matters.
pub(super) const NO_KEY: f32 = -1e30;

/// Sizes that a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Tokens whose results a cube computes.
    pub rows: usize,
    /// Tokens that it goes through at a time.
    pub columns: usize,
    /// Most vectors of features per token.
    pub capacity: usize,
}

impl Tile {
    /// Vectors from a token to the next in shared memory. The one more spreads neighbouring tokens
    /// over the banks of the memory.
    pub fn pitch(self) -> usize {
        self.capacity + 1
    }

    /// Vectors of weights from a column to the next in shared memory.
    pub fn weights_pitch(self) -> usize {
        self.down() + 1
    }

    /// Units of a cube below each other.
    pub fn down(self) -> usize {
        self.rows / PER_UNIT
    }

    /// Columns per unit.
    pub fn columns_per_unit(self) -> usize {
        self.columns / ACROSS
    }

    /// Vectors of features per row and unit.
    pub fn vectors_per_unit(self) -> usize {
        self.capacity.div_ceil(ACROSS)
    }
}

/// First row of this unit within the tile.
#[cube]
pub(super) fn top() -> usize {
    UNIT_POS_Y as usize * PER_UNIT
}

/// First token of this cube.
#[cube]
pub(super) fn first(#[comptime] tile: Tile) -> usize {
    CUBE_POS_X as usize * tile.rows
}

/// Offset of this cube's head in a tensor `[B, heads, L, w]`, in numbers.
#[cube]
pub(super) fn head<T: CubePrimitive>(of: &Tensor<T>) -> usize {
    CUBE_POS_Z as usize * of.stride(0) + CUBE_POS_Y as usize * of.stride(1)
}

/// Copies `factor` times the tokens from `start` on to a tile of `rows` tokens; zeros beyond the
/// last token.
#[cube]
pub(super) fn load<F: Float, N: Size>(
    to: &mut SharedMemory<Vector<f32, N>>,
    from: &Tensor<Vector<F, N>>,
    start: usize,
    factor: f32,
    #[comptime] rows: usize,
    #[comptime] tile: Tile,
) {
    let head = head(from) / N::value();
    let stride = from.stride(2) / N::value();
    let vectors = from.shape(3) / N::value();
    let mut at = UNIT_POS as usize;
    while at < rows * vectors {
        let row = at / vectors;
        let feature = at % vectors;
        let mut x = Vector::<f32, N>::new(0.0);
        if start + row < from.shape(2) {
            x = Vector::cast_from(from[head + (start + row) * stride + feature]);
        }
        to[row * comptime!(tile.pitch()) + feature] = x * Vector::new(factor);
        at += comptime!(ACROSS * tile.down());
    }
}

/// This unit's part of `left·rightᵀ`: products of its rows with its columns.
#[cube]
pub(super) fn products<N: Size>(
    left: &SharedMemory<Vector<f32, N>>,
    right: &SharedMemory<Vector<f32, N>>,
    vectors: usize,
    #[comptime] tile: Tile,
) -> Array<f32> {
    let columns = comptime!(tile.columns_per_unit());
    let pitch = comptime!(tile.pitch());
    let mut out = Array::<f32>::new(comptime!(PER_UNIT * columns));
    #[unroll]
    for i in 0..comptime!(PER_UNIT * columns) {
        out[i] = 0.0;
    }
    for k in 0..vectors {
        let mut of_row = Array::<Vector<f32, N>>::new(PER_UNIT);
        #[unroll]
        for r in 0..PER_UNIT {
            of_row[r] = left[(top() + r) * pitch + k];
        }
        #[unroll]
        for c in 0..columns {
            let of_column = right[(UNIT_POS_X as usize + c * ACROSS) * pitch + k];
            #[unroll]
            for r in 0..PER_UNIT {
                out[comptime!(r * columns + c)] += of_row[r].dot(of_column);
            }
        }
    }
    out
}

/// Adds this unit's part of `weights·right`: its rows, and the vectors of features that it has.
#[cube]
pub(super) fn add_mixed<N: Size>(
    out: &mut Array<Vector<f32, N>>,
    weights: &SharedMemory<Weights>,
    right: &SharedMemory<Vector<f32, N>>,
    vectors: usize,
    #[comptime] tile: Tile,
) {
    let features = comptime!(tile.vectors_per_unit());
    for j in 0..comptime!(tile.columns) {
        let weight = weights[j * comptime!(tile.weights_pitch()) + UNIT_POS_Y as usize];
        #[unroll]
        for c in 0..features {
            // A unit without features repeats the last ones; `store` ignores it.
            let feature = min(UNIT_POS_X as usize + c * ACROSS, vectors - 1);
            let x = right[j * comptime!(tile.pitch()) + feature];
            #[unroll]
            for r in 0..PER_UNIT {
                out[comptime!(r * features + c)] += x * Vector::new(weight[r]);
            }
        }
    }
}

/// Zeros for [`add_mixed`].
#[cube]
pub(super) fn zeros<N: Size>(#[comptime] tile: Tile) -> Array<Vector<f32, N>> {
    let length = comptime!(PER_UNIT * tile.vectors_per_unit());
    let mut out = Array::<Vector<f32, N>>::new(length);
    #[unroll]
    for i in 0..length {
        out[i] = Vector::new(0.0);
    }
    out
}

/// Writes this unit's weights to shared memory.
#[cube]
pub(super) fn share(to: &mut SharedMemory<Weights>, weights: &Array<f32>, #[comptime] tile: Tile) {
    let columns = comptime!(tile.columns_per_unit());
    #[unroll]
    for c in 0..columns {
        let mut of_column = Weights::empty();
        #[unroll]
        for r in 0..PER_UNIT {
            of_column[r] = weights[comptime!(r * columns + c)];
        }
        let column = UNIT_POS_X as usize + c * ACROSS;
        to[column * comptime!(tile.weights_pitch()) + UNIT_POS_Y as usize] = of_column;
    }
}

/// Replaces the value of each row by the sum or the maximum over the units side by side.
#[cube]
pub(super) fn across(
    scratch: &mut SharedMemory<f32>,
    values: &mut Array<f32>,
    #[comptime] largest: bool,
) {
    let pitch = comptime!(ACROSS + 1);
    #[unroll]
    for r in 0..PER_UNIT {
        scratch[(top() + r) * pitch + UNIT_POS_X as usize] = values[r];
    }
    sync_cube();
    #[unroll]
    for r in 0..PER_UNIT {
        let mut all = scratch[(top() + r) * pitch];
        for x in 1..ACROSS {
            let other = scratch[(top() + r) * pitch + x];
            if largest {
                all = max(all, other);
            } else {
                all += other;
            }
        }
        values[r] = all;
    }
}

/// Writes this unit's rows, times a factor each, to the tokens of this cube.
#[cube]
pub(super) fn store<F: Float, N: Size>(
    to: &mut Tensor<Vector<F, N>>,
    rows: &Array<Vector<f32, N>>,
    factors: &Array<f32>,
    #[comptime] tile: Tile,
) {
    let features = comptime!(tile.vectors_per_unit());
    let head = head(to) / N::value();
    let vectors = to.shape(3) / N::value();
    #[unroll]
    for r in 0..PER_UNIT {
        let token = first(tile) + top() + r;
        #[unroll]
        for c in 0..features {
            let feature = UNIT_POS_X as usize + c * ACROSS;
            if token < to.shape(2) && feature < vectors {
                let x = rows[comptime!(r * features + c)] * Vector::new(factors[r]);
                to[head + token * (to.stride(2) / N::value()) + feature] = Vector::cast_from(x);
            }
        }
    }
}
