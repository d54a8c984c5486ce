//! System faults, injected with strace: a kill or an error at the k-th rename, write, flush or
//! removal of a run. The resumed run leaves the same bytes as a run without faults.

#![cfg(target_os = "linux")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::cli::{metrics, program};

/// System calls by which a run changes the disk or prints, under their names on different machines,
/// each with the fault that is injected.
const FAULTS: [(&[&str], &str); 7] = [
    (&["rename", "renameat", "renameat2"], "signal=KILL"),
    (&["rename", "renameat", "renameat2"], "error=EIO"),
    (&["fsync", "fdatasync"], "signal=KILL"),
    (&["fsync", "fdatasync"], "error=EIO"),
    (&["unlink", "unlinkat"], "signal=KILL"),
    (&["write"], "signal=KILL"),
    (&["write"], "error=ENOSPC"),
];

const SETTINGS: [&str; 7] = [
    "epochs=5",
    "evaluation_samples=20",
    "evaluate_every=2",
    "checkpoint_every=1",
    "grpo.group_size=32",
    "keep_checkpoints=2",
    "grpo.cool_down=0",
];
const LORA: &str = r#"tuning={ kind = "lora", rank = 2, alpha = 4.0, init = "gaussian", targets = ["all-linear"] }"#;

/// A fresh run, with or without an adapter, or a run resumed from its last checkpoint but one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Full,
    Lora,
    Resumed,
}

impl Kind {
    /// Prepares the run that is resumed, if the kind needs one.
    fn prepare(self, out: &Path) {
        if self == Self::Resumed {
            assert!(
                Command::new(program())
                    .args(Self::Full.args(out))
                    .output()
                    .expect("the program runs")
                    .status
                    .success()
            );
            std::fs::remove_file(out.join("checkpoints/000005.safetensors")).expect("removed");
        }
    }

    fn args(self, out: &Path) -> Vec<String> {
        if self == Self::Resumed {
            return ["train".to_owned(), "--resume".to_owned(), out.to_string_lossy().into_owned()]
                .into();
        }
        let mut settings = SETTINGS.to_vec();
        settings.extend((self == Self::Lora).then_some(LORA));
        let settings = settings.into_iter().flat_map(|setting| ["--set", setting]);
        let args = ["train", "--preset", "toy-2d", "--out"].into_iter().map(str::to_owned);
        args.chain([out.to_string_lossy().into_owned()])
            .chain(settings.map(str::to_owned))
            .collect()
    }
}

fn strace(options: &[&str], args: &[String]) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-qq"]).args(options).arg(program()).args(args);
    command.output().expect("strace runs")
}

/// Counts the system calls of the main thread in an undisturbed run, by name.
fn calls(kind: Kind, directory: &Path) -> BTreeMap<String, usize> {
    let log = directory.join("calls");
    let names: Vec<String> =
        FAULTS.iter().flat_map(|(names, _)| *names).map(|name| format!("?{name}")).collect();
    let trace = format!("trace={}", names.join(","));
    kind.prepare(&directory.join("counted"));
    let output = strace(
        &["-o", &log.to_string_lossy(), "-e", &trace],
        &kind.args(&directory.join("counted")),
    );
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(log).expect("a log");
    let main = text.split_whitespace().next().expect("a call").to_owned();
    let mut calls = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some(&main) {
            let name = words.next().and_then(|call| call.split('(').next()).expect("a name");
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

/// One fault.
#[derive(Clone, Debug)]
struct Fault {
    kind: Kind,
    call: String,
    what: &'static str,
    at: usize,
}

/// About `count` faults: half of them at the first calls, while the directory is made, and half
/// spread evenly over a run.
fn faults(kind: Kind, calls: &BTreeMap<String, usize>, count: usize) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (names, what) in FAULTS {
        for (call, &n) in names.iter().filter_map(|name| calls.get_key_value(*name)) {
            let each = (count / FAULTS.len()).clamp(1, n);
            let first = each.div_ceil(2);
            let at = |i: usize| if i < first { 1 + i } else { 1 + i * n / each };
            faults.extend((0..each).map(|i| Fault { kind, call: call.clone(), what, at: at(i) }));
        }
    }
    faults
}

/// The files that a run leaves, without those that differ in every run: times, plots of times, and
/// the record of its sessions.
fn contents(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(root: &Path, directory: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(root).expect("inside").to_owned();
            let differs =
                ["about.json", "metrics.jsonl", "report.html", "curves.svg", "tensorboard"];
            if differs.iter().any(|other| name == Path::new(other)) {
                continue;
            }
            if path.is_dir() {
                walk(root, &path, into);
            } else {
                into.insert(name, std::fs::read(&path).expect("a file"));
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(run, run, &mut files);
    files
}

/// Injects a fault into a run, resumes it without one, and compares it with the undisturbed run.
fn try_fault(fault: &Fault, path: &Path, whole: &Path) {
    let inject = format!("inject={}:{}:when={}", fault.call, fault.what, fault.at);
    let trace = format!("trace={}", fault.call);
    fault.kind.prepare(path);
    let broken = strace(&["-o", "/dev/null", "-e", &trace, "-e", &inject], &fault.kind.args(path));
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(!said.contains("panicked") && broken.status.code() != Some(101), "{fault:?}: {said}");
    let goes_on =
        if path.join("config.toml").exists() { Kind::Resumed } else { fault.kind }.args(path);
    let output = Command::new(program()).args(goes_on).output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{fault:?}: {text}\nafter: {said}");
    assert_eq!(metrics(path), metrics(whole), "{fault:?}");
    let (found, wanted) = (contents(path), contents(whole));
    assert!(
        found.keys().eq(wanted.keys()),
        "{fault:?}: {:?}, not {:?}",
        found.keys(),
        wanted.keys()
    );
    for (name, bytes) in &found {
        assert!(*bytes == wanted[name], "{fault:?}: {} differs", name.display());
    }
    std::fs::remove_dir_all(path).expect("removed");
}

/// `FLOW_GRPO_FAULTS=1000` for the long version.
#[test]
fn a_run_with_any_fault_of_the_system_goes_on_as_if_it_never_had_been() {
    let usable = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .status()
        .is_ok_and(|status| status.success());
    if !usable {
        eprintln!(
            "\n*** SKIPPED: no faults are injected, because strace is not installed or may not trace ***\n"
        );
        return;
    }
    let count = std::env::var("FLOW_GRPO_FAULTS")
        .map_or(100, |number| number.parse().expect("FLOW_GRPO_FAULTS is a number"));
    let directory = tempfile::tempdir().expect("a directory");
    let mut all = Vec::new();
    for (kind, count) in
        [(Kind::Full, count / 2), (Kind::Lora, count / 4), (Kind::Resumed, count / 4)]
    {
        let at = directory.path().join(format!("{kind:?}"));
        std::fs::create_dir(&at).expect("made");
        let calls = calls(kind, &at);
        assert!(calls.len() >= 4, "a run renames, flushes, removes and writes: {calls:?}");
        all.extend(faults(kind, &calls, count));
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                while let Some((index, fault)) =
                    Some(next.fetch_add(1, Ordering::SeqCst)).and_then(|i| Some((i, all.get(i)?)))
                {
                    let whole = directory.path().join(format!("{:?}/counted", fault.kind));
                    try_fault(fault, &directory.path().join(index.to_string()), &whole);
                }
            });
        }
    });
    println!("{} faults", all.len());
}
