//! LoRA: a fresh adapter changes nothing, only adapters are trained, and the reference model is the
//! policy without them.

use std::path::{Path, PathBuf};

use burn::{
    module::{AutodiffModule, Module, ModuleVisitor, Param, ParamId},
    tensor::{FloatDType, Tensor, backend::Backend},
};
use flow::VelocityField;
use grpo::{GrpoConfig, Policy};
use models::{
    Adaptable, Adapter, Dit, Joined, Linear, LoraConfig, LowRank, Part,
    lora::{self, LoraInit},
};
use serde_json::Value;
use training::parameters::{self, Parameters, Trained};

use crate::{
    backend::{Device, Plain, Training, distance, numbers, of_products},
    closed_forms::noise,
    networks::{conditions, network},
    training::{TestTrainer, config, policy_trainer, with_objective},
};

fn lora(rank: usize, targets: &[&str]) -> LoraConfig {
    let targets = targets.iter().map(|&target| target.to_owned()).collect();
    LoraConfig { rank, alpha: 2.0 * rank as f64, init: LoraInit::Gaussian, targets }
}

const ATTENTION: [&str; 4] = ["to_q", "to_k", "to_v", "to_out"];

/// The test network with a fresh adapter.
fn adapted(config: &LoraConfig) -> Dit<Plain> {
    let adapter = Adapter::new(config, &mut network(1), 3).expect("the targets exist");
    adapter.attach(network(1), &Device::default()).expect("it fits")
}

/// The test network with an adapter whose `B` is not zero.
fn adapted_and_moved(config: &LoraConfig) -> Dit<Plain> {
    let network = adapted(config);
    let adapters = Trained::named(&network, lora::is_of_adapter);
    let moved = adapters.of(&network).map(|values| {
        let n = values.dims()[0];
        let jitter: Tensor<Plain, 1> = noise(1, [n, 1, 1], 7).reshape([n]);
        values + jitter * 0.1
    });
    moved.put_into(network)
}

fn velocity(network: &Dit<Plain>) -> Vec<f64> {
    let time = Tensor::<Plain, 1>::from_floats([0.2, 0.6, 1.0], &Device::default());
    numbers(network.velocity(noise(3, [3, 16, 16], 1), time, &conditions(3)))
}

/// A trainer of the test network with adapters, or of all its weights.
fn trainer(tuning: Option<&LoraConfig>, config: GrpoConfig) -> TestTrainer {
    let base = network(1);
    let policy = match tuning {
        None => Policy::full(base),
        Some(lora) => {
            let network = adapted(lora);
            Policy {
                trained: Trained::named(&network, lora::is_of_adapter),
                network,
                reference: base,
            }
        }
    };
    policy_trainer(config, policy)
}

#[test]
fn a_fresh_adapter_changes_nothing() {
    for targets in [&ATTENTION[..], &["all-linear"]] {
        assert_eq!(velocity(&adapted(&lora(4, targets))), velocity(&network(1)));
    }
    assert!(
        distance(&velocity(&adapted_and_moved(&lora(4, &ATTENTION))), &velocity(&network(1)))
            > 1e-3
    );
}

#[test]
fn merging_equals_applying() {
    let applied = adapted_and_moved(&lora(4, &["all-linear"]));
    let merged = lora::merged(applied.clone());
    assert_eq!(Parameters::of(&merged).layout(), Parameters::of(&network(1)).layout());
    assert!(distance(&velocity(&merged), &velocity(&applied)) < 1e-5);
}

/// `a·b` of row-major numbers on the host, `b` with `n` columns.
fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let k = b.len() / n;
    let element = |i: usize| (0..k).map(|j| a[i / n * k + j] * b[j * n + i % n]).sum();
    (0..a.len() / k * n).map(element).collect()
}

/// The transpose of a matrix of `n` columns.
fn transpose(a: &[f64], n: usize) -> Vec<f64> {
    (0..a.len()).map(|i| a[i % (a.len() / n) * n + i / (a.len() / n)]).collect()
}

