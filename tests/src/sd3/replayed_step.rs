//! The gradient of one replayed step compared with that of the reference code.

use std::collections::BTreeMap;

use burn::tensor::{DType, FloatDType, Tensor, TensorData, backend::Backend};
use flow::{
    FlowSde, GridKind, Guidance, GuidanceGradient, KlForm, NoiseLevel, Query, Reduction, Sampler,
    Trajectory, VelocityField,
};
use grpo::{
    TrainedSteps,
    algorithm::{Clipped, Example},
    objective::{KlController, ObjectiveConfig, StepWeight},
    trajectories::{KeptOn, Trajectories},
    update::{Batches, Checkpointing, Differentiate, Others, Replay, ReplayOutcome, WholeGraph},
};
use models::{
    Adaptable, Adapter, LoraConfig,
    lora::{self, LoraInit},
    sd3::Transformer,
    text::Embedding,
};
use training::{
    noise::{Key, Purpose},
    parameters::{Parameters, Trained, names},
    workers::Workers,
};

use crate::backend::{Device, Plain, Training, distance};

use super::{Arrays, GRADIENT_TOLERANCE, Model, golden};

/// One replayed step of the reference code, with its gradient.
#[derive(Clone)]
struct ReplayedStep {
    model: Model,
    arrays: Arrays,
    conditions: Vec<Embedding>,
    guidance: Guidance<Embedding>,
    base: Transformer<Plain>,
    policy: Transformer<Plain>,
    old_log_prob: Tensor<Plain, 1>,
}

impl ReplayedStep {
    fn read() -> Self {
        let (model, arrays) = (Model::read("sd3-tiny"), Arrays::read(&golden("sd3-gradients")));
        let conditions = model.encode(&model.prompts());
        let unconditional = model.encode(&[""]).remove(0);
        let scale = arrays.facts["guidance_scale"].as_f64().expect("a scale");
        let base = model.transformer();
        let adapter = Adapter::read(&golden("adapter/peft")).expect("an adapter");
        let policy = adapter.attach(base.clone(), &Device::default()).expect("it fits");
        let old_log_prob = arrays.tensor("old_log_prob");
        Self {
            model,
            arrays,
            conditions,
            guidance: Guidance { unconditional, scale },
            base,
            policy,
            old_log_prob,
        }
    }

    fn sampler(&self) -> Sampler {
        let grid = GridKind::Sd3DoubleShift { shift: 3.0 }
            .grid(self.arrays.number("steps"))
            .expect("a grid");
        Sampler::new(
            grid,
            FlowSde { noise_level: NoiseLevel::new(self.fact("noise_level")).expect("valid") },
        )
    }

    /// The log-probabilities of the golden's draw, with velocities from `answer`.
    fn log_prob(
        &self,
        answer: &dyn Fn(Query<Plain, Embedding>) -> Tensor<Plain, 4>,
    ) -> Tensor<Plain, 1> {
        let (step, transition) = self.sampler().step(self.arrays.number("step"));
        let latent = self.model.tensor("latents");
        let query = self.guidance.doubled(Query::at(step.from, latent.clone(), &self.conditions));
        let velocity = self.guidance.combined(answer(query), GuidanceGradient::Both);
        transition
            .gaussian(latent, velocity, step)
            .log_prob(self.arrays.tensor("x_next"), Reduction::Mean)
    }

    fn fact(&self, name: &str) -> f64 {
        self.arrays.facts[name].as_f64().unwrap_or_else(|| panic!("no {name}"))
    }

    /// The gradient of the loss with respect to the adapter.
    fn gradient(
        &self,
        differentiate: &dyn Differentiate<Training, Transformer<Training>>,
        kl_weight: f64,
        advantages: &[f32],
    ) -> ReplayOutcome<Plain> {
        self.gradient_through(GuidanceGradient::Both, differentiate, kl_weight, advantages)
    }

