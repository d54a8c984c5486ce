//! Gold rewards, monitors and rules, on the toy task through the real program.

use std::path::Path;

use serde_json::Value;

use crate::cli::{metrics, program, refused, run};

fn train(out: &Path, settings: &[&str]) -> Vec<Value> {
    let fixed = ["epochs=12", "evaluate_every=2", "checkpoint_every=4", "evaluation_samples=100"];
    let mut command = std::process::Command::new(program());
    command.args(["train", "--preset", "toy-2d", "--out"]).arg(out);
    command.args(fixed.iter().chain(settings).flat_map(|setting| ["--set", setting]));
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    metrics(out)
}

fn of<'a>(lines: &'a [Value], event: &'a str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

#[test]
fn a_rule_ends_a_run_and_says_why() {
    let directory = tempfile::tempdir().expect("a directory");
    let rule = r#"rules=[{watch="rewards.toy_mode", when={kind="above", value=0.2}, action={kind="stop"}}]"#;
    let path = directory.path().join("run");
    let lines = train(&path, &[rule]);
    assert!(run(&["train", "--resume", &path.to_string_lossy()]).status.success());
    assert_eq!(metrics(&path), lines, "a run that a rule has ended stays ended");
    let last = of(&lines, "eval").last().expect("evaluations")["rewards"]["toy_mode"]
        .as_f64()
        .expect("a reward");
    let epochs = of(&lines, "epoch").len();
    assert!(
        last > 0.2 && epochs < 12 && epochs.is_multiple_of(2),
        "ended after {epochs} epochs at {last}"
    );
    let actions = of(&lines, "action");
    assert_eq!(actions.len(), 1);
    assert!(
        actions[0]["reason"].as_str().expect("a reason").contains("rewards.toy_mode is 0."),
        "{}",
        actions[0]
    );
}

#[test]
fn a_rule_raises_the_kl_weight_and_resuming_keeps_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let [whole, stopped] = ["whole", "stopped"].map(|name| directory.path().join(name));
    let settings = [
        r#"rules=[{watch="rewards.toy_mode", when={kind="above", value=0.2}, action={kind="raise_kl", factor=3.0}}]"#,
        "grpo.objective.kl_weight=0.01",
        "keep_checkpoints=9",
    ];
    let lines = train(&whole, &settings);
    let weights: Vec<f64> = of(&lines, "epoch")
        .iter()
        .map(|line| line["kl_weight"].as_f64().expect("a weight"))
        .collect();
    let actions = of(&lines, "action").len();
    assert!(actions > 0 && weights[0] == 0.01, "{weights:?}");
    // No epoch follows the last one to show its action.
    assert!(
        (weights[11] - 0.01 * 3_f64.powi(actions as i32 - 1)).abs() < 1e-9,
        "{actions} actions: {weights:?}"
    );
    train(&stopped, &settings);
    for entry in std::fs::read_dir(stopped.join("checkpoints")).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.file_stem().is_some_and(|stem| stem.to_str() > Some("000008")) {
            std::fs::remove_file(path).expect("removed");
        }
    }
    assert!(run(&["train", "--resume", &stopped.to_string_lossy()]).status.success());
    assert_eq!(metrics(&stopped), lines);
}