#[test]
fn a_layer_with_an_adapter_of_rank_32_and_its_gradients_are_the_formula() {
    // Every side is 32 more than a multiple of 64: products of this size have been wrong on GPUs.
    for samples in [1, 32] {
        is_the_formula(samples, [416, 96, 32, 160]);
    }
    // GPUs pad none of these numbers of rows: three samples of 205, four of 32 together.
    is_the_formula(3, [615, 96, 32, 160]);
    is_the_formula(4, [128, 96, 32, 160]);
}

fn is_the_formula(samples: usize, [tokens, inputs, rank, outputs]: [usize; 4]) {
    let matrix = |m: usize, n: usize, seed: usize| -> Tensor<Training, 2> {
        Tensor::from_inner(noise(m, [n, 1, 1], seed).reshape([m, n])).require_grad()
    };
    let [x, w, a, b, c] =
        [(tokens, inputs), (inputs, outputs), (inputs, rank), (rank, outputs), (tokens, outputs)]
            .map(|(m, n)| matrix(m, n, m + n));
    let param = |tensor: &Tensor<Training, 2>| Param::initialized(ParamId::new(), tensor.clone());
    let mut layer = Linear::new(param(&w), None);
    layer.adapter = Some(LowRank::new(param(&a), param(&b), 64.0));
    let y = layer.forward::<3>(x.clone().reshape([samples, tokens / samples, inputs]));
    let y: Tensor<Training, 2> = y.reshape([tokens, outputs]);
    let gradients = (y.clone() * c.clone()).sum().backward();
    let gradient = |of: &Tensor<Training, 2>| numbers(of.grad(&gradients).expect("a gradient"));
    let [x_, w_, a_, b_, c_] = [&x, &w, &a, &b, &c].map(|tensor| numbers(tensor.clone().inner()));

    // y = x·W + 2·(x·A)·B
    let sum =
        |a: Vec<f64>, b: Vec<f64>| a.iter().zip(b).map(|(a, b)| a + 2.0 * b).collect::<Vec<f64>>();
    let low = product(&x_, &a_, rank);
    assert!(
        distance(
            &numbers(y.inner()),
            &sum(product(&x_, &w_, outputs), product(&low, &b_, outputs))
        ) < TOLERANCE
    );
    // ∂B = 2·(x·A)ᵀ·c,  ∂A = 2·xᵀ·(c·Bᵀ),  ∂x = c·Wᵀ + 2·(c·Bᵀ)·Aᵀ
    let twice = |x: Vec<f64>| x.into_iter().map(|x| 2.0 * x).collect::<Vec<f64>>();
    let of_low = product(&c_, &transpose(&b_, outputs), rank);
    assert!(
        distance(&gradient(&b), &twice(product(&transpose(&low, rank), &c_, outputs))) < TOLERANCE
    );
    assert!(
        distance(&gradient(&a), &twice(product(&transpose(&x_, inputs), &of_low, rank)))
            < TOLERANCE
    );
    let of_x = sum(
        product(&c_, &transpose(&w_, outputs), inputs),
        product(&of_low, &transpose(&a_, rank), inputs),
    );
    assert!(distance(&gradient(&x), &of_x) < TOLERANCE);
}

