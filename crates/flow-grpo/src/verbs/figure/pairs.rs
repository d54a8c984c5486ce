//! Pairs of image and noise beside the flow of their mean velocity.

use std::path::Path;

use anyhow::Result;
use files::write_atomically;
use flow::{Ode, analytic::Component};
use run::curves::{Curve, Panel, curves};

use super::{
    PATHS, REACH,
    line::{noise, velocity},
    mixture, paths_of,
};

/// Draws the straight lines of pairs, and the paths that follow their mean velocity.
pub fn pairs(path: &Path) -> Result<()> {
    let lines = noise(1)
        .into_iter()
        .zip(noise(0))
        .take(PATHS)
        .enumerate()
        .map(|(row, (draw, end))| {
            Curve::new("", vec![(0.0, end), (1.0, image((row as f64 + 0.5) / PATHS as f64, draw))])
        })
        .collect();
    let pairs = Panel::new("pairs: x against 1 - t", lines);
    let flow = paths_of("particles that follow the mean velocity", Ode {}.into(), 200)?;
    Ok(write_atomically(path, curves(&[pairs, flow], "1 - t")?.as_bytes())?)
}

/// An image of the mixture: `share`, in `[0, 1)`, chooses the component, so that equal shares visit
/// all.
fn image(share: f64, draw: f64) -> f64 {
    let of = |Component { mean, std, .. }: &Component| f64::from(mean[0]) + std * draw;
    let mixture = mixture();
    let mut sum = 0.0;
    let chosen = mixture.components().iter().find(|component| {
        sum += component.weight;
        share < sum
    });
    chosen.or(mixture.components().last()).map_or(0.0, of)
}

/// Draws the velocity of the mixture at three times.
pub fn field(path: &Path) -> Result<()> {
    let field = mixture();
    let at = |t: f64| {
        Curve::new(
            format!("t = {t}"),
            (-100..=100)
                .map(|i| f64::from(i) / 100.0 * REACH)
                .map(|x| (x, velocity(&field, x, t)))
                .collect(),
        )
    };
    let panel = Panel::new("mean velocity v(x, t)", [1.0, 0.6, 0.3].map(at).into());
    Ok(write_atomically(path, curves(&[panel], "x")?.as_bytes())?)
}
