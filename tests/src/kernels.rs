//! The kernels of the backend under test, compared with the compositions that define them: values
//! and gradients.

use burn::{prelude::*, tensor::activation};
use kernels::{
    Kernels,
    low_rank::{self, Factors, Pair},
    plain, product,
};
use proptest::{prelude::*, test_runner::RngSeed};

use crate::{
    backend::{Device, Plain, Training, distance, numbers, of_products},
    closed_forms::noise,
};

type T<const D: usize> = Tensor<Training, D>;

/// Random inputs of the given shapes, different for every seed.
fn inputs<const N: usize>(shapes: [[usize; 2]; N], seed: usize) -> [Tensor<Plain, 2>; N] {
    let mut index = 0;
    shapes.map(|[m, n]| {
        index += 1;
        noise(m, [n, 1, 1], 100 * seed + index).reshape([m, n])
    })
}

/// The result, and the gradients of a weighted sum of its elements.
fn value_and_gradients<const N: usize>(
    inputs: &[Tensor<Plain, 2>; N],
    f: impl Fn([T<2>; N]) -> T<2>,
) -> (Vec<f64>, [Vec<f64>; N]) {
    let inputs = inputs.clone().map(|x| Tensor::from_inner(x).require_grad());
    let result = f(inputs.clone());
    let [m, n] = result.dims();
    let weights: Tensor<Plain, 2> = noise(m, [n, 1, 1], 99).reshape([m, n]);
    let gradients = (result.clone() * Tensor::from_inner(weights)).sum().backward();
    (
        numbers(result.inner()),
        inputs.map(|x| numbers(x.grad(&gradients).expect("every input has a gradient"))),
    )
}

/// Asserts that values and gradients agree.
///
/// Gradients are compared relative to the largest number in any of them, because one can be only
/// rounding, such as the gradient of the query with a single key.
fn agree<const N: usize>(
    inputs: [Tensor<Plain, 2>; N],
    fused: impl Fn([T<2>; N]) -> T<2>,
    plain: impl Fn([T<2>; N]) -> T<2>,
) {
    let ((value, gradients), (want_value, want_gradients)) =
        (value_and_gradients(&inputs, fused), value_and_gradients(&inputs, plain));
    let d = distance(&value, &want_value);
    assert!(d < of_products(2e-5), "the result: {d:e}");
    let d = distance(&gradients.concat(), &want_gradients.concat());
    let alone: Vec<f64> =
        gradients.iter().zip(&want_gradients).map(|(got, want)| distance(got, want)).collect();
    // A wrong formula is off by more than a hundredth; a norm of few and small features magnifies
    // rounding to 1.2e-4.
    assert!(d < of_products(1e-3), "the gradients: {d:e}; each by itself: {alone:?}");
}

// At least four features: a norm over fewer is nearly a sign, whose gradient is a difference of
// nearly equal numbers.
proptest! {
    // The same cases in every run: a test that fails now and then says nothing about the change at
    // hand.
    #![proptest_config(ProptestConfig { cases: 40, rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_modulated_norm_is_the_composition(length in 1_usize..6, rows in 1_usize..5, width in 4_usize..40, seed in 0_usize..1000) {
        let x = inputs([[length * rows, width], [1, rows * width], [1, rows * width]], seed);
        agree(x, |[x, shift, scale]| Training::modulated_norm(x, shift, scale), |[x, shift, scale]| plain::modulated_norm(x, shift, scale));
    }

    #[test]
    fn the_gated_residual_is_the_composition(length in 1_usize..6, rows in 1_usize..5, width in 4_usize..40, seed in 0_usize..1000) {
        let x = inputs([[length * rows, width], [length * rows, width], [1, rows * width]], seed);
        agree(x, |[x, branch, gate]| Training::gated_residual(x, branch, gate), |[x, branch, gate]| plain::gated_residual(x, branch, gate));
    }

    #[test]
    fn the_squared_relu_is_the_composition(rows in 1_usize..9, width in 4_usize..40, seed in 0_usize..1000) {
        agree(inputs([[rows, width]], seed), |[x]| Training::squared_relu(x), |[x]| plain::squared_relu(x));
    }

    #[test]
    fn the_attention_is_the_composition(
        length in 1_usize..30, rows in 1_usize..4, heads in 1_usize..4, width in 4_usize..40, seed in 0_usize..1000
    ) {
        let features = [length * rows, heads * width];
        let x = inputs([features, features, features, [1, width], [1, width]], seed);
        agree(
            x,
            |[q, k, v, qs, ks]| Training::normalized_attention(q, k, v, qs.squeeze_dim(0), ks.squeeze_dim(0), rows),
            |[q, k, v, qs, ks]| plain::normalized_attention(q, k, v, qs.squeeze_dim(0), ks.squeeze_dim(0), rows),
        );
    }
}

