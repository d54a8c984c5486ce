//! Runs that are killed, moved or damaged: nothing is lost, and a run that cannot resume says why.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use crate::cli::{metrics, program, refused, run};

/// A run of a second with checkpoints, evaluations and a best policy at different epochs.
const SETTINGS: [&str; 5] = [
    "epochs=14",
    "checkpoint_every=3",
    "evaluate_every=4",
    "evaluation_samples=100",
    "grpo.updates_per_epoch=3",
];

pub fn train(out: &Path) -> Command {
    let mut command = Command::new(program());
    command.args(["train", "--preset", "toy-2d", "--out"]).arg(out);
    command.args(SETTINGS.iter().flat_map(|setting| ["--set", setting])).stderr(Stdio::null());
    command
}

pub fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Asserts that two runs left the same files, apart from wall-clock times.
pub fn assert_same(killed: &Path, whole: &Path, when: &str) {
    assert_eq!(metrics(killed), metrics(whole), "{when}");
    let checkpoints = names(&whole.join("checkpoints"));
    assert_eq!(names(&killed.join("checkpoints")), checkpoints, "{when}");
    let files = checkpoints.iter().map(|name| format!("checkpoints/{name}"));
    for file in files.chain(["policy.safetensors", "best.safetensors"].map(str::to_owned)) {
        let read = |run: &Path| {
            std::fs::read(run.join(&file)).unwrap_or_else(|error| panic!("{when}: {file}: {error}"))
        };
        assert!(read(killed) == read(whole), "{when}: {file} differs");
    }
}

/// `FLOW_GRPO_KILLS=50` for the long version.
#[test]
fn a_run_killed_at_any_moment_goes_on_as_if_it_never_had_been() {
    let kills: u32 = std::env::var("FLOW_GRPO_KILLS")
        .map_or(8, |number| number.parse().expect("FLOW_GRPO_KILLS is a number"));
    let directory = tempfile::tempdir().expect("a directory");
    let whole = directory.path().join("whole");
    let started = Instant::now();
    assert!(train(&whole).status().expect("the program runs").success());
    let took = started.elapsed();
    let mut killed_early = 0;
    for kill in 0..kills {
        let run_directory = directory.path().join(format!("killed-{kill}"));
        let mut child = train(&run_directory).spawn().expect("the program runs");
        // Spread over the run, at moments that are never quite the same.
        std::thread::sleep(took.mul_f64((f64::from(kill) + 0.5) / f64::from(kills)));
        let _ = child.kill();
        let status = child.wait().expect("it ends");
        let when = format!(
            "killed after {:?} ({status})",
            took.mul_f64((f64::from(kill) + 0.5) / f64::from(kills))
        );
        killed_early += u32::from(!status.success());
        // Without a configuration there is nothing to resume, and the directory is free.
        let goes_on = if run_directory.join("config.toml").exists() {
            run(&["train", "--resume", &run_directory.to_string_lossy()])
        } else {
            train(&run_directory).stderr(Stdio::piped()).output().expect("the program runs")
        };
        assert!(goes_on.status.success(), "{when}: {}", String::from_utf8_lossy(&goes_on.stderr));
        assert_same(&run_directory, &whole, &when);
    }
    // Between the first evaluation and the first checkpoint, a moment that a kill rarely meets.
    let early = directory.path().join("early");
    assert!(train(&early).status().expect("the program runs").success());
    let lines = std::fs::read_to_string(early.join("metrics.jsonl")).expect("metrics");
    std::fs::write(
        early.join("metrics.jsonl"),
        format!("{}\n", lines.lines().next().expect("a line")),
    )
    .expect("written");
    for name in names(&early.join("checkpoints")) {
        std::fs::remove_file(early.join("checkpoints").join(name)).expect("removed");
    }
    assert!(run(&["train", "--resume", &early.to_string_lossy()]).status.success());
    assert_same(&early, &whole, "stopped in its first evaluation");
    assert!(
        killed_early > kills / 2,
        "most kills must come before the end: {killed_early} of {kills}"
    );
}

