//! `figure`: the computed figure of the book: the marginals of ODE and SDE.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use files::write_atomically;
use flow::{
    FlowSde, GridKind, Ode, Step, Transition,
    analytic::{Component, MixtureField},
    velocity_at,
};
use run::curves::{Curve, Panel, curves};
use training::noise::{Key, Purpose, normal};

use crate::backend::{Device, Plain};

/// Number of particles.
const PARTICLES: usize = 20_000;
/// Steps from noise to data.
const STEPS: usize = 200;
/// Times shown, as indices of the linear grid: t = 0.8, 0.5, 0.2, 0.
const SHOWN: [usize; 4] = [40, 100, 160, 200];
/// Range of the axis, from 0 to each side, and the number of bins.
const REACH: f64 = 3.5;
const BINS: usize = 70;

/// Options of `figure`.
#[derive(Args, Debug)]
pub struct FigureArgs {
    /// The SVG file to write.
    #[arg(long, default_value = "book/src/figures/marginals.svg")]
    output: PathBuf,
}

/// Draws the marginals of the flow of a mixture of three Gaussians: exact, by the ODE and by the
/// SDE.
pub fn run(args: &FigureArgs) -> Result<()> {
    let component = |weight, mean, std| Component { weight, mean: vec![mean], std };
    let field = MixtureField::new(vec![
        component(0.5, -1.8, 0.25),
        component(0.3, 0.4, 0.4),
        component(0.2, 2.0, 0.15),
    ]);
    let ode = particles(&field, Ode {}.into())?;
    let sde = particles(&field, FlowSde::default().into())?;
    let panels: Vec<Panel> = SHOWN
        .iter()
        .zip(ode.iter().zip(&sde))
        .map(|(&index, (ode, sde))| {
            let t = 1.0 - index as f64 / STEPS as f64;
            let exact = (0..=200)
                .map(|i| REACH * (f64::from(i) / 100.0 - 1.0))
                .map(|x| (x, density(&field, x, t)));
            Panel {
                title: format!("t = {t:.1}"),
                curves: vec![
                    Curve { name: "ODE".to_owned(), points: histogram(ode) },
                    Curve { name: "SDE, a = 0.7".to_owned(), points: histogram(sde) },
                    Curve { name: "exact density".to_owned(), points: exact.collect() },
                ],
            }
        })
        .collect();
    let svg = curves(&panels)?;
    Ok(write_atomically(&args.output, svg.as_bytes())?)
}

/// The particles at the times shown.
fn particles(field: &MixtureField, transition: Transition) -> Result<Vec<Vec<f64>>> {
    let device = Device::default();
    let noise = |step: usize| {
        let keys: Vec<Key> =
            (0..PARTICLES).map(|row| Key::new(1, Purpose::Step).row(row, 0).step(step)).collect();
        normal::<Plain>(&keys, [1, 1, 1], &device)
    };
    let mut latent = noise(0);
    let mut shown = Vec::new();
    for step in (GridKind::Linear {}).grid(STEPS)?.steps() {
        let Step { index, .. } = step;
        let policy =
            transition.gaussian(latent.clone(), velocity_at(field, latent, step, &[]), step);
        latent = if policy.is_random() { policy.sample(noise(index + 1)) } else { policy.mean };
        if SHOWN.contains(&(index + 1)) {
            shown.push(latent.to_data().iter::<f64>().collect());
        }
    }
    Ok(shown)
}

/// The density of the marginal at `t`.
fn density(field: &MixtureField, x: f64, t: f64) -> f64 {
    let total: f64 = field.components().iter().map(|component| component.weight).sum();
    let one = |component: &Component| {
        let variance = ((1.0 - t) * component.std).powi(2) + t * t;
        let offset = x - (1.0 - t) * f64::from(component.mean[0]);
        component.weight / total * (-offset * offset / (2.0 * variance)).exp()
            / (2.0 * std::f64::consts::PI * variance).sqrt()
    };
    field.components().iter().map(one).sum()
}

/// The density of particles, bin by bin.
fn histogram(particles: &[f64]) -> Vec<(f64, f64)> {
    let width = 2.0 * REACH / BINS as f64;
    let mut counts = vec![0_usize; BINS];
    for x in particles {
        let bin = ((x + REACH) / width).floor();
        if (0.0..BINS as f64).contains(&bin) {
            counts[bin as usize] += 1;
        }
    }
    let center = |bin: usize| (bin as f64 + 0.5) * width - REACH;
    counts
        .iter()
        .enumerate()
        .map(|(bin, &count)| (center(bin), count as f64 / (particles.len() as f64 * width)))
        .collect()
}
