//! Sources of a network's weights, one tensor at a time.
//!
//! Each published network has one constructor, which asks a [`Source`] for every tensor by its name
//! in the published files. Missing tensors and wrong shapes are collected and reported together at the
//! end.

use burn::{
    module::{Param, ParamId},
    prelude::*,
    tensor::{DType, FloatDType, TensorData},
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use super::{Stored, TensorFiles};
use crate::{
    layers::{Conv, GroupNorm, LayerNorm},
    linear::{Joined, Linear, Part},
};

/// Provides tensors by name.
pub struct Source<'a, B: Backend> {
    origin: Origin,
    precision: FloatDType,
    made: u64,
    device: &'a B::Device,
    problems: Vec<String>,
}

enum Origin {
    Files(TensorFiles),
    /// Files of which only names and shapes are read.
    Headers(TensorFiles),
    Random(Box<ChaCha8Rng>),
    /// Records the names and shapes that are asked for, and makes no tensors.
    Described(Vec<(String, Vec<usize>)>),
}

impl<'a, B: Backend> Source<'a, B> {
    /// Takes tensors from files, for a network that computes in `precision`. If it computes in f32,
    /// matrices that are stored in 16 bits stay in 16 bits where the backend supports it, and are
    /// converted when they are used.
    pub fn files(files: TensorFiles, precision: FloatDType, device: &'a B::Device) -> Self {
        Self::new(Origin::Files(files), precision, device)
    }

    /// Checks only the names and shapes in files. The network made from it is a placeholder; only
    /// [`Self::problems`] is of use.
    pub fn headers(files: TensorFiles, device: &'a B::Device) -> Self {
        Self::new(Origin::Headers(files), FloatDType::F32, device)
    }

    /// Makes random tensors, of the distributions of `random_values`: equal seeds give equal
    /// networks on every backend.
    pub fn random(seed: u64, precision: FloatDType, device: &'a B::Device) -> Self {
        Self::new(Origin::Random(Box::new(ChaCha8Rng::seed_from_u64(seed))), precision, device)
    }

    fn new(origin: Origin, precision: FloatDType, device: &'a B::Device) -> Self {
        Self { origin, precision, made: 0, device, problems: Vec::new() }
    }

    /// Precision in which the network computes.
    pub fn precision(&self) -> FloatDType {
        self.precision
    }

