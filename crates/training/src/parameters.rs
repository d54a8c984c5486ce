//! The trained parameters of a network as flat vectors, for the optimiser, EMA, clipping and
//! checkpoints.
//!
//! There is one entry per parameter tensor, flattened, keyed by its identity in the network, in a
//! fixed order. [`Trained`] selects the tensors that are trained: all of them, those of some
//! layers, or those of the adapters.

use std::collections::{BTreeMap, BTreeSet};

use burn::{
    module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    prelude::*,
    tensor::backend::AutodiffBackend,
};
use thiserror::Error;

/// One flat vector per parameter tensor, in the order of the identities.
#[derive(Clone, Debug)]
pub struct Parameters<B: Backend>(BTreeMap<u64, Tensor<B, 1>>);

impl<B: Backend> Default for Parameters<B> {
    /// No vectors: the start of a sum.
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<B: Backend> Parameters<B> {
    /// Collects the parameters of a network.
    pub fn of<M: Module<B>>(network: &M) -> Self {
        let mut collect = Collect(BTreeMap::new());
        network.visit(&mut collect);
        Self(collect.0)
    }

    /// Replaces the parameters of `network` with these vectors; a parameter without an entry keeps
    /// its value.
    pub fn put_into<M: Module<B>>(&self, network: M) -> M {
        network.map(&mut Replace(&self.0))
    }

    /// Copies the vectors to the host, keyed by parameter identity, for a checkpoint.
    pub fn to_data(&self) -> BTreeMap<u64, TensorData> {
        self.0.iter().map(|(&id, values)| (id, values.to_data())).collect()
    }

    /// Moves vectors from the host to `device`: the inverse of [`Self::to_data`].
    pub fn from_data(data: BTreeMap<u64, TensorData>, device: &B::Device) -> Self {
        Self(data.into_iter().map(|(id, values)| (id, Tensor::from_data(values, device))).collect())
    }

    /// Lengths of the vectors by identity; compatible lists have equal layouts.
    pub fn layout(&self) -> BTreeMap<u64, usize> {
        self.0.iter().map(|(&id, values)| (id, values.dims()[0])).collect()
    }

    /// Zeros with the same layout.
    #[must_use]
    pub fn zeros_like(&self) -> Self {
        self.map(|values| values.zeros_like())
    }

    /// Applies `f` to every vector.
    #[must_use]
    pub fn map(&self, f: impl Fn(Tensor<B, 1>) -> Tensor<B, 1>) -> Self {
        Self(self.0.iter().map(|(&id, values)| (id, f(values.clone()))).collect())
    }

    /// Applies `f` to the pairs of vectors with equal identity.
    ///
    /// # Panics
    /// If `other` lacks one of the vectors.
    #[must_use]
    pub fn zip(
        &self,
        other: &Self,
        f: impl Fn(Tensor<B, 1>, Tensor<B, 1>) -> Tensor<B, 1>,
    ) -> Self {
        Self(
            self.0
                .iter()
                .map(|(&id, values)| (id, f(values.clone(), other.0[&id].clone())))
                .collect(),
        )
    }

    /// Adds `other`, in place if the backend can: gradients are summed once per micro-batch.
    ///
    /// # Panics
    /// If `other` lacks one of the vectors.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self(self.0.into_iter().map(|(id, values)| (id, values + other.0[&id].clone())).collect())
    }

