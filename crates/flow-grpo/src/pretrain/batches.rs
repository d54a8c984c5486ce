//! Batches of pre-training: their images, captions, times and noise, and the loss.

use std::ops::Range;

use burn::prelude::*;
use flow::{VelocityField, matching::flow_matching_loss};
use models::TokenIds;
use pipelines::{Card, Trainable};
use rand::Rng;
use rand_distr::{Distribution, StandardNormal};
use tasks::image::Image;
use training::{
    noise::{Key, Purpose, normal},
    parameters::{Parameters, Trained},
};

use crate::{
    backend::{Device, Plain, Training},
    pretrain::{config::PretrainConfig, examples::Examples},
};

/// The inputs of all micro-batches.
pub struct Batches<'a> {
    /// The configuration of the run.
    pub config: &'a PretrainConfig,
    /// The device of the tensors.
    pub device: &'a Device,
    /// Sizes and vocabulary of the network.
    pub card: Card,
    /// The source of images and captions.
    pub examples: Examples,
}

impl Batches<'_> {
    /// The contribution of one micro-batch to the batch's mean loss and its gradient; `scale`
    /// multiplies the loss before the backward pass and is removed from the gradient.
    pub fn loss_and_gradient<N>(
        &self,
        network: N::InnerModule,
        trained: &Trained,
        step: usize,
        rows: Range<usize>,
        scale: f64,
    ) -> (f64, Parameters<Plain>)
    where
        N: Trainable<Training> + VelocityField<Training, Condition = TokenIds>,
    {
        let (mut images, mut conditions, mut times, mut keys) =
            (Vec::<Image>::new(), Vec::<TokenIds>::new(), Vec::<f32>::new(), Vec::new());
        let shares = self.config.examples.at(step as f64 / self.config.steps as f64);
        for row in rows {
            let key = Key::new(self.config.seed, Purpose::Pretraining).epoch(step).row(row, 0);
            let mut rng = key.rng();
            let (image, caption) = self.examples.draw(&shares, &mut rng);
            images.push(image);
            conditions.push(caption);
            times
                .push(self.config.times.time(rng.random(), StandardNormal.sample(&mut rng)) as f32);
            keys.push(key.step(1));
        }
        let data = self.card.architecture.decoder().encode::<Plain>(&images, self.device);
        let noise = normal::<Plain>(&keys, self.card.architecture.latent_shape(), self.device);
        let time = Tensor::<Plain, 1>::from_floats(times.as_slice(), self.device);
        let network: N = trained.with_graph(network);
        let [data, noise] = [data, noise].map(Tensor::from_inner);
        let loss = flow_matching_loss(&network, data, noise, Tensor::from_inner(time), &conditions);
        let loss = loss.sum() / self.config.batch_size as f64;
        let gradient = trained
            .gradients(&network, (loss.clone() * scale).backward())
            .map(|values| values / scale);
        (loss.into_scalar().elem(), gradient)
    }
}
