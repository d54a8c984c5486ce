//! The product with factors of low rank, of one layer or of several side by side, whose gradient
//! costs no more than its products.
//!
//! The factors are trained in f32, and the product computes in the precision of its input. A graph
//! of tensor operations would scale, cast and pad the factors in every pass, and do all of it
//! backwards. Here a pass can take factors that were made ready once, and its gradient is
//!
//! ```text
//! A = [A₁ … A_N]        B = diag(s₁·B₁, …, s_N·B_N)
//! y = (x·A)·B        du = dy·Bᵀ        dx = du·Aᵀ        dA = xᵀ·du        dBᵢ = sᵢ·((x·A)ᵀ·dy)ᵢ
//! ```
//!
//! where `(…)ᵢ` is the block of layer `i`: the rows of its rank, the columns of its outputs.

#[cfg(any(feature = "flex", feature = "ndarray", feature = "wgpu", feature = "cuda"))]
pub(crate) mod graph;

use std::ops::Range;

use burn::tensor::{FloatDType, Tensor, backend::Backend};

use crate::product::{filled_rank, linear};

/// The trained factors of layers side by side.
#[derive(Clone, Debug)]
pub struct Factors<B: Backend> {
    /// The factors of each layer that has some, at least one, all in one precision.
    pub pairs: Vec<Pair<B>>,
    /// Outputs of all layers together. Where no pair has its columns, `y` is zero.
    pub outputs: usize,
    /// What [`Self::ready`] returned for these values, if it is kept.
    pub kept: Option<[Tensor<B, 2>; 2]>,
}

/// Two trained factors of a layer, and their scale.
///
/// # Shapes
/// `a`: `[inputs, r]`; `b`: `[r, outputs of the layer]`
#[derive(Clone, Debug)]
pub struct Pair<B: Backend> {
    /// `A`
    pub a: Tensor<B, 2>,
    /// `B`
    pub b: Tensor<B, 2>,
    /// `s`
    pub scale: f64,
    /// The first output of the layer among those of all layers.
    pub from: usize,
}

impl<B: Backend> Pair<B> {
    /// `s·B` in a precision.
    fn scaled(&self, precision: FloatDType) -> Tensor<B, 2> {
        (self.b.clone() * self.scale).cast(precision)
    }
}

impl<B: Backend> Factors<B> {
    /// The joined `A` `[inputs, Σr]` and `B` `[Σr, outputs]` in a precision, their rank padded on
    /// backends that need it.
    pub fn ready(&self, precision: FloatDType) -> [Tensor<B, 2>; 2] {
        let ([inputs, _], device) = (self.pairs[0].a.dims(), self.pairs[0].a.device());
        let rank = self.filled_rank();
        if let [pair] = &self.pairs[..]
            && pair.b.dims() == [rank, self.outputs]
        {
            return [pair.a.clone().cast(precision), pair.scaled(precision)];
        }
        let zeros = |shape: [usize; 2]| Tensor::zeros(shape, (&device, precision.into()));
        let (mut a, mut b) = (zeros([inputs, rank]), zeros([rank, self.outputs]));
        for (pair, [rows, columns]) in self.pairs.iter().zip(self.blocks()) {
            a = a.slice_assign([0..inputs, rows.clone()], pair.a.clone().cast(precision));
            b = b.slice_assign([rows, columns], pair.scaled(precision));
        }
        [a, b]
    }

    /// The gradients of each pair's `A` and `B`, from that of the joined and transposed `A` `[Σr, inputs]`,
    /// and that of the joined `B` `[Σr, outputs]`.
    pub fn cut(&self, [of_a, of_b]: [Tensor<B, 2>; 2]) -> Vec<[Tensor<B, 2>; 2]> {
        let of_pair = |(pair, [rows, columns]): (&Pair<B>, [Range<usize>; 2])| {
            let of_a = of_a.clone().narrow(0, rows.start, rows.len()).transpose();
            let of_b = of_b.clone().slice([rows, columns]).cast(pair.b.dtype()) * pair.scale;
            [of_a.cast(pair.a.dtype()), of_b]
        };
        self.pairs.iter().zip(self.blocks()).map(of_pair).collect()
    }

    /// Sum of all ranks, padded on backends that need it.
    pub(crate) fn filled_rank(&self) -> usize {
        let ranks = self.pairs.iter().map(|pair| pair.b.dims()[0]).sum();
        filled_rank::<B>(&self.pairs[0].a.device(), ranks)
    }

    /// What is kept, if it has this precision.
    fn kept(&self, precision: FloatDType) -> Option<[Tensor<B, 2>; 2]> {
        self.kept.clone().filter(|kept| kept[0].dtype() == precision.into())
    }

    /// Rows and columns of each pair in the joined `B`.
    fn blocks(&self) -> Vec<[Range<usize>; 2]> {
        let mut row = 0;
        let block = |pair: &Pair<B>| {
            let [rank, outputs] = pair.b.dims();
            row += rank;
            [row - rank..row, pair.from..pair.from + outputs]
        };
        self.pairs.iter().map(block).collect()
    }
}

/// [`Kernels::low_rank`](crate::Kernels::low_rank) as a composition, for any backend. Under autodiff
/// it uses no kept factors, which would get no gradient.
pub fn composed<B: Backend, const D: usize>(
    x: Tensor<B, D>,
    mut factors: Factors<B>,
) -> Tensor<B, D> {
    factors.kept.take_if(|kept| B::ad_enabled(&kept[0].device()));
    let precision = FloatDType::from(x.dtype());
    let [a, b] = factors.kept(precision).unwrap_or_else(|| factors.ready(precision));
    linear(linear(x, a, None), b, None)
}
