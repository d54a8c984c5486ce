//! Dot products, exponentials and small matrix products in vector registers.
//!
//! The order of additions is fixed by the code, so equal inputs give equal bits on any number of
//! threads.

// A function call per vector would cost more than the work on it.
#![allow(clippy::inline_always)]

use wide::{f32x8, u32x8};

/// Numbers per vector register. A length that is a multiple of it leaves no remainder.
pub(crate) const LANES: usize = 8;

/// Rounds `n` up to a multiple of [`LANES`].
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// Dot product `Σ a·b`.
#[inline]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks(), b.as_chunks());
    let sums = a
        .iter()
        .zip(b)
        .fold(f32x8::ZERO, |sums, (a, b)| f32x8::from(*a).mul_add(f32x8::from(*b), sums));
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.reduce_add() + rest
}

/// Sum `Σ x`.
#[inline]
pub(crate) fn sum(x: &[f32]) -> f32 {
    let (x, rest) = x.as_chunks();
    let sums = x.iter().fold(f32x8::ZERO, |sums, x| sums + f32x8::from(*x));
    sums.reduce_add() + rest.iter().sum::<f32>()
}

/// Loads the first [`LANES`] numbers.
#[inline(always)]
pub(crate) fn load(from: &[f32]) -> f32x8 {
    f32x8::from(<[f32; LANES]>::try_from(&from[..LANES]).expect("as many as asked for"))
}

