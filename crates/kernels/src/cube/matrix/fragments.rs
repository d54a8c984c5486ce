//! Tiles of 16-bit numbers in shared memory, and their products on the tensor cores of CUDA.
//!
//! A plane's product of `[16, 16]` and `[16, 8]` has its numbers spread over 32 units (PTX ISA,
//! `mma.m16n8k16`). With `g = unit / 4` and `t = unit % 4`, a unit has
//!
//! ```text
//! left    rows g, g + 8            columns 2t, 2t + 1, 2t + 8, 2t + 9
//! right   rows 2t, 2t + 1, 2t + 8, 2t + 9      column g
//! sum     rows g, g + 8            columns 2t, 2t + 1
//! ```
//!
//! So two neighbouring sums are a left factor of the next product, without an exchange with other units.
//! `ldmatrix` brings factors from shared memory to their units, four blocks of `[8, 8]` at a time,
//! transposed if asked to.

use cubecl::{
    cmma::{MatrixIdent, MmaDefinition},
    prelude::*,
};

use super::super::tile::{NO_KEY, head};

/// Planes of a cube, each for some rows.
pub(in crate::cube) const PLANES: usize = 4;
/// Units of a plane.
pub(in crate::cube) const UNITS: usize = 32;
/// Rows of a product of a plane, and its inner dimension.
const SIDE: usize = 16;
/// Columns of a product of a plane, and numbers per access to memory.
pub(in crate::cube) const EIGHT: usize = 8;

/// Two numbers of a unit, neighbours in a row.
pub(super) type Pair<F> = Vector<F, Const<2>>;
/// Sums of products: for each block of rows one after the other, for each eight columns, the unit's
/// pairs of rows `g` and `g + 8`.
pub(super) type Sums = Sequence<Array<Pair<f32>>>;

/// Sizes that a kernel is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::cube) struct Layout {
    /// Blocks of 16 rows per plane.
    pub blocks: usize,
    /// Tokens that a cube goes through at a time, a multiple of 16.
    pub columns: usize,
    /// Features of a token, filled up with zeros to a multiple of 16.
    pub features: usize,
}

impl Layout {
    /// Tokens whose results a cube computes.
    pub fn rows(self) -> usize {
        PLANES * self.blocks * SIDE
    }

    /// Vectors of features of a token.
    pub fn vectors(self) -> usize {
        self.features / EIGHT
    }

    /// Vectors from a token to the next in shared memory. The one more spreads neighbouring tokens
    /// over the banks of the memory.
    pub fn pitch(self) -> usize {
        self.vectors() + 1
    }

    /// Groups of eight columns.
    pub fn column_tiles(self) -> usize {
        self.columns / EIGHT
    }
}

/// First token of this cube.
#[cube]
pub(super) fn first(#[comptime] layout: Layout) -> usize {
    CUBE_POS_X as usize * layout.rows()
}

/// First row that this unit has of a block, counted in the cube's tile; the other one is eight rows
/// below.
#[cube]
pub(super) fn row(#[comptime] block: usize, #[comptime] layout: Layout) -> usize {
    plane_row(block, layout) + UNIT_POS_X as usize / 4
}

/// First row of a block of this plane.
#[cube]
fn plane_row(#[comptime] block: usize, #[comptime] layout: Layout) -> usize {
    UNIT_POS_Y as usize * (layout.blocks * SIDE) + block * SIDE
}

/// First column of this unit's pair in eight columns.
#[cube]
pub(super) fn column() -> usize {
    UNIT_POS_X as usize % 4 * 2
}

/// Copies the tokens from `start` on to a tile of `rows` tokens; zeros beyond the last token and
/// feature.
#[cube]
pub(super) fn load<F: Float, N: Size>(
    to: &mut SharedMemory<Vector<F, N>>,
    from: &Tensor<Vector<F, N>>,
    start: usize,
    #[comptime] rows: usize,
    #[comptime] layout: Layout,
) {
    let head = head(from) / N::value();
    let stride = from.stride(2) / N::value();
    let features = from.shape(3) / N::value();
    let vectors = comptime!(layout.vectors());
    let count = comptime!(rows * vectors);
    #[unroll]
    for i in 0..comptime!(count.div_ceil(PLANES * UNITS)) {
        let at = UNIT_POS as usize + i * PLANES * UNITS;
        if at < count {
            let (row, feature) = (at / vectors, at % vectors);
            let mut x = Vector::new(F::from_int(0));
            if start + row < from.shape(2) && feature < features {
                x = from[head + (start + row) * stride + feature];
            }
            to[row * comptime!(layout.pitch()) + feature] = x;
        }
    }
}

