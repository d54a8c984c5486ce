//! The transitions beside each other: their noise, and what ten or more of their steps do to a
//! variance.

use std::path::Path;

use anyhow::{Context, Result};
use files::write_atomically;
use flow::{Dance, FlowCps, FlowSde, GridKind, NoiseLevel, Ode, Transition};
use run::curves::{Curve, Panel, curves};

use super::{draw_errors, errors};

/// Draws the standard deviation of ten steps for every transition.
pub fn noise_of_transitions(path: &Path) -> Result<()> {
    let curve = |(name, transition): (&str, Transition)| -> Result<Curve> {
        let steps = (GridKind::Linear {}).grid(10)?;
        let of = |step: flow::Step| ((step.index + 1) as f64, transition.affine(step).std);
        Ok(Curve::new(name, steps.steps().map(of).collect()))
    };
    let curves_of = all()?.into_iter().skip(1).map(curve).collect::<Result<_>>()?;
    let panel = Panel::new("standard deviation of a step, of ten", curves_of);
    Ok(write_atomically(path, curves(&[panel], "step, from noise to image")?.as_bytes())?)
}

/// Draws the error of the final variance against the number of steps, for every transition.
pub fn errors_of_transitions(path: &Path) -> Result<()> {
    let curves_of = all()?.into_iter().map(|(name, transition)| errors(name, transition));
    draw_errors(path, curves_of.collect::<Result<_>>()?)
}

/// The transitions with their names in a legend.
fn all() -> Result<[(&'static str, Transition); 5]> {
    let level = |level: f64| NoiseLevel::new(level).context("a level");
    Ok([
        ("ODE", Ode {}.into()),
        ("Flow-GRPO, 0.7", FlowSde::default().into()),
        ("Flow-CPS, 0.8", FlowCps { noise_level: level(0.8)? }.into()),
        ("DanceGRPO, 0.3", Dance { noise_level: level(0.3)? }.into()),
        ("DanceGRPO, 0.7", Dance { noise_level: level(0.7)? }.into()),
    ])
}
