//! The numbers of an epoch, for chapter 10.

/// Some numbers of a run's epoch; the names are those of `metrics.jsonl`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Epoch {
    /// The mean reward, from 0 to 1.
    pub reward: f64,
    /// The mean of a gold reward, which is not trained on.
    pub gold: f64,
    /// The share of groups whose rewards are all equal.
    pub zero_spread: f64,
    /// The largest `|log ρ|` in the first update.
    pub on_policy: f64,
    /// The standard deviation of the ratio, in clip ranges, over all updates.
    pub ratio_spread: f64,
    /// The mean distance of two images of a prompt.
    pub diversity: f64,
}

/// What a run suffers from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ailment {
    /// Nothing.
    Healthy,
    /// The replay does not compute what the rollout did.
    ReplayDiffers,
    /// The learning rate is too high.
    RateTooHigh,
    /// Nearly all groups have equal rewards, so nothing is learnt.
    NoSpread,
    /// The reward rises, and what was wanted does not.
    Hacked,
    /// All images become one.
    Collapsed,
}