#[test]
fn a_prepared_adapter_is_kept_for_products_and_gets_the_same_gradients() {
    let matrix = |m: usize, n: usize, seed: usize| noise(m, [n, 1, 1], seed).reshape([m, n]);
    let param = |x: Tensor<Plain, 2>| Param::initialized(ParamId::new(), x);
    let x = matrix(5, 8, 1);
    let mut layer = Linear::new(param(matrix(8, 6, 2)), None);
    layer.adapter = Some(LowRank::new(param(matrix(8, 4, 3)), param(matrix(4, 6, 4)), 64.0));
    // Output, and gradients of `A` and `B`.
    let differentiated = |layer: &Linear<Plain>| {
        let mut layer: Linear<Training> = Linear::from_inner(layer.clone());
        layer.adapter = layer.adapter.map(|mut adapter| {
            adapter.a = adapter.a.set_require_grad(true);
            adapter.b = adapter.b.set_require_grad(true);
            adapter
        });
        let y = layer.forward(Tensor::from_inner(x.clone()));
        let gradients = (y.clone() * y.clone()).sum().backward();
        let adapter = layer.adapter.expect("an adapter");
        let of = |factor: Param<Tensor<Training, 2>>| {
            numbers(factor.val().grad(&gradients).expect("a gradient"))
        };
        [numbers(y.inner()), of(adapter.a), of(adapter.b)]
    };
    let (output, wanted) = (numbers(layer.forward(x.clone())), differentiated(&layer));
    assert_eq!(wanted[0], output);
    layer.prepare(FloatDType::F32);
    assert_eq!(numbers(layer.forward(x.clone())), output);
    assert_eq!(differentiated(&layer), wanted);

    // Another `A`: what is kept does not know of it until it is prepared again.
    layer.adapter.as_mut().expect("an adapter").a = param(matrix(8, 4, 5));
    assert_eq!(numbers(layer.forward(x.clone())), output);
    assert_eq!(differentiated(&layer), wanted);
    layer.prepare(FloatDType::F32);
    assert!(distance(&numbers(layer.forward(x.clone())), &output) > 0.1);
    assert!(distance(&differentiated(&layer)[2], &wanted[2]) > 0.1);
}

/// Layers of 8 inputs, joined and alone. Each has its own number of outputs, rank and `α`; those in
/// `adapted` have an adapter.
fn joined_and_alone(adapted: [bool; 3]) -> (Joined<Plain>, [Part<Plain>; 3], [Linear<Plain>; 3]) {
    let matrix = |m: usize, n: usize, seed: usize| noise(m, [n, 1, 1], seed).reshape([m, n]);
    let param = |x: Tensor<Plain, 2>| Param::initialized(ParamId::new(), x);
    let vector = |x: Tensor<Plain, 1>| Param::initialized(ParamId::new(), x);
    let columns = [0..6, 6..16, 16..20];
    let (weight, bias) = (matrix(8, 20, 1), matrix(1, 20, 2).reshape([20]));
    let adapter = |i: usize| {
        let (rank, outputs) = ([4, 3, 2][i], columns[i].len());
        let (a, b) = (matrix(8, rank, 10 + i), matrix(rank, outputs, 20 + i));
        adapted[i].then(|| LowRank::new(param(a), param(b), [8.0, 1.0, 5.0][i]))
    };
    let parts = std::array::from_fn(|i| {
        let mut part = Part::new(columns[i].clone(), ParamId::new());
        part.adapter = adapter(i);
        part
    });
    let alone = std::array::from_fn(|i| {
        let (from, outputs) = (columns[i].start, columns[i].len());
        let weight = param(weight.clone().narrow(1, from, outputs));
        let bias = vector(bias.clone().narrow(0, from, outputs));
        let mut layer = Linear::new(weight, Some(bias));
        layer.adapter = adapter(i);
        layer
    });
    (Joined::new(param(weight), Some(vector(bias))), parts, alone)
}

/// A module in which every parameter is a leaf of the graph.
fn in_graph<M: AutodiffModule<Training, InnerModule: Module<Plain>>>(module: M::InnerModule) -> M {
    Trained::all(&module).with_graph(module)
}

