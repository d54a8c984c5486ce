//! A run directory: everything that explains a run and lets it go on.
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
//! prompts/             (from a model directory) what its text encoders make of the prompts
//! samples/             pictures of every evaluation
//! curves.svg, report.html
//! tensorboard/         the same numbers and pictures for `tensorboard --logdir RUN`
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use models::weights::{UNFINISHED, write_atomically};
use serde::{Deserialize, Serialize};

use crate::{backend, tensorboard::EventFile};

/// An open run directory. No other process can open it until this one ends.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    metrics: File,
    events: Option<EventFile>,
    _lock: File,
}

/// A program that worked on a run.
#[derive(Serialize, Deserialize)]
struct About {
    version: String,
    revision: String,
    backend: String,
    #[serde(default = "single")]
    precision: String,
    command: Vec<String>,
}

fn single() -> String {
    "f32".to_owned()
}

impl About {
    fn this_program() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: env!("FLOW_GRPO_REVISION").to_owned(),
            backend: backend::NAME.to_owned(),
            precision: backend::PRECISION_NAME.to_owned(),
            command: std::env::args().collect(),
        }
    }
}

impl RunDir {
    /// Makes a new run directory.
    ///
    /// # Errors
    /// If it holds a run already or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        fs::create_dir_all(path.join("samples"))
            .and_then(|()| fs::create_dir_all(path.join("checkpoints")))
            .with_context(|| format!("cannot make the run directory {}", path.display()))?;
        if path.join("config.toml").exists() {
            bail!("{} already holds a run: choose another --out, or continue it with --resume {0}", path.display());
        }
        Self::lock(path)
    }

    /// Opens the directory of a run that is to go on; returns it with its configuration file.
    ///
    /// # Errors
    /// If it is not a run directory, or another process is at work in it.
    pub fn open(path: &Path) -> Result<(Self, String)> {
        let config_file = path.join("config.toml");
        let config = fs::read_to_string(&config_file)
            .with_context(|| format!("{} is not a run directory: cannot read config.toml", path.display()))?;
        Ok((Self::lock(path)?, config))
    }

    fn lock(path: &Path) -> Result<Self> {
        let unwritable = || format!("cannot write to the run directory {}", path.display());
        let lock = File::create(path.join(".lock")).with_context(unwritable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!("{} is in use by another process", path.display()),
            Err(TryLockError::Error(error)) => return Err(error).with_context(unwritable),
        }
        remove_unfinished(path).with_context(unwritable)?;
        let metrics = OpenOptions::new().create(true).append(true).open(path.join("metrics.jsonl")).with_context(unwritable)?;
        Ok(Self { path: path.to_owned(), metrics, events: None, _lock: lock })
    }

    /// Writes down the configuration, and adds this program to those that worked on the run; says so if it is on another backend
    /// than the one before it, since then its numbers are equal up to rounding only.
    ///
    /// # Errors
    /// If the directory cannot be written, or its `about.json` is not one.
    pub fn describe(&self, config: &impl Serialize) -> Result<()> {
        let about = self.path.join("about.json");
        let mut programs: Vec<About> = match fs::read_to_string(&about) {
            Ok(text) => serde_json::from_str(&text).with_context(|| format!("cannot read {}", about.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", about.display())),
        };
        let now = About::this_program();
        let place = |about: &About| format!("{} in {}", about.backend, about.precision);
        if let Some(before) = programs.last().map(place).filter(|before| *before != place(&now)) {
            eprintln!("note: the run was on {before} and goes on on {}: it will not be the same byte for byte", place(&now));
        }
        programs.push(now);
        write_text(&about, &serde_json::to_string_pretty(&programs)?)?;
        self.configure(config)
    }

    /// Writes down the configuration alone, which is what makes a directory one that can be resumed.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn configure(&self, config: &impl Serialize) -> Result<()> {
        write_text(&self.path.join("config.toml"), &toml::to_string(config).context("a configuration is plain data")?)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a line to `metrics.jsonl`, and its numbers to the TensorBoard events.
    pub fn append(&mut self, metrics: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(metrics)? + "\n";
        self.metrics.write_all(line.as_bytes()).with_context(|| format!("cannot write {}/metrics.jsonl", self.path.display()))?;
        let value = serde_json::to_value(metrics)?;
        if let (Some(events), Some(step)) = (&mut self.events, position(&value)) {
            events.scalars(value["event"].as_str().unwrap_or("run"), step, &value)?;
        }
        Ok(())
    }

    /// Adds a sample grid that was written to the TensorBoard events.
    pub fn append_picture(&mut self, name: &str, step: usize) -> Result<()> {
        let png = self.samples(name, step);
        self.events.as_mut().map_or(Ok(()), |events| events.picture(&format!("samples/{name}"), step, &png))
    }

    /// The lines of `metrics.jsonl` so far.
    pub fn metrics(&self) -> Result<Vec<serde_json::Value>> {
        let path = self.path.join("metrics.jsonl");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("{}: {line}", path.display()))).collect()
    }

    /// The lines of `metrics.jsonl` that are whole, with what they say: a kill may cut the last one short.
    fn whole_lines(&self) -> Result<Vec<(String, serde_json::Value)>> {
        let path = self.path.join("metrics.jsonl");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.lines().filter_map(|line| Some((line.to_owned(), serde_json::from_str(line).ok()?))).collect())
    }

    /// Goes on writing metrics after those of the `done` epochs or steps of the last checkpoint. What an interrupted session wrote
    /// beyond that is dropped: it will be written again. Without a checkpoint everything is.
    pub fn record_after(&mut self, done: Option<usize>) -> Result<()> {
        self.events = Some(EventFile::create(&self.path.join("tensorboard"), done.unwrap_or(0))?);
        let path = self.path.join("metrics.jsonl");
        let keep = |line: &serde_json::Value| position(line).is_some_and(|position| done.is_some_and(|done| position <= done));
        let kept = self.whole_lines()?.into_iter().filter(|(_, value)| keep(value));
        write_text(&path, &kept.map(|(line, _)| line + "\n").collect::<String>())?;
        self.metrics = OpenOptions::new().append(true).open(&path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(())
    }

    /// Where what the text encoders make of the prompts is kept.
    pub fn prompt_embeddings(&self) -> PathBuf {
        self.path.join("prompts")
    }

    /// Where the training state after `done` epochs or steps is.
    pub fn checkpoint(&self, done: usize) -> PathBuf {
        self.path.join("checkpoints").join(format!("{done:06}.safetensors"))
    }

    /// The newest training state, if there is one.
    ///
    /// # Errors
    /// If there is none although the run has done something: then it has vanished.
    pub fn newest_checkpoint(&self) -> Result<Option<PathBuf>> {
        let newest = self.checkpoints()?.pop();
        if newest.is_none()
            && let Some(done) = self.whole_lines()?.iter().filter_map(|(_, line)| position(line)).max().filter(|&done| done > 0)
        {
            bail!(
                "{0}: there is no checkpoint in {0}/checkpoints, though metrics.jsonl goes up to {done}; put one back, or start again \
                 with another --out",
                self.path.display()
            );
        }
        Ok(newest.map(|done| self.checkpoint(done)))
    }

    /// Deletes all training states but the newest `last` and that after `best` epochs.
    pub fn retain_checkpoints(&self, last: usize, best: Option<usize>) -> Result<()> {
        let all = self.checkpoints()?;
        let old = &all[..all.len().saturating_sub(last)];
        for &done in old.iter().filter(|&&done| Some(done) != best) {
            let path = self.checkpoint(done);
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// After how many epochs or steps there is a training state, in order.
    fn checkpoints(&self) -> Result<Vec<usize>> {
        let directory = self.path.join("checkpoints");
        let unreadable = || format!("cannot read {}", directory.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(&directory).with_context(unreadable)? {
            let path = entry.with_context(unreadable)?.path();
            let done = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if let Some(done) = done.filter(|&done| path == self.checkpoint(done)) {
                found.push(done);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Where pre-training leaves its averaged weights.
    pub fn base_checkpoint(&self) -> PathBuf {
        self.path.join("base.safetensors")
    }

    /// Where training leaves its averaged weights.
    pub fn policy_checkpoint(&self) -> PathBuf {
        self.path.join("policy.safetensors")
    }

    /// Where training leaves the averaged weights of its best evaluation.
    pub fn best_checkpoint(&self) -> PathBuf {
        self.path.join("best.safetensors")
    }

    /// Where training with LoRA leaves its averaged adapter.
    pub fn adapter(&self) -> PathBuf {
        self.path.join("adapter")
    }

    /// Where training with LoRA leaves the averaged adapter of its best evaluation.
    pub fn best_adapter(&self) -> PathBuf {
        self.path.join("best-adapter")
    }

    /// Where the sample grid of the evaluation after an epoch or step goes.
    pub fn samples(&self, name: &str, step: usize) -> PathBuf {
        self.path.join("samples").join(format!("{name}-{step:06}.png"))
    }

    /// Writes a text file in the directory, atomically.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        write_text(&self.path.join(name), text)
    }

    /// The command that continues this run.
    pub fn resume_command(&self, verb: &str) -> String {
        let precision = if cfg!(feature = "bf16") { " --precision bf16" } else { "" };
        format!("cargo xtask {verb} --backend {}{precision} --resume {}", backend::NAME, self.path.display())
    }
}

/// The epoch or step of a line of metrics.
fn position(line: &serde_json::Value) -> Option<usize> {
    line["epoch"].as_u64().or_else(|| line["step"].as_u64()).map(|position| position as usize)
}

/// Removes what a killed process had not finished writing: files that would have been renamed.
fn remove_unfinished(directory: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_unfinished(&path)?;
        } else if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