#[test]
fn the_last_checkpoints_and_the_best_are_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    for (best_by, best) in
        [("rewards.toy_mode", None), ("monitors.diversity", Some("000000.safetensors"))]
    {
        let path = directory.path().join(best_by);
        let setting = format!("best_by={best_by}");
        assert!(
            train(&path).args(["--set", &setting]).status().expect("the program runs").success()
        );
        let epochs: Vec<u64> = metrics(&path)
            .iter()
            .filter(|line| line["event"] == "eval")
            .map(|line| line["epoch"].as_u64().expect("an epoch"))
            .collect();
        assert_eq!(epochs, [0, 4, 8, 12, 14]);
        // The reward is best at the end, the diversity at the start.
        let kept: Vec<&str> =
            best.into_iter().chain(["000012.safetensors", "000014.safetensors"]).collect();
        assert_eq!(names(&path.join("checkpoints")), kept);
        let of = |name: &str| std::fs::read(path.join(name)).expect("weights");
        assert_eq!(of("best.safetensors") == of("policy.safetensors"), best.is_none());
    }
}

#[test]
fn a_run_goes_on_only_as_it_was_begun() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run");
    assert!(train(&path).status().expect("the program runs").success());
    let resumed = path.to_string_lossy().into_owned();
    let text = refused(&[
        "train",
        "--resume",
        &resumed,
        "--set",
        "grpo.group_size=8",
        "--set",
        "seed=2",
        "--set",
        "epochs=20",
    ]);
    for part in [
        "grpo.group_size is 256 in the run, 8 now",
        "seed is 1 in the run, 2 now",
        "begin a new run",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("epochs is"), "{text}");
    // A change made in the file by hand is noticed too.
    let config = path.join("config.toml");
    let written = std::fs::read_to_string(&config).expect("config.toml");
    std::fs::write(&config, written.replace("clip_range_low = 0.05", "clip_range_low = 0.1"))
        .expect("written");
    assert!(
        refused(&["train", "--resume", &resumed])
            .contains("grpo.objective.clip_range_low is 0.05 in the run, 0.1 now")
    );
    std::fs::write(&config, written).expect("written");
    // Settings for memory may change: the micro-batch, and where trajectories are kept.
    let smaller = ["--set", "grpo.micro_batch=16", "--set", "grpo.rollout.trajectories=host"];
    let longer = ["train", "--resume", &resumed, "--set", "epochs=16", "--set", "evaluate_every=2"];
    let output = run(&[&longer[..], &smaller[..]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn checkpoints_that_vanished_are_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run");
    assert!(train(&path).status().expect("the program runs").success());
    let resumed = path.to_string_lossy().into_owned();
    std::fs::remove_dir_all(path.join("checkpoints")).expect("removed");
    assert!(refused(&["train", "--resume", &resumed]).contains("checkpoints"));
    std::fs::create_dir(path.join("checkpoints")).expect("made");
    assert!(refused(&["train", "--resume", &resumed]).contains("metrics.jsonl goes up to 14"));
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_written_or_goes_away_is_named() {
    assert!(
        refused(&["train", "--preset", "toy-2d", "--out", "/proc/run"])
            .contains("cannot make the run directory /proc/run")
    );
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run");
    let settings =
        ["epochs=100000", "checkpoint_every=50", "evaluate_every=1000", "evaluation_samples=10"];
    let mut command = Command::new(program());
    command.args(["train", "--preset", "toy-2d", "--out"]).arg(&path).stderr(Stdio::piped());
    let mut child = command
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .spawn()
        .expect("the program runs");
    while !path.join("checkpoints/000050.safetensors").exists() {
        assert!(child.try_wait().expect("a status").is_none(), "it must not end by itself");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    std::fs::rename(&path, directory.path().join("elsewhere")).expect("moved");
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("the run broke off")
            && text.contains(&path.display().to_string())
            && !text.contains("panicked"),
        "{text}"
    );
    // Nothing is lost: the run resumes at its new place.
    let moved = directory.path().join("elsewhere").to_string_lossy().into_owned();
    assert!(run(&["train", "--resume", &moved, "--set", "epochs=120"]).status.success());
}

#[test]
fn a_base_model_that_vanished_is_named_and_a_clock_that_goes_backwards_does_no_harm() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, base) = (directory.path().join("run"), directory.path().join("base.safetensors"));
    let built_in =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/checkpoints/toy-2d-base.safetensors");
    std::fs::copy(built_in, &base).expect("copied");
    assert!(
        train(&path)
            .arg("--set")
            .arg(format!("base={}", base.display()))
            .status()
            .expect("the program runs")
            .success()
    );
    let resumed = path.to_string_lossy().into_owned();
    // As if the session before this one had been in the year 2286.
    let events = path.join("tensorboard");
    let written = names(&events).pop().expect("an event file");
    std::fs::rename(
        events.join(written),
        events.join("events.out.tfevents.009999999999.flow-grpo"),
    )
    .expect("renamed");
    assert!(run(&["train", "--resume", &resumed, "--set", "epochs=15"]).status.success());
    assert_eq!(
        names(&events).pop().expect("an event file"),
        "events.out.tfevents.010000000000.flow-grpo"
    );
    std::fs::remove_file(&base).expect("removed");
    let text = refused(&["train", "--resume", &resumed, "--set", "epochs=16"]);
    assert!(
        text.contains(&base.display().to_string())
            && text.contains("neither a built-in checkpoint"),
        "{text}"
    );
}

