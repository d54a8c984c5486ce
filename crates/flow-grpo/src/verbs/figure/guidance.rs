//! What guidance does to a density on the line.

use std::path::Path;

use anyhow::Result;
use files::write_atomically;
use flow::Ode;
use run::curves::{Curve, Panel, curves};

use super::{
    density, histogram,
    line::{mixture, samples, velocity},
};

/// Draws what the guided ODE samples, for two overlapping classes of which the prompt names one.
pub fn guidance(path: &Path) -> Result<()> {
    let (left, right) = ((0.5, -0.8, 0.6), (0.5, 0.8, 0.6));
    let (all, asked) = (mixture(&[left, right]), mixture(&[right]));
    let guided = |scale: f64| -> Result<Curve> {
        let points = samples(Ode {}.into(), 200, |step, x| {
            let without = velocity(&all, x, step.from);
            without + scale * (velocity(&asked, x, step.from) - without)
        })?;
        Ok(Curve::new(format!("g = {scale}"), histogram(&points)))
    };
    let x = |i: i32| 3.5 * (f64::from(i) / 200.0 - 1.0);
    let curve = |name: &str, of: &dyn Fn(f64) -> f64| {
        Curve::new(name, (0..=400).map(|i| (x(i), of(x(i)))).collect())
    };
    // p(x)·p(c | x)^g, normalised on the range of the figure.
    let sharpened = |scale: f64| {
        let raw = |x: f64| {
            let (all, asked) = (density(&all, x, 0.0), density(&asked, x, 0.0));
            all * (asked / all).powf(scale)
        };
        let total: f64 = (0..400).map(|i| raw(x(i)) * 7.0 / 400.0).sum();
        curve("p(x)·p(c|x)^g", &|x| raw(x) / total)
    };
    let panels = [
        Panel::new(
            "without guidance",
            vec![
                curve("all data", &|x| density(&all, x, 0.0)),
                curve("asked for", &|x| density(&asked, x, 0.0)),
            ],
        ),
        Panel::new(
            "samples with guidance",
            vec![guided(0.0)?, guided(1.0)?, guided(2.0)?, guided(5.0)?],
        ),
        Panel::new("g = 5: samples, and the sharpened density", vec![guided(5.0)?, sharpened(5.0)]),
    ];
    let svg = curves(&panels, "x")?;
    Ok(write_atomically(path, svg.as_bytes())?)
}
