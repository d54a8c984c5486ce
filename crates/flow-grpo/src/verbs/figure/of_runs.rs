//! Curves of runs that differ in one setting, from the metrics that they wrote.

use std::{fs, ops::RangeInclusive, path::Path};

use anyhow::{Context, Result};
use files::write_atomically;
use run::curves::{Curve, Panel, curves};
use serde_json::Value;

/// Seeds of a curve that is a mean.
const SEEDS: RangeInclusive<u32> = 1..=3;

/// Draws the reward of adapters of several ranks and of all weights: means and extremes of seeds. The
/// runs are directories `RANK-SEED`.
pub fn rank(output: &Path, name: &str, runs: &Path) -> Result<()> {
    let of = |(rank, title): (&str, &str)| of_seeds(runs, rank, title, "epoch", "/reward");
    let ranks =
        [("1", "rank 1"), ("2", "2"), ("4", "4"), ("16", "16"), ("full", "all weights")].map(of);
    let panel = Panel::new("mean reward of an epoch", ranks.into_iter().collect::<Result<_>>()?);
    draw(output, name, &[panel])
}

/// Draws the largest ratio and the reward of an epoch for several numbers of updates. The runs are
/// directories of these numbers.
pub fn updates(output: &Path, name: &str, runs: &Path) -> Result<()> {
    let panel = |title: &str, number: &str| -> Result<Panel> {
        let of = |(updates, name): (&str, &str)| curve(&runs.join(updates), name, "epoch", number);
        let names = [("1", "one update an epoch"), ("2", "two"), ("8", "eight")];
        Ok(Panel::new(title, names.map(of).into_iter().collect::<Result<_>>()?))
    };
    let panels = [panel("largest ratio", "/ratio/max")?, panel("mean reward", "/reward")?];
    draw(output, name, &panels)
}

/// Draws what a run for a proxy of the reward does without and with a KL penalty: means and extremes
/// of seeds. The runs are directories `hacked-SEED` and `held-SEED`.
pub fn hacking(output: &Path, name: &str, runs: &Path) -> Result<()> {
    let panel = |(title, event, number): (&str, &str, &str)| -> Result<Panel> {
        let of = |(run, name): (&str, &str)| of_seeds(runs, run, name, event, number);
        let both = [("hacked", "no KL"), ("held", "KL weight 0.4")].map(of);
        Ok(Panel::new(title, both.into_iter().collect::<Result<_>>()?))
    };
    let panels = [
        ("proxy, on the training images", "epoch", "/reward"),
        ("gold, on the training images", "epoch", "/gold/shapes_strict"),
        ("diversity of the training images", "epoch", "/monitors/diversity"),
        ("distance to the base model's images", "eval", "/monitors/base_distance"),
    ];
    draw(output, name, &panels.map(panel).into_iter().collect::<Result<Vec<_>>>()?)
}

/// A number of a run over its epochs, from the lines of one event: `epoch` or `eval`.
pub fn curve(run: &Path, name: &str, event: &str, number: &str) -> Result<Curve> {
    let text = read(&run.join("metrics.jsonl"))?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let point = |line: Value| Some((line["epoch"].as_f64()?, line.pointer(number)?.as_f64()?));
    let points = lines.filter(|line| line["event"] == event).filter_map(point).collect();
    Ok(Curve::new(name, points))
}

/// The mean and the extremes of a number of the runs `RUN-SEED`.
fn of_seeds(runs: &Path, run: &str, name: &str, event: &str, number: &str) -> Result<Curve> {
    let of_seed = |seed| curve(&runs.join(format!("{run}-{seed}")), name, event, number);
    Ok(Curve::of_seeds(name, &SEEDS.map(of_seed).collect::<Result<Vec<_>>>()?))
}

/// Reads a file of a run.
pub fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file)
        .with_context(|| format!("no run in {}: make it as the book says", file.display()))
}

fn draw(output: &Path, name: &str, panels: &[Panel]) -> Result<()> {
    let svg = curves(panels, "epoch")?;
    Ok(write_atomically(&output.join(format!("{name}.svg")), svg.as_bytes())?)
}
