//! Where a KL penalty leads: tilted densities, the best policy of an SDE, and how far the ODE goes
//! that is sampled after training the SDE.

use std::path::Path;

use anyhow::{Context, Result};
use files::write_atomically;
use flow::{
    Affine, FlowSde, GridKind, NoiseLevel, Ode, Step, Transition,
    analytic::{BestChange, MixtureField},
};
use run::curves::{Curve, Panel, curves};

use super::{
    density, histogram,
    line::{mixture, samples, velocity},
};

/// The weight of the KL penalty.
const BETA: f64 = 2.0;
/// The number of steps of the SDE and of the ODE.
const STEPS: usize = 100;

/// Draws the data of three clusters, tilted by the reward `x`, and what the best policy samples.
pub fn tilted(path: &Path) -> Result<()> {
    let clusters = [(0.5, -1.8, 0.25), (0.3, 0.4, 0.4), (0.2, 2.0, 0.15)];
    let base = mixture(&clusters);
    // A Gaussian times e^{x/β} is a Gaussian whose mean has moved by std²/β.
    let tilt = |beta: f64| {
        mixture(&clusters.map(|(weight, mean, std): (f64, f32, f64)| {
            let (center, variance) = (f64::from(mean), std * std);
            let weight = weight * (center / beta + variance / (2.0 * beta * beta)).exp();
            (weight, (center + variance / beta) as f32, std)
        }))
    };
    let exact = |name: &str, field: &MixtureField| {
        let x = |i: i32| 3.5 * (f64::from(i) / 200.0 - 1.0);
        let points = (0..=400).map(|i| (x(i), density(field, x(i), 0.0))).collect();
        Curve::new(name, points)
    };
    let mut panels = vec![Panel::new(
        "density of the base model, tilted by the reward x",
        vec![exact("base", &base), exact("β = 2", &tilt(2.0)), exact("β = 1", &tilt(1.0))],
    )];
    for (title, level) in [
        ("after training with a = 0.7, β = 2", 0.7),
        ("after training with a = √2, β = 2", 2.0_f64.sqrt()),
    ] {
        let sde = Transition::from(rule(level)?);
        let change = best_change(&base, sde)?;
        let drawn = |transition| {
            samples(transition, STEPS, |step, x| {
                velocity(&base, x, step.from) + change.at(step.index, x)
            })
        };
        let of = |name: &str, points: Vec<f64>| Curve::new(name, histogram(&points));
        panels.push(Panel::new(
            title,
            vec![
                of("SDE", drawn(sde)?),
                of("ODE", drawn(Ode {}.into())?),
                exact("tilted", &tilt(BETA)),
            ],
        ));
    }
    let svg = curves(&panels, "x")?;
    Ok(write_atomically(path, svg.as_bytes())?)
}

fn rule(level: f64) -> Result<FlowSde> {
    Ok(FlowSde { noise_level: NoiseLevel::new(level).context("a noise level")? })
}

/// The change of the velocity that maximises `E[x_0] − β·KL`.
fn best_change(base: &MixtureField, sde: Transition) -> Result<BestChange> {
    let steps: Vec<_> =
        (GridKind::Linear {}).grid(STEPS)?.steps().map(|step| (step, sde.affine(step))).collect();
    let of_base =
        |step: Step, places: &[f64]| places.iter().map(|x| velocity(base, *x, step.from)).collect();
    Ok(BestChange::new(&steps, of_base, 1.0 / BETA))
}

/// The variance of the data of [`gap`].
const DATA: f64 = 0.25;

/// Draws how far the ODE moves relative to the SDE whose KL penalty was paid, for one Gaussian and
/// a linear reward.
pub fn gap(path: &Path) -> Result<()> {
    let levels: Vec<f64> = (4..=40).map(|i| f64::from(i) / 20.0).collect();
    let curve = |name: &str, ratio: &dyn Fn(f64) -> Result<f64>| -> Result<Curve> {
        let points = levels.iter().map(|&level| Ok((level, ratio(level)?)));
        Ok(Curve::new(name, points.collect::<Result<_>>()?))
    };
    let panel = Panel::new(
        "shift of the ODE / shift of the SDE",
        vec![
            curve("2/(1 + a²/2)", &|level| Ok(2.0 / (1.0 + level * level / 2.0)))?,
            curve("1,000 steps", &|level| moved(1000, 1, level))?,
            curve("100 steps", &|level| moved(100, 1, level))?,
            curve("10 steps, ODE in 40", &|level| moved(10, 4, level))?,
            curve("10 steps", &|level| moved(10, 1, level))?,
        ],
    );
    let svg = curves(&[panel], "noise level a")?;
    Ok(write_atomically(path, svg.as_bytes())?)
}

/// One step for one Gaussian: the derivatives of its mean by latent and velocity, and its std.
struct Link {
    gain: f64,
    push: f64,
    std: f64,
}

/// The ratio of the shifts; the SDE takes `steps`, the ODE `times` as many.
fn moved(steps: usize, times: usize, level: f64) -> Result<f64> {
    let links = |transition: Transition, steps: usize| -> Result<Vec<Link>> {
        let link = |step: Step| {
            let Affine { latent, velocity, std } = transition.affine(step);
            let t = step.from;
            let slope = (t - (1.0 - t) * DATA) / ((1.0 - t).powi(2) * DATA + t * t);
            Link { gain: latent + velocity * slope, push: velocity, std }
        };
        Ok((GridKind::Linear {}).grid(steps)?.steps().map(link).collect())
    };
    // The derivative of the end by the latent after each step.
    let after = |links: &[Link]| {
        let mut after = vec![1.0; links.len()];
        for i in (1..links.len()).rev() {
            after[i - 1] = after[i] * links[i].gain;
        }
        after
    };
    let (sde, ode) = (links(rule(level)?.into(), steps)?, links(Ode {}.into(), steps * times)?);
    let (p, q) = (after(&sde), after(&ode));
    let change = |i: usize| sde[i].std.powi(2) * p[i] / sde[i].push;
    let of_sde: f64 = (0..steps).map(|i| sde[i].push * change(i) * p[i]).sum();
    let of_ode: f64 = (0..steps * times).map(|j| ode[j].push * change(j / times) * q[j]).sum();
    Ok(of_ode / of_sde)
}
