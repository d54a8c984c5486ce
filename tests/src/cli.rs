//! The real program, as a person runs it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The program that `cargo xtask test` built.
pub fn program() -> PathBuf {
    let path = std::env::var_os("FLOW_GRPO_BIN")
        .expect("FLOW_GRPO_BIN is unset: run the tests with `cargo xtask test`");
    PathBuf::from(path)
}

pub fn run(args: &[&str]) -> Output {
    Command::new(program()).args(args).output().expect("the program runs")
}

/// Runs a command that must fail with exit code 2; returns its error output.
pub fn refused(args: &[&str]) -> String {
    let output = run(args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn toy(out: &Path, more: &[&str]) -> Output {
    let out = out.to_string_lossy().into_owned();
    let args: Vec<&str> =
        ["train", "--preset", "toy-2d", "--set", "evaluation_samples=100", "--out", &out]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
    run(&args)
}

/// `metrics.jsonl` without wall-clock times.
pub fn metrics(run: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    text.lines()
        .map(|line| {
            let mut value: serde_json::Value =
                serde_json::from_str(line).expect("one JSON object a line");
            value.as_object_mut().expect("an object").remove("time");
            value
        })
        .collect()
}

#[test]
fn a_training_run_leaves_a_directory_that_explains_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = directory.path().join("run");
    let output = toy(&run, &["--set", "epochs=12"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for file in [
        "config.toml",
        "about.json",
        "metrics.jsonl",
        "checkpoints/000012.safetensors",
        "best.safetensors",
        "policy.safetensors",
        "curves.svg",
        "report.html",
    ] {
        assert!(std::fs::metadata(run.join(file)).is_ok_and(|file| file.len() > 0), "{file}");
    }
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("estimated time: "),
        "the plan must say how long it will take"
    );
    assert!(
        run.join("samples/validation-000000.png").exists()
            && run.join("samples/validation-000012.png").exists()
    );
    let lines = metrics(&run);
    let evaluations: Vec<_> = lines.iter().filter(|line| line["event"] == "eval").collect();
    assert_eq!(evaluations.len(), 3, "at epochs 0, 10 and 12");
    let reward = |line: &serde_json::Value| line["rewards"]["toy_mode"].as_f64().expect("a reward");
    assert!(reward(evaluations[2]) > reward(evaluations[0]) + 0.1, "twelve epochs must show");
    let report = std::fs::read_to_string(run.join("report.html")).expect("a report");
    assert!(
        !report.contains("src=\"http") && report.contains("data:image/png;base64"),
        "the report must need nothing else"
    );
}

/// The number between `before` and `after` in a text.
#[cfg(all(target_os = "linux", any(feature = "flex", feature = "ndarray")))]
fn number_between(text: &str, before: &str, after: &str) -> f64 {
    let number =
        text.split_once(after).and_then(|(text, _)| text.rsplit_once(before)?.1.parse().ok());
    number.unwrap_or_else(|| panic!("no number between `{before}` and `{after}` in {text}"))
}

#[cfg(all(target_os = "linux", any(feature = "flex", feature = "ndarray")))]
#[test]
fn a_run_takes_about_as_much_memory_as_it_says_and_does_not_start_where_there_is_less() {
    let directory = tempfile::tempdir().expect("a directory");
    let train = |name: &str, groups: &str| {
        let out = directory.path().join(name).to_string_lossy().into_owned();
        let settings =
            ["epochs=1", "grpo.cool_down=0", "grpo.micro_batch=64", "evaluation_samples=1", groups];
        let args = ["train", "--out", &out]
            .into_iter()
            .chain(settings.into_iter().flat_map(|setting| ["--set", setting]));
        let output = run(&args.collect::<Vec<_>>());
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = train("fits", "grpo.groups=8");
    assert_eq!(code, Some(0), "{text}");
    let said = number_between(&text, "memory: about ", " MiB (");
    let took = number_between(&text, " and ", " MiB of memory");
    println!("said {said} MiB, took {took} MiB");
    assert!(said > 0.6 * took && said < 1.7 * took, "said {said} MiB, took {took} MiB");
    // Terabytes of latents.
    let (code, text) = train("does-not-fit", "grpo.groups=6000000");
    assert!(code == Some(2) && text.contains("lower the number of images"), "{text}");
}

#[test]
fn a_run_that_was_stopped_or_lengthened_equals_one_that_was_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let [whole, stopped, early] =
        ["whole", "stopped", "early"].map(|name| directory.path().join(name));
    assert!(toy(&whole, &["--set", "epochs=20"]).status.success());
    assert!(toy(&stopped, &["--set", "epochs=20"]).status.success());
    // As a kill between two checkpoints leaves it: state of epoch 10, metrics of epoch 13 and half
    // a line.
    std::fs::remove_file(stopped.join("checkpoints/000020.safetensors")).expect("removed");
    let text = std::fs::read_to_string(stopped.join("metrics.jsonl")).expect("metrics");
    let cut: Vec<&str> = text.lines().take(16).collect();
    std::fs::write(stopped.join("metrics.jsonl"), cut.join("\n") + "\n{\"event\":\"epo")
        .expect("written");
    let resumed = run(&["train", "--resume", &stopped.to_string_lossy()]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    assert_eq!(metrics(&stopped), metrics(&whole));
    let policy = |run: &Path| std::fs::read(run.join("policy.safetensors")).expect("a policy");
    assert_eq!(policy(&stopped), policy(&whole));
    // A run of half the length, then lengthened.
    assert!(toy(&early, &["--set", "epochs=10"]).status.success());
    let early_text = early.to_string_lossy().into_owned();
    assert!(
        refused(&["train", "--resume", &early_text, "--set", "epoch=20"])
            .contains("did you mean `epochs`?")
    );
    assert!(
        refused(&["train", "--resume", &early_text, "--set", "epochs=9"])
            .contains("must be at least 10")
    );
    assert!(run(&["train", "--resume", &early_text, "--set", "epochs=20"]).status.success());
    assert_eq!((metrics(&early), policy(&early)), (metrics(&whole), policy(&whole)));
    let programs = std::fs::read_to_string(early.join("about.json")).expect("about.json");
    assert_eq!(programs.matches("\"command\"").count(), 2, "{programs}");
    assert!(
        std::fs::read_to_string(early.join("config.toml"))
            .expect("config.toml")
            .contains("epochs = 20")
    );
}

#[test]
fn pre_training_goes_on_from_a_base_that_fits() {
    let directory = tempfile::tempdir().expect("a directory");
    let pretrain = |name: &str, settings: &[&str]| {
        let out = directory.path().join(name).to_string_lossy().into_owned();
        let mut args = vec![
            "pretrain",
            "--preset",
            "toy-2d-base",
            "--out",
            &out,
            "--set",
            "steps=50",
            "--set",
            "warm_up=5",
        ];
        args.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let output = run(&args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Pre-training from a trained network has a low loss in its first 50 updates.
    let loss =
        |name: &str| metrics(&directory.path().join(name))[0]["loss"].as_f64().expect("a loss");
    for (name, base) in [("fresh", "base=none"), ("continued", "base=toy-2d-base")] {
        let (code, text) = pretrain(name, &[base]);
        assert_eq!(code, Some(0), "{text}");
    }
    let (fresh, continued) = (loss("fresh"), loss("continued"));
    assert!(continued < 0.8 * fresh, "{fresh} {continued}");
    let (code, text) = pretrain("other", &["base=toy-2d-base", "model.width=32"]);
    assert!(code == Some(2) && text.contains("other sizes than `model` asks for"), "{text}");
}

#[test]
fn every_mistake_in_a_configuration_is_named_at_once() {
    let text = refused(&[
        "train",
        "--out",
        "/nonexistent/never-made",
        "--set",
        "epoch=3",
        "--set",
        "grpo.group_size=0",
        "--set",
        "seed=\"x\"",
        "--set",
        "rewards={beauty=1.0}",
    ]);
    for part in [
        "epoch: unknown key; did you mean `epochs`?",
        "grpo.group_size (0) must lie between 1 and",
        "seed: an integer is needed",
        "rewards.beauty",
    ] {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

#[test]
fn a_file_is_read_on_top_of_the_preset() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("mine.toml");
    std::fs::write(&file, "epochs = 2\n[grpo.optimizer]\nweight_decay = 1\n").expect("written");
    let run = directory.path().join("run");
    assert!(toy(&run, &["--config", &file.to_string_lossy(), "--set", "seed=5"]).status.success());
    let config = std::fs::read_to_string(run.join("config.toml")).expect("a configuration");
    assert!(
        config.contains("epochs = 2")
            && config.contains("weight_decay = 1.0")
            && config.contains("seed = 5"),
        "{config}"
    );
    std::fs::write(&file, "epochs = ").expect("written");
    assert!(refused(&["train", "--config", &file.to_string_lossy()]).contains("is not TOML"));
}

#[test]
fn a_run_directory_is_never_overwritten_nor_shared() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = directory.path().join("run");
    assert!(toy(&run, &["--set", "epochs=1"]).status.success());
    let run_text = run.to_string_lossy().into_owned();
    assert!(
        refused(&["train", "--preset", "toy-2d", "--out", &run_text])
            .contains("already holds a run")
    );
    let unborn = directory.path().join("unborn");
    assert!(
        refused(&[
            "train",
            "--preset",
            "toy-2d",
            "--set",
            "base=nowhere",
            "--out",
            &unborn.to_string_lossy()
        ])
        .contains("nowhere")
    );
    assert!(!unborn.exists(), "a start that was refused leaves nothing");
    let lock = std::fs::File::create(run.join(".lock")).expect("a lock file");
    lock.lock().expect("locked");
    assert!(refused(&["train", "--resume", &run_text]).contains("in use by another process"));
}

#[test]
fn bad_input_gets_one_clear_message() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).to_string_lossy().into_owned();
    let out = path("out.png");
    assert!(
        refused(&["sample", "--prompt", "a purple circle", "--output", &out])
            .contains("unknown word `purple`")
    );
    assert!(refused(&["sample", "--output", &out]).contains("--prompt"));
    assert!(
        refused(&["sample", "--prompt", "a circle", "--checkpoint", "nowhere"]).contains("nowhere")
    );
    assert!(
        refused(&["eval", "--checkpoint", "toy-2d-base"]).contains("asks for square RGB images")
    );
    assert!(
        refused(&["train", "--set", "base=toy-2d-base", "--out", &path("points")])
            .contains("asks for square RGB images")
    );
    std::fs::write(path("broken.safetensors"), b"not a checkpoint").expect("written");
    assert!(
        refused(&["eval", "--checkpoint", &path("broken.safetensors")])
            .contains("not a complete safetensors file")
    );
    std::fs::write(path("bad.jsonl"), "{\"tag\": \"colors\"}\nnonsense\n").expect("written");
    let text = refused(&["eval", "--prompts", &path("bad.jsonl")]);
    assert!(text.contains("line 1") && text.contains("line 2"), "{text}");
    assert!(
        refused(&["train", "--preset", "imagenet"])
            .contains("there are: shapes, shapes-64, emoji, text, toy-2d")
    );
    assert!(refused(&["train", "--resume", &path("nothing")]).contains("not a run directory"));
    assert!(
        refused(&[
            "sample",
            "--prompt",
            "a circle",
            "--steps",
            "1",
            "--count",
            "1",
            "--output",
            "/proc/no/such/image.png"
        ])
        .contains("cannot write")
    );
}

#[test]
fn pictures_and_accuracies_come_from_the_built_in_base() {
    let directory = tempfile::tempdir().expect("a directory");
    let [image, table] = ["image.png", "eval.json"].map(|name| directory.path().join(name));
    let output = run(&[
        "sample",
        "--prompt",
        "a photo of a red square",
        "--count",
        "2",
        "--steps",
        "2",
        "--output",
        &image.to_string_lossy(),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(std::fs::read(&image).expect("an image").starts_with(b"\x89PNG"));
    let output =
        run(&["eval", "--samples", "2", "--steps", "2", "--output", &table.to_string_lossy()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&table).expect("a table")).expect("JSON");
    assert!((0.0..=1.0).contains(&json["overall"].as_f64().expect("overall")));
    assert_eq!(json["tags"].as_object().expect("tags").len(), 6);
}

#[test]
fn a_recorded_evaluation_is_repeated_to_the_last_digit() {
    let directory = tempfile::tempdir().expect("a directory");
    let (out, table) = (directory.path().join("run"), directory.path().join("eval.json"));
    let settings = [
        "epochs=1",
        "evaluation_samples=2",
        "grpo.groups=2",
        "grpo.group_size=4",
        "grpo.cool_down=0",
        "seed=5",
    ];
    let mut command = Command::new(program());
    command
        .args(["train", "--out"])
        .arg(&out)
        .args(settings.iter().flat_map(|setting| ["--set", setting]));
    let output = command.output().expect("the program runs");
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert!(output.status.success() && said.contains("40 ODE steps"), "{said}");
    let recorded =
        metrics(&out).into_iter().rfind(|line| line["event"] == "eval").expect("an evaluation");
    let [run_text, table_text] = [&out, &table].map(|path| path.to_string_lossy().into_owned());
    let output = run(&["eval", "--as-in", &run_text, "--output", &table_text]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let repeated: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&table).expect("a table")).expect("JSON");
    for number in ["overall", "partial", "tags", "faults", "rewards"] {
        assert!(!repeated[number].is_null(), "{repeated}");
        assert_eq!(repeated[number], recorded[number], "{number}");
    }
    assert!(
        refused(&["eval", "--as-in", &run_text, "--steps", "3"]).contains("--steps"),
        "a run has its own"
    );
    assert!(refused(&["eval", "--as-in", "/nonexistent"]).contains("--as-in: cannot read"));
}

/// A limit on the size of files: writes beyond a few kilobytes fail, as on a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_breaks_the_run_with_one_clear_message() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = directory.path().join("run");
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec '{}' train --preset toy-2d --set epochs=2 --out '{}'",
        program().display(),
        run.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("the run broke off")
            && text.contains("cannot write")
            && text.contains(&run.display().to_string()),
        "{text}"
    );
}

#[test]
fn only_the_layers_that_are_named_are_trained() {
    let directory = tempfile::tempdir().expect("a directory");
    let trained = |verb: &str, settings: &[&str]| {
        let out = directory.path().join(verb);
        let path = out.to_string_lossy().into_owned();
        let mut args = vec![verb, "--preset", settings[0], "--out", &path];
        args.extend(settings[1..].iter().flat_map(|setting| ["--set", setting]));
        let output = run(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        out
    };
    let tensors = |path: &Path| {
        models::WeightsFile::read(path).and_then(|file| file.tensors()).expect("tensors")
    };
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/checkpoints");
    let base = tensors(&assets.join("toy-2d-base.safetensors"));
    let pretrained = trained(
        "pretrain",
        &["toy-2d-base", "base=toy-2d-base", "layers=[\"output\"]", "steps=20", "warm_up=2"],
    );
    let policy =
        trained("train", &["toy-2d", "tuning.layers=[\"output\", \"hidden.1\"]", "epochs=3"]);
    for (file, layers) in [
        (pretrained.join("base.safetensors"), &["output"][..]),
        (policy.join("policy.safetensors"), &["output", "hidden.1"]),
    ] {
        for (name, values) in tensors(&file) {
            let asked = layers.iter().any(|layer| name.starts_with(layer));
            assert_eq!(values != base[&name], asked, "{}: {name}", file.display());
        }
    }
    let refused = refused(&[
        "train",
        "--preset",
        "toy-2d",
        "--set",
        "tuning.layers=[\"hidden\", \"outptu\"]",
        "--out",
        &directory.path().join("never").to_string_lossy(),
    ]);
    let named = "no layer `outptu`; its outermost layers are hidden, output";
    assert!(refused.contains("tuning.layers") && refused.contains(named), "{refused}");
}
