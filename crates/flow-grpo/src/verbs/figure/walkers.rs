//! Walkers on the line: many of them have the smooth density of the heat equation.

use std::{f64::consts::TAU, path::Path};

use anyhow::Result;
use files::write_atomically;
use run::curves::{Curve, Panel, curves};

use super::{REACH, histogram, line::noise};

/// The duration of a step.
const STEP: f64 = 0.05;
/// Steps after which the walkers are counted.
const COUNTED: [usize; 3] = [2, 10, 40];

/// Draws the density of walkers that began at 0, at three times, beside the Gaussian `N(0, t)`.
pub fn walkers(path: &Path) -> Result<()> {
    let mut places = vec![0.0; noise(0).len()];
    let mut panels = Vec::new();
    for step in 1..=COUNTED[COUNTED.len() - 1] {
        places.iter_mut().zip(noise(step)).for_each(|(x, e)| *x += STEP.sqrt() * e);
        if !COUNTED.contains(&step) {
            continue;
        }
        let t = step as f64 * STEP;
        let gaussian = |x: f64| (-x * x / (2.0 * t)).exp() / (TAU * t).sqrt();
        let x = |i: i32| REACH * f64::from(i) / 100.0;
        let exact = (-100..=100).map(|i| (x(i), gaussian(x(i)))).collect();
        panels.push(Panel::new(
            format!("density at t = {t}, after {step} steps"),
            vec![
                Curve::new("20,000 walkers", histogram(&places)),
                Curve::new("heat equation", exact),
            ],
        ));
    }
    Ok(write_atomically(path, curves(&panels, "x")?.as_bytes())?)
}