#[test]
fn attention_does_not_overflow_where_scores_are_large() {
    // Scores of ±3,000: without subtracting the largest one the exponential of every score is
    // infinite or zero.
    let [q, k, v] = inputs([[12, 8], [12, 8], [12, 8]], 1);
    let scale = || Tensor::<Plain, 1>::full([8], 30.0, &Device::default());
    let got =
        numbers(Plain::normalized_attention(q.clone(), k.clone(), v.clone(), scale(), scale(), 2));
    let want = numbers(plain::normalized_attention(q, k, v, scale(), scale(), 2));
    assert!(distance(&got, &want) < 1e-3);
}

#[test]
fn kernels_read_views_as_what_they_show() {
    // The memory of a transposed or a narrowed tensor has another order than its shape says.
    let [x, branch, gate] = inputs([[6, 8], [10, 6], [1, 18]], 3);
    let (x, branch) = (x.transpose().narrow(0, 1, 6), branch.narrow(0, 2, 6));
    let got = numbers(Plain::gated_residual(x.clone(), branch.clone(), gate.clone()));
    assert!(distance(&got, &numbers(plain::gated_residual(x, branch, gate))) < 1e-6);
}

/// Sides of a product: odd, even, a multiple of 32 and of 64, and 1.
const SIDES: [[usize; 3]; 6] =
    [[6, 24, 10], [32, 96, 32], [7, 32, 64], [64, 13, 96], [1, 128, 5], [40, 2, 1]];

#[test]
fn a_product_with_filled_sides_is_the_product() {
    for (seed, [m, k, n]) in SIDES.into_iter().enumerate() {
        let x = || inputs([[m, k], [k, n], [1, n]], seed);
        let filled = |[x, w, b]: [T<2>; 3]| product::filled_linear(x, w, Some(b.squeeze_dim(0)));
        agree(x(), filled, |[x, w, b]| x.matmul(w) + b);
        agree(x(), |[a, b, c]| product::filled_matmul(a, b) * c, |[a, b, c]| a.matmul(b) * c);
        agree(
            x(),
            |[a, b, c]| product::matmul(a, b) * c,
            |[a, b, c]| product::filled_matmul(a, b) * c,
        );
        // Rows of three samples, whose gradients with respect to the weights are added.
        let rows = |x: T<2>| x.unsqueeze_dim::<3>(0).repeat_dim(0, 3);
        let flat = |x: T<3>| x.reshape([3 * m, n]);
        let filled = |[x, w, b]: [T<2>; 3]| flat(product::filled_linear(rows(x), w, None)) * b;
        agree(x(), filled, |[x, w, b]| flat(rows(x).matmul(w.unsqueeze())) * b);
        let [a, b, _] = x();
        let (filled, want) = (product::filled_matmul(a.clone(), b.clone()), a.matmul(b));
        assert!(distance(&numbers(filled), &numbers(want)) < of_products(1e-6));
    }
}

