//! A run directory: everything that explains a run and resumes it.
//!
//! ```text
//! config.toml          the resolved configuration
//! about.json           version, source revision, backend and command line of every program that worked on the run
//! metrics.jsonl        one JSON object a line
//! checkpoints/         training states, resumable: the last ones, and that of the best evaluation
//! base.safetensors     (pre-training) the averaged weights so far
//! policy.safetensors   (training) the averaged weights so far
//! best.safetensors     (training) the averaged weights of the best evaluation
//! adapter/, best-adapter/  (training with LoRA, instead) the averaged adapters, in the files of PEFT and diffusers
//! prompts/             (from a model directory) the embedding caches of its text encoders
//! samples/             images of every evaluation
//! curves.svg, report.html
//! tensorboard/         numbers and images for `tensorboard --logdir RUN`
//! ```

use std::path::{Path, PathBuf};

use files::{text_file, write_atomically};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Expected, Program, Recorded, RunError, SampleSet,
    checkpoints::Checkpoints,
    lines::position,
    lock::{self, Locked},
    recorder::{self, METRICS, Recorder},
    samples,
};

/// An open run directory, locked against other processes until this one ends.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    program: Program,
    recorder: Option<Recorder>,
    _locked: Locked,
}

impl RunDir {
    /// Creates a run directory, which is removed again if no run starts in it.
    ///
    /// # Errors
    /// If the directory already holds a run or anything else, or cannot be written.
    pub fn create(path: &Path, program: Program) -> Result<Self, RunError> {
        let locked = Locked::create(path)?;
        Ok(Self { path: path.to_owned(), program, recorder: None, _locked: locked })
    }

    /// Opens the directory of a run to resume and returns it with its configuration file.
    ///
    /// # Errors
    /// If it is not a run directory, or another process uses it.
    pub fn open(path: &Path, program: Program) -> Result<(Self, String), RunError> {
        let config = text_file::read(&path.join("config.toml"))
            .map_err(|error| RunError::NotARun { path: path.to_owned(), source: error.source })?;
        let locked = Locked::open(path)?;
        Ok((Self { path: path.to_owned(), program, recorder: None, _locked: locked }, config))
    }

    /// The version and source revision of the program that last worked on the run, as far as
    /// `about.json` tells.
    pub fn begun_with(&self) -> String {
        match self.programs().as_deref() {
            Ok([.., Program { version, revision, .. }]) => {
                format!("version {version} ({revision})")
            }
            _ => "another version".to_owned(),
        }
    }

    /// The programs that worked on the run, oldest first.
    pub(crate) fn programs(&self) -> Result<Vec<Program>, RunError> {
        let path = self.path.join("about.json");
        match text_file::read(&path) {
            Ok(text) => {
                serde_json::from_str(&text).map_err(|source| RunError::BadAbout { path, source })
            }
            Err(error) if error.is_missing() => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the configuration and adds this program to `about.json`. Returns a note if the
    /// backend or its precision changed, after which results are equal only up to rounding.
    ///
    /// # Errors
    /// If the directory cannot be written, or its `about.json` is invalid.
    pub fn describe(&self, config: &impl Serialize) -> Result<Option<String>, RunError> {
        let mut programs = self.programs()?;
        let now = self.program.place();
        let before = programs.last().map(Program::place).filter(|before| *before != now);
        programs.push(self.program.clone());
        self.configure(config)?;
        self.write("about.json", &serde_json::to_string_pretty(&programs)?)?;
        Ok(before.map(|before| {
            format!(
                "note: the run was on {before} and resumes on {now}: it will not be the same byte for byte"
            )
        }))
    }

    /// Writes only the configuration, which makes the directory resumable, and removes unfinished
    /// files of a killed process.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn configure(&self, config: &impl Serialize) -> Result<(), RunError> {
        lock::remove_unfinished(&self.path)?;
        self.write("config.toml", &toml::to_string(config)?)
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The command that resumes this run.
    pub fn resume_command(&self, verb: &str) -> String {
        self.program.resume_command(verb, &self.path)
    }

    /// Writes a text file in the directory, atomically.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<(), RunError> {
        Ok(write_atomically(&self.path.join(name), text.as_bytes())?)
    }
}

/// Records.
impl RunDir {
    /// Continues the metrics after the last checkpoint. Lines that an interrupted session wrote
    /// beyond it are dropped and written again; without a checkpoint, all of them.
    ///
    /// Returns a description of damaged or missing lines before the checkpoint: a file system may
    /// have lost some. The damaged file stays as `metrics.damaged.jsonl`.
    ///
    /// # Errors
    /// If the directory cannot be read or written.
    pub fn record_after(
        &mut self,
        recorded: Option<Recorded>,
        expected: Expected,
    ) -> Result<Option<String>, RunError> {
        let (recorder, hole) = Recorder::open(&self.path, recorded, expected)?;
        self.recorder = Some(recorder);
        Ok(hole)
    }

    /// Appends a line to `metrics.jsonl`, and its numbers to the TensorBoard events.
    ///
    /// # Errors
    /// If the files cannot be written, or before [`Self::record_after`].
    pub fn append(&mut self, metrics: &impl Serialize) -> Result<(), RunError> {
        match &mut self.recorder {
            Some(recorder) => recorder.append(metrics),
            None => Err(RunError::NotRecording { path: self.path.join(METRICS) }),
        }
    }

