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

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, TryLockError},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use models::weights::{is_unfinished, sync_directory, write_atomically};
use serde::{Deserialize, Serialize};
use tasks::text_file;

use crate::{backend, output, tensorboard::EventFile};

/// An open run directory, locked against other processes until this one ends.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    metrics: Option<File>,
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
            command: std::env::args_os()
                .map(|argument| argument.to_string_lossy().into_owned())
                .collect(),
        }
    }
}

impl RunDir {
    /// Creates a run directory, which is removed again if no run starts in it.
    ///
    /// # Errors
    /// If the directory already holds a run or anything else, or cannot be written.
    pub fn create(path: &Path) -> Result<Self> {
        let unmakable = || format!("cannot make the run directory {}", path.display());
        fs::create_dir_all(path).with_context(unmakable)?;
        check_free(path)?; // Before the lock, which would be a file in somebody's directory.
        let lock = lock(path)?;
        check_free(path)?;
        for name in FRESH {
            fs::create_dir_all(path.join(name)).with_context(unmakable)?;
        }
        let parent =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        sync_directory(path).and_then(|()| sync_directory(parent)).with_context(unmakable)?;
        Ok(Self { path: path.to_owned(), metrics: None, events: None, _lock: lock })
    }

    /// Opens the directory of a run to resume and returns it with its configuration file.
    ///
    /// # Errors
    /// If it is not a run directory, or another process uses it.
    pub fn open(path: &Path) -> Result<(Self, String)> {
        let config_file = path.join("config.toml");
        let config = text_file::read(&config_file).with_context(|| {
            format!("{} is not a run directory: cannot read config.toml", path.display())
        })?;
        let lock = lock(path)?;
        Ok((Self { path: path.to_owned(), metrics: None, events: None, _lock: lock }, config))
    }

    /// The version and source revision of the program that last worked on the run, as far as
    /// `about.json` tells.
    pub fn begun_with(&self) -> String {
        let programs = text_file::read(&self.path.join("about.json")).ok();
        let programs: Option<Vec<About>> =
            programs.and_then(|text| serde_json::from_str(&text).ok());
        match programs.as_deref() {
            Some([.., About { version, revision, .. }]) => {
                format!("version {version} ({revision})")
            }
            _ => "another version".to_owned(),
        }
    }