/// The left factor's block at a step of 16 features.
#[cube]
fn left<F: Float, N: Size>(
    tile: &SharedMemory<Vector<F, N>>,
    #[comptime] block: usize,
    #[comptime] step: usize,
    #[comptime] layout: Layout,
) -> Array<Pair<F>> {
    let unit = UNIT_POS_X as usize;
    let token = plane_row(block, layout) + unit % SIDE;
    fetch(tile, token * comptime!(layout.pitch()) + 2 * step + unit / SIDE, false)
}

/// Right factors of 16 columns at a step of 16 features, where columns are tokens of the tile.
#[cube]
fn right<F: Float, N: Size>(
    tile: &SharedMemory<Vector<F, N>>,
    #[comptime] columns: usize,
    #[comptime] step: usize,
    #[comptime] layout: Layout,
) -> Array<Pair<F>> {
    let unit = UNIT_POS_X as usize;
    let token = columns * SIDE + unit / SIDE * EIGHT + unit % EIGHT;
    fetch(tile, token * comptime!(layout.pitch()) + 2 * step + unit / EIGHT % 2, false)
}

/// Right factors of 16 columns at a step of 16 tokens, where columns are features of the tile.
#[cube]
fn transposed<F: Float, N: Size>(
    tile: &SharedMemory<Vector<F, N>>,
    #[comptime] columns: usize,
    #[comptime] step: usize,
    #[comptime] layout: Layout,
) -> Array<Pair<F>> {
    let unit = UNIT_POS_X as usize;
    let token = step * SIDE + unit / EIGHT % 2 * EIGHT + unit % EIGHT;
    fetch(tile, token * comptime!(layout.pitch()) + 2 * columns + unit / SIDE, true)
}

/// Four blocks of `[8, 8]`; this unit says where a row of eight begins.
#[cube]
fn fetch<F: Float, N: Size>(
    tile: &SharedMemory<Vector<F, N>>,
    at: usize,
    #[comptime] transpose: bool,
) -> Array<Pair<F>> {
    let product = MmaDefinition::<F, F, f32>::new(SIDE, EIGHT, SIDE);
    let row = tile.slice(at, at + 1);
    product.load_matrix::<Vector<F, N>, Const<2>>(&row, MatrixIdent::A, 4usize, transpose)
}

/// Adds the products of all blocks of rows with 16 columns to the sums of the column group `first`
/// and the next, of `groups` groups of eight columns per block.
#[cube]
fn add_products<F: Float>(
    sums: &mut Sums,
    rows: &Sequence<Array<Pair<F>>>,
    columns: &Array<Pair<F>>,
    #[comptime] first: usize,
    #[comptime] groups: usize,
    #[comptime] layout: Layout,
) {
    #[unroll]
    for block in 0..comptime!(layout.blocks) {
        let at = comptime!(block * groups + first);
        add_product::<F>(sums.index_mut(at), rows.index(block), columns, 0usize);
        let at = comptime!(at + 1);
        add_product::<F>(sums.index_mut(at), rows.index(block), columns, 1usize);
    }
}

/// Adds a product; `half` says which eight of the right factor's 16 columns.
#[cube]
fn add_product<F: Float>(
    sum: &mut Array<Pair<f32>>,
    left: &Array<Pair<F>>,
    right: &Array<Pair<F>>,
    #[comptime] half: usize,
) {
    let mut columns = Array::<Pair<F>>::new(2usize);
    columns[0] = right[comptime!(2 * half)];
    columns[1] = right[comptime!(2 * half + 1)];
    let product = MmaDefinition::<F, F, f32>::new(SIDE, EIGHT, SIDE);
    product.execute_inplace::<Const<2>, Const<2>, Const<2>>(left, &columns, sum);
}

/// `count` sums of zero.
#[cube]
pub(super) fn zeros(#[comptime] count: usize) -> Sums {
    let mut sums = Sequence::<Array<Pair<f32>>>::new();
    #[unroll]
    for _ in 0..count {
        let mut sum = Array::<Pair<f32>>::new(2usize);
        sum[0] = Vector::new(0.0);
        sum[1] = Vector::new(0.0);
        sums.push(sum);
    }
    sums
}