    /// Appends a finished sample grid to the TensorBoard events.
    ///
    /// # Errors
    /// If the image cannot be read, or the events cannot be written.
    pub fn append_image(&mut self, set: SampleSet, step: usize) -> Result<(), RunError> {
        let png = self.samples(set, step);
        match &mut self.recorder {
            Some(recorder) => recorder.append_image(&format!("samples/{}", set.name()), step, &png),
            None => Ok(()),
        }
    }

    /// Syncs the records to the disk, so that a loss of power cannot lose records that a later
    /// state relies on.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync_records(&self) -> Result<(), RunError> {
        self.recorder.as_ref().map_or(Ok(()), Recorder::sync)
    }

    /// Reads the lines of `metrics.jsonl` so far.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn metrics(&self) -> Result<Vec<Value>, RunError> {
        Ok(recorder::read(&self.path)?.whole.into_iter().map(|line| line.value).collect())
    }
}

/// Training states.
impl RunDir {
    fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of_run(&self.path)
    }

    /// The path of the training state after `done` epochs or steps.
    pub fn checkpoint(&self, done: usize) -> PathBuf {
        self.checkpoints().path(done)
    }

    /// The paths of the training states, newest first.
    ///
    /// # Errors
    /// If the run has progressed, but has no training state: then the states have vanished.
    pub fn newest_checkpoints(&self) -> Result<Vec<PathBuf>, RunError> {
        let all = self.checkpoints().all()?;
        if all.is_empty()
            && let Some(done) = self.metrics()?.iter().filter_map(position).max()
            && done > 0
        {
            return Err(RunError::NoCheckpoint { path: self.path.clone(), done });
        }
        Ok(all.into_iter().rev().map(|done| self.checkpoint(done)).collect())
    }

    /// Renames training states after `done` epochs or steps, which are damaged if the run
    /// continues from there.
    ///
    /// # Errors
    /// If a state cannot be renamed.
    pub fn set_aside_after(&self, done: usize) -> Result<(), RunError> {
        Ok(self.checkpoints().set_aside_after(done)?)
    }

    /// Deletes all training states except the newest `last` and the one after `best` epochs.
    ///
    /// # Errors
    /// If a state cannot be removed.
    pub fn retain_checkpoints(&self, last: usize, best: Option<usize>) -> Result<(), RunError> {
        Ok(self.checkpoints().retain(last, best)?)
    }
}

/// Places of other files.
impl RunDir {
    /// The path of the averaged weights of pre-training.
    pub fn base_checkpoint(&self) -> PathBuf {
        self.path.join("base.safetensors")
    }

    /// The path of the averaged weights of training.
    pub fn policy_checkpoint(&self) -> PathBuf {
        self.path.join("policy.safetensors")
    }

    /// The path of the averaged weights of the best evaluation.
    pub fn best_checkpoint(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// The path of the averaged adapter, in training with LoRA.
    pub fn adapter(&self) -> PathBuf {
        self.path.join("adapter")
    }

    /// The path of the averaged adapter of the best evaluation, in training with LoRA.
    pub fn best_adapter(&self) -> PathBuf {
        self.path.join("best-adapter")
    }

    /// The directory of the embedding cache.
    pub fn prompt_embeddings(&self) -> PathBuf {
        self.path.join("prompts")
    }

    /// The path of the sample grid of the evaluation after an epoch or step.
    pub fn samples(&self, set: SampleSet, step: usize) -> PathBuf {
        samples::path(&self.path, set, step)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn program(backend: &str) -> Program {
        Program {
            version: "1".to_owned(),
            revision: "a".to_owned(),
            backend: backend.to_owned(),
            precision: "f32".to_owned(),
            command: vec!["flow-grpo".to_owned()],
            machine: String::new(),
            started: None,
            by_xtask: false,
        }
    }

    #[test]
    fn every_program_is_remembered_and_a_change_of_the_backend_is_noted() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("run");
        let config = json!({"seed": 1});
        let run = RunDir::create(&path, program("flex")).expect("created");
        assert_eq!(run.begun_with(), "another version");
        assert_eq!(run.describe(&config).expect("written"), None);
        drop(run);
        let (run, text) = RunDir::open(&path, program("wgpu")).expect("opened");
        assert_eq!(text, "seed = 1\n");
        let note = run.describe(&config).expect("written").expect("a note");
        assert!(note.contains("was on flex in f32 and resumes on wgpu in f32"), "{note}");
        assert_eq!(run.begun_with(), "version 1 (a)");
        assert_eq!(run.programs().expect("read").len(), 2);
    }

    #[test]
    fn a_run_that_progressed_and_has_no_checkpoint_is_refused() {
        let home = tempfile::tempdir().expect("a directory");
        let mut run = RunDir::create(&home.path().join("run"), program("flex")).expect("created");
        assert!(run.append(&json!({})).is_err(), "not open for recording");
        run.record_after(None, Expected { event: "epoch", every: 1 }).expect("opened");
        run.append(&json!({"event": "eval", "epoch": 0})).expect("appended");
        assert!(run.newest_checkpoints().expect("none yet").is_empty());
        run.append(&json!({"event": "epoch", "epoch": 3})).expect("appended");
        let error = run.newest_checkpoints().expect_err("vanished").to_string();
        assert!(error.contains("metrics.jsonl goes up to 3"), "{error}");
        std::fs::write(run.checkpoint(2), "").expect("written");
        std::fs::write(run.checkpoint(3), "").expect("written");
        let newest = run.newest_checkpoints().expect("a list");
        assert_eq!(newest, [run.checkpoint(3), run.checkpoint(2)]);
    }
}
