//! How far a single estimate of a policy gradient is off, with and without a baseline.

use std::path::Path;

use anyhow::Result;
use files::write_atomically;
use run::curves::{Curve, Panel, curves};

use super::line::noise;

/// Draws of a group.
const GROUP: usize = 4;

/// Draws the standard deviation of the estimate against an offset of all rewards. The policy is
/// `N(θ, 1)` at `θ = 0`, the reward `x + offset`, and the gradient 1.
pub fn baselines(path: &Path) -> Result<()> {
    let draws: Vec<f64> = (0..8).flat_map(noise).collect();
    let none = |_: f64, _: f64| 0.0;
    let group = |mean: f64, _: f64| mean;
    let others = |mean: f64, own: f64| (mean * GROUP as f64 - own) / (GROUP as f64 - 1.0);
    let curve = |name: &str, baseline: &dyn Fn(f64, f64) -> f64| {
        Curve::new(
            name,
            (0..=20)
                .map(|offset| f64::from(offset) / 2.0)
                .map(|offset| (offset, spread(&draws, offset, baseline)))
                .collect(),
        )
    };
    let curves_of = vec![
        curve("no baseline", &none),
        curve("the group's mean", &group),
        curve("leave-one-out", &others),
    ];
    let title = "standard deviation of the estimate of a group of four";
    let svg = curves(&[Panel::new(title, curves_of)], "offset of the rewards")?;
    Ok(write_atomically(path, svg.as_bytes())?)
}

/// The standard deviation of the estimate over groups; `baseline` is a function of the group's mean
/// reward and the draw's own.
fn spread(draws: &[f64], offset: f64, baseline: &dyn Fn(f64, f64) -> f64) -> f64 {
    let estimate = |group: &[f64]| {
        let mean = group.iter().sum::<f64>() / GROUP as f64 + offset;
        let pushes = group.iter().map(|x| (x + offset - baseline(mean, x + offset)) * x);
        pushes.sum::<f64>() / GROUP as f64
    };
    let estimates: Vec<f64> = draws.chunks_exact(GROUP).map(estimate).collect();
    let count = estimates.len() as f64;
    let mean = estimates.iter().sum::<f64>() / count;
    (estimates.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt()
}
