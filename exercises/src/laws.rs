//! The laws of the exercises, a module per chapter.
//!
//! A law takes an answer as a function, so that it judges yours, the solution, and the wrong answers of
//! the tests alike.

pub mod ch01;
pub mod ch02;
pub mod ch03;
pub mod ch04;
pub mod ch05;
pub mod ch06;
pub mod ch07;
pub mod ch08;
pub mod ch09;
pub mod ch10;
pub mod ch11;
pub mod ch12;
pub mod ch13;
pub mod ch14;

use crate::{Curve, Fault};

/// The variance of the marginal at `t` for Gaussian data: `V_t = (1 − t)²V₀ + t²`.
fn marginal(t: f64, data: f64) -> f64 {
    (1.0 - t).powi(2) * data + t * t
}

/// The velocity of Gaussian data is this times `x`: `(t − (1 − t)V₀) / V_t`.
fn slope(t: f64, data: f64) -> f64 {
    (t - (1.0 - t) * data) / marginal(t, data)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The population variance.
fn variance(values: &[f64]) -> f64 {
    let center = mean(values);
    values.iter().map(|x| (x - center).powi(2)).sum::<f64>() / values.len() as f64
}

/// The curve of a name.
fn curve<'a>(curves: &'a [Curve], name: &str) -> Result<&'a [f64], Fault> {
    let found = curves.iter().find(|curve| curve.name == name).map(|curve| &curve.values[..]);
    found.filter(|values| !values.is_empty()).ok_or_else(|| {
        Fault::with(
            format!("There is no curve `{name}`."),
            "Keep the curves that the program returns.",
        )
    })
}
