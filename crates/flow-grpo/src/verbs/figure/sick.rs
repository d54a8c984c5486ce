//! Healthy and sick runs of the toy task, from the metrics that they wrote, and of the 150 lines,
//! from what they printed.

use std::path::Path;

use anyhow::Result;
use files::write_atomically;
use run::curves::{Curve, Panel, curves};

use super::of_runs::{curve, read};

/// A panel: its title, the number in a line of the metrics, and the runs that it shows.
type Spec = (&'static str, &'static str, &'static [&'static str]);

/// The three figures. The runs are directories of these names; the chapter *Reading a run* has
/// their commands.
const FIGURES: [&[Spec]; 3] = [
    &[
        ("mean reward", "/reward", &["healthy", "slow", "nonoise", "rate", "group-of-2"]),
        ("mean reward, without the group of 2", "/reward", &["healthy", "slow", "nonoise", "rate"]),
    ],
    &[
        ("mean reward", "/reward", &["healthy", "no-kl", "heavy-kl", "stale"]),
        (
            "diversity of the points",
            "/monitors/diversity",
            &["healthy", "no-kl", "heavy-kl", "stale"],
        ),
        ("kl_reference", "/kl_reference", &["healthy", "heavy-kl", "stale"]),
        ("largest ratio", "/ratio/max", &["healthy", "no-kl", "heavy-kl", "stale"]),
    ],
    &[
        ("mean reward, with its weight", "/reward", &["healthy", "sign"]),
        ("rewards.toy_mode, without its weight", "/rewards/toy_mode", &["healthy", "sign"]),
    ],
];

/// The runs of the 150 lines, whole and with a patch of the book: files of what they printed.
const OF_THE_LOOP: [&str; 4] = ["whole-loop", "wrong-sign", "stale-ratio", "nan-reward"];

/// Draws the runs in a directory, into four files whose names begin with `name`.
pub fn sick_runs(output: &Path, name: &str, runs: &Path) -> Result<()> {
    for (number, panels) in (1..).zip(FIGURES) {
        let panels = panels.iter().map(|spec| panel(spec, runs)).collect::<Result<Vec<_>>>()?;
        let svg = curves(&panels, "epoch")?;
        write_atomically(&output.join(format!("{name}-{number}.svg")), svg.as_bytes())?;
    }
    let printed = OF_THE_LOOP.iter().map(|name| printed(runs, name)).collect::<Result<_>>()?;
    let panel = Panel::new("mean reward of an epoch", printed);
    let last = output.join(format!("{name}-{}.svg", FIGURES.len() + 1));
    Ok(write_atomically(&last, curves(&[panel], "epoch")?.as_bytes())?)
}

/// The rewards in a file of lines `epoch N  reward R`; without those that are not a number.
fn printed(runs: &Path, name: &str) -> Result<Curve> {
    let text = read(&runs.join(format!("{name}.txt")))?;
    let point = |line: &str| {
        let (epoch, reward) = line.strip_prefix("epoch")?.split_once("reward")?;
        Some((epoch.trim().parse().ok()?, reward.trim().parse().ok()?))
    };
    let points = text.lines().filter_map(point).filter(|(_, reward): &(f64, f64)| !reward.is_nan());
    Ok(Curve::new(name, points.collect()))
}

fn panel((title, number, names): &Spec, runs: &Path) -> Result<Panel> {
    let curves = names.iter().map(|name| curve(&runs.join(name), name, "epoch", number));
    Ok(Panel::new(*title, curves.collect::<Result<_>>()?))
}
