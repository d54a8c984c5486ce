//! The training states of a run: `checkpoints/000012.safetensors` is the state after 12 epochs or
//! steps.

use std::{
    fs,
    path::{Path, PathBuf},
};

use files::{Action, FileError};

/// The checkpoints in a directory.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    directory: PathBuf,
}

impl Checkpoints {
    /// The checkpoints of the run in a directory.
    pub fn of_run(run: &Path) -> Self {
        Self { directory: run.join("checkpoints") }
    }

    /// The path of the state after `done` epochs or steps.
    pub fn path(&self, done: usize) -> PathBuf {
        self.directory.join(format!("{done:06}.safetensors"))
    }

    /// Epochs or steps of the states, in order.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn all(&self) -> Result<Vec<usize>, FileError> {
        let unreadable = || Action::Read.failed_on(&self.directory);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(unreadable())? {
            let path = entry.map_err(unreadable())?.path();
            let done = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            if let Some(done) = done.filter(|&done| path == self.path(done)) {
                found.push(done);
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Renames states after `done` epochs or steps, which are damaged if the run continues from
    /// there.
    ///
    /// # Errors
    /// If a state cannot be renamed.
    pub fn set_aside_after(&self, done: usize) -> Result<(), FileError> {
        for newer in self.all()?.into_iter().filter(|&other| other > done) {
            let path = self.path(newer);
            let aside = path.with_extension("safetensors.damaged");
            fs::rename(&path, &aside).map_err(Action::Rename.failed_on(&path))?;
        }
        Ok(())
    }

    /// Deletes all states except the newest `last` and the one after `best` epochs.
    ///
    /// # Errors
    /// If a state cannot be removed.
    pub fn retain(&self, last: usize, best: Option<usize>) -> Result<(), FileError> {
        let all = self.all()?;
        let old = &all[..all.len().saturating_sub(last)];
        for &done in old.iter().filter(|&&done| Some(done) != best) {
            let path = self.path(done);
            fs::remove_file(&path).map_err(Action::Remove.failed_on(&path))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(states: &[usize]) -> (tempfile::TempDir, Checkpoints) {
        let run = tempfile::tempdir().expect("a directory");
        let checkpoints = Checkpoints::of_run(run.path());
        fs::create_dir(run.path().join("checkpoints")).expect("made");
        for &done in states {
            fs::write(checkpoints.path(done), "").expect("written");
        }
        // Files of others are never touched.
        fs::write(run.path().join("checkpoints/7.safetensors"), "").expect("written");
        (run, checkpoints)
    }

    #[test]
    fn the_newest_states_and_the_best_are_kept() {
        let (run, checkpoints) = with(&[1, 2, 3, 1_000_000]);
        checkpoints.retain(2, Some(1)).expect("removed");
        assert_eq!(checkpoints.all().expect("a list"), [1, 3, 1_000_000]);
        assert!(run.path().join("checkpoints/7.safetensors").exists());
    }

    #[test]
    fn damaged_states_are_renamed_and_no_longer_counted() {
        let (_run, checkpoints) = with(&[1, 2, 3]);
        checkpoints.set_aside_after(1).expect("renamed");
        assert_eq!(checkpoints.all().expect("a list"), [1]);
        assert!(checkpoints.path(3).with_extension("safetensors.damaged").exists());
    }
}
