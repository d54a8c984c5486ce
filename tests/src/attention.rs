//! Attention of the backend under test against a computation in f64: output and gradients. On a
//! GPU it is made of kernels that go through the tokens tile by tile.

use burn::prelude::*;
use kernels::Kernels;

use crate::{
    backend::{Plain, Training, distance, numbers},
    closed_forms::noise,
};

/// Samples, heads, queries, keys and features per head.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    samples: usize,
    heads: usize,
    queries: usize,
    keys: usize,
    width: usize,
}

impl Sizes {
    /// Query, key, value and the gradient of the output.
    fn inputs(self) -> [Tensor<Plain, 4>; 4] {
        let Self { samples, heads, queries, keys, width } = self;
        let mut stream = 0;
        [queries, keys, keys, queries].map(|length| {
            stream += 1;
            noise(samples, [heads, length, width], stream)
        })
    }
}

/// Output, and gradients of query, key and value.
fn computed(inputs: &[Tensor<Plain, 4>; 4]) -> [Tensor<Plain, 4>; 4] {
    let [query, key, value, gradient] = inputs.clone();
    let [query, key, value] =
        [query, key, value].map(|x| Tensor::<Training, 4>::from_inner(x).require_grad());
    let output = Training::softmax_attention(query.clone(), key.clone(), value.clone());
    let gradients = (output.clone() * Tensor::from_inner(gradient)).sum().backward();
    let [of_query, of_key, of_value] =
        [query, key, value].map(|x| x.grad(&gradients).expect("every input has a gradient"));
    [output.inner(), of_query, of_key, of_value]
}

/// The same for one head, `[L, w]` each, in f64 and by the definition.
fn by_definition(inputs: [&[f64]; 4], width: usize) -> [Vec<f64>; 4] {
    let [query, key, value, gradient] = inputs.map(|x| x.chunks(width));
    let scale = (width as f64).sqrt().recip();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let add = |to: &mut [f64], factor: f64, x: &[f64]| {
        to.iter_mut().zip(x).for_each(|(to, x)| *to += factor * x);
    };
    let mut output = vec![0.0; inputs[0].len()];
    let mut of_query = output.clone();
    let mut of_key = vec![0.0; inputs[1].len()];
    let mut of_value = of_key.clone();
    for (i, (q, dy)) in query.zip(gradient).enumerate() {
        let scores: Vec<f64> = key.clone().map(|k| scale * dot(q, k)).collect();
        let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - largest).exp()).sum();
        let row = i * width..(i + 1) * width;
        let weight = |s: f64| (s - largest).exp() / sum;
        for (s, v) in scores.iter().zip(value.clone()) {
            add(&mut output[row.clone()], weight(*s), v);
        }
        let delta = dot(&output[row.clone()], dy);
        for (j, (s, (k, v))) in scores.iter().zip(key.clone().zip(value.clone())).enumerate() {
            let of_score = scale * weight(*s) * (dot(dy, v) - delta);
            add(&mut of_query[row.clone()], of_score, k);
            add(&mut of_key[j * width..(j + 1) * width], of_score, q);
            add(&mut of_value[j * width..(j + 1) * width], weight(*s), dy);
        }
    }
    [output, of_query, of_key, of_value]
}

/// Largest relative error of a head's output and gradients.
fn errors(
    got: &[Tensor<Plain, 4>; 4],
    inputs: &[Tensor<Plain, 4>; 4],
    sample: usize,
    head: usize,
) -> [f64; 4] {
    let of_head = |x: &Tensor<Plain, 4>| numbers(x.clone().narrow(0, sample, 1).narrow(1, head, 1));
    let width = inputs[0].dims()[3];
    let inputs = inputs.each_ref().map(of_head);
    let want = by_definition(inputs.each_ref().map(Vec::as_slice), width);
    // Gradients are compared relative to the largest of all: with a single key that of the query is
    // rounding alone.
    let largest = want[1..].iter().flatten().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    std::array::from_fn(|i| {
        let got = of_head(&got[i]);
        if i == 0 {
            return distance(&got, &want[i]);
        }
        let worst = got.iter().zip(&want[i]).map(|(a, b)| (a - b).abs());
        worst.fold(0.0, |worst, d| if d.is_nan() { f64::INFINITY } else { f64::max(worst, d) })
            / largest
    })
}

