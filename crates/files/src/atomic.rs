//! Atomic replacement of files: a kill or a power loss leaves the old content or the new.

use std::{fs, io, path::Path};

use crate::{Action, FileError};

/// Prefix and suffix of the random characters in the name of a temporary file.
const UNFINISHED: [&str; 2] = [".tmp", ".tmp"];
/// Number of random characters in the name of a temporary file.
const RANDOM: usize = 6;

/// Whether a name belongs to a temporary file of [`write_atomically`]. A killed process may leave
/// such a file behind; it is of no use.
pub fn is_unfinished(name: &str) -> bool {
    let random = name.strip_prefix(UNFINISHED[0]).and_then(|name| name.strip_suffix(UNFINISHED[1]));
    random.is_some_and(|random| {
        random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Replaces a file atomically: a kill at any moment leaves either the old content or the new.
///
/// # Errors
/// If the file cannot be written; the old content then stays.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace_atomically(path, |unfinished| fs::write(unfinished, bytes))
}

/// Atomically replaces a file with the content that `write` puts into a temporary file.
///
/// # Errors
/// If `write` fails or the file cannot be written; the old content then stays.
pub fn replace_atomically(
    path: &Path,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), FileError> {
    replace(path, write).map_err(Action::Write.failed_on(path))
}

fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let directory = directory_of(path);
    let mut builder = tempfile::Builder::new();
    builder.prefix(UNFINISHED[0]).rand_bytes(RANDOM).suffix(UNFINISHED[1]);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let file = builder.tempfile_in(directory)?;
    write(file.path())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    sync(directory)
}

/// The directory of a path; `.` for a name alone.
pub fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Flushes the names in a directory to disk; without this, a power loss may bring an old file back.
///
/// # Errors
/// If the disk refuses.
pub fn sync_directory(directory: &Path) -> Result<(), FileError> {
    sync(directory).map_err(Action::Write.failed_on(directory))
}

fn sync(directory: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(directory)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        entries
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn a_failed_write_keeps_the_old_content_and_leaves_no_temporary_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.txt");
        write_atomically(&path, b"old").expect("written");
        let error = replace_atomically(&path, |unfinished| {
            fs::write(unfinished, "ne")?;
            Err(io::Error::other("the disk is full"))
        })
        .expect_err("the write failed");
        assert_eq!(error.to_string(), format!("cannot write {}", path.display()));
        assert_eq!(fs::read(&path).expect("it is there"), b"old");
        assert_eq!(names(directory.path()), ["a.txt"]);
        write_atomically(&path, b"new").expect("written");
        assert_eq!(fs::read(&path).expect("it is there"), b"new");
    }

    #[test]
    fn a_name_alone_lies_in_the_current_directory() {
        let of = |path| directory_of(Path::new(path)).to_string_lossy().into_owned();
        assert_eq!(["a", "a/b", "/a"].map(of), [".", "a", "/"]);
    }

    #[test]
    fn a_temporary_file_is_known_by_its_name_and_others_are_not() {
        let directory = tempfile::tempdir().expect("a directory");
        replace_atomically(&directory.path().join("a"), |unfinished| {
            let name = unfinished.file_name().and_then(|name| name.to_str()).expect("a name");
            assert!(is_unfinished(name), "{name}");
            Ok(())
        })
        .expect("written");
        for other in ["thesis.tmp", ".tmp.tmp", ".tmpabc12.tmp", ".tmpabc_23.tmp", ".tmpabc123"] {
            assert!(!is_unfinished(other), "{other}");
        }
    }
}
