//! The average of the weights, compared with the reference code's loop.

use std::collections::BTreeMap;

use burn::tensor::TensorData;
use grpo::GrpoConfig;
use training::{ema::EmaConfig, parameters::Parameters};

use crate::{
    backend::{Device, Plain, distance},
    training::{config, trainer},
};

/// The average after some epochs, as `train_sd3.py` (commit ac4c86e, lines 846 to 955) computes it,
/// for a weight that equals the number of updates.
fn reference(batches: usize, epochs: usize) -> f64 {
    let (mut global_step, mut average) = (0, 0.0);
    for _ in 0..epochs {
        for batch in 0..batches {
            // Gradients accumulate over half of an epoch's batches.
            if (batch + 1) % (batches / 2) == 0 {
                global_step += 1;
            }
            // `ema.step(parameters, global_step)`, flow_grpo/ema.py lines 33 to 49.
            let n = f64::from(global_step);
            let one_minus_decay = 1.0 - ((1.0 + n) / (10.0 + n)).min(0.9);
            if (global_step + 1) % 8 == 0 {
                average += one_minus_decay * (n - average);
            }
        }
    }
    average
}

fn one(value: f64) -> Parameters<Plain> {
    Parameters::from_data(
        BTreeMap::from([(0, TensorData::from([value as f32]))]),
        &Device::default(),
    )
}

fn number(parameters: &Parameters<Plain>) -> f64 {
    parameters.to_data()[&0].iter::<f64>().sum()
}

#[test]
fn the_average_lags_as_that_of_the_reference_code() {
    // Batches per epoch with 32 GPUs and with one, and the lag in updates after 30, 120 and 480
    // epochs of two updates.
    for (batches, lags) in [(4, [21.0, 35.0, 35.0]), (8, [13.0, 16.0, 16.0])] {
        let ema = EmaConfig { decay: 0.9, every: 8, repeat: batches / 2 };
        for (epochs, lag) in [30, 120, 480].into_iter().zip(lags) {
            let average = (1..=2 * epochs)
                .fold(one(0.0), |average, n| ema.follow(average, &one(n as f64), n));
            let (got, want) = (
                2.0 * epochs as f64 - number(&average),
                2.0 * epochs as f64 - reference(batches, epochs),
            );
            println!(
                "{batches} batches, {epochs} epochs: the average lags {got:.3} updates behind, that of the reference {want:.3}"
            );
            assert!(
                (got - want).abs() < 1e-3,
                "{batches} batches, {epochs} epochs: {got} is not {want}"
            );
            assert!(
                (want - lag).abs() < 0.6,
                "{batches} batches, {epochs} epochs: {want} is not about {lag}"
            );
        }
    }
}

#[test]
fn the_trainer_moves_the_average_when_and_as_far_as_it_is_told() {
    let ema = EmaConfig { decay: 0.3, every: 2, repeat: 2 };
    let mut trainer = trainer(GrpoConfig { ema, ..config() }, 3);
    let flat = |parameters: &Parameters<Plain>| {
        parameters
            .to_data()
            .values()
            .flat_map(|data| data.iter::<f64>().collect::<Vec<_>>())
            .collect::<Vec<f64>>()
    };
    let mut average = flat(trainer.weights());
    for n in 1..=5 {
        trainer.iterate().expect("an epoch");
        let state = trainer.state().optimisation;
        let weights = flat(&state.weights);
        if n % 2 == 1 {
            let decay = ((1.0 + f64::from(n)) / (10.0 + f64::from(n))).min(0.3).powi(2);
            average = average
                .iter()
                .zip(&weights)
                .map(|(old, new)| decay * old + (1.0 - decay) * new)
                .collect();
        }
        let (far, near) = (distance(&weights, &average), distance(&flat(&state.average), &average));
        assert!(
            near < 1e-6 && (n % 2 == 1 || far > 1e-4),
            "after {n} updates: {near:e}, weights {far:e} away"
        );
    }
}
