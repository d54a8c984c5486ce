//! Reading of whole files with a size limit.

use std::{fs, io, path::Path};

use crate::{Action, FileError};

/// Reads a regular file of at most `most` bytes.
///
/// # Errors
/// If the file cannot be read, is larger, or is not a regular file but a directory or an endless
/// device.
pub fn read_whole(path: &Path, most: u64) -> Result<Vec<u8>, FileError> {
    read(path, most).map_err(Action::Read.failed_on(path))
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let metadata = fs::metadata(path)?;
    if metadata.is_dir() {
        return Err(io::Error::other("it is a directory, not a file"));
    }
    if !metadata.is_file() {
        return Err(io::Error::other("it is no ordinary file"));
    }
    if metadata.len() > most {
        return Err(io::Error::other(format!("it is larger than {} MiB", most >> 20)));
    }
    fs::read(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_and_files_beyond_the_limit_are_refused_with_the_reason() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        fs::write(&path, "abcd").expect("written");
        assert_eq!(read_whole(&path, 4).expect("read"), b"abcd");
        let reason = |path: &Path| read_whole(path, 3).expect_err("refused").source.to_string();
        assert_eq!(reason(&path), "it is larger than 0 MiB");
        assert_eq!(reason(directory.path()), "it is a directory, not a file");
    }
}