/// Removes the checkpoints after `epoch`, as if the run had been killed before them.
fn take_back_to(run: &Path, epoch: usize) {
    for name in names(&run.join("checkpoints")) {
        if name
            .split('.')
            .next()
            .and_then(|stem| stem.parse::<usize>().ok())
            .is_some_and(|other| other > epoch)
        {
            std::fs::remove_file(run.join("checkpoints").join(name)).expect("removed");
        }
    }
}

#[test]
fn every_number_of_a_checkpoint_comes_back_to_the_last_bit() {
    // Images, whose monitors remember features of the base model, and a KL weight that a controller
    // moves.
    let directory = tempfile::tempdir().expect("a directory");
    let [whole, stopped] = ["whole", "stopped"].map(|name| directory.path().join(name));
    let settings = [
        "epochs=4",
        "checkpoint_every=1",
        "keep_checkpoints=9",
        "evaluate_every=2",
        "evaluation_samples=1",
        "best_by=monitors.base_distance",
        "grpo.groups=2",
        "grpo.group_size=4",
        "grpo.cool_down=0",
        "grpo.objective.kl_controller={kind=\"adaptive\", target=1e-5, rate=0.3}",
    ];
    for path in [&whole, &stopped] {
        let mut command = Command::new(program());
        command
            .args(["train", "--out"])
            .arg(path)
            .args(settings.iter().flat_map(|setting| ["--set", setting]));
        let output = command.output().expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    take_back_to(&stopped, 1);
    assert!(run(&["train", "--resume", &stopped.to_string_lossy()]).status.success());
    assert_same(&stopped, &whole, "taken back to epoch 1");
}

#[test]
fn pre_training_that_was_stopped_equals_one_that_was_not() {
    let directory = tempfile::tempdir().expect("a directory");
    let [whole, stopped] = ["whole", "stopped"].map(|name| directory.path().join(name));
    let settings =
        ["steps=150", "checkpoint_every=100", "evaluate_every=100", "evaluation_samples=10"];
    for path in [&whole, &stopped] {
        let mut command = Command::new(program());
        command.args(["pretrain", "--preset", "toy-2d-base", "--out"]).arg(path);
        let output = command
            .args(settings.iter().flat_map(|setting| ["--set", setting]))
            .output()
            .expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let read = |run: &Path, name: &str| std::fs::read(run.join(name)).expect("weights");
    let losses =
        |run: &Path| metrics(run).iter().map(|line| line["loss"].clone()).collect::<Vec<_>>();
    // Stopped between the last checkpoint and the base model, and before the first checkpoint.
    for lose in [150, 0] {
        std::fs::remove_file(stopped.join("base.safetensors")).expect("removed");
        take_back_to(&stopped, lose);
        if lose == 0 {
            std::fs::copy(
                whole.join("checkpoints/000100.safetensors"),
                directory.path().join("unused"),
            )
            .expect("kept");
            std::fs::remove_dir_all(stopped.join("checkpoints")).expect("removed");
            std::fs::create_dir(stopped.join("checkpoints")).expect("made");
            std::fs::write(stopped.join("metrics.jsonl"), "").expect("written");
        }
        let output = run(&["pretrain", "--resume", &stopped.to_string_lossy()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(losses(&stopped), losses(&whole));
        for name in ["base.safetensors", "checkpoints/000150.safetensors"] {
            assert!(read(&stopped, name) == read(&whole, name), "{name} after losing {lose}");
        }
    }
}

#[test]
fn what_a_kill_left_undone_after_the_last_checkpoint_is_done_on_resume() {
    let directory = tempfile::tempdir().expect("a directory");
    let [whole, killed] = ["whole", "killed"].map(|name| directory.path().join(name));
    assert!(train(&whole).status().expect("the program runs").success());
    assert!(train(&killed).status().expect("the program runs").success());
    for name in ["policy.safetensors", "best.safetensors"] {
        std::fs::write(killed.join(name), "older").expect("written");
    }
    assert!(run(&["train", "--resume", &killed.to_string_lossy()]).status.success());
    assert_same(&killed, &whole, "killed after its last checkpoint");
}

#[test]
fn another_base_under_the_same_name_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let (path, base) = (directory.path().join("run"), directory.path().join("base.safetensors"));
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/checkpoints");
    std::fs::copy(assets.join("toy-2d-base.safetensors"), &base).expect("copied");
    assert!(
        train(&path)
            .arg("--set")
            .arg(format!("base={}", base.display()))
            .status()
            .expect("the program runs")
            .success()
    );
    std::fs::copy(path.join("policy.safetensors"), &base).expect("copied");
    let text = refused(&["train", "--resume", &path.to_string_lossy(), "--set", "epochs=16"]);
    assert!(text.contains("`base` is not the file"), "{text}");
}

#[test]
fn a_run_of_another_version_is_refused_with_the_way_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run");
    assert!(train(&out).status().expect("the program runs").success());
    let file = out.join("config.toml");
    let text = std::fs::read_to_string(&file).expect("a configuration");
    std::fs::write(&file, text.replace("random_steps", "noisy_steps")).expect("written");
    let refused = refused(&["train", "--resume", &out.to_string_lossy()]);
    for says in ["noisy_steps", "started with version 0.1.0", "policy.safetensors"] {
        assert!(refused.contains(says), "{refused}");
    }
}

/// The old policy of `DiffusionNFT`, which samples, is part of the state.
#[test]
fn a_run_with_an_old_policy_that_is_lengthened_equals_a_longer_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let [parts, whole] = ["parts", "whole"].map(|name| directory.path().join(name));
    let begin = |out: &Path, epochs: &str| {
        let old =
            "grpo.objective={ kind = \"nft\", old_policy = { flat = 0, rate = 0.1, most = 0.5 } }";
        let settings = [epochs, "evaluation_samples=50", "grpo.rollout.random_steps=0", old];
        let mut command = Command::new(program());
        command.args(["train", "--preset", "toy-2d", "--out"]).arg(out);
        command.args(settings.iter().flat_map(|setting| ["--set", setting]));
        assert!(command.output().expect("the program runs").status.success());
    };
    begin(&parts, "epochs=4");
    let resumed = run(&["train", "--resume", &parts.to_string_lossy(), "--set", "epochs=8"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    begin(&whole, "epochs=8");
    let epochs = |run: &Path| {
        metrics(run).into_iter().filter(|line| line["event"] == "epoch").collect::<Vec<_>>()
    };
    assert_eq!(epochs(&parts), epochs(&whole));
    let read = |run: &Path| std::fs::read(run.join("policy.safetensors")).expect("a policy");
    assert!(read(&parts) == read(&whole), "the policies differ");
}
