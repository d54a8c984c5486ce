//! The trainer's configuration as a library: what is refused, and the sizes that follow from it.

use flow::{GridKind, matching::TimeDistribution};
use grpo::{
    GrpoConfig, Objective, RolloutConfig, TrainedSteps,
    algorithm::nft::{NftConfig, OldPolicy},
    objective::KlController,
};
use training::{
    ema::EmaConfig,
    optimizer::{AdamWConfig, MuonConfig},
};

use crate::training::{config, with_objective};

/// The problems of a configuration with one change.
fn problems(change: impl FnOnce(&mut GrpoConfig)) -> Vec<String> {
    let mut config = config();
    change(&mut config);
    config.problems()
}

/// Asserts that a number is refused under its key, and that its bounds are what they are said to
/// be.
fn bounds(key: &str, set: impl Fn(&mut GrpoConfig, f64), good: &[f64], bad: &[f64]) {
    for &value in good {
        assert_eq!(problems(|config| set(config, value)), Vec::<String>::new(), "{key} = {value}");
    }
    for &value in bad {
        let problems = problems(|config| set(config, value));
        assert!(
            problems.len() == 1 && problems[0].starts_with(&format!("{key} (")),
            "{key} = {value}: {problems:?}"
        );
    }
}

const NOT_POSITIVE: [f64; 4] = [0.0, -1.0, f64::NAN, f64::INFINITY];
const NOT_A_DECAY: [f64; 4] = [-0.1, 1.0, f64::NAN, f64::INFINITY];

#[test]
fn every_number_of_optimiser_and_rollout_out_of_range_is_refused_by_its_key() {
    bounds(
        "optimizer.learning_rate",
        |c, x| c.optimizer = AdamWConfig { learning_rate: x, ..c.optimizer },
        &[1e-5],
        &NOT_POSITIVE,
    );
    bounds(
        "optimizer.weight_decay",
        |c, x| c.optimizer.weight_decay = x,
        &[0.0, 0.1],
        &NOT_POSITIVE[1..],
    );
    bounds("optimizer.beta1", |c, x| c.optimizer.beta1 = x, &[0.0, 0.9], &NOT_A_DECAY);
    bounds(
        "muon.learning_rate",
        |c, x| c.muon = Some(MuonConfig { learning_rate: x, ..MuonConfig::default() }),
        &[0.0, 0.1],
        &NOT_POSITIVE[1..],
    );
    bounds(
        "muon.momentum",
        |c, x| c.muon = Some(MuonConfig { momentum: x, ..MuonConfig::default() }),
        &[0.0, 0.9],
        &NOT_A_DECAY,
    );
    bounds("ema.decay", |c, x| c.ema = EmaConfig { decay: x, ..c.ema }, &[0.0, 0.9], &NOT_A_DECAY);
    bounds("advantage.clip", |c, x| c.advantage.clip = x, &[5.0], &NOT_POSITIVE);
    bounds(
        "rollout.guidance",
        |c, x| c.rollout.guidance = x,
        &[0.5, 1.0, 100.0],
        &[0.0, -1.0, 100.1, f64::NAN, f64::INFINITY],
    );
}

#[test]
fn every_number_of_an_objective_out_of_range_is_refused_by_its_key() {
    let clipped = |change: fn(&mut grpo::objective::ObjectiveConfig, f64)| {
        move |c: &mut GrpoConfig, x: f64| {
            *c = with_objective(c.clone(), |objective| change(objective, x));
        }
    };
    bounds(
        "objective.clip_range_low",
        clipped(|o, x| o.clip_range_low = x),
        &[1e-4],
        &NOT_POSITIVE,
    );
    bounds(
        "objective.clip_range_high",
        clipped(|o, x| o.clip_range_high = x),
        &[1e-4],
        &NOT_POSITIVE,
    );
    bounds(
        "objective.kl_weight",
        clipped(|o, x| o.kl_weight = x),
        &[0.0, 0.04],
        &NOT_POSITIVE[1..],
    );
    let adaptive = clipped(|o, x| {
        o.kl_weight = 0.1;
        o.kl_controller = KlController::Adaptive { target: 1e-5, rate: x };
    });
    bounds("objective.kl_controller.rate", adaptive, &[0.1, 1.0], &[0.0, 1.1, f64::NAN]);
    let nft =
        |config: NftConfig| move |c: &mut GrpoConfig, _: f64| c.objective = Objective::Nft(config);
    let default = NftConfig::default();
    bounds("objective.beta", nft(NftConfig { beta: 0.0, ..default }), &[], &[0.0]);
    bounds(
        "objective.smallest_weight",
        nft(NftConfig { smallest_weight: 0.0, ..default }),
        &[],
        &[0.0],
    );
    let old_policy = OldPolicy { most: 1.0, ..default.old_policy };
    bounds("objective.old_policy.most", nft(NftConfig { old_policy, ..default }), &[], &[0.0]);
}

