//! `figure`: draws the figures of the book: computed ones, the curves of runs, and images before and
//! after a run.

mod baselines;
mod clip;
mod guidance;
mod line;
mod of_runs;
mod optimum;
mod pairs;
mod pictures;
mod policy;
mod sd35;
mod sick;
mod trained;
mod transitions;
mod verdict;
mod walkers;

use std::{
    f64::consts::SQRT_2,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use burn::tensor::Tensor;
use clap::Args;
use files::write_atomically;
use flow::{
    Affine, FlowSde, GridKind, NoiseLevel, Ode, Transition,
    analytic::{Component, MixtureField},
    velocity_at,
};
use run::curves::{Curve, Panel, curves};
use training::noise::{Key, Purpose, normal};

use self::pictures::PICTURES;
use crate::{backend::Plain, machine};

/// Number of particles of a histogram, and of a figure of paths.
const PARTICLES: usize = 20_000;
const PATHS: usize = 14;
/// Times shown, in tenths of the way from noise to data: t = 0.8, 0.5, 0.2, 0.
const SHOWN: [usize; 4] = [2, 5, 8, 10];
/// Range of the axis, from 0 to each side, and the number of bins.
const REACH: f64 = 3.5;
const BINS: usize = 70;

/// Options of `figure`.
#[derive(Args, Debug)]
pub struct FigureArgs {
    /// The figures to draw; if none is named, all that need no runs.
    #[arg(value_parser = names())]
    names: Vec<String>,
    /// The directory of the runs, for figures of runs [default: runs/book for images, runs/NAME
    /// otherwise, without `-runs`].
    #[arg(long)]
    runs: Option<PathBuf>,
    /// The directory for the figures.
    #[arg(long, default_value = "book/src/figures")]
    output: PathBuf,
}

/// Draws one figure into a file.
type Draw = fn(&Path) -> Result<()>;

/// The figures by the names of their files.
const FIGURES: [(&str, Draw); 22] = [
    ("pairs", pairs::pairs),
    ("field", pairs::field),
    ("euler", euler),
    ("walkers", walkers::walkers),
    ("marginals-10", |path| marginals(path, 10)),
    ("marginals", |path| marginals(path, 200)),
    ("paths", paths),
    ("spread", spread),
    ("baselines", baselines::baselines),
    ("one-step", policy::one_step),
    ("noise-of-steps", policy::noise_of_steps),
    ("seen-gradient", policy::seen_gradient),
    ("clip", clip::clip),
    ("tilted", optimum::tilted),
    ("trained", trained::trained),
    ("ode-sde-gap", optimum::gap),
    ("noise-of-transitions", transitions::noise_of_transitions),
    ("errors-of-transitions", transitions::errors_of_transitions),
    ("guidance", guidance::guidance),
    ("sd35-step", sd35::step),
    ("sd35-weights", sd35::weights),
    ("sd35-memory", sd35::memory),
];

/// Draws the curves of runs in a directory into files of a name in another.
type DrawRuns = fn(&Path, &str, &Path) -> Result<()>;

/// The curves of runs: the names of the figure and of the usual folder of its runs.
const OF_RUNS: [(&str, &str, DrawRuns); 4] = [
    ("sick-runs", "sick", sick::sick_runs),
    ("rank", "rank", of_runs::rank),
    ("updates", "updates", of_runs::updates),
    ("hacking", "hacking", of_runs::hacking),
];

fn names() -> Vec<&'static str> {
    let pictures = PICTURES.iter().map(|picture| picture.name);
    let of_runs = OF_RUNS.iter().map(|(name, ..)| *name);
    FIGURES.iter().map(|(name, _)| *name).chain(of_runs).chain(pictures).collect()
}

/// Draws figures into a directory.
pub fn run(args: &FigureArgs) -> Result<()> {
    machine::device()?;
    for (name, draw) in FIGURES {
        if args.names.is_empty() || args.names.iter().any(|asked| asked == name) {
            draw(&args.output.join(format!("{name}.svg")))?;
        }
    }
    let runs = |usual: &str| args.runs.clone().unwrap_or_else(|| Path::new("runs").join(usual));
    let is_asked = |name: &str| args.names.iter().any(|asked| asked == name);
    for (name, folder, draw) in OF_RUNS.into_iter().filter(|(name, ..)| is_asked(name)) {
        draw(&args.output, name, &runs(folder))?;
    }
    let mut asked = PICTURES.iter().filter(|picture| is_asked(picture.name));
    asked.try_for_each(|picture| picture.draw(&args.output, &runs("book")))
}

/// The flow of a mixture of three Gaussians.
fn mixture() -> MixtureField {
    let component = |weight, mean, std| Component { weight, mean: vec![mean], std };
    MixtureField::new(vec![
        component(0.5, -1.8, 0.25),
        component(0.3, 0.4, 0.4),
        component(0.2, 2.0, 0.15),
    ])
}