/// `eˣ` for `x ≤ 0`, with a relative error below 2e-7; below −87 the result stays at `e⁻⁸⁷`, which
/// is 2e-38.
///
/// Computes `2^n·p(r)` with `n = round(x / ln 2)`, `r = x − n·ln 2`, and `p` the Taylor polynomial
/// of degree 7, whose remainder at `|r| = ln 2 / 2` is 5e-9. The exponential of `wide` also checks
/// for overflow and takes three times as long.
#[inline(always)]
pub(crate) fn exp(x: f32x8) -> f32x8 {
    // Adding 1.5·2²³ rounds to an integer, held in the low bits of the sum.
    const ROUND: f32x8 = f32x8::splat(12_582_912.0);
    // ln 2 in two parts; the first has few bits, so its product with n is exact.
    const LN_2: [f32x8; 2] = [f32x8::splat(-0.693_359_4), f32x8::splat(2.121_944_4e-4)];
    const TAYLOR: [f32; 7] = [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];
    let x = x.fast_max(f32x8::splat(-87.0));
    let shifted = x.mul_add(f32x8::splat(std::f32::consts::LOG2_E), ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(LN_2[1], n.mul_add(LN_2[0], x));
    let p =
        TAYLOR.into_iter().fold(f32x8::splat(1.0 / 5040.0), |p, c| p.mul_add(r, f32x8::splat(c)));
    let power: u32x8 = (shifted.to_bits() << 23_u32) + u32x8::splat(0x3f80_0000);
    p * f32x8::from_bits(power)
}

/// `σ(x) = 1/(1 + e⁻ˣ)`; for `x < 0` it is `eˣ/(1 + eˣ)`, which does not overflow.
#[inline(always)]
pub(crate) fn sigmoid(x: f32x8) -> f32x8 {
    let e = exp(-x.abs());
    let numerator = x.simd_ge(f32x8::ZERO).select(f32x8::ONE, e);
    numerator / (f32x8::ONE + e)
}

/// The left factor of a product, as it is or transposed.
#[derive(Clone, Copy)]
pub(crate) enum Left<'a> {
    /// `[m, k]`
    Rows(&'a [f32]),
    /// `[k, m]`
    Columns(&'a [f32]),
}

/// Rows of the result computed together.
const TILE: usize = 4;

/// `out = left·right`, row-major: `out` `[m, n]`, `right` `[k, n]`; `m` and `n` are multiples of
/// [`LANES`].
#[inline]
pub(crate) fn multiply(out: &mut [f32], left: Left<'_>, right: &[f32], n: usize) {
    debug_assert!(n.is_multiple_of(LANES) && (out.len() / n).is_multiple_of(LANES));
    let (m, k) = (out.len() / n, right.len() / n);
    for (tile, out) in out.chunks_exact_mut(TILE * n).enumerate() {
        let row = tile * TILE;
        match left {
            Left::Rows(left) => {
                let [a, b, c, d] = std::array::from_fn(|i| &left[(row + i) * k..][..k]);
                let quads =
                    || a.iter().zip(b).zip(c).zip(d).map(|(((a, b), c), d)| [*a, *b, *c, *d]);
                multiply_tile(out, quads, right, n);
            }
            Left::Columns(left) => {
                let quads = || {
                    left.chunks_exact(m)
                        .map(|left| [left[row], left[row + 1], left[row + 2], left[row + 3]])
                };
                multiply_tile(out, quads, right, n);
            }
        }
    }
}

/// Computes [`TILE`] rows of the result, in pieces of up to three vectors of columns, which fit
/// into the registers.
#[inline(always)]
fn multiply_tile<I: Iterator<Item = [f32; TILE]>>(
    out: &mut [f32],
    quads: impl Fn() -> I,
    right: &[f32],
    n: usize,
) {
    let mut column = 0;
    while column < n {
        column += match (n - column) / LANES {
            1 => piece::<1>(out, quads(), right, n, column),
            2 => piece::<2>(out, quads(), right, n, column),
            _ => piece::<3>(out, quads(), right, n, column),
        };
    }
}

/// Computes `V` vectors of columns, from `column` on; returns their number of columns.
#[inline(always)]
#[allow(clippy::needless_range_loop)]
fn piece<const V: usize>(
    out: &mut [f32],
    quads: impl Iterator<Item = [f32; TILE]>,
    right: &[f32],
    n: usize,
    column: usize,
) -> usize {
    // With constant bounds the compiler unrolls these loops and keeps all sums in registers; with
    // iterators it does not.
    let mut sums = [[f32x8::ZERO; V]; TILE];
    for (quad, right) in quads.zip(right.chunks_exact(n)) {
        let right = &right[column..column + V * LANES];
        for v in 0..V {
            let right = load(&right[v * LANES..]);
            for row in 0..TILE {
                sums[row][v] = f32x8::splat(quad[row]).mul_add(right, sums[row][v]);
            }
        }
    }
    for row in 0..TILE {
        for v in 0..V {
            let from = row * n + column + v * LANES;
            out[from..from + LANES].copy_from_slice(&sums[row][v].to_array());
        }
    }
    V * LANES
}

/// Writes the transpose of `matrix` `[m, n]` to `out` `[n, m]`.
pub(crate) fn transpose(out: &mut [f32], matrix: &[f32], n: usize) {
    let m = matrix.len() / n;
    for (row, values) in matrix.chunks_exact(n).enumerate() {
        for (out, value) in out.chunks_exact_mut(m).zip(values) {
            out[row] = *value;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_exponential_is_right_wherever_it_is_asked_for() {
        for i in 0..=870_000 {
            let x = -(i as f32) * 1e-4;
            let want = f64::from(x).exp();
            let error = (f64::from(exp(f32x8::splat(x)).to_array()[0]) - want).abs() / want;
            assert!(error < 2e-7, "exp({x}) is off by {error:e}");
        }
        assert_eq!(exp(f32x8::ZERO).to_array(), [1.0; LANES]);
        assert!(exp(f32x8::splat(f32::NEG_INFINITY)).to_array()[0] < 2e-38);
    }

    /// Pseudo-random numbers between -1 and 1.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        (0..count as u32)
            .map(|i| {
                ((i.wrapping_mul(2_654_435_761) ^ seed.wrapping_mul(40_503)) % 2003) as f32 / 1001.0
                    - 1.0
            })
            .collect()
    }

    proptest! {
        #[test]
        fn a_product_is_the_sum_of_products(rows in 1_usize..7, columns in 1_usize..9, k in 1_usize..40, seed: u32) {
            let (m, n) = (rows * LANES, columns * LANES);
            let (left, right) = (numbers(m * k, seed), numbers(k * n, seed ^ 1));
            let mut columns_of_left = vec![0.0; m * k];
            transpose(&mut columns_of_left, &left, k);
            let (mut a, mut b) = (vec![f32::NAN; m * n], vec![f32::NAN; m * n]);
            multiply(&mut a, Left::Rows(&left), &right, n);
            multiply(&mut b, Left::Columns(&columns_of_left), &right, n);
            prop_assert_eq!(&a, &b);
            for (i, got) in a.iter().enumerate() {
                let want: f64 = (0..k).map(|x| f64::from(left[i / n * k + x]) * f64::from(right[x * n + i % n])).sum();
                prop_assert!((f64::from(*got) - want).abs() < 1e-5, "{} and {}", got, want);
            }
        }

        #[test]
        fn a_dot_product_and_a_sum_forget_no_element(count in 0_usize..50, seed: u32) {
            let (a, b) = (numbers(count, seed), numbers(count, seed ^ 1));
            let want: f64 = a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            prop_assert!((f64::from(dot(&a, &b)) - want).abs() < 1e-5);
            let want: f64 = a.iter().copied().map(f64::from).sum();
            prop_assert!((f64::from(sum(&a)) - want).abs() < 1e-5);
        }
    }
}