#[test]
fn no_count_is_0() {
    for (key, set) in [
        ("groups", (|c, n| c.groups = n) as fn(&mut GrpoConfig, usize)),
        ("group_size", |c, n| c.group_size = n),
        ("updates_per_epoch", |c, n| c.updates_per_epoch = n),
        ("micro_batch", |c, n| c.micro_batch = n),
        ("rollout_batch", |c, n| c.rollout_batch = n),
        ("ema.every", |c, n| c.ema.every = n),
        ("ema.repeat", |c, n| c.ema.repeat = n),
    ] {
        let problems = problems(|config| set(config, 0));
        assert!(
            problems.iter().any(|problem| problem.starts_with(&format!("{key} (0) must lie"))),
            "{key}: {problems:?}"
        );
    }
}

#[test]
fn the_sizes_of_an_epoch_follow_from_its_configuration() {
    // Three groups of eight; of four steps the first three draw noise, and all three are trained.
    let with = |kl_ode_steps: usize, trained_steps| {
        let config = with_objective(config(), |objective| {
            (objective.kl_weight, objective.kl_ode_steps) = (0.1, kl_ode_steps);
        });
        GrpoConfig { trained_steps, ..config }
    };
    assert_eq!(with(0, TrainedSteps::AllButLast {}).transitions_per_epoch(), 24 * 3);
    assert_eq!(with(1, TrainedSteps::AllButLast {}).transitions_per_epoch(), 24 * 4);
    assert_eq!(with(1, TrainedSteps::Random { count: 2 }).transitions_per_epoch(), 24 * 3);
    assert_eq!(with(0, TrainedSteps::AllButLast {}).kept_latents(), 5);
    assert_eq!(with(1, TrainedSteps::AllButLast {}).kept_latents(), 5);
    let two = |kl_ode_steps| {
        let config = with(kl_ode_steps, TrainedSteps::AllButLast {});
        GrpoConfig {
            rollout: RolloutConfig { random_steps: 2, ..config.rollout.clone() },
            ..config
        }
    };
    assert_eq!(
        [two(0).kept_latents(), two(1).kept_latents()],
        [4, 5],
        "ODE steps are kept where they are held"
    );
    let plain = two(0);
    assert_eq!(plain.sampler().expect("valid"), plain.rollout.sampler().expect("valid"));
    assert_ne!(two(1).sampler().expect("valid"), two(1).rollout.sampler().expect("valid"));
    let nft = GrpoConfig { objective: Objective::Nft(NftConfig::default()), ..config() };
    assert_eq!(nft.transitions_per_epoch(), 24 * 3, "all but one of four times");
}

#[test]
fn a_rollout_that_says_nothing_of_guidance_has_none() {
    let text = serde_json::json!({
        "steps": 4, "grid": { "kind": "linear" }, "transition": { "kind": "flow_cps", "noise_level": 0.8 },
        "random_steps": 3, "log_prob": "mean"
    });
    let rollout: RolloutConfig = serde_json::from_value(text).expect("a rollout");
    assert_eq!((rollout.guidance, rollout.grid), (1.0, GridKind::Linear {}));
    let refused = serde_json::json!({ "kind": "flow_cps", "noise_level": 0.8, "eta": 1.0 });
    let refused = serde_json::from_value::<flow::Transition>(refused)
        .expect_err("an unknown key")
        .to_string();
    assert!(refused.contains("eta"), "{refused}");
}

#[test]
fn times_of_pre_training_are_checked_and_computed() {
    let normal = |mean, std| TimeDistribution::LogitNormal { mean, std };
    for good in [TimeDistribution::Uniform {}, normal(0.0, 0.0), normal(-1.0, 2.0)] {
        assert_eq!(settings::problems(&good), Vec::<String>::new());
    }
    for (bad, key) in [
        (normal(f64::NAN, 1.0), "mean"),
        (normal(f64::INFINITY, 1.0), "mean"),
        (normal(0.0, -0.1), "std"),
        (normal(0.0, f64::NAN), "std"),
        (normal(0.0, f64::INFINITY), "std"),
    ] {
        let problems = settings::problems(&bad);
        assert!(problems.len() == 1 && problems[0].starts_with(key), "{problems:?}");
    }
    assert_eq!(TimeDistribution::Uniform {}.time(0.3, 9.0), 0.3);
    assert!((normal(1.0, 2.0).time(9.0, 0.5) - 1.0 / (1.0 + (-2.0_f64).exp())).abs() < 1e-12);
    assert!((normal(-1.0, 2.0).time(9.0, 0.0) - 1.0 / (1.0 + 1.0_f64.exp())).abs() < 1e-12);
}