    /// Adds the vectors that both have, and takes those that only `other` has.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        for (id, values) in other.0 {
            let sum = match self.0.remove(&id) {
                Some(own) => own + values,
                None => values,
            };
            self.0.insert(id, sum);
        }
        self
    }

    /// The vector of one parameter.
    ///
    /// # Panics
    /// If no parameter has this identity.
    pub fn get(&self, id: u64) -> Tensor<B, 1> {
        self.0[&id].clone()
    }

    /// Replaces the vector of one parameter.
    pub fn set(&mut self, id: u64, values: Tensor<B, 1>) {
        self.0.insert(id, values);
    }

    /// The Euclidean norm of all numbers together.
    pub fn norm(&self) -> f64 {
        self.squares().values().sum::<f64>().sqrt()
    }

    /// The sum of squares of every vector, read from the device at once.
    pub fn squares(&self) -> BTreeMap<u64, f64> {
        let squares: Vec<Tensor<B, 1>> =
            self.0.values().map(|values| values.clone().powi_scalar(2).sum()).collect();
        self.0.keys().copied().zip(Tensor::cat(squares, 0).into_data().iter::<f64>()).collect()
    }

    /// Memory of the vectors in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|values| (values.dims()[0] * values.dtype().size()) as u64).sum()
    }

    /// Number of values in all vectors.
    pub fn count(&self) -> usize {
        self.0.values().map(|values| values.dims()[0]).sum()
    }
}

/// A network has no layer of a name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the network has no layer `{layer}`; its outermost layers are {known}")]
pub struct NoSuchLayer {
    /// The name.
    pub layer: String,
    /// The outermost layers that there are, as a list.
    pub known: String,
}

/// The parameter tensors of a network that are trained, by identity. The others get no gradient and
/// no optimiser state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trained(BTreeSet<u64>);

impl Trained {
    /// Trains all parameters: full fine-tuning.
    pub fn all<B: Backend, M: Module<B>>(network: &M) -> Self {
        Self::named(network, |_| true)
    }

    /// Trains no parameter: a network that only answers.
    pub fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// Trains the parameters whose path in the network is `wanted`.
    pub fn named<B: Backend, M: Module<B>>(network: &M, wanted: impl Fn(&str) -> bool) -> Self {
        Self(
            names(network).into_iter().filter(|(_, name)| wanted(name)).map(|(id, _)| id).collect(),
        )
    }

    /// Trains the parameters of some layers, given by their paths in the network; all, if none is
    /// given.
    ///
    /// # Errors
    /// If the network has no parameter under one of the paths.
    pub fn in_layers<B: Backend, M: Module<B>>(
        network: &M,
        layers: &[String],
    ) -> Result<Self, NoSuchLayer> {
        if layers.is_empty() {
            return Ok(Self::all(network));
        }
        let is_in = |name: &str, layer: &str| {
            name.strip_prefix(layer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let names = names(network);
        for layer in layers {
            if !names.values().any(|name| is_in(name, layer)) {
                let outermost = names.values().filter_map(|name| name.split('.').next());
                let known: Vec<&str> = outermost.collect::<BTreeSet<_>>().into_iter().collect();
                return Err(NoSuchLayer { layer: layer.clone(), known: known.join(", ") });
            }
        }
        Ok(Self::named(network, |name| layers.iter().any(|layer| is_in(name, layer))))
    }

    /// The trained parameters of a network.
    pub fn of<B: Backend, M: Module<B>>(&self, network: &M) -> Parameters<B> {
        let mut parameters = Parameters::of(network);
        parameters.0.retain(|id, _| self.0.contains(id));
        parameters
    }

    /// Moves a network to the autodiff backend, with every trained parameter a leaf of a new graph.
    ///
    /// Parameters of the plain backend do not keep the flag that they require a gradient, so it is
    /// set again here.
    pub fn with_graph<B: AutodiffBackend, M: AutodiffModule<B>>(
        &self,
        network: M::InnerModule,
    ) -> M {
        M::from_inner(network).map(&mut WantGradients(&self.0))
    }

    /// The gradients of a network's trained parameters; a parameter that the loss does not reach
    /// has gradient 0.
    pub fn gradients<B: AutodiffBackend, M: Module<B>>(
        &self,
        network: &M,
        gradients: B::Gradients,
    ) -> Parameters<B::InnerBackend> {
        self.with_zeros(network, self.reached(network, gradients))
    }

    /// The gradients of the trained parameters that the loss reaches, and no others.
    pub fn reached<B: AutodiffBackend, M: Module<B>>(
        &self,
        network: &M,
        gradients: B::Gradients,
    ) -> Parameters<B::InnerBackend> {
        let mut collect =
            CollectGradients::<B> { trained: &self.0, gradients, found: BTreeMap::new() };
        network.visit(&mut collect);
        Parameters(collect.found)
    }

    /// Adds a gradient of 0 for every trained parameter of `network` that has no entry.
    pub fn with_zeros<B: AutodiffBackend, M: Module<B>>(
        &self,
        network: &M,
        gradients: Parameters<B::InnerBackend>,
    ) -> Parameters<B::InnerBackend> {
        let mut fill = FillWithZeros::<B> { trained: &self.0, gradients: gradients.0 };
        network.visit(&mut fill);
        Parameters(fill.gradients)
    }

    /// The trained matrices whose path begins with one of `prefixes`, by identity, with their
    /// shapes.
    pub fn matrices<B: Backend, M: Module<B>>(
        &self,
        network: &M,
        prefixes: &[&str],
    ) -> BTreeMap<u64, [usize; 2]> {
        let names = names(network);
        let mut collect = Matrices(BTreeMap::new());
        network.visit(&mut collect);
        let wanted = |name: &str| prefixes.iter().any(|prefix| name.starts_with(prefix));
        collect.0.retain(|id, _| self.0.contains(id) && wanted(&names[id]));
        collect.0
    }
}

/// The name of every parameter by identity: its path in the network.
pub fn names<B: Backend, M: Module<B>>(network: &M) -> BTreeMap<u64, String> {
    let mut collect = Names { path: Vec::new(), found: BTreeMap::new() };
    network.visit(&mut collect);
    collect.found
}

struct Matrices(BTreeMap<u64, [usize; 2]>);

impl<B: Backend> ModuleVisitor<B> for Matrices {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if let Ok(shape) = <[usize; 2]>::try_from(&param.dims()[..]) {
            self.0.insert(param.id.val(), shape);
        }
    }
}

struct Collect<B: Backend>(BTreeMap<u64, Tensor<B, 1>>);

impl<B: Backend> ModuleVisitor<B> for Collect<B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        self.0.insert(param.id.val(), param.val().reshape([-1]));
    }
}

