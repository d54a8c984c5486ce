//! Attention on GPUs that never writes the score matrix, forward and backward: one source in
//! `CubeCL` for wgpu and cuda.
//!
//! A composition writes a score for each pair of tokens and reads it about ten times. These kernels
//! go through the keys tile by tile, in shared memory, and keep a running maximum and a running sum
//! of each query's row (arXiv 1805.02867):
//!
//! ```text
//! m' = max(m, max_j s_j)      s = scale·q·k_j
//! l' = l·exp(m − m') + Σ_j exp(s_j − m')
//! y' = y·exp(m − m') + Σ_j exp(s_j − m')·v_j
//! ```
//!
//! At the end `y/l` is the output. The backward pass needs `lse = m + ln l` alone, with which it
//! computes the weights `p = exp(s − lse)` again (arXiv 2205.14135, algorithm 4):
//!
//! ```text
//! δ  = Σ dy·y                 dp = dy·vᵀ                ds = p·(dp − δ)
//! dq = scale·ds·k             dk = scale·dsᵀ·q          dv = pᵀ·dy
//! ```
//!
//! One kernel computes `dq` and `δ`, a tile of queries per cube; another `dk` and `dv`, a tile of
//! keys per cube (arXiv 2307.08691, section 3.2, without its atomic additions). The scores are
//! therefore computed three times in all, and equal inputs give equal bits.
//!
//! Tensors are f32, f16 or bf16, of any length. Beside inputs and results, a forward pass takes one
//! f32 per query and head, a backward pass another one.
//!
//! On CUDA, 16-bit tensors with a multiple of 8 features per head, up to 128, go to the same kernels
//! on tensor cores (`matrix`), if the device has `mma.m16n8k16`. Everything else runs on the units for ordinary arithmetic, with tiles, sums and
//! products in f32. Asynchronous copies and several stages of tiles are not used. Masks and biases
//! are left to the composition, as are features so many that no tile fits into shared memory.

mod backward;
mod forward;
#[cfg(feature = "fusion")]
mod fused;
mod heads;
mod launch;
mod linear;
mod low_rank;
mod matrix;
mod norm;
mod operation;
mod rows;
mod tile;

use burn::{
    backend::{
        Autodiff,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::{DType, FloatDType, Tensor, TensorPrimitive, backend::Backend, ops::FloatTensor},
};

use crate::{Kernels, frozen, plain, product, pull, split};
use operation::exactly;

/// A backend whose device runs the kernels.
trait Attends: Backend {
    /// Whether the device's kernels take heads of `width` features in this precision.
    fn fits(device: &Self::Device, dtype: DType, width: usize) -> bool;

    /// Output and log-sum-exp of query, key and value.
    ///
    /// # Shapes
    /// query: `[B, heads, Q, w]`; key, value: `[B, heads, L, w]`; output: `[B, heads, Q, w]`;
    /// log-sum-exp: `[B, heads, Q, 1]`, f32
    fn forward(inputs: [FloatTensor<Self>; 3], scale: f32) -> [FloatTensor<Self>; 2];

    /// Gradients of query, key and value, from the three, the output, its gradient and the
    /// log-sum-exp.
    fn backward(saved: Saved<Self>, gradient: FloatTensor<Self>) -> [FloatTensor<Self>; 3];
}

/// The tensors of a forward pass that the backward pass needs.
#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    /// Query, key and value.
    inputs: [FloatTensor<B>; 3],
    output: FloatTensor<B>,
    log_sum_exp: FloatTensor<B>,
    scale: f32,
}

/// Largest number of cubes that every API allows in each direction.
const MOST_CUBES: usize = 65_535;

/// Whether the kernels of `B` take these tensors.
fn takes<B: Attends, K: Backend<Device = B::Device>>(inputs: &[Tensor<K, 4>; 3]) -> bool {
    let [rows, heads, _, width] = inputs[0].dims();
    let dtype = inputs[0].dtype();
    matches!(dtype, DType::F32 | DType::F16 | DType::BF16)
        && inputs.iter().all(|x| x.dtype() == dtype && x.shape().num_elements() > 0)
        && rows.max(heads) <= MOST_CUBES
        && B::fits(&inputs[0].device(), dtype, width)
}

/// Attention `softmax(scale·q·kᵀ)·v` by `run`, or by the composition if the kernels of `B` do not
/// take the inputs.
fn attend<B: Attends, K: Backend<Device = B::Device>>(
    inputs: [Tensor<K, 4>; 3],
    scale: f32,
    run: impl Fn([FloatTensor<K>; 3], f32) -> FloatTensor<K>,
) -> Tensor<K, 4> {
    if !takes::<B, K>(&inputs) {
        let [query, key, value] = inputs;
        return product::attention(query, key, value, None, Some(f64::from(scale)));
    }
    let inputs = inputs.map(|x| x.into_primitive().tensor());
    Tensor::from_primitive(TensorPrimitive::Float(run(inputs, scale)))
}