#[test]
fn a_run_rolls_back_to_its_best_evaluation() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run");
    // Diversity falls as the reward rises: the first policy is the best one by diversity, and the
    // rule rolls back to it.
    let rule = r#"rules=[{watch="monitors.diversity", when={kind="fallen", by=0.1}, action={kind="roll_back"}}]"#;
    let lines = train(&path, &[rule, r#"best_by="monitors.diversity""#]);
    let back = of(&lines, "action")
        .iter()
        .filter(|line| line["reason"].as_str().is_some_and(|text| text.contains("again")))
        .count();
    assert!(back > 0, "{lines:?}");
    let reward = |epoch: u64| {
        let line =
            of(&lines, "epoch").into_iter().find(|line| line["epoch"] == epoch).expect("an epoch");
        line["reward"].as_f64().expect("a reward")
    };
    let first = of(&lines, "action")[0]["epoch"].as_u64().expect("an epoch");
    assert!(
        reward(first) > reward(first + 1) + 0.05,
        "after {first} the reward must fall back: {} {}",
        reward(first),
        reward(first + 1)
    );
}

#[test]
fn gold_rewards_are_measured_and_not_trained_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let plain = train(&directory.path().join("plain"), &[]);
    let gold = train(&directory.path().join("gold"), &["gold={ toy_mode = 1, darkness = 1 }"]);
    for (plain, gold) in of(&plain, "epoch").iter().zip(of(&gold, "epoch")) {
        assert_eq!(
            (&plain["reward"], &plain["gradient_norm"]),
            (&gold["reward"], &gold["gradient_norm"])
        );
        assert_eq!(gold["gold"]["toy_mode"], gold["rewards"]["toy_mode"]);
        assert!(gold["gold"]["darkness"].is_number() && plain.get("gold").is_none());
    }
}

#[test]
fn rules_that_make_no_sense_are_refused() {
    let refuse = |setting: &str| {
        refused(&[
            "train",
            "--preset",
            "toy-2d",
            "--out",
            "/nonexistent/never-made",
            "--set",
            setting,
        ])
    };
    let rule = |watch: &str, when: &str, action: &str| {
        format!("rules=[{{watch=\"{watch}\", when={when}, action={action}}}]")
    };
    let stop = r#"{kind="stop"}"#;
    assert!(
        refuse(&rule("x", r#"{kind="below", value=1.0}"#, r#"{kind="raise_kl", factor=0.5}"#))
            .contains("rules[0].action.factor")
    );
    assert!(
        refuse(&rule("x", r#"{kind="below", value=1.0}"#, r#"{kind="stop", factor=2.0}"#))
            .contains("factor")
    );
    for guidance in ["nan", "inf", "1e300", "0.0"] {
        for key in ["grpo.rollout.guidance", "evaluation_guidance"] {
            assert!(refuse(&format!("{key}={guidance}")).contains(key), "{key}={guidance}");
        }
    }
    assert!(refuse("tuning={kind=\"full\", rank=4}").contains("rank"));
    assert!(refuse("grpo.objective.kl_controller={kind=\"fixed\", target=0.1}").contains("target"));
    assert!(refuse(&rule("x", r#"{kind="fallen", by=-1.0}"#, stop)).contains("rules[0].when.by"));
    assert!(refuse(&rule("x", r#"{kind="sideways"}"#, stop)).contains("sideways"));
    assert!(
        refuse(&rule("x", r#"{kind="below", value=nan}"#, stop))
            .contains("rules[0].when.value (NaN)")
    );
    assert!(
        refuse(&rule("x", r#"{kind="above", value=inf}"#, stop))
            .contains("rules[0].when.value (inf)")
    );
    assert!(
        refuse(&rule("x", r#"{kind="below", value=1.0}"#, r#"{kind="raise_kl", factor=2.0}"#))
            .contains("kl_weight, which is 0")
    );
    assert!(refuse("gold.beauty=1").contains("gold.beauty: there is no reward `beauty`"));
    assert!(
        refuse("grpo.objective.kl_controller={kind=\"adaptive\", target=0.1, rate=0.1}").contains(
            "kl_weight (0) must be positive with an adaptive controller, which starts from it"
        )
    );
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run").to_string_lossy().into_owned();
    for setting in
        [rule("gold.beauty", r#"{kind="below", value=1.0}"#, stop), "best_by=\"beauty\"".to_owned()]
    {
        let text = refused(&["train", "--preset", "toy-2d", "--out", &out, "--set", &setting]);
        assert!(text.contains("beauty") && text.contains("monitors.diversity"), "{text}");
    }
}
