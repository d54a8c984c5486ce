//! Signals that end a run: a checkpoint stays, and unfinished work leaves no trace.

#![cfg(unix)]

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{
    cli::{metrics, program, run},
    durability::{assert_same, names, train},
};

fn send(signal: &str, child: &Child) {
    assert!(
        Command::new("kill")
            .args([&format!("-{signal}"), &child.id().to_string()])
            .status()
            .expect("kill runs")
            .success()
    );
}

/// Waits until the run has come so far; it must not end before.
fn wait_for(child: &mut Child, so_far: impl Fn() -> bool) {
    while !so_far() {
        assert!(child.try_wait().expect("a status").is_none(), "it must not end by itself");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn lines(run: &Path) -> usize {
    std::fs::read_to_string(run.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

/// Whether this process ignores a signal; known on Linux.
fn is_ignored(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (number - 1) & 1 == 1)
}

#[test]
fn every_signal_that_ends_programs_leaves_a_checkpoint_and_says_how_to_go_on() {
    let directory = tempfile::tempdir().expect("a directory");
    // The program inherits the signals that these tests ignore, as under `nohup`, and keeps
    // ignoring them.
    let heard = [("INT", 2), ("TERM", 15), ("HUP", 1), ("USR1", 10)]
        .into_iter()
        .filter(|(_, number)| !is_ignored(*number));
    for (signal, _) in heard {
        let run = directory.path().join(format!("it's {signal}"));
        let settings = [
            "epochs=1000000",
            "evaluation_samples=10",
            "grpo.cool_down=0",
            "checkpoint_every=1000000",
        ];
        let mut command = Command::new(program());
        command
            .args(["train", "--preset", "toy-2d"])
            .args(settings.iter().flat_map(|setting| ["--set", setting]));
        let mut child = command
            .arg("--out")
            .arg(&run)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        wait_for(&mut child, || lines(&run) > 3);
        send(signal, &child);
        // A signal that the system sends twice must not end the run without a checkpoint.
        if signal != "INT" {
            send(signal, &child);
        }
        let output = child.wait_with_output().expect("it ends");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{signal}: {text}");
        let quoted = format!("--resume '{}'", run.display().to_string().replace('\'', r"'\''"));
        assert!(text.contains(&quoted), "{signal}: {text}");
        assert!(names(&run.join("checkpoints")).len() > 1, "{signal}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn under_nohup_a_closed_terminal_ends_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = directory.path().join("run");
    let settings = "--set epochs=1000000 --set evaluation_samples=10 --set grpo.cool_down=0";
    let script = format!(
        "trap '' HUP; exec '{}' train --preset toy-2d {settings} --out '{}'",
        program().display(),
        run.display()
    );
    let mut child =
        Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).spawn().expect("a shell");
    wait_for(&mut child, || lines(&run) > 3);
    send("HUP", &child);
    let then = lines(&run);
    wait_for(&mut child, || lines(&run) > then + 20);
    send("TERM", &child);
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
}

#[test]
fn an_epoch_of_minutes_is_given_up_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let run = directory.path().join("run");
    let mut command = Command::new(program());
    let settings = ["grpo.groups=400", "evaluation_samples=1", "grpo.cool_down=0"];
    command
        .args(["train", "--out"])
        .arg(&run)
        .args(settings.iter().flat_map(|setting| ["--set", setting]));
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the program runs");
    wait_for(&mut child, || run.join("checkpoints/000000.safetensors").exists());
    std::thread::sleep(Duration::from_secs(1));
    let sent = Instant::now();
    send("INT", &child);
    let output = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(sent.elapsed() < Duration::from_secs(30), "it took {:?}", sent.elapsed());
    assert!(
        metrics(&run).iter().all(|line| line["event"] == "eval"),
        "the epoch is as if it had not been begun"
    );
}

#[test]
fn a_run_interrupted_at_any_moment_goes_on_as_if_it_never_had_been() {
    let directory = tempfile::tempdir().expect("a directory");
    let whole = directory.path().join("whole");
    // Evaluations that are long enough to be interrupted.
    let train = |out: &Path| {
        let mut command = train(out);
        command.args(["--set", "evaluation_samples=2000", "--set", "keep_checkpoints=1"]);
        command
    };
    let started = Instant::now();
    assert!(train(&whole).status().expect("the program runs").success());
    let took = started.elapsed();
    let (mut interrupted, mut in_an_evaluation) = (0, 0);
    let moments = 8;
    for moment in 0..moments {
        let path = directory.path().join(format!("interrupted-{moment}"));
        let mut child = train(&path).spawn().expect("the program runs");
        std::thread::sleep(took.mul_f64((f64::from(moment) + 0.5) / f64::from(moments)));
        if child.try_wait().expect("a status").is_none() {
            send("INT", &child);
        }
        let code = child.wait().expect("it ends").code();
        interrupted += u32::from(code == Some(130));
        if !path.join("config.toml").exists() {
            continue; // Before the run listened, or before there was anything to resume.
        }
        let state = std::fs::read(
            path.join("checkpoints")
                .join(names(&path.join("checkpoints")).pop().unwrap_or_default()),
        );
        let due = b"evaluation_due = true";
        in_an_evaluation += u32::from(
            state.is_ok_and(|state| state.windows(due.len()).any(|window| window == due)),
        );
        let output = run(&["train", "--resume", &path.to_string_lossy()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_same(&path, &whole, &format!("interrupted at moment {moment} of {moments}"));
    }
    assert!(
        interrupted > moments / 2,
        "most interruptions must come before the end: {interrupted}"
    );
    assert!(in_an_evaluation > 0, "no interruption came in an evaluation");
}
