//! The program's output: a log that nobody reads ends no run, and echoed input cannot control the
//! terminal.

use std::{
    fs::File,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::cli::{metrics, program, refused, run};

const SETTINGS: [&str; 4] =
    ["epochs=6", "evaluation_samples=10", "grpo.group_size=16", "grpo.cool_down=0"];

fn train(out: &Path) -> Command {
    let mut command = Command::new(program());
    command.args(["train", "--preset", "toy-2d", "--out"]).arg(out);
    command.args(SETTINGS.iter().flat_map(|setting| ["--set", setting]));
    command
}

fn assert_trained(path: &Path, how: &str) {
    let epochs = metrics(path).iter().filter(|line| line["event"] == "epoch").count();
    assert_eq!(epochs, 6, "{how}");
    assert!(path.join("report.html").exists(), "{how}");
}

#[test]
fn a_log_that_nobody_reads_ends_no_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("unread");
    let mut child = train(&path).stderr(Stdio::piped()).spawn().expect("the program runs");
    drop(child.stderr.take()); // As `2>&1 | head -1`.
    assert!(child.wait().expect("it ends").success());
    assert_trained(&path, "unread");
    #[cfg(target_os = "linux")]
    {
        let path = directory.path().join("full");
        let full = File::options().write(true).open("/dev/full").expect("a full device");
        assert!(train(&path).stderr(full).status().expect("the program runs").success());
        assert_trained(&path, "full");
    }
}

#[test]
fn a_result_that_nobody_reads_is_no_error_and_one_that_cannot_be_written_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("run");
    assert!(train(&path).stderr(Stdio::null()).status().expect("the program runs").success());
    let compare = || {
        let mut command = Command::new(program());
        command
            .arg("compare")
            .arg(&path)
            .args(["--number", "rewards.toy_mode", "--output"])
            .arg(directory.path().join("c.svg"));
        command.stderr(Stdio::piped());
        command
    };
    let mut child = compare().stdout(Stdio::piped()).spawn().expect("the program runs");
    drop(child.stdout.take());
    let Output { status, stderr, .. } = child.wait_with_output().expect("it ends");
    assert!(status.success() && stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    #[cfg(target_os = "linux")]
    {
        let full = File::options().write(true).open("/dev/full").expect("a full device");
        let output = compare().stdout(full).output().expect("the program runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.code() == Some(2) && text.contains("cannot write to standard output"),
            "{text}"
        );
    }
    // The error names the missing metric, and the metrics that the run has.
    let text = refused(&[
        "compare",
        &path.to_string_lossy(),
        "--output",
        &directory.path().join("d.svg").to_string_lossy(),
    ]);
    assert!(
        text.contains("--number overall: no run has it") && text.contains("rewards.toy_mode"),
        "{text}"
    );
}

#[test]
fn what_is_repeated_of_the_input_can_be_seen_and_is_not_endless() {
    let text = refused(&["sample", "--prompt", "a photo of \u{feff}a \x1b[2Jcircle"]);
    assert!(
        !text.contains('\x1b') && !text.contains('\u{feff}') && text.contains("\\u{feff}a"),
        "{text}"
    );
    let long = "x".repeat(100_000);
    let text = refused(&["sample", "--prompt", &long]);
    assert!(text.len() < 20_000 && text.contains("more characters"), "{}", text.len());
}

#[test]
fn a_file_from_another_system_reads_as_one_from_here() {
    let directory = tempfile::tempdir().expect("a directory");
    let images = |name: &str, text: &[u8]| {
        let file = directory.path().join(format!("{name}.txt"));
        std::fs::write(&file, text).expect("written");
        let out = directory.path().join(format!("{name}.png"));
        let [file, png] = [&file, &out].map(|path| path.to_string_lossy().into_owned());
        let output = run(&[
            "sample",
            "--prompt-file",
            &file,
            "--count",
            "1",
            "--steps",
            "1",
            "--output",
            &png,
        ]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(out).expect("an image")
    };
    let plain = images("plain", b"a photo of a circle\na photo of a square\n");
    assert!(
        images("marked", b"\xef\xbb\xbfa photo of a circle\r\na photo of a square\r\n") == plain
    );
    assert!(images("old", b"a photo of a circle\ra photo of a square\r") == plain);
}
