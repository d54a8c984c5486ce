//! The cache of `huggingface_hub`: whole files by their digest, and snapshots that link to them.
//!
//! ```text
//! models--OWNER--NAME/blobs/DIGEST                    a whole file
//! models--OWNER--NAME/blobs/DIGEST.incomplete         a part of one
//! models--OWNER--NAME/refs/BRANCH                     the commit of a branch
//! models--OWNER--NAME/snapshots/COMMIT/PATH           a link to a whole file
//! .locks/models--OWNER--NAME/DIGEST.lock              held while the file is downloaded
//! ```

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use files::{Action, FileError, write_atomically};

use crate::{
    HubError, Name, Settings, Snapshot, Without,
    choice::{INDEX, Index, Listing},
    name::is_commit,
};

/// One repository in the cache.
#[derive(Debug)]
pub(crate) struct Cached<'a> {
    name: &'a Name,
    /// The cache of all repositories.
    pub root: &'a Path,
    directory: PathBuf,
    locks: PathBuf,
}

impl<'a> Cached<'a> {
    pub fn new(settings: &'a Settings, name: &'a Name) -> Self {
        let folder = format!("models--{}", name.repository().replace('/', "--"));
        let root = settings.cache.as_path();
        let locks = root.join(".locks").join(&folder);
        Self { name, root, directory: root.join(folder), locks }
    }

    /// The name of the model.
    pub fn name(&self) -> &Name {
        self.name
    }

    /// The directory of a commit.
    fn directory_of(&self, commit: &str) -> PathBuf {
        self.directory.join("snapshots").join(commit)
    }

    /// The place of a file in a commit.
    pub fn place(&self, commit: &str, file: &str) -> PathBuf {
        self.directory_of(commit).join(file)
    }

    /// The model of a commit.
    pub fn snapshot(&self, commit: &str) -> Snapshot {
        let directory = self.directory_of(commit);
        let path = self.name.file().map_or_else(|| directory.clone(), |file| directory.join(file));
        Snapshot { name: self.name.at(commit), path }
    }

    /// The model of the revision as it was downloaded last, if it is whole.
    pub fn newest(&self, without: Without<'_>) -> Option<Snapshot> {
        let commit = match self.name.commit() {
            Some(commit) => commit.to_owned(),
            None => fs::read_to_string(self.reference()).ok()?.trim().to_owned(),
        };
        (is_commit(&commit) && self.is_complete(&commit, without)).then(|| self.snapshot(&commit))
    }

    /// The error about a model that is not in the cache.
    pub fn not_there(&self) -> HubError {
        HubError::Offline { name: self.name.to_string(), cache: self.root.to_owned() }
    }

    /// Whether the cache has every file of a commit that is needed. Configurations are downloaded
    /// before weights, so a part that has its configuration must have its weights as well.
    pub fn is_complete(&self, commit: &str, without: Without<'_>) -> bool {
        let mut names = Vec::new();
        list(&self.directory_of(commit), "", &mut names);
        let mut listing = Listing::new(self.name, names);
        if self.name.file().is_none() && listing.has(INDEX) {
            let Ok(index) = self.index(commit) else { return false };
            listing.index = Some(index);
        }
        listing.is_whole(without)
    }

    /// The index of a commit's parts, `model_index.json`.
    pub fn index(&self, commit: &str) -> Result<Index, HubError> {
        let path = self.place(commit, INDEX);
        let text = fs::read_to_string(&path).map_err(Action::Read.failed_on(&path))?;
        let bad = |reason: String| HubError::Answer { url: path.display().to_string(), reason };
        Index::parse(&text).map_err(bad)
    }

    /// The file that names the commit of the revision.
    fn reference(&self) -> PathBuf {
        self.directory.join("refs").join(self.name.revision())
    }

    /// Notes the commit of the revision, for use without network.
    pub fn remember(&self, commit: &str) -> Result<(), HubError> {
        let path = self.reference();
        if self.name.commit().is_some()
            || fs::read_to_string(&path).is_ok_and(|known| known == commit)
        {
            return Ok(());
        }
        make_parent(&path)?;
        Ok(write_atomically(&path, commit.as_bytes())?)
    }

    /// The place of a whole file, by its digest.
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.directory.join("blobs").join(digest)
    }

    /// The place of a part of a file, by the digest of the whole.
    pub fn incomplete(&self, digest: &str) -> PathBuf {
        self.directory.join("blobs").join(format!("{digest}.incomplete"))
    }

    /// Waits until no other process downloads the file of this digest. The lock lives as long as
    /// the result.
    pub fn lock(&self, digest: &str) -> Result<File, HubError> {
        let path = self.locks.join(format!("{digest}.lock"));
        make_parent(&path)?;
        let file = File::options().create(true).append(true).open(&path);
        let file = file.map_err(Action::Write.failed_on(&path))?;
        file.lock().map_err(Action::Write.failed_on(&path))?;
        Ok(file)
    }

    /// Makes a whole file a file of a commit.
    pub fn link(&self, digest: &str, commit: &str, file: &str) -> Result<(), HubError> {
        let (blob, place) = (self.blob(digest), self.place(commit, file));
        if place.exists() {
            return Ok(());
        }
        make_parent(&place)?;
        if place.is_symlink() {
            // It leads to a file that is gone.
            fs::remove_file(&place).map_err(Action::Remove.failed_on(&place))?;
        }
        let up = "../".repeat(2 + file.split('/').count() - 1);
        let target = Path::new(&up).join("blobs").join(digest);
        Ok(linked(&target, &blob, &place).map_err(Action::Write.failed_on(&place))?)
    }
}

/// Links `place` to `target`, relative to the place; where there are no such links, to the file.
#[cfg(unix)]
fn linked(target: &Path, _blob: &Path, place: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, place)
}

#[cfg(not(unix))]
fn linked(_target: &Path, blob: &Path, place: &Path) -> std::io::Result<()> {
    fs::hard_link(blob, place)
}

/// Makes the directory of a file.
pub(crate) fn make_parent(path: &Path) -> Result<(), FileError> {
    let parent = files::directory_of(path);
    fs::create_dir_all(parent).map_err(Action::MakeDirectory.failed_on(parent))
}

/// Adds the paths of all files in a directory and below, with `/` between their pieces. Links that
/// lead nowhere are no files.
fn list(directory: &Path, prefix: &str, names: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let path = entry.path();
        if path.is_dir() {
            list(&path, &format!("{name}/"), names);
        } else if path.is_file() {
            names.push(name);
        }
    }
}
