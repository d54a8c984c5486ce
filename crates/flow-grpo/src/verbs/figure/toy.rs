//! Curves of runs of the toy task that differ in one setting.

use std::path::Path;

use anyhow::Result;
use files::write_atomically;
use run::curves::{Curve, Panel, curves};

use super::sick::curve;

/// Seeds of a curve that is a mean.
const SEEDS: std::ops::RangeInclusive<u32> = 1..=3;

/// Draws the reward of adapters of several ranks and of all weights, a mean over seeds. The runs are
/// directories `RANK-SEED`.
pub fn rank(output: &Path, name: &str, runs: &Path) -> Result<()> {
    let mean = |rank: &str, name: &str| -> Result<Curve> {
        let of_seed = |seed| curve(&runs.join(format!("{rank}-{seed}")), name, "/reward");
        let seeds: Vec<Curve> = SEEDS.map(of_seed).collect::<Result<_>>()?;
        let point = |epoch: usize| {
            let rewards = seeds.iter().map(|curve| curve.points[epoch].1);
            (seeds[0].points[epoch].0, rewards.sum::<f64>() / seeds.len() as f64)
        };
        let epochs = seeds.iter().map(|curve| curve.points.len()).min().unwrap_or(0);
        Ok(Curve { name: name.to_owned(), points: (0..epochs).map(point).collect() })
    };
    let curves_of = vec![
        mean("1", "rank 1")?,
        mean("2", "2")?,
        mean("4", "4")?,
        mean("16", "16")?,
        mean("full", "all weights")?,
    ];
    draw(
        output,
        name,
        vec![Panel { title: "mean reward of an epoch".to_owned(), curves: curves_of }],
    )
}

/// Draws the largest ratio and the reward of an epoch for several numbers of updates. The runs are
/// directories of these numbers.
pub fn updates(output: &Path, name: &str, runs: &Path) -> Result<()> {
    let panel = |title: &str, number: &str| -> Result<Panel> {
        let of = |(updates, name): (&str, &str)| curve(&runs.join(updates), name, number);
        let names = [("1", "one update an epoch"), ("2", "two"), ("8", "eight")];
        let curves_of = names.map(of).into_iter().collect::<Result<_>>()?;
        Ok(Panel { title: title.to_owned(), curves: curves_of })
    };
    let panels = vec![panel("largest ratio", "/ratio/max")?, panel("mean reward", "/reward")?];
    draw(output, name, panels)
}

fn draw(output: &Path, name: &str, panels: Vec<Panel>) -> Result<()> {
    let svg = curves(&panels, "epoch")?;
    Ok(write_atomically(&output.join(format!("{name}.svg")), svg.as_bytes())?)
}
