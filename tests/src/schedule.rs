//! The real program's learning rate, in metrics and in lengthened runs, its warnings, and its
//! noise.

use std::path::Path;

use crate::cli::{metrics, refused, run};

fn ok(args: &[&str]) -> String {
    let output = run(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {text}");
    text
}

fn with<'a>(settings: &[&'a str]) -> Vec<&'a str> {
    settings.iter().flat_map(|setting| ["--set", setting]).collect()
}

/// A toy run with a cool-down of five epochs.
fn toy(out: &Path, more: &[&str]) -> String {
    let out = out.to_string_lossy().into_owned();
    let fixed = [
        "grpo.cool_down=5",
        "grpo.group_size=32",
        "evaluation_samples=20",
        "evaluate_every=1000",
        "checkpoint_every=1",
    ];
    ok(&[&["train", "--preset", "toy-2d", "--out", &out][..], &with(&fixed), &with(more)].concat())
}

fn epochs(run: &Path) -> Vec<serde_json::Value> {
    metrics(run).into_iter().filter(|line| line["event"] == "epoch").collect()
}

#[test]
fn the_learning_rate_is_a_metric() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = directory.path().join("run");
    toy(&run, &["epochs=8", "grpo.warm_up=1"]);
    let rates: Vec<f64> = epochs(&run)
        .iter()
        .map(|line| line["learning_rate"].as_f64().expect("a rate") / 1e-3)
        .collect();
    let want = [1.0 / 2.0, 1.0, 1.0, 5.0 / 6.0, 4.0 / 6.0, 3.0 / 6.0, 2.0 / 6.0, 1.0 / 6.0];
    assert!(crate::backend::distance(&rates, &want) < 1e-9, "{rates:?}");
}

#[test]
fn a_run_is_lengthened_only_as_long_as_its_rate_has_not_begun_to_fall() {
    let directory = tempfile::tempdir().expect("a directory");
    let [whole, early, late] = ["whole", "early", "late"].map(|name| directory.path().join(name));
    toy(&whole, &["epochs=12"]);
    // As if the run had been killed after 3 or 5 of 8 epochs, of which the last five cool down.
    for (path, done) in [(&early, 3), (&late, 5)] {
        toy(path, &["epochs=8", "keep_checkpoints=9"]);
        for epoch in done + 1..=8 {
            std::fs::remove_file(path.join(format!("checkpoints/{epoch:06}.safetensors")))
                .expect("a checkpoint");
        }
    }
    let [early_text, late_text] = [&early, &late].map(|path| path.to_string_lossy().into_owned());
    ok(&["train", "--resume", &early_text, "--set", "epochs=12"]);
    assert_eq!(epochs(&early), epochs(&whole), "as if it had been begun so");
    let text = refused(&["train", "--resume", &late_text, "--set", "epochs=12"]);
    for part in [
        "epochs is 8 in the run, 12 now",
        "grpo.cool_down = 5",
        "epoch 4 was trained",
        "--set epochs=8",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    ok(&["train", "--resume", &late_text]);
}

#[test]
fn a_run_that_is_shorter_than_its_schedule_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run").to_string_lossy().into_owned();
    let text = refused(&[
        "train",
        "--preset",
        "shapes",
        "--out",
        &out,
        "--set",
        "epochs=30",
        "--set",
        "grpo.cool_down=160",
    ]);
    assert!(
        text.contains("grpo.cool_down (160)")
            && text.contains("epochs (30)")
            && text.contains("never reach its peak"),
        "{text}"
    );
    let text = refused(&[
        "pretrain",
        "--preset",
        "toy-2d-base",
        "--out",
        &out,
        "--set",
        "steps=10",
        "--set",
        "warm_up=9",
        "--set",
        "cool_down=0.5",
    ]);
    assert!(text.contains("cool_down (0.5)") && text.contains("steps (10)"), "{text}");
}

#[test]
fn pre_training_is_lengthened_only_as_long_as_its_rate_has_not_begun_to_fall() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run");
    let out = path.to_string_lossy().into_owned();
    let fixed = [
        "steps=100",
        "warm_up=5",
        "cool_down=0.5",
        "batch_size=8",
        "checkpoint_every=1000",
        "evaluate_every=1000",
        "evaluation_samples=10",
    ];
    ok(&[&["pretrain", "--preset", "toy-2d-base", "--out", &out][..], &with(&fixed)].concat());
    let rates: Vec<f64> =
        metrics(&path).iter().filter_map(|line| line["learning_rate"].as_f64()).collect();
    assert!(rates.len() == 2 && rates[0] > rates[1] && rates[1] > 0.0, "{rates:?}");
    let text = refused(&["pretrain", "--resume", &out, "--set", "steps=200"]);
    assert!(
        text.contains("steps is 100 in the run, 200 now") && text.contains("--set steps=100"),
        "{text}"
    );
}

#[test]
fn a_gradient_that_drowns_in_epsilon_is_said_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let [loud, quiet] = ["loud", "quiet"].map(|name| directory.path().join(name));
    let text = toy(&loud, &["epochs=8", "grpo.optimizer.epsilon=1.0"]);
    assert_eq!(text.matches("grpo.optimizer.epsilon 1.0e0").count(), 1, "{text}");
    assert!(
        epochs(&loud)
            .iter()
            .all(|line| line["gradient_rms"].as_f64().is_some_and(|rms| rms > 0.0 && rms < 1.0))
    );
    assert!(!toy(&quiet, &["epochs=8"]).contains("epsilon"));
}

#[test]
fn evaluations_do_not_repeat_the_noise_of_training() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run");
    // Nearly the ODE, in the steps of an evaluation: with equal noise the images would be equal
    // too.
    let alike = [
        "epochs=2",
        "grpo.cool_down=0",
        "grpo.rollout.steps=40",
        "grpo.rollout.random_steps=1",
        "grpo.rollout.transition.noise_level=1e-6",
        "evaluation_samples=32",
    ];
    toy(&path, &alike);
    let lines = metrics(&path);
    let first = |event: &str, key: &str| {
        let line = lines.iter().find(|line| line["event"] == event).expect("a line");
        line.pointer(key).and_then(serde_json::Value::as_f64).expect("a number")
    };
    let (trained, evaluated) =
        (first("epoch", "/rewards/toy_mode"), first("eval", "/rewards/toy_mode"));
    println!("{trained} {evaluated}");
    assert!((trained - evaluated).abs() > 1e-4, "the same images: {trained} {evaluated}");
}
