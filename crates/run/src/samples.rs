//! The sample grids of a run: one image file per evaluation and set of prompts.

use std::path::{Path, PathBuf};

/// The prompts whose images a sample grid shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleSet {
    /// The validation prompts, which choose the best checkpoint.
    Validation,
    /// The training prompts of an epoch: the best and worst images of some groups.
    Training,
    /// The test prompts, which choose nothing.
    Test,
    /// The unseen prompts, which choose nothing.
    Unseen,
    /// The held-out prompts of pre-training.
    Pretraining,
}

impl SampleSet {
    /// The name of the set, in file names and in the lines of evaluations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Training => "training",
            Self::Test => "test",
            Self::Unseen => "unseen",
            Self::Pretraining => "step",
        }
    }
}

/// The path of the sample grid of the evaluation after an epoch or step, in a run directory.
pub(crate) fn path(run: &Path, set: SampleSet, step: usize) -> PathBuf {
    run.join("samples").join(format!("{}-{step:06}.png", set.name()))
}
