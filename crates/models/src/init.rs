//! Initial weights, drawn on the host in a fixed order: equal seeds give equal networks on every
//! backend.
//!
//! Parameter identities count up from 0, so that optimiser state saved by one process fits the
//! network of the next.

use burn::{
    module::{Param, ParamId},
    nn::Embedding,
    prelude::*,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal, Uniform};

use crate::linear::Linear;

/// Creates the layers of one network, one after the other.
pub(crate) struct Initializer<'a, B: Backend> {
    rng: ChaCha8Rng,
    made: u64,
    device: &'a B::Device,
}

impl<'a, B: Backend> Initializer<'a, B> {
    pub(crate) fn new(seed: u64, device: &'a B::Device) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), made: 0, device }
    }

    /// A linear layer with Xavier-uniform weights and zero biases.
    pub(crate) fn linear(&mut self, inputs: usize, outputs: usize) -> Linear<B> {
        let bound = (6.0 / (inputs + outputs) as f32).sqrt();
        let uniform =
            Uniform::new_inclusive(-bound, bound).expect("the bound is positive and finite");
        let weights = uniform.sample_iter(&mut self.rng).take(inputs * outputs).collect();
        let weight = self.param([inputs, outputs], weights);
        Linear::new(weight, Some(self.param([outputs], vec![0.0; outputs])))
    }

    /// A linear layer of zeros: the block that it modulates starts as the identity (arXiv
    /// 2212.09748, adaLN-zero).
    pub(crate) fn zero_linear(&mut self, inputs: usize, outputs: usize) -> Linear<B> {
        let weight = self.param([inputs, outputs], vec![0.0; inputs * outputs]);
        Linear::new(weight, Some(self.param([outputs], vec![0.0; outputs])))
    }

    /// An embedding table with standard normal entries.
    pub(crate) fn embedding(&mut self, entries: usize, width: usize) -> Embedding<B> {
        Embedding { weight: self.normal([entries, width], 1.0) }
    }

    /// A parameter with normally distributed values of mean 0.
    pub(crate) fn normal<const D: usize>(
        &mut self,
        shape: [usize; D],
        std: f32,
    ) -> Param<Tensor<B, D>> {
        let normal = Normal::new(0.0, std).expect("the std is finite");
        let values = normal.sample_iter(&mut self.rng).take(shape.iter().product()).collect();
        self.param(shape, values)
    }

    /// A parameter of ones, for a learned scale.
    pub(crate) fn ones(&mut self, size: usize) -> Param<Tensor<B, 1>> {
        self.param([size], vec![1.0; size])
    }

    /// The device of the network.
    pub(crate) fn device(&self) -> &B::Device {
        self.device
    }

    pub(crate) fn param<const D: usize>(
        &mut self,
        shape: [usize; D],
        values: Vec<f32>,
    ) -> Param<Tensor<B, D>> {
        let id = ParamId::from(self.made);
        self.made += 1;
        Param::initialized(
            id,
            Tensor::from_data(TensorData::new(values, shape), self.device).require_grad(),
        )
    }
}
