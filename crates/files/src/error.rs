//! The error of an action on a file.

use std::{
    fmt,
    io::{Error, ErrorKind},
    path::{Path, PathBuf},
};

/// An action on a file or directory failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// The action.
    pub action: Action,
    /// The file or directory.
    pub path: PathBuf,
    /// The system's error.
    pub source: Error,
}

impl FileError {
    /// Whether the file does not exist.
    pub fn is_missing(&self) -> bool {
        self.source.kind() == ErrorKind::NotFound
    }
}

/// An action on a file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Reads a file.
    Read,
    /// Writes a file.
    Write,
    /// Removes a file.
    Remove,
    /// Renames a file.
    Rename,
    /// Lists the entries of a directory.
    List,
    /// Creates a directory.
    MakeDirectory,
}

impl Action {
    /// Makes the error of this action on `path`, for `map_err`.
    pub fn failed_on(self, path: &Path) -> impl FnOnce(Error) -> FileError {
        move |source| FileError { action: self, path: path.to_owned(), source }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Remove => "remove",
            Self::Rename => "rename",
            Self::List => "read the directory",
            Self::MakeDirectory => "make the directory",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_action_and_the_file() {
        let error = Action::MakeDirectory.failed_on(Path::new("runs/a"))(Error::from(
            ErrorKind::PermissionDenied,
        ));
        assert_eq!(error.to_string(), "cannot make the directory runs/a");
        assert!(!error.is_missing());
    }
}