    /// The device of the tensors.
    pub fn device(&self) -> &'a B::Device {
        self.device
    }

    /// Lists all problems, one sentence each: tensors that are missing, of another shape,
    /// unreadable, not finite, or not asked for.
    pub fn problems(self) -> Vec<String> {
        let mut problems = self.problems;
        if let Origin::Files(files) | Origin::Headers(files) = &self.origin {
            let unused =
                files.names().filter(|name| !IGNORED.iter().any(|ignored| name.ends_with(ignored)));
            problems.extend(unused.map(|name| format!("{name} is not a weight of this network")));
        }
        problems
    }

    /// A linear layer with a bias, `NAME.weight` `[outputs, inputs]` and `NAME.bias`.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Linear<B> {
        let weight = self.transposed(name, inputs, outputs);
        let bias = self.tensor(&format!("{name}.bias"), [outputs]);
        Linear::new(weight, Some(bias))
    }

    /// Linear layers of the same input, with biases, as one product: their joined weights, and each
    /// layer's part. A layer has a name and a number of outputs.
    pub fn joined<const N: usize>(
        &mut self,
        layers: [(String, usize); N],
        inputs: usize,
    ) -> (Joined<B>, [Part<B>; N]) {
        let layers = layers.map(|(name, outputs)| self.unjoined(&name, inputs, outputs));
        let mut from = 0;
        let parts = layers.each_ref().map(|layer| {
            let part = layer.part(from);
            from += layer.outputs;
            part
        });
        (self.join(layers), parts)
    }

    /// A linear layer with a bias, to [`join`](Self::join) with others when they are loaded, too.
    pub(crate) fn unjoined(&mut self, name: &str, inputs: usize, outputs: usize) -> Unjoined<B> {
        let weight = self.stored(&format!("{name}.weight"), [outputs, inputs]);
        let bias = self.values(&format!("{name}.bias"), [outputs]);
        let id = self.made;
        self.made += 2; // A weight and a bias, as those of a layer alone.
        Unjoined { weight, bias, inputs, outputs, id }
    }

    /// Joins layers of the same input, in the order of their columns.
    pub(crate) fn join<const N: usize>(&self, layers: [Unjoined<B>; N]) -> Joined<B> {
        let [of_weight, of_bias] = [0, 1].map(|more| ParamId::from(layers[0].id + more));
        let whole = layers.iter().all(|layer| layer.weight.dims() == [layer.outputs, layer.inputs]);
        let (weights, biases) = layers.into_iter().map(|layer| (layer.weight, layer.bias)).unzip();
        let weight = if whole {
            self.side_by_side(weights).transpose()
        } else {
            Tensor::zeros([1; 2], self.device) // A placeholder is among them.
        };
        let bias = Param::initialized(of_bias, Tensor::cat(biases, 0));
        Joined::new(Param::initialized(of_weight, weight), Some(bias))
    }

    /// A linear layer without a bias.
    pub fn linear_without_bias(&mut self, name: &str, inputs: usize, outputs: usize) -> Linear<B> {
        Linear::new(self.transposed(name, inputs, outputs), None)
    }

    /// A convolution of patches that do not overlap, `NAME.weight` `[outputs, C, p, p]`, as a
    /// linear layer over `C·p·p` numbers.
    pub fn patches(
        &mut self,
        name: &str,
        [channels, patch]: [usize; 2],
        outputs: usize,
    ) -> Linear<B> {
        let weight: Tensor<B, 4> =
            self.values(&format!("{name}.weight"), [outputs, channels, patch, patch]);
        // A placeholder has one element instead of `outputs` rows.
        let outputs_there = weight.dims()[0];
        let weight = self.param(weight.reshape([outputs_there as i32, -1]).transpose());
        let bias = self.tensor(&format!("{name}.bias"), [outputs]);
        Linear::new(weight, Some(bias))
    }

    /// A convolution of `side`×`side` pixels, `NAME.weight` `[outputs, inputs, side, side]` and
    /// `NAME.bias`.
    pub fn conv(&mut self, name: &str, [inputs, outputs]: [usize; 2], side: usize) -> Conv<B> {
        let weight = self.tensor(&format!("{name}.weight"), [outputs, inputs, side, side]);
        Conv { weight, bias: self.tensor(&format!("{name}.bias"), [outputs]) }
    }

    /// A layer normalisation with scale and shift, `NAME.weight` and `NAME.bias`.
    pub fn layer_norm(&mut self, name: &str, width: usize, epsilon: f64) -> LayerNorm<B> {
        let weight = self.tensor(&format!("{name}.weight"), [width]);
        LayerNorm { weight, bias: self.tensor(&format!("{name}.bias"), [width]), epsilon }
    }

    /// A group normalisation with scale and shift, `NAME.weight` and `NAME.bias`.
    pub fn group_norm(&mut self, name: &str, channels: usize, groups: usize) -> GroupNorm<B> {
        let weight = self.tensor(&format!("{name}.weight"), [channels]);
        GroupNorm { weight, bias: self.tensor(&format!("{name}.bias"), [channels]), groups }
    }

    /// A table of which only a part is used at a time; it keeps its stored precision under the rule
    /// of [`Self::files`].
    pub fn table<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Param<Tensor<B, D>> {
        let values = self.stored(name, shape);
        self.param(values)
    }

    /// A tensor of this name and shape.
    pub fn tensor<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Param<Tensor<B, D>> {
        let values = self.values(name, shape);
        self.param(values)
    }

    fn transposed(&mut self, name: &str, inputs: usize, outputs: usize) -> Param<Tensor<B, 2>> {
        let weight: Tensor<B, 2> = self.stored(&format!("{name}.weight"), [outputs, inputs]);
        self.param(weight.transpose())
    }

    /// Weights as one, along their first dimension.
    fn side_by_side(&self, weights: Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let dtype = weights[0].dtype();
        if weights.iter().all(|weight| weight.dtype() == dtype) {
            return Tensor::cat(weights, 0);
        }
        // Only a network that computes in f32 has several types.
        Tensor::cat(weights.into_iter().map(|weight| weight.cast(self.precision)).collect(), 0)
    }

    fn param<const D: usize>(&mut self, values: Tensor<B, D>) -> Param<Tensor<B, D>> {
        let id = ParamId::from(self.made);
        self.made += 1;
        Param::initialized(id, values)
    }

    fn values<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D> {
        let values = self.stored(name, shape);
        values.cast(self.precision)
    }

    /// A tensor of this name and shape in the precision that [`held_as`] chooses.
    fn stored<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Tensor<B, D> {
        let data = match &mut self.origin {
            Origin::Described(found) => {
                found.push((name.to_owned(), shape.to_vec()));
                return Tensor::zeros([1; D], self.device);
            }
            Origin::Random(rng) => Ok(TensorData::new(random_values(rng, name, &shape), shape)),
            Origin::Headers(files) => match take(files, name, &shape) {
                Ok(_) => return Tensor::zeros([1; D], self.device),
                Err(problem) => Err(problem),
            },
            Origin::Files(files) => take(files, name, &shape).and_then(|stored| stored.read(name)),
        };
        match data {
            Ok(data) => {
                let dtype = held_as::<B>(data.dtype, self.precision, self.device);
                Tensor::from_data(data, (self.device, dtype))
            }
            Err(problem) => {
                self.problems.push(problem);
                // The network is never returned, so a placeholder is enough.
                Tensor::zeros([1; D], self.device)
            }
        }
    }
}

