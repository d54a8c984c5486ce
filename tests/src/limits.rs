//! Numbers and files beyond all limits: refused before anything is allocated.

use std::process::Command;

use crate::cli::{program, refused};

#[test]
fn sizes_beyond_all_limits_are_refused() {
    for (args, says) in [
        (&["sample", "--prompt", "a", "--steps", "4294967295"][..], "--steps"),
        (&["sample", "--prompt", "a", "--count", "4294967295"], "--count"),
        (&["eval", "--samples", "400000000"], "--samples"),
        (
            &[
                "init-random",
                "--like",
                "sd35-medium",
                "--layers",
                "4294967295",
                "--out",
                "/nonexistent/x",
            ],
            "--layers (4294967295)",
        ),
        (&["eval", "--guidance", "nan"], "--guidance"),
        (&["sample", "--prompt", "a", "--guidance", "inf"], "--guidance"),
        (&["sample", "--prompt", "a", "--guidance", "1e300"], "--guidance"),
        (
            &["sample", "--prompt", "a", "--model", "/nonexistent", "--guidance", "nan"],
            "--guidance",
        ),
        (
            &["eval", "--samples", "1", "--output", "/nonexistent/x.json"],
            "there is no directory /nonexistent",
        ),
    ] {
        let text = refused(args);
        assert!(text.contains(says), "{args:?}: {text}");
    }
}

#[test]
fn a_prompt_file_of_millions_of_images_is_held_against_the_memory() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("prompts.txt");
    std::fs::write(&file, "a photo of a circle\n".repeat(1_000_000)).expect("written");
    let text = refused(&["sample", "--prompt-file", &file.to_string_lossy(), "--count", "1000000"]);
    assert!(text.contains("images needs about") && text.contains("ask for fewer"), "{text}");
}

#[cfg(unix)]
#[test]
fn files_without_an_end_are_refused() {
    for args in [
        &["eval", "--checkpoint", "/dev/zero"][..],
        &["eval", "--prompts", "/dev/zero"],
        &["sample", "--prompt-file", "/dev/zero"],
        &["train", "--config", "/dev/zero"],
        &[
            "train",
            "--preset",
            "toy-2d",
            "--set",
            "base=/dev/zero",
            "--out",
            "/tmp/flow-grpo-never-made",
        ],
        &[
            "train",
            "--preset",
            "toy-2d",
            "--set",
            "prompts.test=/dev/zero",
            "--out",
            "/tmp/flow-grpo-never-made",
        ],
    ] {
        let text = refused(args);
        assert!(
            text.contains("/dev/zero")
                && (text.contains("larger than") || text.contains("no ordinary file")),
            "{text}"
        );
    }
    assert!(refused(&["eval", "--checkpoint", "/tmp"]).contains("no model_index.json"));
}

#[cfg(all(target_os = "linux", any(feature = "flex", feature = "ndarray")))]
#[test]
fn a_limit_of_the_process_counts_as_its_memory() {
    let run = |megabytes: u32| {
        let settings =
            "--set epochs=1 --set grpo.cool_down=0 --set grpo.groups=64 --set evaluation_samples=1";
        let script = format!(
            "ulimit -v {}; exec '{}' train {settings} --out /nonexistent/x",
            megabytes * 1024,
            program().display()
        );
        let script = script.replace(
            "/nonexistent/x",
            &std::env::temp_dir().join("flow-grpo-limit").to_string_lossy(),
        );
        let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = run(1500);
    assert!(code == Some(2) && text.contains("the limits of this process"), "{code:?}: {text}");
}

#[test]
fn what_a_task_cannot_draw_is_refused_before_it_is_trained() {
    for (preset, setting, says) in [
        ("shapes-base", "model.image_size=8", "model.image_size (8) must be at least 16"),
        ("shapes-base", "model.channels=1", "model.channels (1) must be 3"),
        ("toy-2d-base", "model.elements=3", "model.elements (3) must be 2"),
        ("shapes-base", "times={kind=\"logit_normal\", mean=nan, std=1.0}", "times.mean (NaN)"),
        ("shapes-base", "times={kind=\"logit_normal\", mean=0.0, std=-1.0}", "times.std (-1)"),
    ] {
        let text =
            refused(&["pretrain", "--preset", preset, "--out", "/nonexistent/x", "--set", setting]);
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn a_run_of_the_other_kind_is_named() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().to_string_lossy().into_owned();
    for (text, verb, of) in [("[grpo]", "pretrain", "train"), ("steps = 3", "train", "pretrain")] {
        std::fs::write(directory.path().join("config.toml"), text).expect("written");
        let text = refused(&[verb, "--resume", &out]);
        assert!(text.contains(&format!("is a run of `{of}`")), "{text}");
    }
}

#[test]
fn points_far_outside_of_the_plot_are_no_reason_to_panic() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("run");
    let mut command = Command::new(program());
    command.args(["train", "--preset", "toy-2d", "--out"]).arg(&out);
    let settings = [
        "grpo.optimizer.learning_rate=1",
        "evaluate_every=1",
        "epochs=4",
        "evaluation_samples=50",
        "grpo.cool_down=0",
    ];
    let output = command
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .output()
        .expect("the program runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)) && !text.contains("panicked"), "{text}");
}