    /// Writes the configuration and adds this program to `about.json`. Logs a change of the backend
    /// or its precision, after which results are equal only up to rounding.
    ///
    /// # Errors
    /// If the directory cannot be written, or its `about.json` is invalid.
    pub fn describe(&self, config: &impl Serialize) -> Result<()> {
        let about = self.path.join("about.json");
        let mut programs: Vec<About> = match text_file::read(&about) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("cannot read {}", about.display()))?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", about.display()));
            }
        };
        let now = About::this_program();
        let place = |about: &About| format!("{} in {}", about.backend, about.precision);
        if let Some(before) = programs.last().map(place).filter(|before| *before != place(&now)) {
            output::log(format!(
                "note: the run was on {before} and resumes on {}: it will not be the same byte for byte",
                place(&now)
            ));
        }
        programs.push(now);
        self.configure(config)?;
        write_text(&about, &serde_json::to_string_pretty(&programs)?)
    }

    /// Writes only the configuration, which makes the directory resumable, and removes unfinished
    /// files of a killed process.
    ///
    /// # Errors
    /// If the directory cannot be written.
    pub fn configure(&self, config: &impl Serialize) -> Result<()> {
        remove_unfinished(&self.path)?;
        write_text(
            &self.path.join("config.toml"),
            &toml::to_string(config).context("a configuration is plain data")?,
        )
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line to `metrics.jsonl`, and its numbers to the TensorBoard events.
    pub fn append(&mut self, metrics: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(metrics)? + "\n";
        let file = self.metrics.as_mut().context("a run records after `record_after`")?;
        file.write_all(line.as_bytes())
            .with_context(|| format!("cannot write {}/{METRICS}", self.path.display()))?;
        let value = serde_json::to_value(metrics)?;
        if let (Some(events), Some(step)) = (&mut self.events, position(&value)) {
            events.scalars(value["event"].as_str().unwrap_or("run"), step, &value)?;
        }
        Ok(())
    }

    /// Appends a finished sample grid to the TensorBoard events.
    pub fn append_image(&mut self, name: &str, step: usize) -> Result<()> {
        let png = self.samples(name, step);
        self.events
            .as_mut()
            .map_or(Ok(()), |events| events.image(&format!("samples/{name}"), step, &png))
    }

    /// Reads the lines of `metrics.jsonl` so far.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn metrics(&self) -> Result<Vec<serde_json::Value>> {
        Ok(self.lines()?.whole.into_iter().map(|(_, value)| value).collect())
    }

    fn lines(&self) -> Result<Lines> {
        let path = self.path.join(METRICS);
        match fs::read(&path) {
            Ok(bytes) => Ok(Lines::of(&bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Lines::of(&[])),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// Syncs the records to the disk, so that a loss of power cannot lose records that a later
    /// state relies on.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn sync_records(&self) -> Result<()> {
        if let Some(metrics) = &self.metrics {
            metrics
                .sync_data()
                .with_context(|| format!("cannot write {}/{METRICS}", self.path.display()))?;
        }
        self.events.as_ref().map_or(Ok(()), EventFile::sync)
    }

    /// Continues the metrics after the last checkpoint. Lines that an interrupted session wrote
    /// beyond it are dropped and written again; without a checkpoint, all of them.
    ///
    /// Returns a description of damaged or missing lines before the checkpoint, where an `event` is
    /// expected at every multiple of a number: a file system may have lost some. The damaged file
    /// stays as `metrics.damaged.jsonl`.
    ///
    /// # Errors
    /// If the directory cannot be read or written.
    pub fn record_after(
        &mut self,
        recorded: Option<Recorded>,
        (event, every): (&str, usize),
    ) -> Result<Option<String>> {
        let done = recorded.map_or(0, |recorded| recorded.done);
        let path = self.path.join(METRICS);
        let unwritable = || format!("cannot write {}", path.display());
        let lines = self.lines()?;
        let kept: Vec<(String, serde_json::Value)> = lines
            .whole
            .into_iter()
            .filter(|(_, line)| recorded.is_some_and(|recorded| recorded.keeps(line)))
            .collect();
        let missing = missing(&kept, done, event, every);
        let mut problems: Vec<String> = Vec::new();
        problems.extend((lines.damaged > 0).then(|| format!("{} damaged lines", lines.damaged)));
        problems.extend((!missing.is_empty()).then(|| format!("no line of {event} {missing}")));
        if !problems.is_empty() {
            let aside = self.path.join("metrics.damaged.jsonl");
            fs::copy(&path, &aside).with_context(|| format!("cannot write {}", aside.display()))?;
        }
        self.events = Some(EventFile::create(&self.path.join("tensorboard"), done)?);
        write_text(&path, &kept.into_iter().map(|(line, _)| line + "\n").collect::<String>())?;
        self.metrics = Some(OpenOptions::new().append(true).open(&path).with_context(unwritable)?);
        Ok((!problems.is_empty()).then(|| {
            format!(
                "warning: {} has {}; the state is whole and the run resumes, but its record has a hole (see metrics.damaged.jsonl)",
                path.display(),
                problems.join(" and ")
            )
        }))
    }

    /// The directory of the embedding cache.
    pub fn prompt_embeddings(&self) -> PathBuf {
        self.path.join("prompts")
    }

    /// The path of the training state after `done` epochs or steps.
    pub fn checkpoint(&self, done: usize) -> PathBuf {
        self.path.join("checkpoints").join(format!("{done:06}.safetensors"))
    }

    /// The paths of the training states, newest first.
    ///
    /// # Errors
    /// If the run has progressed, but has no training state: then the states have vanished.
    pub fn newest_checkpoints(&self) -> Result<Vec<PathBuf>> {
        let checkpoints = self.checkpoints()?;
        if checkpoints.is_empty()
            && let Some(done) =
                self.metrics()?.iter().filter_map(position).max().filter(|&done| done > 0)
        {
            bail!(
                "{0}: there is no checkpoint in {0}/checkpoints, though metrics.jsonl goes up to {done}; put one back, or start again \
                 with another --out",
                self.path.display()
            );
        }
        Ok(checkpoints.into_iter().rev().map(|done| self.checkpoint(done)).collect())
    }

    /// Renames training states after `done` epochs or steps, which are damaged if the run
    /// continues from there.
    ///
    /// # Errors
    /// If a state cannot be renamed.
    pub fn set_aside_after(&self, done: usize) -> Result<()> {
        for newer in self.checkpoints()?.into_iter().filter(|&other| other > done) {
            let path = self.checkpoint(newer);
            let aside = path.with_extension("safetensors.damaged");
            fs::rename(&path, &aside)
                .with_context(|| format!("cannot rename {}", path.display()))?;
        }
        Ok(())
    }

    /// Deletes all training states except the newest `last` and the one after `best` epochs.
    pub fn retain_checkpoints(&self, last: usize, best: Option<usize>) -> Result<()> {
        let all = self.checkpoints()?;
        let old = &all[..all.len().saturating_sub(last)];
        for &done in old.iter().filter(|&&done| Some(done) != best) {
            let path = self.checkpoint(done);
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        Ok(())
    }

    /// Epochs or steps of the training states, in order.
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

    /// The path of the sample grid of the evaluation after an epoch or step.
    pub fn samples(&self, name: &str, step: usize) -> PathBuf {
        self.path.join("samples").join(format!("{name}-{step:06}.png"))
    }

    /// Writes a text file in the directory, atomically.
    pub fn write(&self, name: &str, text: &str) -> Result<()> {
        write_text(&self.path.join(name), text)
    }

    /// The command that resumes this run.
    pub fn resume_command(&self, verb: &str) -> String {
        let run = shell_quoted(&self.path.display().to_string());
        if std::env::var_os("FLOW_GRPO_XTASK").is_some() {
            let precision = match backend::PRECISION_NAME {
                "f32" => String::new(),
                name => format!(" --precision {name}"),
            };
            return format!(
                "cargo xtask {verb} --backend {}{precision} --resume {run}",
                backend::NAME
            );
        }
        let program = std::env::args_os().next().unwrap_or_else(|| "flow-grpo".into());
        format!("{} {verb} --resume {run}", shell_quoted(&program.to_string_lossy()))
    }
}

/// Quotes a word for a shell.
fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// The epoch or step of a line of metrics.
fn position(line: &serde_json::Value) -> Option<usize> {
    line["epoch"].as_u64().or_else(|| line["step"].as_u64()).map(|position| position as usize)
}

impl Drop for RunDir {
    /// A refused start leaves nothing behind: empty directories are removed, and the lock last.
    fn drop(&mut self) {
        if self.path.join("config.toml").exists() {
            return; // A run, also where its configuration came to be in an attempt that failed.
        }
        for name in FRESH {
            let _ = fs::remove_dir(self.path.join(name)); // Fails where something is in it, which stays.
        }
        let _ = fs::remove_file(self.path.join(LOCK));
        let _ = fs::remove_dir(&self.path);
    }
}

/// The directories of a new run.
const FRESH: [&str; 2] = ["samples", "checkpoints"];
/// The file whose lock shows that a process uses the directory.
const LOCK: &str = ".lock";

/// Locks a directory. Never follows a link, and changes nothing of an existing file.
fn lock(path: &Path) -> Result<File> {
    let unwritable = || format!("cannot write to the run directory {}", path.display());
    let name = path.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NOFOLLOW.bits().cast_signed(),
    );
    if name.is_symlink() {
        bail!("{} is a link, where a run has a file of its own: remove it", name.display());
    }
    let lock = options.open(&name).with_context(unwritable)?;
    ensure!(
        lock.metadata().with_context(unwritable)?.is_file(),
        "{} is no ordinary file: remove it",
        name.display()
    );
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("{} is in use by another process", path.display()),
        Err(TryLockError::Error(error)) => return Err(error).with_context(unwritable),
    }
    // A refused start may have removed its lock file after this process opened it.
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        let same = fs::symlink_metadata(&name)
            .is_ok_and(|now| lock.metadata().is_ok_and(|held| inode(&now) == inode(&held)));
        ensure!(same, "{} is in use by another process", path.display());
    }
    Ok(lock)
}