/// Largest relative error of a gradient. Burn's ndarray takes reciprocals from the processor's
/// approximation of 12 bits (its feature `simd`), and the gradient of a division is a product with
/// one: through a softmax, its gradients are right to 4e-4 alone.
const OF_GRADIENTS: f64 = if cfg!(feature = "ndarray") { 1e-3 } else { 1e-5 };

fn is_right(sizes: Sizes, of: impl Fn([Tensor<Plain, 4>; 4]) -> [Tensor<Plain, 4>; 4]) {
    let inputs = of(sizes.inputs());
    let got = computed(&inputs);
    for sample in 0..sizes.samples {
        for head in 0..sizes.heads {
            let [of_output, of_gradients @ ..] = errors(&got, &inputs, sample, head);
            assert!(
                of_output < 1e-5 && of_gradients.iter().all(|&error| error < OF_GRADIENTS),
                "{sizes:?}, sample {sample}, head {head}: {of_output:e}, {of_gradients:?}"
            );
        }
    }
}

#[test]
fn attention_and_its_gradients_are_what_f64_computes() {
    for (samples, heads, queries, keys, width) in [
        (1, 1, 1, 1, 8),
        (2, 4, 36, 36, 24),
        (1, 2, 45, 70, 64),
        (2, 1, 129, 97, 64),
        (1, 2, 17, 3, 7),
        (1, 1, 40, 33, 128),
    ] {
        is_right(Sizes { samples, heads, queries, keys, width }, |inputs| inputs);
    }
}

/// Inputs and results of 16 bits. Where there are matrix units, weights and their gradients are
/// rounded to 16 bits, too; all else inside is f32.
#[cfg(on_gpu)]
fn is_right_in_16_bits(sizes: Sizes, of: impl Fn([Tensor<Plain, 4>; 4]) -> [Tensor<Plain, 4>; 4]) {
    use burn::tensor::FloatDType;

    use crate::backend::PRECISION;
    let device = crate::backend::Device::default();
    for (dtype, digits) in [(FloatDType::F16, 11), (FloatDType::BF16, 8)] {
        if !Plain::supports_dtype(&device, dtype.into()) {
            assert_eq!(PRECISION, "f32", "cuda has both");
            println!("{dtype:?}: not on this device");
            continue;
        }
        let inputs = of(sizes.inputs().map(|x| x.cast(dtype)));
        let got = computed(&inputs);
        for sample in 0..sizes.samples {
            for head in 0..sizes.heads {
                let errors = errors(&got, &inputs, sample, head);
                // Output and gradients are rounded, the output once more within the gradients.
                let rounding = 0.5_f64.powi(digits);
                assert!(
                    errors.iter().all(|&error| error < 2.0 * rounding),
                    "{dtype:?}, {sizes:?}, sample {sample}, head {head}: {errors:?}"
                );
            }
        }
    }
}

#[test]
#[cfg(on_gpu)]
fn attention_of_16_bits_is_right_to_their_precision() {
    for (samples, heads, queries, keys, width) in [
        (1, 2, 45, 70, 64),
        (2, 1, 1, 3, 8),
        (1, 1, 70, 129, 24),
        (1, 2, 129, 65, 64),
        (1, 1, 130, 70, 128),
        (1, 1, 70, 70, 72),
        (1, 1, 66, 70, 112),
        (1, 1, 33, 40, 136),
        (1, 1, 20, 20, 7),
    ] {
        is_right_in_16_bits(Sizes { samples, heads, queries, keys, width }, |inputs| inputs);
    }
}

#[test]
#[cfg(on_gpu)]
fn attention_of_16_bits_leaves_out_what_is_not_there() {
    // All scores are far below zero. A token beyond the last one would have the score 0 and take
    // all the weight.
    let sizes = Sizes { samples: 1, heads: 1, queries: 21, keys: 35, width: 16 };
    is_right_in_16_bits(sizes, |[query, key, value, gradient]| {
        [query * 0.25 + 4.0, key * 0.25 - 4.0, value, gradient]
    });
}

