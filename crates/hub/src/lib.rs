//! Models by name: `hub:OWNER/NAME` in, a directory on this machine out.
//!
//! Downloads the files that the pipelines read, once, into the cache that Python's
//! `huggingface_hub` uses: what Python has downloaded is not downloaded again, and the other way
//! round. Knows names, HTTP and files; nothing of tensors. A file is in a snapshot only if it is
//! whole: its size and its digest are those that the hub states.

mod cache;
mod choice;
mod download;
mod error;
mod name;
mod settings;
mod wire;

use std::path::PathBuf;

pub use error::HubError;
pub use name::{Name, PREFIX};
pub use settings::{Settings, Token};

use cache::Cached;
use choice::{INDEX, Listing};
use wire::Wire;

/// A model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The name with the commit as its revision: it names the same files forever.
    pub name: Name,
    /// The absolute path of the directory, or of the file that the name chose.
    pub path: PathBuf,
}

/// Follows a download.
pub trait Watch {
    /// Tells something to people.
    fn note(&self, line: &str);

    /// The download begins: `bytes` are missing.
    fn begin(&self, name: &Name, bytes: u64);

    /// `bytes` more have arrived.
    fn advance(&self, bytes: u64);

    /// Whether the download should stop; a later one resumes it.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Parts of a model that are left out, by their directories.
pub type Without<'a> = &'a [&'a str];

/// Finds a model in the cache or downloads it, and returns its place.
///
/// A commit whose files are in the cache needs no network. Without network, or with
/// `HF_HUB_OFFLINE`, a branch is what it was when it was downloaded last.
///
/// # Errors
/// If the model is not in the cache and cannot be downloaded.
pub fn fetch(
    settings: &Settings,
    name: &Name,
    without: Without<'_>,
    watch: &dyn Watch,
) -> Result<Snapshot, HubError> {
    let cached = Cached::new(settings, name);
    if let Some(commit) = name.commit()
        && cached.is_complete(commit, without)
    {
        return Ok(cached.snapshot(commit));
    }
    if settings.offline {
        return cached.newest(without).ok_or_else(|| cached.not_there());
    }
    match online(settings, name, &cached, without, watch) {
        Err(error @ HubError::Unreachable { .. }) => {
            let Some(snapshot) = cached.newest(without) else { return Err(error) };
            watch.note(&format!("note: {error}; using {name} as it is in the cache"));
            Ok(snapshot)
        }
        result => result,
    }
}

/// Asks the hub for the files of a model and downloads those that are missing.
fn online(
    settings: &Settings,
    name: &Name,
    cached: &Cached,
    without: Without<'_>,
    watch: &dyn Watch,
) -> Result<Snapshot, HubError> {
    let wire = Wire::new(settings, name)?;
    let (commit, names) = wire.list()?;
    let download = download::Download { wire: &wire, cached, commit: &commit, watch };
    let mut listing = Listing::new(name, names);
    if listing.has(INDEX) && name.file().is_none() {
        download.files(&[INDEX.to_owned()])?;
        listing.index = Some(cached.index(&commit)?);
    }
    download.files(&listing.chosen(without)?)?;
    cached.remember(&commit)?;
    Ok(cached.snapshot(&commit))
}
