//! Whole updates of `DiffusionNFT` on a field in closed form, against PyTorch: the queries to the
//! network, the losses of the answers, the outcome and the gradient.

use burn::{
    module::{Module, Param},
    prelude::*,
};
use flow::{GridKind, Guidance, Query, Sampler, Trajectory, VelocityField};
use grpo::{
    TrainedSteps,
    algorithm::{
        Algorithm, Batch, Example, Loss, Nft, Other, Question,
        nft::{NftConfig, OldPolicy},
    },
    trajectories::{KeptOn, Trajectories},
    update::{Batches, Others, Replay, WholeGraph},
};
use serde_json::Value;
use training::{
    noise::{Key, Purpose, normal},
    parameters::{Trained, names},
    workers::Workers,
};

use crate::{
    backend::{Device, Plain, Training, distance, numbers},
    golden::Golden,
};

/// `v(x, t, c) = gain·x·(1 + c) + slope·t + offset·c`, with one number per channel.
#[derive(Module, Debug)]
struct Field<B: Backend> {
    gain: Param<Tensor<B, 4>>,
    offset: Param<Tensor<B, 4>>,
    slope: Param<Tensor<B, 4>>,
}

impl Field<Plain> {
    fn read(golden: &Golden, name: &str) -> Self {
        let part = |part: &str| Param::from_tensor(golden.tensor(&format!("{name}.{part}")));
        Self { gain: part("gain"), offset: part("offset"), slope: part("slope") }
    }
}

impl<B: Backend> VelocityField<B> for Field<B> {
    type Condition = f32;

    fn velocity(
        &self,
        latent: Tensor<B, 4>,
        time: Tensor<B, 1>,
        conditions: &[f32],
    ) -> Tensor<B, 4> {
        let condition =
            Tensor::<B, 1>::from_floats(conditions, &latent.device()).reshape([-1, 1, 1, 1]);
        latent * (condition.clone() + 1.0) * self.gain.val()
            + time.reshape([-1, 1, 1, 1]) * self.slope.val()
            + condition * self.offset.val()
    }
}

const STEPS: usize = 5;
const ROWS: usize = 6;
const SHAPE: [usize; 3] = [2, 2, 3];
const CONDITIONS: [f32; ROWS] = [0.5, -0.25, 1.0, 0.75, -0.5, 0.125];
const ADVANTAGES: [f32; ROWS] = [-7.5, -1.0, 0.0, 0.5, 2.0, 6.25];
const TOLERANCE: f64 = 1e-5;

fn key() -> Key {
    Key::new(7, Purpose::Forward).epoch(2)
}

/// The noise of every step and row, as the golden has it.
fn noise() -> Vec<f64> {
    let keys: Vec<Key> = (0..STEPS)
        .flat_map(|step| (0..ROWS).map(move |row| key().row(row, 0).step(step)))
        .collect();
    numbers(normal::<Plain>(&keys, SHAPE, &Device::default()))
}

/// A case of the golden, as the program has it.
struct Case<'a> {
    golden: &'a Golden,
    facts: &'a Value,
    sampler: Sampler,
    trajectories: Trajectories<Plain>,
    guidance: Option<Guidance<f32>>,
    policy: Field<Plain>,
    others: Others<Field<Plain>>,
    trained: Trained,
    workers: Workers,
}

impl<'a> Case<'a> {
    fn new(golden: &'a Golden, facts: &'a Value) -> Self {
        let grid = GridKind::Shifted { shift: 3.0 }.grid(STEPS).expect("a grid");
        let mut latents = vec![None; STEPS];
        latents.push(Some(golden.tensor("data")));
        let trajectory = Trajectory { latents, log_probs: vec![None; STEPS] };
        let policy = Field::read(golden, "policy");
        Self {
            sampler: Sampler::ode(grid),
            trajectories: Trajectories::keep(trajectory, KeptOn::Device),
            guidance: facts["guidance"]
                .as_f64()
                .map(|scale| Guidance { unconditional: 0.0, scale }),
            trained: Trained::all(&policy),
            policy,
            others: Others {
                reference: (facts["kl_weight"] != 0.0).then(|| Field::read(golden, "reference")),
                old: Some(Field::read(golden, "old")),
            },
            workers: Workers::new(2).expect("threads"),
            golden,
            facts,
        }
    }

    fn fact(&self, name: &str) -> f64 {
        self.facts[name].as_f64().expect("a number")
    }

    fn algorithm(&self) -> Nft {
        let config = NftConfig {
            beta: self.fact("beta"),
            advantage_clip: self.fact("advantage_clip"),
            smallest_weight: self.fact("smallest_weight"),
            kl_weight: self.fact("kl_weight"),
            old_policy: OldPolicy { flat: 0, rate: 0.0, most: 0.0 },
        };
        Nft::new(config, TrainedSteps::AllButLast {}, &self.sampler)
    }

