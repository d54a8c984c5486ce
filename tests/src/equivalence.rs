//! Runs with different settings that must give the same result.

use grpo::{GrpoConfig, RolloutConfig, TrainedSteps, trajectories::KeptOn};
use tasks::reward::Darkness;

use crate::{
    backend::distance,
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
    trainer.state().weights.to_data().values().flat_map(|data| data.iter::<f64>().collect::<Vec<_>>()).collect()
}

#[test]
fn the_same_seed_gives_the_same_bytes_whatever_the_number_of_threads() {
    let run = |workers: usize| record(&mut trainer_for(config(), 9, workers, Box::new(Darkness)), 3);
    let one = run(1);
    assert_eq!(one, run(1));
    assert_eq!(one, run(3));
    assert_ne!(one.1, record(&mut trainer(config(), 10), 3).1, "another seed must give another run");
}

#[test]
fn resuming_equals_never_stopping() {
    let config = GrpoConfig { updates_per_epoch: 2, trained_steps: TrainedSteps::Random { count: 2 }, ..config() };
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
        record(&mut trainer(GrpoConfig { updates_per_epoch: 2, rollout_batch: 5, rollout, ..small }, 11), 2)
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
        // Adam divides by the size of the gradient: where the gradient is near 0, rounding decides the
        // direction of a step of one learning rate. All but a few weights must agree to rounding.
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
