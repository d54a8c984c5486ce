//! The start of a run: the directory is free, locked, and without the remains of a killed process.

use std::{
    fs::{self, DirEntry, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use files::{Action, FileError, directory_of, is_unfinished, sync_directory};

use crate::RunError;

/// The directories of a new run.
const FRESH: [&str; 2] = ["samples", "checkpoints"];
/// The file whose lock shows that a process uses the directory.
const LOCK: &str = ".lock";

/// A directory locked against other processes. When it is dropped and holds no run, the start was
/// refused: its empty directories are removed, and the lock last.
#[derive(Debug)]
pub(crate) struct Locked {
    path: PathBuf,
    _lock: File,
}

impl Locked {
    /// Creates and locks the directory of a new run.
    pub fn create(path: &Path) -> Result<Self, RunError> {
        let unmakable = |source| RunError::Create { path: path.to_owned(), source };
        let make = |path: &Path| {
            fs::create_dir_all(path)
                .map_err(Action::MakeDirectory.failed_on(path))
                .map_err(unmakable)
        };
        make(path)?;
        check_free(path)?; // Before the lock, which would be a file in somebody's directory.
        let lock = lock(path)?;
        check_free(path)?;
        let locked = Self { path: path.to_owned(), _lock: lock };
        for name in FRESH {
            make(&path.join(name))?;
        }
        sync_directory(path)
            .and_then(|()| sync_directory(directory_of(path)))
            .map_err(unmakable)?;
        Ok(locked)
    }

    /// Locks the directory of a run.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        Ok(Self { path: path.to_owned(), _lock: lock(path)? })
    }
}

impl Drop for Locked {
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

/// Locks a directory. Never follows a link, and changes nothing of an existing file.
fn lock(path: &Path) -> Result<File, RunError> {
    let unwritable = |source| RunError::Lock { path: path.to_owned(), source };
    let in_use = || RunError::InUse { path: path.to_owned() };
    let name = path.join(LOCK);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(
        &mut options,
        rustix::fs::OFlags::NOFOLLOW.bits().cast_signed(),
    );
    if name.is_symlink() {
        return Err(RunError::LockIsLink { path: name });
    }
    let lock = options.open(&name).map_err(unwritable)?;
    if !lock.metadata().map_err(unwritable)?.is_file() {
        return Err(RunError::LockIsNoFile { path: name });
    }
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use()),
        Err(TryLockError::Error(error)) => return Err(unwritable(error)),
    }
    // A refused start may have removed its lock file after this process opened it.
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let inode = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
        let same = fs::symlink_metadata(&name)
            .is_ok_and(|now| lock.metadata().is_ok_and(|held| inode(&now) == inode(&held)));
        if !same {
            return Err(in_use());
        }
    }
    Ok(lock)
}

/// # Errors
/// If a directory holds anything except the remains of a killed start.
fn check_free(directory: &Path) -> Result<(), RunError> {
    if directory.join("config.toml").exists() {
        return Err(RunError::HoldsARun { path: directory.to_owned() });
    }
    for entry in entries(directory)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let fresh = FRESH.contains(&name.as_str()) && is_dir && entries(&entry.path())?.is_empty();
        if !(name == LOCK || is_unfinished(&name) || fresh) {
            return Err(RunError::NotEmpty { path: directory.to_owned(), name });
        }
    }
    Ok(())
}

/// Removes unfinished files of a killed process in the places where a run writes, without following
/// links.
pub(crate) fn remove_unfinished(run: &Path) -> Result<(), FileError> {
    let mut places = vec![run.to_owned()];
    places.extend(["checkpoints", "samples", "adapter", "best-adapter"].map(|name| run.join(name)));
    let prompts = run.join("prompts");
    places.extend(entries(&prompts)?.into_iter().map(|entry| entry.path()));
    for place in places {
        for entry in entries(&place)? {
            if entry.file_name().to_str().is_some_and(is_unfinished)
                && entry.file_type().is_ok_and(|kind| kind.is_file())
            {
                let path = entry.path();
                fs::remove_file(&path).map_err(Action::Remove.failed_on(&path))?;
            }
        }
    }
    Ok(())
}

/// The entries of a directory; none if it does not exist or is a link.
fn entries(directory: &Path) -> Result<Vec<DirEntry>, FileError> {
    if !fs::symlink_metadata(directory).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(Vec::new());
    }
    fs::read_dir(directory).and_then(Iterator::collect).map_err(Action::List.failed_on(directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_start_leaves_nothing_behind() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("run");
        drop(Locked::create(&path).expect("created"));
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_has_one_user_at_a_time() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("run");
        let held = Locked::create(&path).expect("created");
        let refused = Locked::open(&path).expect_err("in use");
        assert!(refused.to_string().contains("in use by another process"), "{refused}");
        fs::write(path.join("config.toml"), "").expect("written");
        drop(held);
        Locked::open(&path).expect("free again");
        let refused = Locked::create(&path).expect_err("a run");
        assert!(refused.to_string().contains("already holds a run"), "{refused}");
    }
}