    fn replay(&self) -> Replay<'_, Plain, f32> {
        Replay {
            sampler: &self.sampler,
            guidance: self.guidance.as_ref(),
            trajectories: &self.trajectories,
            conditions: &CONDITIONS,
            advantages: &ADVANTAGES,
            kl_weight: self.fact("kl_weight"),
            noise: key(),
            trained: &self.trained,
            batches: if self.guidance.is_some() { Batches::AsSampled(4) } else { Batches::Of(2) },
            loss_scale: 1.0,
            workers: &self.workers,
        }
    }

    /// The batches of the update, in the order of the golden.
    fn batches(&self) -> Vec<Batch> {
        let list = |value: &Value| -> Vec<usize> {
            let numbers = value.as_array().expect("a list").iter();
            numbers.map(|number| number.as_u64().expect("an index") as usize).collect()
        };
        let batches =
            self.facts["batches"].as_array().expect("batches").iter().map(|batch| Batch {
                term: 0,
                share: 0.0,
                step: batch["step"].as_u64().expect("a step") as usize,
                rows: list(&batch["rows"]),
                trained: list(&batch["trained"]),
            });
        let batches: Vec<Batch> = batches.collect();
        let share = 1.0 / batches.iter().map(|batch| batch.trained.len()).sum::<usize>() as f64;
        batches.into_iter().map(|batch| Batch { share, ..batch }).collect()
    }

    /// The answer of another network, as the replay gives it.
    fn ask(&self, other: Other, query: Query<Plain, f32>) -> Option<Tensor<Plain, 4>> {
        let network = match other {
            Other::Old => &self.others.old,
            Other::Reference => &self.others.reference,
        };
        network.as_ref().map(|network| query.ask(network))
    }

    /// Asserts that numbers are those of the golden's array `KEY.NAME`.
    fn assert(&self, name: &str, got: &[f64]) {
        let name = format!("{}.{name}", self.facts["key"].as_str().expect("a key"));
        let far = distance(got, &self.golden.wide(&name));
        assert!(far < TOLERANCE, "{name}: off by {far:e}");
    }
}

#[test]
fn the_noise_of_the_golden_is_that_of_its_keys() {
    let text = include_str!("../golden/nft/noise.json");
    let json: Value = serde_json::from_str(text).expect("JSON");
    let stored = json["noise"].as_array().expect("a list").iter();
    // The shortest decimals that give back the f32.
    let stored: Vec<f64> =
        stored.map(|x| f64::from(x.as_f64().expect("a number") as f32)).collect();
    assert_eq!(stored, noise());
}

#[test]
fn every_query_and_every_loss_is_that_of_the_formulas() {
    let golden = Golden::named("nft/question");
    for facts in &golden.cases {
        let case = Case::new(&golden, facts);
        let (nft, replay) = (case.algorithm(), case.replay());
        let algorithm: &dyn Algorithm<Training, f32> = &nft;
        for (index, batch) in case.batches().iter().enumerate() {
            let Question { query, mut loss } =
                algorithm.question(&replay, batch, &|other, query| case.ask(other, query));
            let of_batch = |name: &str| format!("{index}.{name}");
            case.assert(&of_batch("latent"), &numbers(query.latent.clone()));
            case.assert(&of_batch("time"), &numbers(query.time.clone()));
            let conditions: Vec<f64> = query.conditions.iter().copied().map(f64::from).collect();
            case.assert(&of_batch("conditions"), &conditions);
            let policy: Field<Training> = case.trained.with_graph(case.policy.clone());
            let Loss { value, numbers: of_examples } =
                loss(query.onto_autodiff::<Training>().ask(&policy));
            case.assert(&of_batch("value"), &numbers(value.inner()));
            case.assert(&of_batch("numbers"), &numbers(of_examples));
        }
    }
}

#[test]
fn every_outcome_and_every_gradient_is_that_of_the_formulas() {
    let golden = Golden::named("nft/question");
    for facts in &golden.cases {
        let case = Case::new(&golden, facts);
        // In the order of the update, so that the replay has to sort them.
        let mut examples: Vec<Example> = case.batches().iter().flat_map(Batch::examples).collect();
        let sorted = examples.clone();
        examples.reverse();
        let outcome = case
            .replay()
            .gradient::<Training, Field<Training>>(
                &case.algorithm(),
                &WholeGraph,
                &case.policy,
                &case.others,
                &[examples],
            )
            .expect("not stopped");
        let [term] = &outcome.terms[..] else { panic!("one term") };
        assert_eq!(term.examples, sorted);
        let [policy_loss, kl] = &term.columns[..] else { panic!("two columns") };
        case.assert("policy_loss", policy_loss);
        case.assert("kl", kl);
        case.assert("loss", &[term.loss]);
        assert_eq!(outcome.loss, term.loss);
        for (id, name) in names(&case.policy) {
            case.assert(&format!("grad_{name}"), &numbers(outcome.gradient.get(id)));
        }
    }
}