struct Replace<'a, B: Backend>(&'a BTreeMap<u64, Tensor<B, 1>>);

impl<B: Backend> ModuleMapper<B> for Replace<'_, B> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        match self.0.get(&param.id.val()) {
            Some(values) => param.map(|old| values.clone().reshape(old.dims())),
            None => param,
        }
    }
}

struct WantGradients<'a>(&'a BTreeSet<u64>);

impl<B: AutodiffBackend> ModuleMapper<B> for WantGradients<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        let trained = self.0.contains(&param.id.val());
        param.set_require_grad(trained)
    }
}

struct CollectGradients<'a, B: AutodiffBackend> {
    trained: &'a BTreeSet<u64>,
    gradients: B::Gradients,
    found: BTreeMap<u64, Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for CollectGradients<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        if !self.trained.contains(&param.id.val()) {
            return;
        }
        if let Some(gradient) = param.val().grad_remove(&mut self.gradients) {
            self.found.insert(param.id.val(), gradient.reshape([-1]));
        }
    }
}

struct FillWithZeros<'a, B: AutodiffBackend> {
    trained: &'a BTreeSet<u64>,
    gradients: BTreeMap<u64, Tensor<B::InnerBackend, 1>>,
}

impl<B: AutodiffBackend> ModuleVisitor<B> for FillWithZeros<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let id = param.id.val();
        if self.trained.contains(&id) {
            self.gradients
                .entry(id)
                .or_insert_with(|| param.val().inner().zeros_like().reshape([-1]));
        }
    }
}

struct Names {
    path: Vec<String>,
    found: BTreeMap<u64, String>,
}

impl<B: Backend> ModuleVisitor<B> for Names {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<B, D>>) {
        let id: ParamId = param.id;
        self.found.insert(id.val(), self.path.join("."));
    }
}