/// # Errors
/// If a directory holds anything except the remains of a killed start.
fn check_free(directory: &Path) -> Result<()> {
    if directory.join("config.toml").exists() {
        bail!(
            "{} already holds a run: choose another --out, or continue it with --resume {0}",
            directory.display()
        );
    }
    for entry in entries(directory)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let fresh = FRESH.contains(&name.as_str()) && is_dir && entries(&entry.path())?.is_empty();
        ensure!(
            name == LOCK || is_unfinished(&name) || fresh,
            "{} is no run directory, and not empty: it holds `{name}`; choose another --out",
            directory.display()
        );
    }
    Ok(())
}

/// Removes unfinished files of a killed process in the places where a run writes, without following
/// links.
fn remove_unfinished(run: &Path) -> Result<()> {
    let mut places = vec![run.to_owned()];
    places.extend(["checkpoints", "samples", "adapter", "best-adapter"].map(|name| run.join(name)));
    let prompts = run.join("prompts");
    places.extend(entries(&prompts)?.into_iter().map(|entry| entry.path()));
    for place in places {
        for entry in entries(&place)? {
            if entry.file_name().to_str().is_some_and(is_unfinished)
                && entry.file_type().is_ok_and(|kind| kind.is_file())
            {
                fs::remove_file(entry.path())
                    .with_context(|| format!("cannot remove {}", entry.path().display()))?;
            }
        }
    }
    Ok(())
}

