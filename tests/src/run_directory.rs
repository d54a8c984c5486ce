//! Run directories: a run touches only its own files, and reports damaged ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cli::{metrics, program, refused, run},
    durability::{names, train},
};

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("made");
    fs::write(path, text).expect("written");
}

fn resume(path: &Path) -> (Option<i32>, String) {
    let output = run(&["train", "--resume", &path.to_string_lossy()]);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A finished run of 14 epochs, with checkpoints of the epochs 12 and 14.
fn finished(directory: &Path) -> PathBuf {
    let path = directory.join("run");
    assert!(train(&path).status().expect("the program runs").success());
    path
}

#[cfg(unix)]
#[test]
fn a_directory_that_is_no_run_is_refused_and_left_as_it_was() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    write(&at("home/thesis.tmp"), "x");
    write(&at("outside/y.tmp"), "x");
    write(&at("victim"), "v");
    symlink("../outside", at("home/l")).expect("linked");
    symlink("../victim", at("home/.lock")).expect("linked");
    for home in ["home", "outside"] {
        let before = names(&at(home));
        let text = refused(&["train", "--preset", "toy-2d", "--out", &at(home).to_string_lossy()]);
        assert!(text.contains("no run directory, and not empty"), "{text}");
        assert_eq!(names(&at(home)), before);
    }
    assert_eq!(fs::read_to_string(at("victim")).expect("it is there"), "v");
    assert!(at("outside/y.tmp").exists() && at("home/thesis.tmp").exists());
    // A configuration that is not TOML: nothing is touched before it has been checked.
    write(&at("broken/config.toml"), "y");
    write(&at("broken/.tmpabc123.tmp"), "x");
    assert!(refused(&["train", "--resume", &at("broken").to_string_lossy()]).contains("not TOML"));
    assert!(at("broken/.tmpabc123.tmp").exists());
    // A refused start leaves nothing behind, and an empty directory counts as a missing one.
    fs::create_dir(at("empty")).expect("made");
    for out in ["new/deep", "empty"] {
        let out = at(out).to_string_lossy().into_owned();
        assert!(
            refused(&["train", "--preset", "toy-2d", "--set", "base=typo", "--out", &out])
                .contains("typo")
        );
        assert!(!Path::new(&out).exists() || names(Path::new(&out)).is_empty());
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_goes_on_touches_what_is_its_own() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().expect("a directory");
    let path = finished(directory.path());
    let outside = directory.path().join("outside/.tmpabc123.tmp");
    write(&outside, "x");
    symlink("../outside", path.join("l")).expect("linked");
    symlink("../../outside", path.join("prompts")).expect("linked");
    // Two links to the directory itself give 2^40 paths to a walk that follows links.
    symlink(".", path.join("x")).expect("linked");
    symlink(".", path.join("y")).expect("linked");
    let others = [
        "notes.tmp",
        "samples/mine.tmp",
        "mine/.tmpabc123.tmp",
        "checkpoints/.tmp.tmp",
        "b/checkpoints/.tmpabc123.tmp",
    ];
    let own = [
        ".tmpabc123.tmp",
        "checkpoints/.tmpAbC123.tmp",
        "samples/.tmp000000.tmp",
        "adapter/.tmpabc123.tmp",
    ];
    for name in others.iter().chain(&own) {
        write(&path.join(name), "x");
    }
    write(&path.join(".lock"), "kept");
    let (code, text) = resume(&path);
    assert_eq!(code, Some(0), "{text}");
    for name in others {
        assert!(path.join(name).exists(), "{name} is somebody's");
    }
    for name in own {
        assert!(!path.join(name).exists(), "{name} was never finished");
    }
    assert!(outside.exists());
    assert_eq!(fs::read_to_string(path.join(".lock")).expect("a lock"), "kept");
    // A lock that is a link to another file.
    let victim = directory.path().join("victim");
    write(&victim, "v");
    fs::remove_file(path.join(".lock")).expect("removed");
    symlink(&victim, path.join(".lock")).expect("linked");
    let (code, text) = resume(&path);
    assert!(code == Some(2) && text.contains(".lock is a link"), "{text}");
    assert_eq!(fs::read_to_string(victim).expect("it is there"), "v");
}

#[test]
fn a_hole_or_a_damaged_line_in_the_metrics_is_said() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = finished(directory.path());
    let file = path.join("metrics.jsonl");
    let whole = fs::read(&file).expect("metrics");
    let lines: Vec<&[u8]> = whole.split_inclusive(|&byte| byte == b'\n').collect();
    // As a power loss leaves the file.
    fs::write(&file, lines[..5].concat()).expect("written");
    let (code, text) = resume(&path);
    assert!(
        code == Some(0) && text.contains("no line of epoch 5 to 14") && text.contains("a hole"),
        "{text}"
    );
    assert_eq!(fs::read(path.join("metrics.damaged.jsonl")).expect("kept"), lines[..5].concat());
    let mut damaged = lines.clone();
    damaged[3] = b"{\"event\":\"epoch\",\xff\n";
    fs::write(&file, damaged.concat()).expect("written");
    let (code, text) = resume(&path);
    assert!(code == Some(0) && text.contains("1 damaged lines and no line of epoch 3"), "{text}");
    fs::write(&file, &whole).expect("written");
    let (code, text) = resume(&path);
    assert!(code == Some(0) && !text.contains("warning"), "{text}");
    assert_eq!(metrics(&path).len(), lines.len());
}