/// This plane's part of `left·rightᵀ`: products of its rows with the columns.
#[cube]
pub(super) fn products<F: Float, N: Size>(
    left_tile: &SharedMemory<Vector<F, N>>,
    right_tile: &SharedMemory<Vector<F, N>>,
    #[comptime] layout: Layout,
) -> Sums {
    let tiles = comptime!(layout.column_tiles());
    let mut sums = zeros(comptime!(layout.blocks * tiles));
    #[unroll]
    for step in 0..comptime!(layout.features / SIDE) {
        let mut rows = Sequence::<Array<Pair<F>>>::new();
        #[unroll]
        for block in 0..comptime!(layout.blocks) {
            rows.push(left::<F, N>(left_tile, block, step, layout));
        }
        #[unroll]
        for c in 0..comptime!(layout.columns / SIDE) {
            let columns = right::<F, N>(right_tile, c, step, layout);
            add_products::<F>(&mut sums, &rows, &columns, comptime!(2 * c), tiles, layout);
        }
    }
    sums
}

/// Adds this plane's part of `weights·right`, the weights rounded to 16 bits.
#[cube]
pub(super) fn add_mixed<F: Float, N: Size>(
    sums: &mut Sums,
    weights: &Sums,
    right_tile: &SharedMemory<Vector<F, N>>,
    #[comptime] layout: Layout,
) {
    let tiles = comptime!(layout.column_tiles());
    let vectors = comptime!(layout.vectors());
    #[unroll]
    for step in 0..comptime!(layout.columns / SIDE) {
        let mut rows = Sequence::<Array<Pair<F>>>::new();
        #[unroll]
        for block in 0..comptime!(layout.blocks) {
            rows.push(rounded::<F>(weights, comptime!(block * tiles + 2 * step)));
        }
        #[unroll]
        for c in 0..comptime!(layout.features / SIDE) {
            let columns = transposed::<F, N>(right_tile, c, step, layout);
            add_products::<F>(sums, &rows, &columns, comptime!(2 * c), vectors, layout);
        }
    }
}

/// Two neighbouring sums as a left factor.
#[cube]
fn rounded<F: Float>(sums: &Sums, #[comptime] at: usize) -> Array<Pair<F>> {
    let (near, far) = (sums.index(at), sums.index(comptime!(at + 1)));
    let mut factor = Array::<Pair<F>>::new(4usize);
    factor[0] = Vector::cast_from(near[0]);
    factor[1] = Vector::cast_from(near[1]);
    factor[2] = Vector::cast_from(far[0]);
    factor[3] = Vector::cast_from(far[1]);
    factor
}

/// Makes the scores of columns from `length` on, counted from `start`, so small that their weights
/// are zero.
#[cube]
pub(super) fn forget(scores: &mut Sums, start: usize, length: usize, #[comptime] layout: Layout) {
    if start + layout.columns > length {
        #[unroll]
        for i in 0..comptime!(layout.blocks * layout.column_tiles()) {
            let first = start + comptime!(i % layout.column_tiles() * EIGHT) + column();
            let sum = scores.index_mut(i);
            #[unroll]
            for half in 0..2usize {
                let mut pair = sum[half];
                #[unroll]
                for e in 0..2usize {
                    pair[e] = select(first + e < length, pair[e], NO_KEY);
                }
                sum[half] = pair;
            }
        }
    }
}

/// Writes this plane's rows, times a factor each, to the tokens of this cube. Factors are in the
/// order of [`Sums`]: rows `g` and `g + 8` of each block.
#[cube]
pub(super) fn store<F: Float, M: Size>(
    to: &mut Tensor<Vector<F, M>>,
    rows: &Sums,
    factors: &Array<f32>,
    #[comptime] layout: Layout,
) {
    let head = head(to);
    let vectors = comptime!(layout.vectors());
    #[unroll]
    for r in 0..comptime!(2 * layout.blocks) {
        let (block, half) = comptime!((r / 2, r % 2));
        let token = first(layout) + row(block, layout) + half * EIGHT;
        if token < to.shape(2) {
            #[unroll]
            for f in 0..vectors {
                let feature = f * EIGHT + column();
                if feature < to.shape(3) {
                    let x =
                        rows.index(comptime!(block * vectors + f))[half] * Vector::new(factors[r]);
                    to[(head + token * to.stride(2) + feature) / M::value()] = Vector::cast_from(x);
                }
            }
        }
    }
}
