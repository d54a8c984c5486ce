//! Models by name: `hub:OWNER/NAME` wherever a model is given by its path.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
    sync::Mutex,
};

use anyhow::Result;
use hub::{Name, Settings, Snapshot, Watch, Without};
use models::{Choices, Family, sd3::Sd3};
use toml::{Table, Value};

use crate::terminal::{interrupt, output, progress::Progress};

/// Whether a text is the name of a model, and not a path.
pub fn is_name(text: &str) -> bool {
    text.starts_with(hub::PREFIX)
}

/// The path of a model: the text itself, or the place of a named model, which is downloaded if it
/// is not in the cache.
///
/// # Errors
/// If the name is malformed, or the model cannot be downloaded.
pub fn path(text: &str, without: Without<'_>) -> Result<PathBuf> {
    Ok(fetched(text, without)?.map_or_else(|| text.into(), |snapshot| snapshot.path))
}

/// The path of an adapter or a model directory: as it is, or the place of a named one.
///
/// # Errors
/// As [`path`].
pub fn place(given: &Path) -> Result<PathBuf> {
    match given.to_str() {
        Some(text) if is_name(text) => path(text, &[]),
        _ => Ok(given.to_owned()),
    }
}

/// The parts of a model directory that are not used without T5.
pub fn unused(without_t5: bool) -> Without<'static> {
    // Other families cannot do without T5.
    if without_t5 { &T5 } else { &[] }
}

/// The parts that are T5.
const T5: [&str; 2] = [Sd3::T5.network, Sd3::T5.tokenizer];

/// Choices with the path of a single file that is given by name.
///
/// # Errors
/// As [`path`].
pub fn choices(choices: Choices) -> Result<Choices> {
    let given = choices.single_file.as_deref().map(Path::to_string_lossy);
    let single_file = given.map(|file| path(&file, &[])).transpose()?;
    Ok(Choices { single_file, ..choices })
}

/// Settings of a reward with the path of a model that is given by name.
///
/// # Errors
/// As [`path`].
pub fn reward(mut settings: Table) -> Result<Table> {
    if let Some(Value::String(model)) = settings.get_mut("model")
        && is_name(model)
    {
        *model = path(model, &[])?.to_string_lossy().into_owned();
    }
    Ok(settings)
}

/// A name with the commit as its revision, which names the same files forever; any other text as it
/// is. The model is downloaded if it is not in the cache.
///
/// # Errors
/// As [`path`].
pub fn pinned(text: &str, without: Without<'_>) -> Result<String> {
    let snapshot = fetched(text, without)?;
    Ok(snapshot.map_or_else(|| text.to_owned(), |snapshot| snapshot.name.to_string()))
}

/// The model of a name; `None` for any other text.
fn fetched(text: &str, without: Without<'_>) -> Result<Option<Snapshot>> {
    let Some(name) = Name::parse(text)? else { return Ok(None) };
    let settings = Settings::from_environment();
    let bar = Bar { cache: settings.cache.clone(), shown: Mutex::new(None) };
    let snapshot = hub::fetch(&settings, &name, without, &bar)?;
    bar.end();
    Ok(Some(snapshot))
}

/// The progress of a download.
struct Bar {
    cache: PathBuf,
    shown: Mutex<Option<Shown>>,
}

struct Shown {
    progress: Progress,
    /// Bytes that are not yet a unit of progress.
    rest: u64,
}

/// Bytes of a unit of progress.
const UNIT: u64 = 1 << 20;

impl Bar {
    fn end(&self) {
        let shown = self.shown.lock().expect("nothing panics while it holds the bar").take();
        if let Some(Shown { progress, .. }) = shown {
            progress.finish();
        }
    }
}

impl Watch for Bar {
    fn note(&self, line: &str) {
        output::log(line);
    }

    fn begin(&self, name: &Name, bytes: u64) {
        self.end();
        let total = bytes.div_ceil(UNIT);
        let size =
            if bytes < UNIT { Cow::from("a few files") } else { format!("{total} MiB").into() };
        output::log(format!("downloading {name}: {size} into {}", self.cache.display()));
        let progress = Progress::new("downloading", total as usize, "MiB");
        let mut shown = self.shown.lock().expect("nothing panics while it holds the bar");
        *shown = Some(Shown { progress, rest: 0 });
    }

    fn advance(&self, bytes: u64) {
        let mut shown = self.shown.lock().expect("nothing panics while it holds the bar");
        if let Some(Shown { progress, rest }) = &mut *shown {
            *rest += bytes;
            progress.advance((*rest / UNIT) as usize);
            *rest %= UNIT;
        }
    }

    fn interrupted(&self) -> bool {
        interrupt::requested()
    }
}