#[test]
fn joined_layers_and_their_gradients_are_those_of_each_layer_alone() {
    let x: Tensor<Plain, 3> = noise(2, [1, 5, 8], 3).squeeze_dim(1);
    let c: Tensor<Plain, 3> = noise(2, [1, 5, 20], 4).squeeze_dim(1);
    let near = |got: &[f64], want: &[f64], what: &str| {
        let far = distance(got, want);
        assert!(far < of_products(TOLERANCE), "{what}: {far:e}");
    };
    for subset in 0..8 {
        let (mut joined, parts, alone) =
            joined_and_alone(std::array::from_fn(|i| subset >> i & 1 == 1));
        let of_plain = alone.each_ref().map(|layer| layer.forward(x.clone()));
        let of_plain = numbers(Tensor::cat(of_plain.into(), 2));

        let alone = alone.map(in_graph::<Linear<Training>>);
        let leaf = Tensor::<Training, 3>::from_inner(x.clone()).require_grad();
        let outputs = alone.each_ref().map(|layer| layer.forward(leaf.clone()));
        let loss = Tensor::cat(outputs.into(), 2) * Tensor::from_inner(c.clone());
        let want = loss.sum().backward();
        let want_of_x = numbers(leaf.grad(&want).expect("a gradient"));

        for prepared in [false, true] {
            if prepared {
                joined.prepare(&parts.each_ref(), FloatDType::F32);
            }
            let what = format!("adapters {subset:03b}, prepared: {prepared}");
            let output = joined.forward(x.clone(), &parts.each_ref());
            near(&numbers(output), &of_plain, &what);

            let joined: Joined<Training> = in_graph(joined.clone());
            let parts = parts.clone().map(in_graph::<Part<Training>>);
            let leaf = Tensor::<Training, 3>::from_inner(x.clone()).require_grad();
            let output = joined.forward(leaf.clone(), &parts.each_ref());
            near(&numbers(output.clone().inner()), &of_plain, &what);
            let got = (output * Tensor::from_inner(c.clone())).sum().backward();
            near(&numbers(leaf.grad(&got).expect("a gradient")), &want_of_x, &what);
            let of_weight = joined.weight.val().grad(&got).expect("a gradient");
            let of_bias = joined.bias.as_ref().expect("a bias").val().grad(&got);
            let of_bias = of_bias.expect("a gradient");
            let mut from = 0;
            for (part, layer) in parts.iter().zip(&alone) {
                let [_, outputs] = layer.weight.dims();
                let gradient = |of: &Param<Tensor<Training, 2>>, all: &_| {
                    numbers(of.val().grad(all).expect("a gradient"))
                };
                let got_of_weight = numbers(of_weight.clone().narrow(1, from, outputs));
                near(&got_of_weight, &gradient(&layer.weight, &want), &what);
                let bias = layer.bias.as_ref().expect("a bias").val().grad(&want);
                let got_of_bias = numbers(of_bias.clone().narrow(0, from, outputs));
                near(&got_of_bias, &numbers(bias.expect("a gradient")), &what);
                from += outputs;
                let (Some(one), Some(other)) = (&part.adapter, &layer.adapter) else { continue };
                near(&gradient(&one.a, &got), &gradient(&other.a, &want), &what);
                near(&gradient(&one.b, &got), &gradient(&other.b, &want), &what);
            }
        }
    }
}

#[test]
fn what_joined_layers_keep_is_used_until_they_are_prepared_again() {
    let (mut joined, mut parts, _) = joined_and_alone([true; 3]);
    let x: Tensor<Plain, 2> = noise(5, [8, 1, 1], 3).reshape([5, 8]);
    let output = |joined: &Joined<Plain>, parts: &[Part<Plain>; 3]| {
        numbers(joined.forward(x.clone(), &parts.each_ref()))
    };
    joined.prepare(&parts.each_ref(), FloatDType::F32);
    let before = output(&joined, &parts);
    let adapter = parts[1].adapter.as_mut().expect("an adapter");
    adapter.a = adapter.a.clone().map(|a| a + 1.0);
    assert_eq!(output(&joined, &parts), before);
    joined.prepare(&parts.each_ref(), FloatDType::F32);
    assert!(distance(&output(&joined, &parts), &before) > 0.1);
}

#[test]
fn only_the_factors_that_are_tracked_get_gradients() {
    let (joined, parts, _) = joined_and_alone([true; 3]);
    let x: Tensor<Plain, 2> = noise(5, [8, 1, 1], 3).reshape([5, 8]);
    let gradients = |tracked: [bool; 6]| {
        let joined = Joined::<Training>::from_inner(joined.clone());
        let mut tracked = tracked.into_iter();
        let mut next = || tracked.next().expect("two factors of each part");
        let parts = parts.clone().map(|part| {
            let mut part = Part::<Training>::from_inner(part);
            part.adapter = part.adapter.map(|mut adapter| {
                adapter.a = adapter.a.set_require_grad(next());
                adapter.b = adapter.b.set_require_grad(next());
                adapter
            });
            part
        });
        let output = joined.forward(Tensor::from_inner(x.clone()), &parts.each_ref());
        let gradients = output.powi_scalar(2).sum().backward();
        parts.map(|part| {
            let LowRank { a, b, .. } = part.adapter.expect("an adapter");
            [a, b].map(|factor| factor.val().grad(&gradients).map(numbers))
        })
    };
    let all = gradients([true; 6]);
    for subset in 1..64 {
        let tracked: [bool; 6] = std::array::from_fn(|i| subset >> i & 1 == 1);
        let some = gradients(tracked);
        let pairs = some.iter().flatten().zip(all.iter().flatten()).zip(tracked);
        for ((some, all), tracked) in pairs {
            assert_eq!(some, if tracked { all } else { &None }, "tracked: {subset:b}");
        }
    }
}

