//! Decreasing time grids `1 = t_0 > t_1 > … > t_N = 0`.
//!
//! A grid is validated once, when it is created, so the durations of a [`TimeGrid`] are positive.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The distribution of the `N` steps of a grid over time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum GridKind {
    /// The linear grid `t_i = 1 − i/N`; suits small pixel models.
    Linear {},
    /// The own grid of the model that is trained. A program replaces it with another kind when it
    /// opens the model.
    OfModel {},
    /// The linear grid under the static shift `t ↦ χ·t / (1 + (χ − 1)·t)` (arXiv 2403.03206,
    /// section 5.3.2).
    Shifted {
        /// The shift `χ ≥ 1`; 1 is the linear grid.
        #[schemars(range(min = 1.0))]
        shift: f64,
    },
    /// The grid intended for SD3: `N` points spread evenly from 1 to 1/1000, shifted once, then 0.
    Sd3SingleShift {
        /// The shift `χ`; 3 for SD3 and SD3.5.
        #[schemars(range(min = 1.0))]
        shift: f64,
    },
    /// The grid of diffusers' `FlowMatchEulerDiscreteScheduler`, which trained the released
    /// Flow-GRPO checkpoints: the static shift is applied in the constructor and again in
    /// `set_timesteps`.
    ///
    /// Deviation `double-shift` (diffusers issue 13243).
    Sd3DoubleShift {
        /// The shift `χ`; 3 for SD3 and SD3.5.
        #[schemars(range(min = 1.0))]
        shift: f64,
    },
}

impl GridKind {
    /// Builds the grid of this kind with `steps` steps.
    ///
    /// # Errors
    /// If `steps` is 0 or the shift is not a finite number of at least 1.
    pub fn grid(self, steps: usize) -> Result<TimeGrid, GridError> {
        if steps == 0 {
            return Err(GridError::NoSteps);
        }
        if let Some(shift) = self.shift()
            && !(shift.is_finite() && shift >= 1.0)
        {
            return Err(GridError::BadShift { shift });
        }
        let linear = (0..steps).map(|i| 1.0 - i as f64 / steps as f64);
        let mut times: Vec<f64> = match self {
            Self::OfModel {} => return Err(GridError::OfModel),
            Self::Linear {} => linear.collect(),
            Self::Shifted { shift: chi } => linear.map(|t| shift(t, chi)).collect(),
            Self::Sd3SingleShift { shift: chi } => {
                spread(FIRST_TRAINED_TIME, steps).map(|t| shift(t, chi)).collect()
            }
            Self::Sd3DoubleShift { shift: chi } => {
                spread(shift(FIRST_TRAINED_TIME, chi), steps).map(|t| shift(t, chi)).collect()
            }
        };
        times.push(0.0);
        TimeGrid::new(times)
    }

    fn shift(self) -> Option<f64> {
        match self {
            Self::Linear {} | Self::OfModel {} => None,
            Self::Shifted { shift }
            | Self::Sd3SingleShift { shift }
            | Self::Sd3DoubleShift { shift } => Some(shift),
        }
    }
}

/// The smallest time of SD3's training, which used 1,000 discrete times.
const FIRST_TRAINED_TIME: f64 = 1e-3;

/// `n` points spread evenly from 1 down to `last`, both included.
fn spread(last: f64, n: usize) -> impl Iterator<Item = f64> {
    let gaps = n.saturating_sub(1).max(1) as f64;
    (0..n).map(move |i| 1.0 + (last - 1.0) * i as f64 / gaps)
}

/// The static resolution shift `t ↦ χ·t / (1 + (χ − 1)·t)`.
fn shift(t: f64, chi: f64) -> f64 {
    chi * t / (1.0 + (chi - 1.0) * t)
}

/// A strictly decreasing grid from 1 to 0.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeGrid {
    times: Vec<f64>,
}

impl TimeGrid {
    /// Validates the `N + 1` times of a grid.
    ///
    /// # Errors
    /// If there are fewer than two times, the first is not 1, the last is not 0, or they do not
    /// strictly decrease.
    pub fn new(times: Vec<f64>) -> Result<Self, GridError> {
        if times.len() < 2 {
            return Err(GridError::NoSteps);
        }
        let (first, last) = (times[0], times[times.len() - 1]);
        if first != 1.0 || last != 0.0 {
            return Err(GridError::BadEnds { first, last });
        }
        match times.windows(2).position(|pair| {
            !matches!(pair[0].partial_cmp(&pair[1]), Some(std::cmp::Ordering::Greater))
        }) {
            Some(index) => {
                Err(GridError::NotDecreasing { index, from: times[index], to: times[index + 1] })
            }
            None => Ok(Self { times }),
        }
    }

    /// The number of steps `N ≥ 1`.
    #[expect(clippy::len_without_is_empty, reason = "a grid has at least one step")]
    pub fn len(&self) -> usize {
        self.times.len() - 1
    }