#[test]
fn attention_reads_views_as_what_they_show() {
    // `[B, L, heads, w]`, `[L, B, heads, w]` and, where no vector is whole in memory, `[B, heads,
    // w, L]`.
    let sizes = Sizes { samples: 2, heads: 3, queries: 19, keys: 19, width: 8 };
    for order in [[0, 2, 1, 3], [2, 0, 1, 3], [0, 1, 3, 2]] {
        let views = |inputs: [Tensor<Plain, 4>; 4]| {
            inputs.map(|x| {
                let mut back = [0; 4];
                order.iter().enumerate().for_each(|(position, &dim)| back[dim] = position as isize);
                let stored = x.permute(order.map(|dim| dim as isize));
                // Adding makes a new tensor in this order of memory.
                (stored + 0.0).permute(back)
            })
        };
        is_right(sizes, views);
        #[cfg(on_gpu)]
        is_right_in_16_bits(sizes, views);
    }
}

#[test]
fn attention_forgets_smaller_scores_when_a_larger_one_comes() {
    // The keys grow along the tokens, up to scores of ±2,000: each tile has a new maximum.
    let sizes = Sizes { samples: 1, heads: 1, queries: 40, keys: 150, width: 16 };
    let inputs = sizes.inputs();
    let [query, key, value, gradient] = inputs;
    let growing: Tensor<Plain, 4> =
        Tensor::<Plain, 1, Int>::arange(0..150, &key.device()).float().reshape([1, 1, 150, 1]);
    let inputs = [query, key * growing, value, gradient];
    let errors = errors(&computed(&inputs), &inputs, 0, 0);
    assert!(errors.iter().all(|&error| error < 1e-3), "{errors:?}");
}

#[test]
#[cfg(on_gpu)]
fn attention_is_right_at_the_length_of_a_large_model() {
    is_right(Sizes { samples: 1, heads: 1, queries: 1152, keys: 1152, width: 64 }, |inputs| inputs);
}

#[test]
#[cfg(on_gpu)]
#[ignore = "ten minutes where the CPU is the GPU: cargo xtask test --backend wgpu -- --ignored large_model"]
fn attention_is_right_with_all_heads_of_a_large_model() {
    let sizes = Sizes { samples: 1, heads: 24, queries: 1152, keys: 1152, width: 64 };
    let inputs = sizes.inputs();
    let got = computed(&inputs);
    for head in [0, 11, 23] {
        let errors = errors(&got, &inputs, 0, head);
        assert!(errors.iter().all(|&error| error < 1e-5), "head {head}: {errors:?}");
    }
}

/// Memory that the device has reserved for the calling thread, in bytes.
#[cfg(on_gpu)]
fn reserved() -> u64 {
    use burn_cubecl::cubecl::Runtime;
    let client = crate::backend::Runtime::client(&crate::backend::Device::default());
    client.memory_usage().expect("a device that answers").bytes_reserved
}

#[test]
#[cfg(on_gpu)]
fn attention_takes_no_memory_for_pairs_of_tokens() {
    // A thread of its own: the device counts memory by thread.
    std::thread::spawn(|| {
        let tokens = 2048;
        let pairs = 4 * (tokens * tokens) as u64;
        let sizes = Sizes { samples: 1, heads: 1, queries: tokens, keys: tokens, width: 16 };
        let inputs = sizes.inputs();
        let before = reserved();
        let _ = computed(&inputs).map(numbers);
        let of_kernels = reserved() - before;
        assert!(of_kernels < pairs, "{of_kernels} bytes; a score per pair takes {pairs}");

        let [query, key, value, _] = inputs;
        let before = reserved();
        numbers(kernels::product::attention(query, key, value, None, None));
        let of_composition = reserved() - before;
        assert!(of_composition >= pairs, "{of_composition} bytes for all pairs, {pairs}");
    })
    .join()
    .expect("the thread's assertions");
}