/// f32 against f64: sums of 615 products at most, of numbers that are sums themselves.
const TOLERANCE: f64 = 1e-5;

/// Finds the paths of a network's linear layers by visiting its parameters.
struct Linears {
    path: Vec<String>,
    containers: Vec<String>,
    found: Vec<String>,
}

impl<B: Backend> ModuleVisitor<B> for Linears {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.to_owned());
        self.containers.push(container.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, _param: &Param<Tensor<B, D>>) {
        if self.containers.last().is_some_and(|container| container.ends_with("Linear"))
            && self.path.ends_with(&["weight".to_owned()])
        {
            self.found.push(self.path[..self.path.len() - 1].join("."));
        }
    }
}

#[test]
fn every_linear_layer_can_carry_an_adapter_under_the_path_of_its_weights() {
    let mut network = network(1);
    let mut visitor = Linears { path: Vec::new(), containers: Vec::new(), found: Vec::new() };
    network.visit(&mut visitor);
    let mut listed: Vec<String> = network.linears().into_iter().map(|(path, _)| path).collect();
    assert!(visitor.found.len() > 20, "{:?}", visitor.found);
    listed.sort();
    visitor.found.sort();
    assert_eq!(listed, visitor.found);
}

#[test]
fn only_adapters_are_trained_and_optimised() {
    let config = config();
    let lora = lora(4, &ATTENTION);
    let mut trainer = trainer(Some(&lora), config);
    let adapters = 2 * 4 * 4 * 16 * 2;
    (0..3).for_each(|_| drop(trainer.iterate().expect("an epoch")));
    let state = trainer.state().optimisation;
    for parameters in
        [&state.weights, &state.average, &state.optimizer.first, &state.optimizer.second]
    {
        assert_eq!(
            parameters.count(),
            adapters,
            "two blocks, four layers, two factors of rank 4 and width 16"
        );
    }
    assert!(state.optimizer.first.norm() > 0.0);
    let after = trainer.averaged_policy();
    let (names, before) = (parameters::names(&after), Parameters::of(&network(1)).to_data());
    for (id, values) in Parameters::of(&after).to_data() {
        match before.get(&id) {
            Some(base) => {
                assert_eq!(&values, base, "{} is not part of an adapter and has moved", names[&id]);
            }
            None => assert!(lora::is_of_adapter(&names[&id]), "{}", names[&id]),
        }
    }
    assert!(
        distance(&velocity(&after), &velocity(&network(1))) > 1e-5,
        "the adapter must have moved"
    );
}

#[test]
fn a_dense_reward_rises_with_adapters_as_it_does_with_all_weights() {
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    // An adapter of a random network has fewer ways to darken an image: it cannot move the biases.
    for (tuning, gain) in [(None, 0.1), (Some(lora(4, &["all-linear"])), 0.04)] {
        let mut trainer = trainer(tuning.as_ref(), config());
        let rewards: Vec<f64> =
            (0..24).map(|_| trainer.iterate().expect("an epoch").metrics.reward).collect();
        assert!(mean(&rewards[20..]) > mean(&rewards[..4]) + gain, "{tuning:?}: {rewards:?}");
    }
}