    /// The `N + 1` times, from 1 to 0.
    pub fn times(&self) -> &[f64] {
        &self.times
    }

    /// Step `index` of the grid.
    ///
    /// # Panics
    /// If `index ≥ N`.
    pub fn step(&self, index: usize) -> Step {
        Step { index, from: self.times[index], to: self.times[index + 1] }
    }

    /// All steps, from noise to data.
    pub fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        (0..self.len()).map(|index| self.step(index))
    }
}

/// One denoising step, from time `t` to `t' < t`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Position in the grid, counted from the noise.
    pub index: usize,
    /// The start time `t`, in `(0, 1]`.
    pub from: f64,
    /// The end time `t'`, in `[0, t)`.
    pub to: f64,
}

impl Step {
    /// The duration `|Δt| = t − t' > 0`.
    pub fn duration(self) -> f64 {
        self.from - self.to
    }
}

/// The reason for refusing a time grid.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum GridError {
    /// The grid has no step.
    #[error("a time grid needs at least one step")]
    NoSteps,
    /// The grid is that of a model, which nobody has opened.
    #[error("the grid of the model is known only when the model is opened")]
    OfModel,
    /// The shift is below 1 or not a number.
    #[error("the shift of a time grid must be a finite number of at least 1, not {shift}")]
    BadShift {
        /// The shift that was given.
        shift: f64,
    },
    /// The grid does not run from 1 to 0.
    #[error("a time grid must run from 1 to 0, not from {first} to {last}")]
    BadEnds {
        /// The first time that was given.
        first: f64,
        /// The last time that was given.
        last: f64,
    },
    /// Two neighbours do not decrease.
    #[error("a time grid must strictly decrease, but step {index} goes from {from} to {to}")]
    NotDecreasing {
        /// Index of the offending step.
        index: usize,
        /// The start time of the step.
        from: f64,
        /// The end time of the step.
        to: f64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(grid: &TimeGrid, expected: &[f64]) {
        assert_eq!(grid.times().len(), expected.len());
        for (got, want) in grid.times().iter().zip(expected) {
            assert!((got - want).abs() < 1e-6, "{got} is not {want}");
        }
    }

    #[test]
    fn the_double_shift_is_the_grid_of_diffusers() {
        // FlowMatchEulerDiscreteScheduler(shift=3).set_timesteps(10), diffusers 0.42.1.
        let grid = GridKind::Sd3DoubleShift { shift: 3.0 }.grid(10).expect("valid");
        assert_close(
            &grid,
            &[
                1.0,
                0.960_129_31,
                0.913_348_95,
                0.857_692_31,
                0.790_368_27,
                0.707_278_48,
                0.602_150_54,
                0.464_876_03,
                0.278_048_78,
                0.008_928_57,
                0.0,
            ],
        );
    }

    #[test]
    fn the_single_shift_ends_at_the_first_trained_time() {
        let grid = GridKind::Sd3SingleShift { shift: 3.0 }.grid(10).expect("valid");
        assert_close(
            &grid,
            &[
                1.0, 0.960_043, 0.913_146, 0.857_326, 0.789_773, 0.706_349, 0.600_719, 0.462_656,
                0.274_510, 0.002_994, 0.0,
            ],
        );
    }

    #[test]
    fn a_shift_of_one_is_the_linear_grid() {
        let shifted = GridKind::Shifted { shift: 1.0 }.grid(7).expect("valid");
        assert_close(&shifted, GridKind::Linear {}.grid(7).expect("valid").times());
    }

    #[test]
    fn every_kind_makes_a_valid_grid_of_any_length() {
        for kind in [
            GridKind::Linear {},
            GridKind::Shifted { shift: 3.0 },
            GridKind::Sd3SingleShift { shift: 3.0 },
            GridKind::Sd3DoubleShift { shift: 3.0 },
        ] {
            for steps in 1..=50 {
                assert_eq!(kind.grid(steps).expect("valid").len(), steps);
            }
        }
    }

    #[test]
    fn a_grid_that_rises_or_misses_an_end_is_refused() {
        assert_eq!(
            TimeGrid::new(vec![1.0, 0.5, 0.5, 0.0]),
            Err(GridError::NotDecreasing { index: 1, from: 0.5, to: 0.5 })
        );
        assert!(matches!(
            TimeGrid::new(vec![1.0, f64::NAN, 0.0]),
            Err(GridError::NotDecreasing { index: 0, .. })
        ));
        assert_eq!(
            TimeGrid::new(vec![0.9, 0.0]),
            Err(GridError::BadEnds { first: 0.9, last: 0.0 })
        );
        assert_eq!(GridKind::Linear {}.grid(0), Err(GridError::NoSteps));
        assert_eq!(
            GridKind::Shifted { shift: 0.5 }.grid(4),
            Err(GridError::BadShift { shift: 0.5 })
        );
    }
}
