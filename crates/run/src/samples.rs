//! The sample grids of a run: one image file per evaluation and set of prompts.

/// The prompts whose images a sample grid shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleSet {
    /// The validation prompts, which choose the best checkpoint.
    Validation,
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
            Self::Test => "test",
            Self::Unseen => "unseen",
            Self::Pretraining => "step",
        }
    }
}