    /// The gradient of the loss through one or both halves of the guided velocity.
    fn gradient_through(
        &self,
        guidance_gradient: GuidanceGradient,
        differentiate: &dyn Differentiate<Training, Transformer<Training>>,
        kl_weight: f64,
        advantages: &[f32],
    ) -> ReplayOutcome<Plain> {
        let step = self.arrays.number("step");
        let sampler = self.sampler();
        assert!((sampler.grid().times()[step] - self.arrays.values("times").1[0]).abs() < 1e-6);
        let next = self.arrays.tensor::<4>("x_next");
        let mut trajectory = Trajectory { latents: vec![None; 11], log_probs: vec![None; 10] };
        trajectory.latents[step] = Some(self.model.tensor("latents"));
        trajectory.latents[step + 1] = Some(next.clone());
        trajectory.latents[10] = Some(next);
        trajectory.log_probs[step] = Some(self.old_log_prob.clone());
        let objective = ObjectiveConfig {
            clip_range_low: self.fact("clip_range"),
            clip_range_high: self.fact("clip_range"),
            step_weight: StepWeight::Equal,
            kl_weight,
            kl_controller: KlController::Fixed {},
            kl_form: KlForm::Reference,
            kl_ode_steps: 0,
            guidance_gradient,
        };
        let replay = Replay {
            sampler: &sampler,
            guidance: Some(&self.guidance),
            trajectories: &Trajectories::keep(trajectory, KeptOn::Host),
            conditions: &self.conditions,
            advantages,
            kl_weight,
            noise: Key::new(1, Purpose::Forward),
            trained: &Trained::named(&self.policy, lora::is_of_adapter),
            batches: Batches::Of(2),
            loss_scale: 1.0,
            workers: &Workers::new(1).expect("a thread"),
        };
        let examples = vec![Example { step, row: 0 }, Example { step, row: 1 }];
        let algorithm =
            Clipped::new(objective, Reduction::Mean, TrainedSteps::AllButLast {}, &sampler);
        let others = Others { reference: Some(self.base.clone()), old: None };
        replay
            .gradient(&algorithm, differentiate, &self.policy, &others, &[examples])
            .expect("not stopped")
    }

    fn advantages(&self) -> Vec<f32> {
        self.arrays.values("advantages").1.into_iter().map(|advantage| advantage as f32).collect()
    }

    /// A gradient under the names of PEFT.
    fn named(&self, gradient: &Parameters<Plain>) -> BTreeMap<String, Vec<f64>> {
        let directory = tempfile::tempdir().expect("a directory");
        Adapter::of(&mut gradient.put_into(self.policy.clone()))
            .write_peft(directory.path(), "")
            .expect("written");
        let file = models::WeightsFile::read(&directory.path().join("adapter_model.safetensors"))
            .expect("written");
        let tensors = file.tensors().expect("numbers").into_iter();
        tensors.map(|(name, data)| (name, data.iter::<f64>().collect())).collect()
    }

    fn assert_gradient(&self, gradient: &Parameters<Plain>, prefix: &str, scale: f64) {
        let gradient = self.named(gradient);
        assert_eq!(gradient.len(), 46);
        let largest =
            gradient.values().flatten().fold(0.0_f64, |largest, value| largest.max(value.abs()));
        for (name, got) in gradient {
            let want: Vec<f64> = self
                .arrays
                .values(&format!("{prefix}.{name}"))
                .1
                .into_iter()
                .map(|value| value * scale)
                .collect();
            let worst =
                got.iter().zip(&want).map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
            assert!(
                worst <= GRADIENT_TOLERANCE * largest,
                "{prefix}.{name}: off by {worst:e} of {largest:e}"
            );
        }
    }
}

#[test]
fn a_replayed_step_has_the_gradient_of_the_reference_code_before_and_after_it_detached() {
    let step = ReplayedStep::read();
    for differentiate in [&WholeGraph as &dyn Differentiate<_, _>, &Checkpointing] {
        let outcome = step.gradient(differentiate, step.fact("beta"), &step.advantages());
        assert!((outcome.loss - step.fact("loss")).abs() < 1e-5, "{}", outcome.loss);
        let [ratio, _, kl, _] = &outcome.terms[0].columns[..] else { panic!("four columns") };
        assert!(distance(ratio, &step.arrays.values("ratio").1) < 1e-5);
        assert!(distance(kl, &step.arrays.values("kl").1) < 1e-3);
        step.assert_gradient(&outcome.gradient, "grad", 1.0);
        // The KL penalty alone, of which the loss has a thousandth.
        let outcome = step.gradient(differentiate, 1.0, &[0.0, 0.0]);
        step.assert_gradient(&outcome.gradient, "grad_kl", 1.0);
    }
}

/// Gradients through the conditional velocity alone: the network is asked twice, and only the
/// second answer has a graph.
struct ConditionalAlone;