/// The entries of a directory; none if it does not exist or is a link.
fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>> {
    if !fs::symlink_metadata(directory).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(Vec::new());
    }
    let unreadable = || format!("cannot read the directory {}", directory.display());
    fs::read_dir(directory).and_then(Iterator::collect).with_context(unreadable)
}

/// The part of the metrics that belongs to a state.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// Number of finished epochs or steps.
    pub done: usize,
    /// Whether the evaluation after them is still due.
    pub evaluation_due: bool,
}

impl Recorded {
    fn keeps(self, line: &serde_json::Value) -> bool {
        let of_training = line["event"] == "epoch" || line["event"] == "step";
        position(line).is_some_and(|at| {
            at < self.done || (at == self.done && (of_training || !self.evaluation_due))
        })
    }
}

/// The name of a run's metrics file.
const METRICS: &str = "metrics.jsonl";

/// The lines of a metrics file.
struct Lines {
    /// The intact lines with their parsed content.
    whole: Vec<(String, serde_json::Value)>,
    /// Number of damaged lines, without the last line, which a kill may cut short.
    damaged: usize,
}

impl Lines {
    fn of(bytes: &[u8]) -> Self {
        let mut whole = Vec::new();
        let (mut damaged, mut cut) = (0, false);
        for line in bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            damaged += usize::from(cut);
            let text = std::str::from_utf8(line).ok();
            let parsed =
                text.and_then(|text| Some((text.to_owned(), serde_json::from_str(text).ok()?)));
            cut = parsed.is_none();
            whole.extend(parsed);
        }
        Self { whole, damaged }
    }
}

/// The multiples of `every` up to `done` without a line, as ranges.
fn missing(
    lines: &[(String, serde_json::Value)],
    done: usize,
    event: &str,
    every: usize,
) -> String {
    let there: BTreeSet<usize> = lines
        .iter()
        .filter(|(_, line)| line["event"] == event)
        .filter_map(|(_, line)| position(line))
        .collect();
    let missing: Vec<usize> =
        (1..=done / every).map(|i| i * every).filter(|at| !there.contains(at)).collect();
    let ranges = missing.chunk_by(|a, b| b - a == every).map(|range| match range {
        [first, .., last] => format!("{first} to {last}"),
        one => one[0].to_string(),
    });
    ranges.collect::<Vec<_>>().join(", ")
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_the_middle_is_damaged_and_the_last_one_may_be_cut_short() {
        let lines = |text: &[u8]| {
            let Lines { whole, damaged } = Lines::of(text);
            (whole.len(), damaged)
        };
        assert_eq!(lines(b"{\"epoch\":1}\n{\"epoch\":2}\n{\"ep"), (2, 0));
        assert_eq!(lines(b"{\"epoch\":1}\n{\"ep\n{\"epoch\":3}\n"), (2, 1));
        assert_eq!(lines(b"{\"epoch\":1}\n\xff\n\0\0\0\n{\"epoch\":3}\n"), (2, 2));
        assert_eq!(lines(b""), (0, 0));
    }

    #[test]
    fn a_word_for_a_shell_is_quoted_where_it_must_be() {
        assert_eq!(shell_quoted("runs/toy-2d_1.5"), "runs/toy-2d_1.5");
        assert_eq!(shell_quoted("a b"), "'a b'");
        assert_eq!(shell_quoted("it's $HOME;x"), r"'it'\''s $HOME;x'");
        assert_eq!(shell_quoted(""), "''");
    }

    #[test]
    fn a_hole_is_named() {
        let lines = |epochs: &[usize]| {
            let line = |epoch: &usize| serde_json::json!({"event": "epoch", "epoch": epoch});
            epochs.iter().map(|epoch| (String::new(), line(epoch))).collect::<Vec<_>>()
        };
        assert_eq!(missing(&lines(&[1, 2, 3]), 3, "epoch", 1), "");
        assert_eq!(missing(&lines(&[1, 5, 7]), 9, "epoch", 1), "2 to 4, 6, 8 to 9");
        assert_eq!(missing(&lines(&[50, 150]), 199, "epoch", 50), "100");
    }
}
