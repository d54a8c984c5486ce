//! Launches the kernels: chooses tiles, allocates results.

use burn::tensor::{DType, TensorMetadata, ops::FloatTensor};
use burn_cubecl::{
    BoolElement, CubeBackend, CubeRuntime, FloatElement, IntElement,
    cubecl::{CubeCount, CubeDim},
    tensor::CubeTensor,
};

use super::{
    Attends, Saved, backward,
    forward::forward,
    matrix,
    rows::{empty, readable, vector},
    tile::{ACROSS, PER_UNIT, Tile},
};

/// Rows and columns of tiles, the preferred ones first. Larger tiles read the tensors less often.
const SIZES: [[usize; 2]; 5] = [[64, 64], [64, 32], [32, 32], [32, 16], [16, 16]];

/// Tiles of rows and of columns in a kernel's shared memory.
#[derive(Clone, Copy)]
struct Tiles {
    rows: usize,
    columns: usize,
}

const FORWARD: Tiles = Tiles { rows: 1, columns: 1 };
const BACKWARD: Tiles = Tiles { rows: 2, columns: 2 };

impl Tiles {
    /// Shared memory of a kernel with these tiles, in bytes.
    fn bytes(self, tile: Tile, vector: usize) -> usize {
        let tokens = self.rows * tile.rows + self.columns * tile.columns;
        let numbers = tokens * tile.pitch() * vector
            + tile.columns * tile.weights_pitch() * PER_UNIT
            + tile.rows * (ACROSS + 1);
        numbers * size_of::<f32>()
    }

    /// The first of [`SIZES`] that fits into `memory` bytes.
    ///
    /// Widths share a kernel up to the next power of two: compiling takes seconds.
    fn tile(self, width: usize, vector: usize, memory: usize) -> Option<Tile> {
        let capacity = (width / vector).next_power_of_two().max(8);
        SIZES
            .map(|[rows, columns]| Tile { rows, columns, capacity })
            .into_iter()
            .find(|&tile| self.bytes(tile, vector) <= memory)
    }
}

impl<R: CubeRuntime, F: FloatElement, I: IntElement, B: BoolElement> Attends
    for CubeBackend<R, F, I, B>
{
    fn fits(device: &Self::Device, dtype: DType, width: usize) -> bool {
        if matrix::takes::<R>(device, dtype, width) {
            return true;
        }
        let memory = R::client(device).properties().hardware.max_shared_memory_size;
        BACKWARD.tile(width, vector(width), memory).is_some()
    }

    fn forward(inputs: [FloatTensor<Self>; 3], scale: f32) -> [FloatTensor<Self>; 2] {
        if on_tensor_cores(&inputs[0]) {
            return matrix::forward(inputs, scale);
        }
        let [query, key, value] = inputs.map(whole_vectors);
        let launch = Launch::new(FORWARD, &query);
        let output = like(&query);
        let log_sum_exp = per_query(&query);
        forward::launch::<R>(
            &query.client.clone(),
            launch.cubes(&query),
            launch.units(),
            launch.vector,
            query.into_tensor_arg(),
            key.into_tensor_arg(),
            value.into_tensor_arg(),
            output.clone().into_tensor_arg(),
            log_sum_exp.clone().into_tensor_arg(),
            scale,
            launch.tile,
            output.dtype.into(),
        );
        [output, log_sum_exp]
    }

    fn backward(saved: Saved<Self>, gradient: FloatTensor<Self>) -> [FloatTensor<Self>; 3] {
        if on_tensor_cores(&gradient) {
            return matrix::backward(saved, gradient);
        }
        let Saved { inputs, output, log_sum_exp, scale } = saved;
        let [query, key, value] = inputs.map(whole_vectors);
        let [output, gradient] = [output, gradient].map(whole_vectors);
        let launch = Launch::new(BACKWARD, &query);
        let delta = per_query(&query);
        let results = [&query, &key, &value].map(like);
        let [of_query, of_key, of_value] = results.clone();
        let dtype = query.dtype;
        backward::of_queries::launch::<R>(
            &query.client,
            launch.cubes(&query),
            launch.units(),
            launch.vector,
            query.clone().into_tensor_arg(),
            key.clone().into_tensor_arg(),
            value.clone().into_tensor_arg(),
            output.into_tensor_arg(),
            gradient.clone().into_tensor_arg(),
            log_sum_exp.clone().into_tensor_arg(),
            delta.clone().into_tensor_arg(),
            of_query.into_tensor_arg(),
            scale,
            launch.tile,
            dtype.into(),
        );
        backward::of_keys::launch::<R>(
            &key.client.clone(),
            launch.cubes(&key),
            launch.units(),
            launch.vector,
            query.into_tensor_arg(),
            key.into_tensor_arg(),
            value.into_tensor_arg(),
            gradient.into_tensor_arg(),
            log_sum_exp.into_tensor_arg(),
            delta.into_tensor_arg(),
            of_key.into_tensor_arg(),
            of_value.into_tensor_arg(),
            scale,
            launch.tile,
            dtype.into(),
        );
        results
    }
}

/// How a kernel is launched.
struct Launch {
    tile: Tile,
    /// Numbers per access to memory.
    vector: usize,
}

impl Launch {
    fn new<R: CubeRuntime>(tiles: Tiles, query: &CubeTensor<R>) -> Self {
        let [.., width] = query.shape().dims::<4>();
        let memory = query.client.properties().hardware.max_shared_memory_size;
        let vector = vector(width);
        let tile = tiles.tile(width, vector, memory).expect("`fits` said so");
        Self { tile, vector }
    }

    /// A cube per tile of `rows`, head and sample.
    fn cubes<R: CubeRuntime>(&self, rows: &CubeTensor<R>) -> CubeCount {
        let [samples, heads, tokens, _] = rows.shape().dims::<4>();
        let tiles = tokens.div_ceil(self.tile.rows);
        CubeCount::Static(tiles as u32, heads as u32, samples as u32)
    }

    fn units(&self) -> CubeDim {
        CubeDim::new_2d(ACROSS as u32, self.tile.down() as u32)
    }
}

fn on_tensor_cores<R: CubeRuntime>(tensor: &CubeTensor<R>) -> bool {
    matrix::takes::<R>(&tensor.device, tensor.dtype, tensor.meta.shape()[3])
}

fn whole_vectors<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    let vector = vector(tensor.meta.shape()[3]);
    readable(tensor, vector)
}

/// An uninitialised tensor of the same shape, whose heads lie beside each other in memory, as the
/// layer after attention wants them: `[B, L, heads, w]`, or `[L, B, heads, w]` where the tensor
/// itself has its tokens outermost.
pub(super) fn like<R: CubeRuntime>(tensor: &CubeTensor<R>) -> CubeTensor<R> {
    let strides = tensor.meta.strides();
    let (in_memory, back) = if strides[2] > strides[0] {
        ([2, 0, 1, 3], [1, 2, 0, 3])
    } else {
        ([0, 2, 1, 3], [0, 2, 1, 3])
    };
    let shape = tensor.shape().dims::<4>();
    let mut new = empty(tensor, in_memory.map(|dim| shape[dim]), tensor.dtype);
    new.meta.permute(&back).expect("a permutation of four");
    new
}

/// An uninitialised f32 per query and head, `[B, heads, Q, 1]`.
pub(super) fn per_query<R: CubeRuntime>(query: &CubeTensor<R>) -> CubeTensor<R> {
    let [samples, heads, queries, _] = query.shape().dims::<4>();
    empty(query, [samples, heads, queries, 1], DType::F32)
}
