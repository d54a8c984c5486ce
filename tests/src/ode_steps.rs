//! Steps that draw no noise: they have no policy gradient, but a KL penalty can hold them to the
//! reference model.

use burn::tensor::Tensor;
use flow::{Query, Reduction, Sampler, VelocityField, row_mean};
use grpo::{
    GrpoConfig,
    algorithm::{Clipped, Example},
    evaluate::{EncodedPrompt, Row},
    rollout::{Rollout, RolloutKeys},
    trajectories::{KeptOn, Trajectories},
    update::{Batches, Differentiate, Others, Replay, WholeGraph},
};
use models::{Dit, TokenIds};
use tasks::prompts::Prompt;
use training::{
    noise::{Key, Purpose},
    parameters::{Parameters, Trained},
    workers::Workers,
};

use crate::{
    backend::{Device, Plain, Training, distance, numbers},
    closed_forms::noise,
    networks::{conditions, network},
    training::{config, objective, trainer, with_objective},
};

const ROWS: usize = 5;
/// Of four steps the last two draw no noise.
const RANDOM: usize = 2;

fn holding(kl_ode_steps: usize, kl_weight: f64) -> GrpoConfig {
    let mut config = config();
    config.rollout.random_steps = RANDOM;
    with_objective(config, |objective| {
        (objective.kl_ode_steps, objective.kl_weight) = (kl_ode_steps, kl_weight);
    })
}

fn sampled(sampler: &Sampler, policy: &Dit<Plain>, workers: &Workers) -> Trajectories<Plain> {
    let rows: Vec<Row> = (0..ROWS).map(|row| Row { prompt: row % 4, sample: row / 4 }).collect();
    let prompts = conditions(4)
        .into_iter()
        .map(|condition| EncodedPrompt { prompt: Prompt::plain("a"), condition });
    let prompts: Vec<EncodedPrompt<TokenIds>> = prompts.collect();
    let rollout = Rollout {
        sampler,
        reduction: Reduction::Mean,
        guidance: None,
        shape: [3, 16, 16],
        batch: 2,
        kept_on: KeptOn::Device,
        workers,
    };
    rollout
        .sample(policy, &prompts, &rows, RolloutKeys::new(5, 0), &Device::default())
        .expect("not stopped")
}

fn flat(parameters: &Parameters<Plain>) -> Vec<f64> {
    parameters.to_data().values().flat_map(|data| data.iter::<f64>().collect::<Vec<_>>()).collect()
}

/// The share of the loss that one example has.
const SHARE: f64 = 0.125;

/// The gradient of the held loss and the KL of every row, by hand: `c²/(2σ²)·mean((v − v_ref)²)`,
/// with c the coefficient of the velocity in the SDE's mean.
fn held_by_hand(
    step: usize,
    latents: Tensor<Plain, 4>,
    conditions: &[TokenIds],
    policy: &Dit<Plain>,
    reference: &Dit<Plain>,
) -> (Parameters<Plain>, Vec<f64>) {
    let (t, dt, a) = (1.0 - step as f64 / 4.0, 0.25, 0.7_f64);
    let sigma = a * (t / (1.0 - t)).sqrt();
    let c = (1.0 + sigma * sigma * (1.0 - t) / (2.0 * t)) * dt;
    let factor = c * c / (2.0 * sigma * sigma);
    let query = Query::at(t, latents, conditions);
    let wanted = query.clone().ask(reference);
    let mut kl = Vec::new();
    let mut loss = |velocity: Tensor<Training, 4>| {
        let each =
            row_mean((velocity - Tensor::from_inner(wanted.clone())).powi_scalar(2)) * factor;
        kl = numbers(each.clone().inner());
        each.sum() * (SHARE * 0.3)
    };
    let gradient = Differentiate::<Training, Dit<Training>>::gradient(
        &WholeGraph,
        policy.clone(),
        &Trained::all(policy),
        query,
        &mut loss,
    );
    (gradient, kl)
}