#[test]
fn a_linear_layer_and_its_gradients_are_those_of_products_whatever_is_tracked() {
    // Rows, inputs and outputs that products on GPUs pad, and some that they do not.
    let sides = [[1, 32, 5], [16, 96, 160], [77, 32, 1], [13, 64, 96], [16, 96, 1], [1, 64, 64]];
    for (seed, [m, k, n]) in sides.into_iter().enumerate() {
        for case in 0..16 {
            let (samples, subset) = ([1, 3][case / 8], case % 8);
            let x = inputs([[samples * m, k], [k, n], [1, n], [samples * m, n]], seed);
            let tracked = |i: usize| i == 3 || subset >> i & 1 == 1;
            let pass = |layer: fn(T<3>, T<2>, Option<T<1>>) -> T<3>| {
                let leaf = |i: usize| {
                    let x = T::<2>::from_inner(x[i].clone());
                    if tracked(i) { x.require_grad() } else { x }
                };
                let [x, w, b, c] = std::array::from_fn(leaf);
                let rows = x.clone().reshape([samples, m, k]);
                let y = layer(rows, w.clone(), Some(b.clone().squeeze_dim(0)));
                let y = y + layer(x.clone().reshape([samples, m, k]), w.clone(), None).sin();
                let y: T<2> = y.reshape([samples * m, n]);
                let gradients = (y.clone() * c.clone()).sum().backward();
                let of = |x: T<2>| x.grad(&gradients).map(numbers);
                (numbers(y.inner()), [x, w, b, c].map(of))
            };
            let (got, want) = (pass(Training::linear_layer), pass(product::linear));
            let what = format!("{samples} x {m} x {k} x {n}, tracked: {subset:03b}");
            assert!(distance(&got.0, &want.0) < of_products(1e-6), "{what}");
            for (i, (got, want)) in got.1.iter().zip(&want.1).enumerate() {
                assert_eq!([got.is_some(), want.is_some()], [tracked(i); 2], "input {i}, {what}");
                let (Some(got), Some(want)) = (got, want) else { continue };
                assert!(distance(got, want) < of_products(1e-5), "input {i}, {what}");
            }
        }
    }
}

#[test]
fn attention_with_filled_sides_is_attention() {
    for (seed, [queries, keys, width]) in
        [[6, 10, 24], [32, 32, 32], [13, 64, 8], [1, 96, 64]].into_iter().enumerate()
    {
        let x = inputs(
            [
                [2 * queries, 3 * width],
                [2 * keys, 3 * width],
                [2 * keys, 3 * width],
                [queries, keys],
            ],
            seed,
        );
        let heads = |x: T<2>| {
            let length = x.dims()[0] / 2;
            x.reshape([2, length, 3, width]).swap_dims(1, 2) // [2, 3, L, w]
        };
        let flat = |x: T<4>| x.reshape([2 * queries, 3 * width]);
        for scale in [None, Some(0.7)] {
            let attend = |f: fn(T<4>, T<4>, T<4>, Option<T<4>>, Option<f64>) -> T<4>| {
                move |[q, k, v, bias]: [T<2>; 4]| {
                    flat(f(heads(q), heads(k), heads(v), Some(bias.unsqueeze()), scale))
                }
            };
            agree(x.clone(), attend(product::filled_attention), attend(product::attention));
            let by_hand = |[q, k, v, bias]: [T<2>; 4]| {
                let scores = heads(q).matmul(heads(k).transpose())
                    * scale.unwrap_or(1.0 / (width as f64).sqrt());
                flat(activation::softmax(scores + bias.unsqueeze(), 3).matmul(heads(v)))
            };
            agree(x.clone(), attend(product::filled_attention), by_hand);
        }
    }
}

#[test]
fn products_are_filled_up_on_gpus_and_nowhere_else() {
    let device = Device::default();
    let on_a_gpu = cfg!(on_gpu);
    assert_eq!(
        [product::fills_up::<Plain>(&device), product::fills_up::<Training>(&device)],
        [on_a_gpu; 2]
    );
}

