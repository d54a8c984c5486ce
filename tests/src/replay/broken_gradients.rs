//! Gradients that are not finite: some stop the run, others are skipped.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::Tensor;
use flow::Query;
use grpo::{GrpoConfig, Policy, TrainError, TrainedSteps, update::Differentiate};
use models::{Dit, TokenIds};
use tasks::reward::Darkness;
use training::{
    loss_scale::LossScale,
    optimisation::NotFinite,
    parameters::{Parameters, Trained},
};

use crate::{
    backend::{Plain, Training},
    networks::network,
    training::{TestTrainer, config, policy_trainer, trainer_for, with_objective},
};

use super::in_one_piece;

/// Gives a NaN or infinite gradient at the first calls.
struct Broken {
    calls: AtomicUsize,
    bad: usize,
    gradient: f64,
}

impl Differentiate<Training, Dit<Training>> for Broken {
    fn gradient(
        &self,
        network: Dit<Plain>,
        trained: &Trained,
        query: Query<Plain, TokenIds>,
        loss: &mut dyn FnMut(Tensor<Training, 4>) -> Tensor<Training, 1>,
    ) -> Parameters<Plain> {
        let gradient = in_one_piece(network, trained, query, loss);
        if self.calls.fetch_add(1, Ordering::Relaxed) < self.bad {
            return gradient.map(|values| values.zeros_like() + self.gradient);
        }
        gradient
    }

    fn velocity(&self, network: &Dit<Plain>, query: Query<Plain, TokenIds>) -> Tensor<Plain, 4> {
        query.ask(network)
    }
}

fn broken(config: GrpoConfig, bad: usize, gradient: f64) -> TestTrainer {
    trainer_for(config, 1, 1, Box::new(Darkness)).differentiating(Box::new(Broken {
        calls: AtomicUsize::new(0),
        bad,
        gradient,
    }))
}

#[test]
fn a_gradient_or_a_loss_that_is_not_a_number_stops_the_run_and_changes_nothing() {
    let refused = |mut trainer: TestTrainer| {
        let before = trainer.state().optimisation;
        let error = trainer.iterate().expect_err("not a number");
        let after = trainer.state().optimisation;
        assert_eq!(after.weights.to_data(), before.weights.to_data());
        assert_eq!(
            (after.average.to_data(), after.optimizer.updates),
            (before.average.to_data(), 0)
        );
        let TrainError::NotFinite { epoch: 1, numbers: NotFinite { loss, gradient_norm } } = error
        else {
            panic!("{error}")
        };
        (loss.is_finite(), gradient_norm.is_finite())
    };
    assert_eq!(refused(broken(config(), 1, f64::NAN)), (true, false));
    assert_eq!(refused(broken(config(), 1, f64::INFINITY)), (true, false));
    // The KL penalty against a broken reference model: the loss is NaN, whatever its gradient is.
    let reference =
        Parameters::of(&network(1)).map(|values| values * f64::NAN).put_into(network(1));
    let policy = Policy { reference, ..Policy::full(network(1)) };
    let config = with_objective(config(), |objective| objective.kl_weight = 0.1);
    let quiet = Broken { calls: AtomicUsize::new(0), bad: usize::MAX, gradient: 0.0 };
    assert_eq!(
        refused(policy_trainer(config, policy).differentiating(Box::new(quiet))),
        (false, true)
    );
}

#[test]
fn an_update_whose_scaled_gradient_overflows_is_skipped_counted_and_remembered() {
    let small = || GrpoConfig {
        updates_per_epoch: 2,
        micro_batch: 100,
        trained_steps: TrainedSteps::Random { count: 1 },
        ..config()
    };
    let start = LossScale::default();
    let mut trainer = broken(small(), 1, f64::INFINITY).scaling_loss(start);
    let metrics = trainer.iterate().expect("an epoch").metrics;
    assert_eq!(
        (metrics.updates, metrics.skipped_updates, metrics.loss_scale),
        (1, Some(1), Some(start.factor / 2.0))
    );
    assert!(
        metrics.gradient_norm.is_finite()
            && metrics.gradient_rms > 0.0
            && metrics.transitions == 24
    );
    let state = trainer.state();
    assert_eq!(
        state.optimisation.loss_scale,
        Some(LossScale { factor: start.factor / 2.0, good: 1 })
    );
    assert_eq!(state.optimisation.optimizer.updates, 1, "the skipped one does not count");
    // A resumed trainer continues with the scale and its count.
    let mut resumed = broken(small(), 0, 0.0).scaling_loss(start);
    resumed.restore(state);
    for trainer in [&mut trainer, &mut resumed] {
        assert_eq!(trainer.iterate().expect("an epoch").metrics.skipped_updates, Some(0));
    }
    let scale = |trainer: &TestTrainer| trainer.state().optimisation.loss_scale;
    assert_eq!(scale(&trainer), Some(LossScale { factor: start.factor / 2.0, good: 3 }));
    assert_eq!(scale(&resumed), scale(&trainer));
    assert_eq!(resumed.weights().to_data(), trainer.weights().to_data());
    // The scale cannot be halved any further.
    let mut hopeless =
        broken(small(), usize::MAX, f64::INFINITY).scaling_loss(LossScale { factor: 2.0, good: 0 });
    let error = hopeless.iterate().expect_err("the second update finds a scale of 1");
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
}