#[test]
fn an_ode_step_is_held_by_the_kl_that_it_would_have_with_noise() {
    let config = holding(1, 0.3);
    let (sampler, workers) = (config.sampler().expect("valid"), Workers::new(2).expect("threads"));
    let (policy, reference) = (network(1), network(2));
    let trajectories = sampled(&sampler, &policy, &workers);
    let conditions: Vec<TokenIds> = (0..ROWS).map(|row| conditions(4)[row % 4].clone()).collect();
    let parameters = Trained::all(&policy);
    let algorithm =
        Clipped::new(objective(&config), Reduction::Mean, config.trained_steps, &sampler);
    let others = Others { reference: Some(reference.clone()), old: None };
    let rows: Vec<usize> = (0..ROWS).collect();
    for step in RANDOM..4 {
        // The first term's examples say what share of the loss one is; its own gradient is taken
        // away again.
        let held: Vec<Example> = (0..ROWS).map(|row| Example { step, row }).collect();
        let trained: Vec<Example> =
            (0..2).flat_map(|step| (0..4).map(move |row| Example { step, row })).collect();
        let replay = Replay {
            sampler: &sampler,
            guidance: None,
            trajectories: &trajectories,
            conditions: &conditions,
            advantages: &[1.0; ROWS],
            kl_weight: 0.3,
            noise: Key::new(1, Purpose::Forward),
            trained: &parameters,
            batches: Batches::Of(2),
            loss_scale: 1.0,
            workers: &workers,
        };
        let outcome = |update: &[Vec<Example>]| {
            let field = &policy;
            let outcome = replay.gradient::<Training, Dit<Training>>(
                &algorithm,
                &WholeGraph,
                field,
                &others,
                update,
            );
            outcome.expect("not stopped")
        };
        let (both, first) = (outcome(&[trained.clone(), held]), outcome(&[trained, Vec::new()]));
        let got = flat(&both.gradient).into_iter().zip(flat(&first.gradient));
        let got: Vec<f64> = got.map(|(both, first)| both - first).collect();

        let (gradient, kl) =
            held_by_hand(step, trajectories.latents(step, &rows), &conditions, &policy, &reference);
        let far = distance(&got, &flat(&gradient));
        assert!(far < 2e-5, "step {step}: gradients differ by {far:e}");
        let held_kl = &both.terms[1].columns[0];
        assert!(distance(held_kl, &kl) < 1e-5, "step {step}: {held_kl:?} {kl:?}");
        let wanted = SHARE * 0.3 * kl.iter().sum::<f64>();
        assert!(
            (both.loss - first.loss - wanted).abs() < 1e-6,
            "step {step}: {} {} {wanted}",
            both.loss,
            first.loss
        );
    }
}

#[test]
fn the_kl_of_ode_steps_is_logged_where_it_is_taken() {
    let kl = |kl_ode_steps| {
        trainer(holding(kl_ode_steps, 0.5), 1)
            .iterate()
            .expect("an epoch")
            .metrics
            .number("kl_ode_steps")
    };
    assert_eq!(kl(0), None);
    assert!(
        kl(1).is_some_and(|kl| kl.abs() < 1e-9),
        "the policy starts as the reference: {:?}",
        kl(1)
    );
}

/// Distance of the velocity at the last step from the base model's, after some epochs.
fn drift(config: GrpoConfig) -> f64 {
    let mut trainer = trainer(config, 1);
    for _ in 0..8 {
        trainer.iterate().expect("an epoch");
    }
    let velocity = |network: &Dit<Plain>| {
        let time = Tensor::full([4], 0.25, &Device::default());
        numbers(network.velocity(noise(4, [3, 16, 16], 9) * 0.5, time, &conditions(4)))
    };
    distance(&velocity(&trainer.averaged_policy()), &velocity(&network(1)))
}

#[test]
fn what_is_held_at_ode_steps_drifts_less() {
    let (free, held) = (drift(holding(0, 0.5)), drift(holding(2, 0.5)));
    println!("{free:.4} free, {held:.4} held");
    assert!(held < 0.7 * free, "{held} held, {free} free");
}

#[test]
fn more_ode_steps_than_there_are_and_a_weight_of_zero_are_refused() {
    let problems = |ode_steps, kl_weight| holding(ode_steps, kl_weight).problems().join("; ");
    assert_eq!(problems(2, 0.5), "");
    assert!(
        problems(3, 0.5).contains("objective.kl_ode_steps (3) must be at most 2"),
        "{}",
        problems(3, 0.5)
    );
    assert!(
        problems(1, 0.0).contains("needs an objective.kl_weight above 0"),
        "{}",
        problems(1, 0.0)
    );
}
