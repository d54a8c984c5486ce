//! The steps of a sampler as a policy: how loud they are, and what their score function sees.

use std::{f64::consts::TAU, path::Path};

use anyhow::{Context, Result};
use files::write_atomically;
use flow::{Affine, FlowSde, GridKind, Ode, Transition};
use run::curves::{Curve, Panel, curves};

use super::line::slope;

/// The number of steps.
const STEPS: usize = 10;
/// The grid of Stable Diffusion 3 as the published code builds it.
const SD3: GridKind = GridKind::Sd3DoubleShift { shift: 3.0 };

/// Draws the step of the book's example: data `N(0, 0.25)`, at `x = 0.8` and `t = 0.5`, the sixth of
/// ten steps.
pub fn one_step(path: &Path) -> Result<()> {
    let (x, data) = (0.8, 0.25);
    let step = (GridKind::Linear {}).grid(STEPS)?.steps().nth(5).context("ten steps")?;
    let t = step.from;
    let v = slope(t, data) * x;
    let mean = |rule: Affine| rule.latent * x + rule.velocity * v;
    let [ode, sde] = [Ode {}.into(), Transition::from(FlowSde::default())].map(|t| t.affine(step));
    let density =
        |y: f64| (-((y - mean(sde)) / sde.std).powi(2) / 2.0).exp() / (sde.std * TAU.sqrt());
    let curve = (0..=200).map(|i| 1.6 * f64::from(i) / 200.0 - 0.2).map(|y| (y, density(y)));
    let line =
        |name: &str, place: f64, height: f64| Curve::new(name, vec![(place, 0.0), (place, height)]);
    let panel = Panel::new(
        "density of x' in a step from x = 0.8, t = 0.5 to t = 0.4",
        vec![
            Curve::new("policy, a = 0.7", curve.collect()),
            line("mean", mean(sde), density(mean(sde))),
            line("step of the ODE", mean(ode), density(mean(sde))),
            line("x", x, density(mean(sde))),
        ],
    );
    Ok(write_atomically(path, curves(&[panel], "x'")?.as_bytes())?)
}

/// Draws the standard deviation of every step on two grids.
pub fn noise_of_steps(path: &Path) -> Result<()> {
    let curve = |name: &str, kind: GridKind| -> Result<Curve> {
        let std = |step| Transition::from(FlowSde::default()).affine(step).std;
        let steps = kind.grid(STEPS)?;
        let points = steps.steps().map(|step| ((step.index + 1) as f64, std(step))).collect();
        Ok(Curve::new(name, points))
    };
    let curves_of = vec![curve("linear grid", GridKind::Linear {})?, curve("grid of SD3", SD3)?];
    let panel = Panel::new("standard deviation s of a step, a = 0.7", curves_of);
    Ok(write_atomically(path, curves(&[panel], "step, from noise to image")?.as_bytes())?)
}

/// Draws the share of the gradient of `E[x_0]` that the score function of the random steps sees, for
/// Gaussian data of three variances.
pub fn seen_gradient(path: &Path) -> Result<()> {
    let panel = |name: &str, kind: GridKind| -> Result<Panel> {
        let curve = |data: f64| -> Result<Curve> {
            let points = (1..=STEPS)
                .map(|random| Ok((random as f64, 100.0 * seen(kind, random, data)?)))
                .collect::<Result<_>>()?;
            Ok(Curve::new(format!("V0 = {data}"), points))
        };
        Ok(Panel::new(
            format!("share of the gradient that is seen, in per cent, {name}"),
            [1.0, 0.25, 0.0225].into_iter().map(curve).collect::<Result<_>>()?,
        ))
    };
    let panels = [panel("linear grid", GridKind::Linear {})?, panel("grid of SD3", SD3)?];
    Ok(write_atomically(path, curves(&panels, "random steps of ten")?.as_bytes())?)
}

/// The share that `random` steps of ten see, by the recursion of the chapter *The sampler as a
/// policy*: a step's push times the gains of all later steps.
fn seen(kind: GridKind, random: usize, data: f64) -> Result<f64> {
    let (mut later, mut all, mut of_random) = (1.0, 0.0, 0.0);
    let steps: Vec<_> = kind.grid(STEPS)?.steps().collect();
    for step in steps.into_iter().rev() {
        let noisy = step.index < random;
        let rule: Transition = if noisy { FlowSde::default().into() } else { Ode {}.into() };
        let Affine { latent, velocity, .. } = rule.affine(step);
        all += velocity * later;
        of_random += if noisy { velocity * later } else { 0.0 };
        later *= latent + velocity * slope(step.from, data);
    }
    Ok(of_random / all)
}