#[test]
fn kl_has_a_gradient_and_is_taken_to_the_weights_without_the_adapter() {
    for tuning in [None, Some(lora(4, &ATTENTION))] {
        let run = |kl_weight: f64| {
            let config = with_objective(config(), |objective| objective.kl_weight = kl_weight);
            let mut trainer = trainer(tuning.as_ref(), config);
            let kl =
                |metrics: grpo::EpochMetrics| metrics.number("kl_reference").expect("a KL penalty");
            let metrics: Vec<f64> =
                (0..6).map(|_| kl(trainer.iterate().expect("an epoch").metrics)).collect();
            (metrics, trainer.weights().clone())
        };
        // A KL penalty without a gradient would give the same weights at any `kl_weight`.
        let ((weak, free), (strong, held)) = (run(1e-9), run(100.0));
        assert!(
            weak[0].abs() < 1e-9 && weak[5] > 0.0,
            "the reference is where the policy starts: {weak:?}"
        );
        assert!(strong[5] < 0.9 * weak[5], "{tuning:?}: {weak:?} {strong:?}");
        assert_ne!(free.to_data(), held.to_data());
    }
}

#[test]
fn adapters_come_back_from_the_files_of_peft_and_diffusers() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut network = adapted_and_moved(&lora(3, &["to_q", "mlp_in"]));
    let adapter = Adapter::of(&mut network);
    assert_eq!(
        adapter.layers().collect::<Vec<_>>(),
        ["blocks.0.mlp_in", "blocks.0.to_q", "blocks.1.mlp_in", "blocks.1.to_q"]
    );
    let (peft, diffusers) = (
        directory.path().join("adapter"),
        directory.path().join("pytorch_lora_weights.safetensors"),
    );
    adapter.write_peft(&peft, "some-base").expect("written");
    adapter.write_diffusers(&diffusers).expect("written");
    assert_eq!(lora::base_of(&peft).expect("a base").as_deref(), Some("some-base"));
    assert_eq!(Adapter::read(&peft).expect("PEFT's"), adapter);
    let read = Adapter::read(&diffusers).expect("diffusers'");
    assert_eq!((read.alpha, read.rank()), (3.0, 3), "diffusers takes α for r");
    let again = read.attach(self::network(1), &Device::default()).expect("it fits");
    assert!(distance(&velocity(&again), &velocity(&network)) < 1e-6);
}

#[test]
fn an_adapter_that_does_not_fit_is_refused_with_every_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let refused = |config: &LoraConfig| {
        Adapter::new(config, &mut network(1), 1).expect_err("refused").to_string()
    };
    let text = refused(&lora(4, &["to_q", "attention"]));
    assert!(text.contains("`attention`") && text.contains("blocks.0.to_q"), "{text}");

    let path = directory.path().join("adapter");
    Adapter::of(&mut adapted(&lora(4, &["to_q", "text_in"])))
        .write_peft(&path, "base")
        .expect("written");
    let other = models::DitConfig { width: 32, depth: 1, ..crate::networks::config() };
    let other = other.init::<Plain>(5, 1, &Device::default());
    let text = Adapter::read(&path)
        .expect("an adapter")
        .attach(other, &Device::default())
        .expect_err("other sizes")
        .to_string();
    assert!(
        text.contains("blocks.1.to_q is not a linear layer")
            && text.contains("blocks.0.to_q goes from 32 to 32"),
        "{text}"
    );

    let config = path.join("adapter_config.json");
    let text = std::fs::read_to_string(&config).expect("a configuration");
    for (from, to, reason) in [
        ("\"use_dora\": false", "\"use_dora\": true", "use_dora is not supported"),
        ("\"LORA\"", "\"IA3\"", "peft_type is not LORA"),
        ("\"lora_alpha\": 8.0", "\"lora_alpha\": -1", "lora_alpha must be a positive number"),
        (
            "\"init_lora_weights\": true",
            "\"init_lora_weights\": \"pissa_niter_4\"",
            "init_lora_weights changes",
        ),
        ("\"r\": 4", "\"r\": 5", "have rank 4"),
        ("\"r\"", "r", "adapter_config.json"),
    ] {
        assert!(text.contains(from), "{text}");
        std::fs::write(&config, text.replace(from, to)).expect("written");
        let error = Adapter::read(&path).expect_err(reason).to_string();
        assert!(error.contains(reason), "{error}");
    }
    let error = Adapter::read(directory.path().join("nothing").as_path())
        .expect_err("nothing there")
        .to_string();
    assert!(error.contains("nothing"), "{error}");
}