#[test]
fn weights_of_16_bits_in_another_precision_are_what_a_cast_makes_of_them() {
    use burn::tensor::FloatDType::{BF16, F16, F32};
    let device = Device::default();
    let [weight] = inputs([[13, 22]], 3);
    for stored in [F16, BF16, F32] {
        if !Plain::supports_dtype(&device, stored.into()) {
            continue;
        }
        // Large and small numbers, and some that 16 bits do not have.
        let stored = (weight.clone() * weight.clone().powi_scalar(8)).cast(stored);
        let infinite = stored.clone() / stored.clone().zeros_like();
        let views = [stored.clone(), stored.clone().transpose(), stored.narrow(1, 3, 8), infinite];
        for view in views {
            let wanted = numbers(view.clone().cast(F32));
            let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let got = numbers(Plain::in_precision(view.clone(), F32));
            assert_eq!(bits(&got), bits(&wanted));
            let tracked = Tensor::<Training, 2>::from_inner(view);
            for tracked in [tracked.clone(), tracked.require_grad()] {
                let got = numbers(Training::in_precision(tracked, F32).inner());
                assert_eq!(bits(&got), bits(&wanted));
            }
        }
    }
}

#[test]
fn gelu_is_its_composition() {
    let [x] = inputs([[13, 29]], 5);
    // From where its tanh is -1 to where it is 1.
    agree([x.clone() * 3.0], |[x]| Training::gelu_tanh(x), |[x]| plain::gelu_tanh(x));
    let far = numbers(Plain::gelu_tanh(x.clone() * 1e4));
    let wanted = numbers(activation::relu(x * 1e4));
    assert!(distance(&far, &wanted) < 1e-6);
}

#[test]
fn a_gated_branch_of_samples_is_its_composition() {
    for (seed, [samples, length, d]) in [[1, 1, 5], [3, 4, 7], [2, 5, 16]].into_iter().enumerate() {
        let rows = samples * length;
        let of_samples = |f: fn(T<3>, T<3>, T<3>) -> T<3>| {
            move |[x, branch, gate]: [T<2>; 3]| {
                let tokens = |x: T<2>| x.reshape([samples, length, d]);
                let gate = gate.reshape([samples, 1, d]);
                f(tokens(x), tokens(branch), gate).reshape([rows, d])
            }
        };
        agree(
            inputs([[rows, d], [rows, d], [samples, d]], seed),
            of_samples(Training::add_gated),
            of_samples(plain::add_gated),
        );
    }
}

#[test]
fn the_product_of_low_rank_of_any_number_of_layers_is_its_composition() {
    let [x] = inputs([[7, 8]], 6);
    for count in 1..=4 {
        // Layers of 6 outputs, with columns before the first, between them and after the last that
        // no layer has.
        let mut values = vec![x.clone()];
        for i in 0..count {
            values.extend(inputs([[8, 2 + i], [2 + i, 6]], 10 + i));
        }
        let pass = |product: fn(T<2>, Factors<Training>) -> T<2>| {
            let leaf = |x: &Tensor<Plain, 2>| Tensor::from_inner(x.clone()).require_grad();
            let leaves: Vec<T<2>> = values.iter().map(leaf).collect();
            let pair = |(i, factors): (usize, &[T<2>])| Pair {
                a: factors[0].clone(),
                b: factors[1].clone(),
                scale: 0.5 + i as f64,
                from: 1 + 7 * i,
            };
            let pairs = leaves[1..].chunks_exact(2).enumerate().map(pair).collect();
            let factors = Factors { pairs, outputs: 1 + 7 * count, kept: None };
            let output = product(leaves[0].clone(), factors);
            let gradients = output.clone().powi_scalar(2).sum().backward();
            let of = |leaf: &T<2>| numbers(leaf.grad(&gradients).expect("a gradient"));
            (numbers(output.inner()), leaves.iter().map(of).collect::<Vec<_>>())
        };
        let (got, want) = (pass(Training::low_rank), pass(low_rank::composed));
        assert!(distance(&got.0, &want.0) < of_products(1e-6), "{count}");
        for (got, want) in got.1.iter().zip(&want.1) {
            assert!(distance(got, want) < of_products(1e-5), "{count}");
        }
    }
}