/// Draws the marginals of the mixture: exact, of the ODE and of the SDE. `steps` is a multiple of
/// ten.
fn marginals(path: &Path, steps: usize) -> Result<()> {
    let field = mixture();
    let ode = particles(&field, Ode {}.into(), steps, PARTICLES)?;
    let sde = particles(&field, FlowSde::default().into(), steps, PARTICLES)?;
    let panels: Vec<Panel> = SHOWN
        .iter()
        .map(|&tenths| {
            let t = 1.0 - tenths as f64 / 10.0;
            let [ode, sde] = [&ode, &sde].map(|latents| &latents[tenths * steps / 10]);
            let exact = (0..=200)
                .map(|i| REACH * (f64::from(i) / 100.0 - 1.0))
                .map(|x| (x, density(&field, x, t)));
            Panel::new(
                format!("t = {t:.1}, {steps} steps"),
                vec![
                    Curve::new("ODE", histogram(ode)),
                    Curve::new("SDE, a = 0.7", histogram(sde)),
                    Curve::new("exact density", exact.collect()),
                ],
            )
        })
        .collect();
    let svg = curves(&panels, "x")?;
    Ok(write_atomically(path, svg.as_bytes())?)
}

/// Draws paths of the ODE and of the SDE from the same noise, against `1 − t`.
fn paths(path: &Path) -> Result<()> {
    let panels = [
        paths_of("ODE: x against 1 - t", Ode {}.into(), 200)?,
        paths_of("SDE, a = 0.7, from the same noise", FlowSde::default().into(), 200)?,
    ];
    Ok(write_atomically(path, curves(&panels, "1 - t")?.as_bytes())?)
}

/// Draws paths of the ODE from the same noise with few Euler steps and with many.
fn euler(path: &Path) -> Result<()> {
    let panel =
        |steps: usize| paths_of(&format!("x with {steps} Euler steps"), Ode {}.into(), steps);
    let panels = [2, 5, 50].map(panel).into_iter().collect::<Result<Vec<_>>>()?;
    Ok(write_atomically(path, curves(&panels, "1 - t")?.as_bytes())?)
}

/// Paths of particles of the mixture, as many as a figure shows.
fn paths_of(title: &str, transition: Transition, steps: usize) -> Result<Panel> {
    let latents = particles(&mixture(), transition, steps, PATHS)?;
    let point = |row: usize| {
        move |(step, latent): (usize, &Vec<f64>)| (step as f64 / steps as f64, latent[row])
    };
    let curve = |row: usize| Curve::new("", latents.iter().enumerate().map(point(row)).collect());
    Ok(Panel::new(title, (0..PATHS).map(curve).collect()))
}

/// The particles at all times of the grid.
fn particles(
    field: &MixtureField,
    transition: Transition,
    steps: usize,
    count: usize,
) -> Result<Vec<Vec<f64>>> {
    let device = machine::device()?;
    let noise = |step: usize| {
        let keys: Vec<Key> =
            (0..count).map(|row| Key::new(1, Purpose::Step).row(row, 0).step(step)).collect();
        normal::<Plain>(&keys, [1, 1, 1], &device)
    };
    let mut latent = noise(0);
    let values = |latent: &Tensor<Plain, 4>| latent.to_data().iter::<f64>().collect::<Vec<f64>>();
    let mut latents = vec![values(&latent)];
    for step in (GridKind::Linear {}).grid(steps)?.steps() {
        let policy =
            transition.gaussian(latent.clone(), velocity_at(field, latent, step, &[]), step);
        latent =
            if policy.is_random() { policy.sample(noise(step.index + 1)) } else { policy.mean };
        latents.push(values(&latent));
    }
    Ok(latents)
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

/// The variance of the data of [`spread`].
const DATA: f64 = 0.25;
/// The numbers of steps of a figure of errors.
const STEP_COUNTS: [usize; 14] = [5, 6, 7, 8, 10, 12, 14, 17, 20, 25, 30, 40, 60, 80];

/// Draws the error of the final variance against the number of steps, for one Gaussian and several
/// noise levels.
fn spread(path: &Path) -> Result<()> {
    let curve = |(name, level): (&str, f64)| -> Result<Curve> {
        let level = NoiseLevel::new(level).context("a level")?;
        errors(name, FlowSde { noise_level: level }.into())
    };
    let levels = [("ODE", 0.0), ("a = 0.7", 0.7), ("a = 1", 1.0), ("a = √2", SQRT_2)];
    let curves_of = levels.into_iter().map(curve).collect::<Result<Vec<_>>>()?;
    draw_errors(path, curves_of)
}

/// Draws curves of [`errors`].
fn draw_errors(path: &Path, curves_of: Vec<Curve>) -> Result<()> {
    let title = "error of the final variance in per cent".to_owned();
    let svg = curves(&[Panel::new(title, curves_of)], "number of steps")?;
    Ok(write_atomically(path, svg.as_bytes())?)
}

/// The relative error, in per cent, of the variance at t = 0 of a sampler of centred Gaussian data,
/// against the number of steps. The velocity of a Gaussian is linear in `x`, so a recursion gives
/// the variance exactly, without sampling noise.
fn errors(name: &str, transition: Transition) -> Result<Curve> {
    let error = |steps: usize| -> Result<(f64, f64)> {
        let last = (GridKind::Linear {}).grid(steps)?.steps().fold(1.0, |variance, step| {
            let Affine { latent, velocity, std } = transition.affine(step);
            (latent + velocity * line::slope(step.from, DATA)).powi(2) * variance + std.powi(2)
        });
        Ok((steps as f64, 100.0 * (last / DATA - 1.0)))
    };
    let points = STEP_COUNTS.into_iter().map(error).collect::<Result<_>>()?;
    Ok(Curve::new(name, points))
}