impl Differentiate<Training, Transformer<Training>> for ConditionalAlone {
    fn gradient(
        &self,
        network: Transformer<Plain>,
        trained: &Trained,
        query: Query<Plain, Embedding>,
        loss: &mut dyn FnMut(Tensor<Training, 4>) -> Tensor<Training, 1>,
    ) -> Parameters<Plain> {
        let rows = query.conditions.len() / 2;
        let half = |from: usize| Query {
            latent: query.latent.clone().narrow(0, from, rows),
            time: query.time.clone().narrow(0, from, rows),
            conditions: query.conditions[from..from + rows].to_vec(),
        };
        let without = Tensor::from_inner(half(0).ask(&network));
        let network: Transformer<Training> = trained.with_graph(network);
        let Query { latent, time, conditions } = half(rows);
        let with =
            network.velocity(Tensor::from_inner(latent), Tensor::from_inner(time), &conditions);
        let gradients = loss(Tensor::cat(vec![without, with], 0)).backward();
        trained.gradients(&network, gradients)
    }

    fn velocity(
        &self,
        network: &Transformer<Plain>,
        query: Query<Plain, Embedding>,
    ) -> Tensor<Plain, 4> {
        query.ask(network)
    }
}

#[test]
fn without_the_unconditional_half_the_gradient_is_that_of_the_conditional_one() {
    let step = ReplayedStep::read();
    let (beta, advantages) = (step.fact("beta"), step.advantages());
    let flat = |outcome: ReplayOutcome<Plain>| {
        step.named(&outcome.gradient).into_values().flatten().collect::<Vec<f64>>()
    };
    let alone = flat(step.gradient(&ConditionalAlone, beta, &advantages));
    for differentiate in [&WholeGraph as &dyn Differentiate<_, _>, &Checkpointing] {
        let detached = flat(step.gradient_through(
            GuidanceGradient::Conditional,
            differentiate,
            beta,
            &advantages,
        ));
        assert!(distance(&detached, &alone) < 1e-5, "{:e}", distance(&detached, &alone));
        // Through both halves the loss is the same, but its gradient is not.
        let both = flat(step.gradient(differentiate, beta, &advantages));
        assert!(distance(&both, &alone) > 0.05, "{:e}", distance(&both, &alone));
    }
}

#[test]
fn what_is_sampled_as_it_is_replayed_has_a_ratio_of_exactly_one() {
    let device = Device::default();
    let precisions = [
        (FloatDType::F32, DType::F32),
        (FloatDType::BF16, DType::BF16),
        (FloatDType::F16, DType::F16),
    ];
    for (precision, _) in precisions
        .into_iter()
        .filter(|(_, dtype)| <Plain as Backend>::supports_dtype(&device, *dtype))
    {
        let mut step = ReplayedStep::read();
        let base =
            step.model.open().transformer::<Plain>(precision, &device).expect("a transformer");
        step.policy = Adapter::read(&golden("adapter/peft"))
            .expect("an adapter")
            .attach(base.clone(), &device)
            .expect("it fits");
        step.base = base;
        for (name, differentiate) in [
            ("in one piece", &WholeGraph as &dyn Differentiate<_, _>),
            ("part by part", &Checkpointing),
        ] {
            let ratios = |sampled: &dyn Fn(Query<Plain, Embedding>) -> Tensor<Plain, 4>| {
                let step = ReplayedStep { old_log_prob: step.log_prob(sampled), ..step.clone() };
                let log_ratios = step
                    .gradient(differentiate, 0.0, &[1.0, -1.0])
                    .terms
                    .remove(0)
                    .columns
                    .remove(1);
                log_ratios.into_iter().map(f64::abs).fold(0.0, f64::max)
            };
            let same = ratios(&|query| differentiate.velocity(&step.policy, query));
            let other = ratios(&|query| query.ask(&step.policy));
            println!("{precision:?}, {name}: {same:e} as it is replayed, {other:e} as it comes");
            assert_eq!(same, 0.0, "{precision:?}, {name}");
        }
    }
}