#[test]
fn a_missing_image_or_a_report_that_cannot_be_written_ends_no_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = finished(directory.path());
    let again = |path: &Path| {
        fs::remove_file(path.join("checkpoints/000014.safetensors")).expect("removed");
        let (code, text) = resume(path);
        assert!(
            path.join("checkpoints/000014.safetensors").exists(),
            "saved before the report: {text}"
        );
        (code, text)
    };
    fs::remove_file(path.join("samples/validation-000000.png")).expect("removed");
    let (code, text) = again(&path);
    assert_eq!(code, Some(0), "{text}");
    let report = fs::read_to_string(path.join("report.html")).expect("a report");
    assert!(report.contains("epoch 0: the image cannot be read"), "it says what is missing");
    fs::remove_file(path.join("report.html")).expect("removed");
    fs::create_dir(path.join("report.html")).expect("made");
    let (code, text) = again(&path);
    assert!(code == Some(0) && text.contains("warning: the report cannot be written"), "{text}");
}

#[test]
fn the_report_of_a_long_run_shows_some_of_its_evaluations() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run");
    let mut command = train(&path);
    let settings = [
        "epochs=60",
        "evaluate_every=1",
        "evaluation_samples=10",
        "grpo.group_size=16",
        "grpo.cool_down=0",
    ];
    command.args(settings.iter().flat_map(|setting| ["--set", setting]));
    assert!(command.status().expect("the program runs").success());
    assert_eq!(names(&path.join("samples")).len(), 61);
    let report = fs::read_to_string(path.join("report.html")).expect("a report");
    assert_eq!(report.matches("data:image/png").count(), 1 + 16);
    assert!(
        report.contains("data-epoch=\"60\"") && !report.contains("data-epoch=\"59\""),
        "the last one and every fourth before it"
    );
}

#[test]
fn a_training_state_is_named_where_a_checkpoint_is_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = finished(directory.path());
    let state = path.join("checkpoints/000014.safetensors").to_string_lossy().into_owned();
    let text = refused(&["eval", "--checkpoint", &state]);
    assert!(text.contains("is a training state") && text.contains("policy.safetensors"), "{text}");
    // Renamed, the file claims to be the state of another epoch.
    fs::rename(&state, path.join("checkpoints/000013.safetensors")).expect("renamed");
    let (code, text) = resume(&path);
    assert!(
        code == Some(2) && text.contains("000013.safetensors holds the state after 14"),
        "{text}"
    );
}

#[test]
fn a_run_goes_on_from_the_newest_state_that_is_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = finished(directory.path());
    let [older, newest] =
        ["000012", "000014"].map(|name| path.join(format!("checkpoints/{name}.safetensors")));
    let whole = fs::read(&newest).expect("a checkpoint");
    let mut flipped = whole.clone();
    let middle = flipped.len() - 1000;
    flipped[middle] ^= 1;
    for damaged in [&flipped[..], &whole[..1000], b""] {
        fs::write(&newest, damaged).expect("written");
        let (code, text) = resume(&path);
        assert_eq!(code, Some(0), "{text}");
        assert!(
            text.contains("000014.safetensors is")
                && text.contains("resumes from")
                && text.contains("000012"),
            "{text}"
        );
        assert!(fs::read(&newest).expect("made again") == whole, "the same bytes");
        assert!(
            fs::read(path.join("checkpoints/000014.safetensors.damaged")).expect("kept") == damaged
        );
    }
    for state in [&older, &newest] {
        fs::write(state, &flipped).expect("written");
    }
    let (code, text) = resume(&path);
    assert!(
        code == Some(2)
            && text.contains("no checkpoint is whole")
            && text.contains("its digest is another"),
        "{text}"
    );
}

#[cfg(unix)]
#[test]
fn arguments_that_are_no_text_are_no_reason_to_panic() {
    use std::os::unix::ffi::OsStrExt;
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join(std::ffi::OsStr::from_bytes(b"bad\xff"));
    let mut command = std::process::Command::new(program());
    command
        .args([
            "train",
            "--preset",
            "toy-2d",
            "--set",
            "epochs=1",
            "--set",
            "evaluation_samples=10",
            "--out",
        ])
        .arg(&out);
    let output = command.output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.join("report.html").exists());
}
