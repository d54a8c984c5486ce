//! Gradients of the parameters that a loss reaches, and zeros for the others.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, backend::Backend},
};
use training::parameters::{Parameters, Trained};

use crate::backend::{Device, Plain, Training};

/// Two parameters, of which a loss may reach one.
#[derive(Module, Debug)]
struct Pair<B: Backend> {
    first: Param<Tensor<B, 1>>,
    second: Param<Tensor<B, 1>>,
}

impl Pair<Plain> {
    fn new() -> Self {
        let of =
            |values: [f32; 2]| Param::from_tensor(Tensor::from_data(values, &Device::default()));
        Self { first: of([1.0, -2.0]), second: of([3.0, 0.5]) }
    }

    fn ids(&self) -> [u64; 2] {
        [self.first.id.val(), self.second.id.val()]
    }
}

/// The sum of squares; its gradient is twice the parameter.
fn squares(parameter: &Param<Tensor<Training, 1>>) -> Tensor<Training, 1> {
    parameter.val().powi_scalar(2).sum()
}

fn vector(parameters: &Parameters<Plain>, id: u64) -> Vec<f32> {
    parameters.get(id).into_data().to_vec().expect("f32")
}

#[test]
fn zeros_are_made_only_at_the_end_for_parameters_that_no_loss_reached() {
    let pair = Pair::new();
    let [first, second] = pair.ids();
    let trained = Trained::all(&pair);
    let graph: Pair<Training> = trained.with_graph(pair);
    let reach = |loss: Tensor<Training, 1>| trained.reached(&graph, loss.backward());

    let one = reach(squares(&graph.first));
    assert_eq!(one.layout().into_keys().collect::<Vec<_>>(), [first], "only the one in the loss");

    let twice = Parameters::default().merged(one.clone()).merged(reach(squares(&graph.first)));
    let filled = trained.with_zeros(&graph, twice.clone());
    assert_eq!(vector(&filled, first), [4.0, -8.0], "gradients of two losses are added");
    assert_eq!(vector(&filled, second), [0.0, 0.0]);

    let both = trained.with_zeros(&graph, one.merged(reach(squares(&graph.second))));
    assert_eq!(vector(&both, first), [2.0, -4.0]);
    assert_eq!(vector(&both, second), [6.0, 1.0], "a gradient is not replaced by zeros");
}

#[test]
fn a_parameter_that_is_not_trained_gets_neither_a_gradient_nor_zeros() {
    let pair = Pair::new();
    let [first, _] = pair.ids();
    let trained = Trained::named(&pair, |name| name == "first");
    let graph: Pair<Training> = trained.with_graph(pair);
    let loss = squares(&graph.first) + squares(&graph.second);
    let gradients = trained.gradients(&graph, loss.backward());
    assert_eq!(gradients.layout().into_keys().collect::<Vec<_>>(), [first]);
}