#[test]
fn a_gradient_found_part_by_part_is_the_same_in_every_layer() {
    let mut step = ReplayedStep::read();
    // A fresh adapter on every linear layer, also before and after the blocks.
    let mut policy = lora::merged(step.policy);
    let targets: Vec<String> = policy.linears().into_iter().map(|(path, _)| path).collect();
    let everywhere = LoraConfig { rank: 2, alpha: 4.0, init: LoraInit::Gaussian, targets };
    let adapter = Adapter::new(&everywhere, &mut policy, 1).expect("an adapter");
    step.policy = adapter.attach(policy, &Device::default()).expect("it fits");
    let [whole, parts] =
        [&WholeGraph as &dyn Differentiate<_, _>, &Checkpointing].map(|differentiate| {
            step.named(
                &step.gradient(differentiate, step.fact("beta"), &step.advantages()).gradient,
            )
        });
    let largest = whole.values().flatten().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    assert_eq!(whole.len(), 2 * everywhere.targets.len());
    for (name, whole) in whole {
        // While B is zero, A has no gradient; the text's queries in the last block are not used.
        let moves = name.contains("lora_B") && !name.contains("blocks.2.attn.add_q_proj");
        assert_eq!(whole.iter().any(|value| *value != 0.0), moves, "{name}");
        let worst = whole.iter().zip(&parts[&name]).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= 1e-5 * largest, "{name}: off by {worst:e} of {largest:e}");
    }
}

#[test]
fn every_weight_has_the_same_gradient_part_by_part() {
    let step = ReplayedStep::read();
    let latent = step.model.tensor::<4>("latents");
    let ways: [&dyn Differentiate<Training, Transformer<Training>>; 2] =
        [&WholeGraph, &Checkpointing];
    let [whole, parts] = ways.map(|way| {
        let query = Query::at(0.7, latent.clone(), &step.conditions);
        let mut loss = |velocity: Tensor<Training, 4>| velocity.powi_scalar(2).sum();
        way.gradient(step.base.clone(), &Trained::all(&step.base), query, &mut loss).to_data()
    });
    let names = names(&step.base);
    let values = |data: &TensorData| data.iter::<f64>().collect::<Vec<f64>>();
    let largest = whole.values().flat_map(values).fold(0.0, |most: f64, x| most.max(x.abs()));
    let mut unused = Vec::new();
    for (id, whole) in &whole {
        let (whole, parts) = (values(whole), values(&parts[id]));
        let worst = whole.iter().zip(&parts).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(worst <= 1e-5 * largest, "{}: off by {worst:e} of {largest:e}", names[id]);
        if whole.iter().all(|value| *value == 0.0) {
            unused.push(names[id].as_str());
        }
        if names[id] == "blocks.2.text.joined.weight" {
            // The text's queries in the last block are not used: the first third of every row.
            let third = whole.len() / step.base.config().width() / 3;
            let moves = |value: &f64| *value != 0.0;
            assert!(whole.chunks(3 * third).all(|row| !row[..third].iter().any(moves)));
            assert!(whole.chunks(3 * third).any(|row| row[third..].iter().any(moves)));
        }
    }
    assert!(unused.iter().all(|name| name.starts_with("blocks.2.text.query")), "{unused:?}");
}

#[test]
fn an_adapter_beside_sixteen_bits_has_a_gradient_in_all_of_its_bits() {
    let device = Device::default();
    if !<Plain as Backend>::supports_dtype(&device, DType::BF16) {
        return;
    }
    let mut step = ReplayedStep::read();
    let gradients = [FloatDType::F32, FloatDType::BF16].map(|precision| {
        let base =
            step.model.open().transformer::<Plain>(precision, &device).expect("a transformer");
        let adapter = Adapter::read(&golden("adapter/peft")).expect("an adapter");
        step.policy = adapter.attach(base.clone(), &device).expect("it fits");
        step.base = base;
        let [whole, parts] =
            [&WholeGraph as &dyn Differentiate<_, _>, &Checkpointing].map(|differentiate| {
                let outcome = step.gradient(differentiate, 1.0, &[0.0, 0.0]);
                outcome.gradient.to_data().into_values().collect::<Vec<TensorData>>()
            });
        assert!(whole.iter().chain(&parts).all(|data| data.dtype == DType::F32));
        [whole, parts].map(|gradient| {
            gradient.iter().flat_map(|data| data.iter::<f64>()).collect::<Vec<f64>>()
        })
    });
    let [[exact, _], [whole, parts]] = &gradients;
    println!("{:e} {:e}", distance(whole, exact), distance(parts, whole));
    assert!(distance(whole, exact) < 0.1 && distance(parts, whole) < 0.05);
}