/// Factors are copied, scaled and rounded, so that a kernel gives the numbers of the composition,
/// which is what CPUs run.
#[test]
#[cfg(on_gpu)]
fn factors_are_made_ready_and_cut_as_their_composition_does_it() {
    use burn::tensor::FloatDType;

    for count in 1..=4 {
        let pair = |i: usize| {
            let [a, b] = inputs([[8, 2 + i], [2 + i, 6]], 10 + i);
            // The first factor of every other layer lies in memory as its transpose.
            let a = if i.is_multiple_of(2) { a } else { (a.transpose() + 0.0).transpose() };
            Pair { a, b, scale: 0.5 + i as f64, from: 1 + 7 * i }
        };
        let pairs = (0..count).map(pair).collect();
        let factors = Factors::<Plain> { pairs, outputs: 1 + 7 * count, kept: None };
        let want = factors.ready(FloatDType::F32);
        let got = Plain::ready_factors(&factors, FloatDType::F32);
        assert!(got.map(numbers) == want.clone().map(numbers), "{count}");

        let [rank, outputs] = want[1].dims();
        let of_joined: [Tensor<Plain, 2>; 2] = inputs([[rank, 8], [rank, outputs]], 20);
        let want = factors.cut(of_joined.clone()).into_iter().map(|pair| pair.map(numbers));
        let got = Plain::cut_factors(&factors, of_joined).into_iter().map(|pair| pair.map(numbers));
        assert!(got.eq(want), "{count}");
    }
}

/// The gradient of a function of three pieces of `x·2`, where `x·2` is used as a whole, too.
fn gradient_of_pieces(
    x: &Tensor<Plain, 2>,
    split: impl Fn(T<2>) -> [T<2>; 3],
    used: [bool; 3],
) -> Vec<f64> {
    let x = Tensor::<Training, 2>::from_inner(x.clone()).require_grad();
    let whole = x.clone() * 2.0;
    let mut sum = whole.clone().sin().sum();
    for ((piece, used), factor) in split(whole).into_iter().zip(used).zip(1..) {
        if used {
            // Each piece is used twice.
            sum = sum + (piece.clone() * piece.exp() * factor).sum();
        }
    }
    numbers(x.grad(&sum.backward()).expect("a gradient"))
}

#[test]
fn pieces_and_their_gradient_are_those_of_narrow() {
    let [x] = inputs([[6, 12]], 4);
    for (dim, sizes) in [(0, [1, 2, 3]), (1, [5, 4, 3]), (1, [4, 4, 4])] {
        let pieces = Plain::split(x.clone(), dim, sizes).map(numbers);
        assert_eq!(pieces, plain::split(x.clone(), dim, sizes).map(numbers));
        for subset in 1..8 {
            let used = std::array::from_fn(|i| subset >> i & 1 == 1);
            let got = gradient_of_pieces(&x, |x| Training::split(x, dim, sizes), used);
            // Burn's own gradient.
            let want = gradient_of_pieces(&x, |x| plain::split(x, dim, sizes), used);
            assert_eq!(got, want, "dimension {dim}, {sizes:?}, used: {used:?}");
        }
    }
}

#[test]
fn pieces_without_a_graph_take_no_gradient_and_give_none() {
    let [x, w] = inputs([[4, 6], [4, 3]], 5);
    let x = Tensor::<Training, 2>::from_inner(x);
    let w = Tensor::<Training, 2>::from_inner(w).require_grad();
    let [a, b] = Training::split(x.clone(), 1, [3, 3]);
    let gradients = (a * w.clone() + b.clone()).sum().backward();
    let [want, _] = Training::split(x.clone(), 1, [3, 3]);
    assert_eq!(numbers(w.grad(&gradients).expect("a gradient")), numbers(want.inner()));
    assert!(x.grad(&gradients).is_none() && b.grad(&gradients).is_none());
}

#[test]
#[should_panic(expected = "pieces of [2, 3] along dimension 1")]
fn pieces_that_are_not_the_whole_are_refused() {
    let [x] = inputs([[4, 6]], 5);
    let _ = Plain::split(x, 1, [2, 3]);
}