/// A LoRA run of the toy task through the real program.
fn lora_run(out: &Path, more: &[&str]) {
    let tuning =
        r#"tuning={kind="lora", rank=8, alpha=16.0, init="kaiming", targets=["all-linear"]}"#;
    let settings =
        ["epochs=10", "checkpoint_every=4", "evaluate_every=5", "evaluation_samples=200", tuning];
    let mut command = std::process::Command::new(crate::cli::program());
    command.args(["train", "--preset", "toy-2d", "--out"]).arg(out);
    let output = command
        .args(settings.iter().chain(more).flat_map(|setting| ["--set", setting]))
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A finished run with an adapter, and files beside it.
struct LoraRun(tempfile::TempDir);

impl LoraRun {
    fn new() -> Self {
        let run = Self(tempfile::tempdir().expect("a directory"));
        lora_run(&run.path("run"), &[]);
        run
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("a file")
    }

    /// The image of a model, given as an option and its value.
    fn sample(&self, name: &str, model: [&str; 2]) -> Vec<u8> {
        let output = self.text(name);
        let shape = ["--prompt", "a point", "--count", "300", "--steps", "5", "--output", &output];
        succeeds(&[&["sample"], &shape[..], &model[..]].concat());
        self.read(name)
    }

    /// A reward of the evaluations of a run.
    fn reward(&self, name: &str, pick: fn(Vec<f64>) -> f64) -> f64 {
        let lines = crate::cli::metrics(&self.path(name));
        let evaluations = lines.iter().filter(|line| line["event"] == "eval");
        let reward = |line: &Value| line["rewards"]["toy_mode"].as_f64().expect("a reward");
        pick(evaluations.map(reward).collect())
    }
}

fn succeeds(args: &[&str]) {
    let output = crate::cli::run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_lora_run_leaves_an_adapter_that_samples_as_it_does_when_merged() {
    let run = LoraRun::new();
    assert!(!run.path("run/policy.safetensors").exists(), "only the adapter is kept");
    let size = |name: &str| std::fs::metadata(run.path(name)).expect("a file").len();
    assert!(
        size("run/adapter/adapter_model.safetensors")
            < 4 * size("run/adapter/adapter_config.json") + 40_000
    );
    let (adapter, merged) = (run.text("run/adapter"), run.text("merged.safetensors"));
    succeeds(&["merge", "--adapter", &adapter, "--output", &merged]);
    let applied = run.sample("applied.png", ["--adapter", &adapter]);
    assert!(run.sample("merged.png", ["--checkpoint", &merged]) == applied);
    assert!(run.sample("base.png", ["--checkpoint", "toy-2d-base"]) != applied);

    // As users of diffusers share adapters: only the diffusers file, in a directory.
    let (handed, output) = (run.text("handed"), run.text("handed.safetensors"));
    std::fs::create_dir(&handed).expect("made");
    let file = "pytorch_lora_weights.safetensors";
    std::fs::copy(run.path("run/adapter").join(file), run.path("handed").join(file))
        .expect("copied");
    let merge = ["merge", "--adapter", &handed, "--checkpoint", "toy-2d-base", "--output", &output];
    succeeds(&merge);
    assert!(run.sample("handed.png", ["--checkpoint", &output]) == applied);
    // A file that is read is not replaced.
    let before = run.read("merged.safetensors");
    let onto_itself =
        ["merge", "--adapter", &adapter, "--checkpoint", &merged, "--output", &merged];
    let refused = crate::cli::refused(&onto_itself);
    assert!(refused.contains("is also the input"), "{refused}");
    assert!(run.read("merged.safetensors") == before);
}

#[test]
fn a_run_starts_from_an_adapter_and_a_lora_run_resumes() {
    let run = LoraRun::new();
    // Warm start: the first evaluation of the second run is the last one of the first.
    let warm = format!("adapter={}", run.text("run/adapter"));
    lora_run(&run.path("warm"), &[&warm]);
    let end = run.reward("run", |values| values[values.len() - 1]);
    let start = run.reward("warm", |values| values[0]);
    assert!((end - start).abs() < 1e-6 && end > 0.12, "{end} {start}");

    // Resumed from the checkpoint before, the run writes the last checkpoint again, byte for byte.
    let last = "run/checkpoints/000010.safetensors";
    std::fs::rename(run.path(last), run.path("whole.safetensors")).expect("moved");
    succeeds(&["train", "--resume", &run.text("run")]);
    assert!(run.read(last) == run.read("whole.safetensors"));
    let refused = |more: &str| {
        let out = run.text("no");
        let args = ["train", "--preset", "toy-2d", "--out", &out, "--set", &warm, "--set", more];
        crate::cli::refused(&args)
    };
    assert!(refused("seed=1").contains("adapter is for tuning.kind"));
    let fewer = r#"tuning={kind="lora", rank=8, alpha=16.0, init="kaiming", targets=["output"]}"#;
    assert!(refused(fewer).contains("tuning.targets means output"));
}

#[test]
fn the_files_that_peft_and_diffusers_write_themselves_are_read() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/adapter");
    let peft = Adapter::read(&golden.join("peft")).expect("PEFT's");
    assert_eq!((peft.rank(), peft.alpha), (4, 8.0));
    let layers: Vec<&str> = peft.layers().collect();
    assert!(
        layers.contains(&"transformer_blocks.0.attn.to_out.0") && layers.len() >= 16,
        "{layers:?}"
    );
    // Written again, every factor has its old name and values.
    let directory = tempfile::tempdir().expect("a directory");
    peft.write_peft(directory.path(), "tiny-sd3").expect("written");
    let tensors = |path: &Path| {
        models::WeightsFile::read(path).and_then(|file| file.tensors()).expect("tensors")
    };
    let name = "adapter_model.safetensors";
    assert!(tensors(&directory.path().join(name)) == tensors(&golden.join("peft").join(name)));

    let file = golden.join("pytorch_lora_weights.safetensors");
    let diffusers = Adapter::read(&file).expect("diffusers'");
    assert_eq!((diffusers.rank(), diffusers.alpha), (4, 4.0), "without metadata α is r");
    assert_eq!(diffusers.layers().collect::<Vec<_>>(), layers);
    // With metadata, a known α is taken, and a variant that computes something else is refused.
    let with = |metadata: &str| {
        let path = directory.path().join("with-metadata.safetensors");
        let entry = ("lora_adapter_metadata", metadata.to_owned());
        models::weights::write_tensors(
            &tensors(&file),
            entry,
            models::weights::StoredAs::F32,
            &path,
        )
        .expect("written");
        Adapter::read(&path)
    };
    assert_eq!(
        with(r#"{"transformer.lora_alpha": 8, "transformer.use_dora": false}"#)
            .expect("plain")
            .alpha,
        8.0
    );
    for variant in
        [r#""transformer.use_rslora": true"#, r#""transformer.alpha_pattern": {"attn": 2}"#]
    {
        assert!(
            with(&format!("{{{variant}}}"))
                .expect_err(variant)
                .to_string()
                .contains("is not supported")
        );
    }
    assert!(with(r#"{"transformer.lora_alpha": -1}"#).is_err() && with("nonsense").is_err());
}

#[test]
fn a_fresh_gaussian_adapter_has_a_std_of_one_over_its_rank() {
    for rank in [4, 16] {
        let network = adapted(&lora(rank, &["all-linear"]));
        let names = parameters::names(&network);
        let mut a: Vec<f64> = Vec::new();
        for (id, data) in Trained::named(&network, lora::is_of_adapter).of(&network).to_data() {
            if names[&id].rsplit('.').next() == Some("a") {
                a.extend(data.iter::<f64>());
            } else {
                assert!(data.iter::<f64>().all(|value| value == 0.0), "{}", names[&id]);
            }
        }
        let std = (a.iter().map(|value| value * value).sum::<f64>() / a.len() as f64).sqrt();
        // The standard error of a std over n numbers is std/√(2n).
        let error = 5.0 / (2.0 * a.len() as f64).sqrt();
        assert!(
            (std * rank as f64 - 1.0).abs() < error,
            "rank {rank}: {std} over {} numbers",
            a.len()
        );
    }
}