/// A linear layer whose weight and bias are not yet [joined](Source::join) with those of others.
///
/// # Shapes
/// - `weight`: `[outputs, inputs]`; `bias`: `[outputs]`
pub(crate) struct Unjoined<B: Backend> {
    weight: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    inputs: usize,
    outputs: usize,
    /// The identity that the weight would have alone.
    id: u64,
}

impl<B: Backend> Unjoined<B> {
    /// The layer's part in the product, if its columns begin at `from`.
    pub fn part(&self, from: usize) -> Part<B> {
        Part::new(from..from + self.outputs, ParamId::from(self.id))
    }
}

/// Type in which a network that computes in `precision` holds a matrix that is stored in `stored`.
pub(crate) fn held_as<B: Backend>(
    stored: DType,
    precision: FloatDType,
    device: &B::Device,
) -> DType {
    let wide = precision == FloatDType::F32;
    if wide && B::supports_dtype(device, stored) { stored } else { precision.into() }
}

/// Takes the tensor of this name and shape out of its files.
fn take(files: &mut TensorFiles, name: &str, shape: &[usize]) -> Result<Stored, String> {
    match files.remove(name) {
        None => Err(format!("{name} is missing")),
        Some(stored) if stored.shape != shape => {
            Err(format!("{name} has shape {:?}, the network needs {shape:?}", stored.shape))
        }
        Some(stored) => Ok(stored),
    }
}

/// The names and shapes of the tensors that a constructor asks for.
pub fn described<B: Backend>(
    device: &B::Device,
    construct: impl FnOnce(&mut Source<'_, B>),
) -> Vec<(String, Vec<usize>)> {
    let mut source = Source::new(Origin::Described(Vec::new()), FloatDType::F32, device);
    construct(&mut source);
    match source.origin {
        Origin::Described(found) => found,
        _ => unreachable!("made above"),
    }
}

/// Draws random values for the tensor of this name: matrices with std `1/√inputs` (0.02 if `embed`
/// is part of the name), scales of 1, other vectors of 0.
pub(crate) fn random_values(rng: &mut ChaCha8Rng, name: &str, shape: &[usize]) -> Vec<f32> {
    let count = shape.iter().product();
    if shape.len() == 1 {
        // A vector called `weight` is the scale of a normalisation.
        return vec![if name.ends_with(".weight") { 1.0 } else { 0.0 }; count];
    }
    let inputs: usize = shape[1..].iter().product();
    let std = if name.contains("embed") && shape.len() == 2 {
        0.02
    } else {
        1.0 / (inputs as f32).sqrt()
    };
    let normal = Normal::new(0.0, std).expect("the std is positive");
    normal.sample_iter(rng).take(count).collect()
}

/// Constants that older files carry beside the weights.
const IGNORED: [&str; 2] = ["embeddings.position_ids", "encoder.embed_tokens.weight"];