#[derive(Debug)]
struct Gradient;

impl<B: Attends> Backward<B, 3> for Gradient {
    type State = Saved<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = grads.consume::<B>(&ops.node);
        for (parent, of_input) in ops.parents.into_iter().zip(B::backward(ops.state, gradient)) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, of_input);
            }
        }
    }
}

/// Attention, tracked for the backward pass if an input requires a gradient.
fn run_tracked<B: Attends, C: CheckpointStrategy>(
    inputs: [FloatTensor<Autodiff<B, C>>; 3],
    scale: f32,
) -> FloatTensor<Autodiff<B, C>> {
    let nodes = inputs.each_ref().map(|input| input.node.clone());
    let inputs = inputs.map(|input| input.primitive);
    let [output, log_sum_exp] = B::forward(inputs.clone(), scale);
    match Backward::<B, 3>::prepare::<C>(Gradient, nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let saved = Saved { inputs, output: output.clone(), log_sum_exp, scale };
            prepared.finish(saved, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    }
}

fn run<B: Attends>(inputs: [FloatTensor<B>; 3], scale: f32) -> FloatTensor<B> {
    let [output, _] = B::forward(inputs, scale);
    output
}

/// `[L·B, heads·w]` to `[B, heads, L, w]`
fn heads<B: Backend>(x: Tensor<B, 2>, rows: usize, width: usize) -> Tensor<B, 4> {
    let [tokens_and_rows, d] = x.dims();
    x.reshape([tokens_and_rows / rows, rows, d / width, width]).permute([1, 2, 0, 3])
}

/// Attention with RMS-normalised queries and keys, from an `attend` without a scale of its own.
fn normalized<B: Backend>(
    [query, key, value]: [Tensor<B, 2>; 3],
    [query_scale, key_scale]: [Tensor<B, 1>; 2],
    rows: usize,
    attend: impl Fn([Tensor<B, 4>; 3]) -> Tensor<B, 4>,
) -> Tensor<B, 2> {
    let [tokens_and_rows, d] = query.dims();
    let width = query_scale.dims()[0];
    let normed = |x: Tensor<B, 2>, scale: Tensor<B, 1>| {
        let features = plain::normalize(x.reshape([-1, width as i32])) * scale.unsqueeze();
        features.reshape([tokens_and_rows, d])
    };
    let query = normed(query, query_scale / (width as f64).sqrt());
    let key = normed(key, key_scale);
    let mixed = attend([query, key, value].map(|x| heads(x, rows, width))); // [B, heads, L, w]
    mixed.permute([2, 0, 1, 3]).reshape([tokens_and_rows, d])
}

/// The methods of [`Kernels`] for a backend, given a function that runs the kernels of `$plain`.
macro_rules! attention_kernels {
    ($plain:ty, $run:expr) => {
        fn softmax_attention(
            query: Tensor<Self, 4>,
            key: Tensor<Self, 4>,
            value: Tensor<Self, 4>,
        ) -> Tensor<Self, 4> {
            let scale = (query.dims()[3] as f32).sqrt().recip();
            attend::<$plain, Self>([query, key, value], scale, $run)
        }

        fn normalized_attention(
            query: Tensor<Self, 2>,
            key: Tensor<Self, 2>,
            value: Tensor<Self, 2>,
            query_scale: Tensor<Self, 1>,
            key_scale: Tensor<Self, 1>,
            rows: usize,
        ) -> Tensor<Self, 2> {
            normalized([query, key, value], [query_scale, key_scale], rows, |inputs| {
                attend::<$plain, Self>(inputs, 1.0, $run)
            })
        }
    };
}

/// The methods of [`Kernels`] for a backend, given a function that runs an
/// [`Operation`](operation::Operation) on it.
macro_rules! operation_kernels {
    ($run:expr) => {
        fn modulated_layer_norm(
            x: Tensor<Self, 3>,
            shift: Tensor<Self, 3>,
            scale: Tensor<Self, 3>,
        ) -> Tensor<Self, 3> {
            let [y] = Self::modulated_layer_norms([[x, shift, scale]]);
            y
        }

        fn modulated_layer_norms<const S: usize>(
            norms: [[Tensor<Self, 3>; 3]; S],
        ) -> [Tensor<Self, 3>; S] {
            let composed = |[x, shift, scale]: [_; 3]| plain::modulated_layer_norm(x, shift, scale);
            let Some(inputs) = norm::inputs(&norms) else { return norms.map(composed) };
            let y = match S {
                1 => Vec::from(<[_; 1]>::from($run(norm::LayerNorms, exactly::<_, 3>(inputs)))),
                2 => Vec::from(<[_; 2]>::from($run(norm::LayerNorms, exactly::<_, 6>(inputs)))),
                3 => Vec::from(<[_; 3]>::from($run(norm::LayerNorms, exactly::<_, 9>(inputs)))),
                _ => return norms.map(composed),
            };
            exactly(y).map(operation::tensor)
        }

        fn heads<const S: usize>(
            streams: [crate::heads::Stream<Self>; S],
            count: usize,
        ) -> [Tensor<Self, 4>; 3] {
            let operation = heads::Heads { count };
            let all = match crate::heads::inputs(&streams, count, operation::takes_type) {
                Some(inputs) if inputs.len() == 1 => $run(operation, exactly::<_, 1>(inputs)),
                Some(inputs) if inputs.len() == 2 => $run(operation, exactly::<_, 2>(inputs)),
                Some(inputs) if inputs.len() == 3 => $run(operation, exactly::<_, 3>(inputs)),
                Some(inputs) if inputs.len() == 6 => $run(operation, exactly::<_, 6>(inputs)),
                _ => return crate::heads::composed(streams, count),
            };
            all.map(operation::tensor)
        }
    };
}

/// Implements [`Kernels`] for a GPU backend, with and without autodiff.
macro_rules! gpu_backend {
    ($backend:ty) => {
        impl Kernels for $backend {
            attention_kernels!($backend, run::<$backend>);
            operation_kernels!(<$backend as operation::Runs>::forward);

            fn add_gated(
                x: Tensor<Self, 3>,
                branch: Tensor<Self, 3>,
                gate: Tensor<Self, 3>,
            ) -> Tensor<Self, 3> {
                plain::check_modulation(&x, [&gate]);
                linear::ended(plain::add_gated(x, branch, gate))
            }

            fn low_rank<const D: usize>(
                x: Tensor<Self, D>,
                factors: crate::low_rank::Factors<Self>,
            ) -> Tensor<Self, D> {
                crate::low_rank::graph::untracked(x, factors)
            }

            fn linear_layer<const D: usize>(
                x: Tensor<Self, D>,
                weight: Tensor<Self, 2>,
                bias: Option<Tensor<Self, 1>>,
            ) -> Tensor<Self, D> {
                linear::linear(x, weight, bias)
            }

            fn ready_factors(
                factors: &crate::low_rank::Factors<Self>,
                precision: FloatDType,
            ) -> [Tensor<Self, 2>; 2] {
                low_rank::ready(factors, precision)
            }

            fn cut_factors(
                factors: &crate::low_rank::Factors<Self>,
                of_joined: [Tensor<Self, 2>; 2],
            ) -> Vec<[Tensor<Self, 2>; 2]> {
                low_rank::cut(factors, of_joined)
            }
        }

        impl<C: CheckpointStrategy> Kernels for Autodiff<$backend, C> {
            attention_kernels!($backend, run_tracked::<$backend, C>);
            operation_kernels!(operation::run_tracked::<$backend, C, _, _, _>);

            fn add_gated(
                x: Tensor<Self, 3>,
                branch: Tensor<Self, 3>,
                gate: Tensor<Self, 3>,
            ) -> Tensor<Self, 3> {
                plain::check_modulation(&x, [&gate]);
                linear::ended_tracked(plain::add_gated(x, branch, gate))
            }

            fn pulled<const D: usize>(
                output: Tensor<Self, D>,
                gradient: Tensor<Self, D>,
            ) -> Tensor<Self, 1> {
                pull::tracked(output, gradient)
            }

            fn split<const D: usize, const N: usize>(
                x: Tensor<Self, D>,
                dim: usize,
                sizes: [usize; N],
            ) -> [Tensor<Self, D>; N] {
                split::tracked(x, dim, sizes)
            }

            fn linear_layer<const D: usize>(
                x: Tensor<Self, D>,
                weight: Tensor<Self, 2>,
                bias: Option<Tensor<Self, 1>>,
            ) -> Tensor<Self, D> {
                frozen::linear_layer(x, weight, bias)
            }

            fn low_rank<const D: usize>(
                x: Tensor<Self, D>,
                factors: crate::low_rank::Factors<Self>,
            ) -> Tensor<Self, D> {
                crate::low_rank::graph::tracked(x, factors)
            }

            fn ready_factors(
                factors: &crate::low_rank::Factors<Self>,
                precision: FloatDType,
            ) -> [Tensor<Self, 2>; 2] {
                crate::low_rank::graph::ready(factors, precision)
            }
        }
    };
}

#[cfg(feature = "wgpu")]
gpu_backend!(burn_wgpu::Wgpu<f32, i32>);
#[cfg(feature = "cuda")]
gpu_backend!(burn_cuda::Cuda<f32, i32>);
