//! Runs with different settings that must give the same result.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Tensor;
use flow::{FlowSde, GridKind, Sampler, VelocityField};
use grpo::{
    EncodedPrompt, GrpoConfig, RolloutConfig, TrainedSteps,
    evaluate::{Generator, Row, Start},
    images::{Decode, Decoder},
    trajectories::KeptOn,
};
use models::TokenIds;
use tasks::{image::Image, prompts::Prompt, reward::Darkness};
use training::{
    noise::{Key, Purpose, normal},
    parameters::{Parameters, Trained},
    workers::Workers,
};

use crate::{
    backend::{Device, Plain, distance, numbers},
    networks::{conditions, network},
    training::{TestTrainer, config, trainer, trainer_for},
};

/// Metrics without wall-clock times, as text, and all weights.
fn record(trainer: &mut TestTrainer, epochs: usize) -> (Vec<String>, Vec<f64>) {
    let metrics = (0..epochs).map(|_| {
        let mut metrics = trainer.iterate().expect("an epoch").metrics;
        metrics.time = grpo::EpochTimes::default();
        serde_json::to_string(&metrics).expect("JSON")
    });
    let metrics = metrics.collect();
    (metrics, weights(trainer))
}

fn weights(trainer: &TestTrainer) -> Vec<f64> {
    trainer
        .weights()
        .to_data()
        .values()
        .flat_map(|data| data.iter::<f64>().collect::<Vec<_>>())
        .collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_number_of_threads() {
    let run =
        |workers: usize| record(&mut trainer_for(config(), 9, workers, Box::new(Darkness)), 3);
    let one = run(1);
    assert_eq!(one, run(1));
    assert_eq!(one, run(3));
    assert_ne!(
        one.1,
        record(&mut trainer(config(), 10), 3).1,
        "another seed must give another run"
    );
}

#[test]
fn resuming_equals_never_stopping() {
    let config = GrpoConfig {
        updates_per_epoch: 2,
        trained_steps: TrainedSteps::Random { count: 2 },
        ..config()
    };
    let mut whole = trainer(config.clone(), 4);
    record(&mut whole, 2);
    let state = whole.state();
    let rest = record(&mut whole, 2);
    let mut resumed = trainer(config, 4);
    resumed.restore(state);
    assert_eq!(record(&mut resumed, 2), rest);
}

#[test]
fn trajectories_on_the_host_give_the_same_bytes() {
    let run = |trajectories: KeptOn, random_steps: usize| {
        let small = config();
        let rollout = RolloutConfig { trajectories, random_steps, ..small.rollout };
        record(
            &mut trainer(
                GrpoConfig { updates_per_epoch: 2, rollout_batch: 5, rollout, ..small },
                11,
            ),
            2,
        )
    };
    // With 4 random steps all latents are kept, with 2 some are not.
    for random_steps in [2, 4] {
        assert_eq!(run(KeptOn::Host, random_steps), run(KeptOn::Device, random_steps));
    }
}

#[test]
fn microbatches_of_one_and_of_eight_give_the_same_update() {
    let run = |micro_batch: usize, rollout_batch: usize| {
        let mut trainer = trainer(GrpoConfig { micro_batch, rollout_batch, ..config() }, 6);
        record(&mut trainer, 1);
        weights(&trainer)
    };
    let reference = run(8, 8);
    for (micro_batch, rollout_batch) in [(1, 8), (5, 8), (24, 8), (8, 1), (8, 7), (8, 100)] {
        // Adam divides by the size of the gradient: where the gradient is near 0, rounding decides
        // the direction of a step of one learning rate. All but a few weights must agree to
        // rounding.
        let other = run(micro_batch, rollout_batch);
        let differ = reference.iter().zip(&other).filter(|(a, b)| (*a - *b).abs() > 1e-5).count();
        assert!(
            differ * 200 < reference.len(),
            "micro-batch {micro_batch}, rollout batch {rollout_batch}: {differ} of {} differ",
            reference.len()
        );
        assert!(distance(&other, &reference) < 0.01);
    }
}

#[test]
fn generation_depends_on_rows_and_keys_and_not_on_batches() {
    let (network, workers) = (network(1), Workers::new(2).expect("threads"));
    let prompts: Vec<EncodedPrompt<TokenIds>> = conditions(4)
        .into_iter()
        .map(|condition| EncodedPrompt { prompt: Prompt::plain("a"), condition })
        .collect();
    let rows = Row::all(4, 2);
    let key = Key::new(3, Purpose::Sampling);
    let keys: Vec<Key> = rows.iter().map(|row| key.row(row.prompt, row.sample)).collect();
    let sampler = Sampler::new(GridKind::Linear {}.grid(3).expect("a grid"), FlowSde::default());
    let made = |batch: usize, initial: Option<&Tensor<Plain, 4>>| {
        let generator =
            Generator { sampler: sampler.clone(), shape: [3, 16, 16], batch, workers: &workers };
        let device = Device::default();
        let parts = generator
            .generate(&network, &prompts, &rows, Start { key, initial }, &device, numbers)
            .expect("not stopped");
        parts.concat()
    };
    // Row by row: x_1 is keyed as step 0, so the steps' noise begins with step 1.
    let noise = |index: usize| {
        let keys: Vec<Key> = keys.iter().map(|key| key.step(index)).collect();
        normal::<Plain>(&keys, [3, 16, 16], &Device::default())
    };
    let all: Vec<TokenIds> = rows.iter().map(|row| prompts[row.prompt].condition.clone()).collect();
    let expected = numbers(sampler.sample(&network, &all, noise(0), |step| noise(step.index + 1)));
    for batch in [1, 3, 8, 100] {
        assert!(distance(&made(batch, None), &expected) < 1e-5, "batches of {batch}");
        assert!(
            distance(&made(batch, Some(&noise(0))), &expected) < 1e-5,
            "from given latents, in batches of {batch}"
        );
    }
}

#[test]
fn images_and_latents_are_each_others_reverse() {
    for (decoder, values) in
        [(Decoder::Pixels, [0.0_f32, 0.2, 1.0, 0.6]), (Decoder::Points, [-3.0, 0.5, 7.0, 0.0])]
    {
        let image = Image { channels: 4, height: 1, width: 1, pixels: values.to_vec() };
        let latents = decoder.encode::<Plain>(std::slice::from_ref(&image), &Device::default());
        let expected: Vec<f64> = values
            .iter()
            .map(|&x| if decoder == Decoder::Pixels { 2.0 * x - 1.0 } else { x }.into())
            .collect();
        assert!(distance(&numbers(latents.clone()), &expected) < 1e-6, "{decoder:?}");
        let back: Vec<Image> = decoder.decode(latents);
        assert!(
            back[0].pixels.iter().zip(values).all(|(a, b)| (a - b).abs() < 1e-6),
            "{decoder:?}: {back:?}"
        );
    }
}

#[test]
fn memory_threads_and_matrices_are_counted() {
    let network = network(1);
    let all = Parameters::of(&network);
    assert_eq!(all.bytes(), 4 * all.count() as u64);
    for count in [1, 3] {
        assert_eq!(Workers::new(count).expect("threads").count(), count);
    }
    let matrices = Trained::all(&network).matrices(&network, network.blocks());
    let names = training::parameters::names(&network);
    assert!(
        !matrices.is_empty() && matrices.keys().all(|id| names[id].starts_with("blocks.")),
        "{matrices:?}"
    );
    let some = Trained::named(&network, |name| name.starts_with("blocks.0."));
    let chosen = some.matrices(&network, network.blocks());
    assert!(
        chosen.len() < matrices.len() && chosen.keys().all(|id| names[id].starts_with("blocks.0.")),
        "{chosen:?}"
    );
}

#[test]
fn the_speeds_of_an_epoch_are_numbers_over_seconds() {
    let metrics = trainer(config(), 1).iterate().expect("an epoch").metrics;
    // Rollout and updates are parts of the epoch, and together all of it.
    let parts = 24.0 / metrics.time.images_per_second
        + metrics.transitions as f64 / metrics.time.transitions_per_second;
    assert!((0.5..1.5).contains(&(parts / metrics.time.seconds)), "{:?}", metrics.time);
}

#[test]
fn every_phase_of_an_epoch_ends_with_a_call() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let config = GrpoConfig { rollout_batch: 10, ..config() };
    let mut trainer = trainer(config, 1).at_phase_end(|| {
        CALLS.fetch_add(1, Ordering::Relaxed);
    });
    trainer.iterate().expect("an epoch");
    // What came before the epoch; sampling and decoding of 10, 10 and 4 images; and what is left before
    // the updates.
    assert_eq!(CALLS.load(Ordering::Relaxed), 1 + 2 * 3 + 1);
}
