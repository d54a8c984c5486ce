//! The open records of a run: `metrics.jsonl` and the TensorBoard events of this session.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use files::{Action, write_atomically};
use serde::Serialize;

use crate::{
    RunError,
    lines::{Expected, Line, Lines, Recorded, position},
    tensorboard::EventFile,
};

/// The name of a run's metrics file.
pub(crate) const METRICS: &str = "metrics.jsonl";

/// The records of a run, open for appending.
#[derive(Debug)]
pub(crate) struct Recorder {
    path: PathBuf,
    metrics: File,
    events: EventFile,
}

impl Recorder {
    /// Continues the records after a state. Lines beyond it are dropped; without a state, all of
    /// them. The metrics file is copied if it has damaged or missing lines, which are described.
    pub fn open(
        run: &Path,
        recorded: Option<Recorded>,
        expected: Expected,
    ) -> Result<(Self, Option<String>), RunError> {
        let done = recorded.map_or(0, |recorded| recorded.done);
        let path = run.join(METRICS);
        let lines = read(run)?;
        let kept: Vec<Line> = lines
            .whole
            .into_iter()
            .filter(|line| recorded.is_some_and(|recorded| recorded.keeps(&line.value)))
            .collect();
        let missing = expected.missing(&kept, done);
        let mut problems: Vec<String> = Vec::new();
        problems.extend((lines.damaged > 0).then(|| format!("{} damaged lines", lines.damaged)));
        let event = expected.event;
        problems.extend((!missing.is_empty()).then(|| format!("no line of {event} {missing}")));
        if !problems.is_empty() {
            let aside = run.join("metrics.damaged.jsonl");
            fs::copy(&path, &aside).map_err(Action::Write.failed_on(&aside))?;
        }
        let events = EventFile::create(&run.join("tensorboard"), done)?;
        let text: String = kept.into_iter().map(|line| line.text + "\n").collect();
        write_atomically(&path, text.as_bytes())?;
        let opened = OpenOptions::new().append(true).open(&path);
        let metrics = opened.map_err(Action::Write.failed_on(&path))?;
        let hole = (!problems.is_empty()).then(|| {
            format!(
                "warning: {} has {}; the state is whole and the run resumes, but its record has a hole (see metrics.damaged.jsonl)",
                path.display(),
                problems.join(" and ")
            )
        });
        Ok((Self { path, metrics, events }, hole))
    }

    /// Appends a line to the metrics, and its numbers to the TensorBoard events.
    pub fn append(&mut self, metrics: &impl Serialize) -> Result<(), RunError> {
        let line = serde_json::to_string(metrics)? + "\n";
        let written = self.metrics.write_all(line.as_bytes());
        written.map_err(Action::Write.failed_on(&self.path))?;
        let value = serde_json::to_value(metrics)?;
        match position(&value) {
            Some(step) => {
                self.events.scalars(value["event"].as_str().unwrap_or("run"), step, &value)
            }
            None => Ok(()),
        }
    }

    /// Appends an image to the TensorBoard events.
    pub fn append_image(&mut self, tag: &str, step: usize, png: &Path) -> Result<(), RunError> {
        self.events.image(tag, step, png)
    }

    /// Syncs the records to the disk.
    pub fn sync(&self) -> Result<(), RunError> {
        self.metrics.sync_data().map_err(Action::Write.failed_on(&self.path))?;
        self.events.sync()
    }
}

/// Reads the lines of a run's metrics; none if the file does not exist.
pub(crate) fn read(run: &Path) -> Result<Lines, RunError> {
    let path = run.join(METRICS);
    match fs::read(&path).map_err(Action::Read.failed_on(&path)) {
        Ok(bytes) => Ok(Lines::of(&bytes)),
        Err(error) if error.is_missing() => Ok(Lines::default()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EPOCHS: Expected = Expected { event: "epoch", every: 1 };

    #[test]
    fn lines_beyond_the_state_are_written_again_and_kept_bytes_never_change() {
        let run = tempfile::tempdir().expect("a directory");
        let path = run.path().join(METRICS);
        // A number that a parser and a printer would write in another way.
        let old = "{\"event\":\"epoch\",\"epoch\":1,\"x\":1.50e0}\n";
        fs::write(&path, format!("{old}{{\"event\":\"epoch\",\"epoch\":2}}\n{{\"eve"))
            .expect("written");
        let state = Some(Recorded { done: 1, evaluation_due: true });
        let (mut recorder, hole) = Recorder::open(run.path(), state, EPOCHS).expect("opened");
        assert_eq!(hole, None);
        recorder.append(&json!({"epoch": 2, "event": "epoch"})).expect("appended");
        recorder.sync().expect("synced");
        let text = fs::read_to_string(&path).expect("a file");
        assert_eq!(text, format!("{old}{{\"epoch\":2,\"event\":\"epoch\"}}\n"));
        assert!(!run.path().join("metrics.damaged.jsonl").exists());
    }

    #[test]
    fn a_damaged_file_is_kept_aside_and_its_hole_is_described() {
        let run = tempfile::tempdir().expect("a directory");
        let damaged = b"\xff\n{\"event\":\"epoch\",\"epoch\":2}\n";
        fs::write(run.path().join(METRICS), damaged).expect("written");
        let state = Some(Recorded { done: 2, evaluation_due: false });
        let (_, hole) = Recorder::open(run.path(), state, EPOCHS).expect("opened");
        let hole = hole.expect("a hole");
        assert!(hole.contains("has 1 damaged lines and no line of epoch 1;"), "{hole}");
        let aside = fs::read(run.path().join("metrics.damaged.jsonl")).expect("a copy");
        assert_eq!(aside, damaged);
    }
}
