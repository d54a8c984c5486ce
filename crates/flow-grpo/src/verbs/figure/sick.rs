//! Healthy and sick runs of the toy task, from the metrics that they wrote.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use files::write_atomically;
use run::curves::{Curve, Legend, Panel, Style, styled};
use serde_json::Value;

/// A panel: its title, the number in a line of the metrics, and the runs that it shows.
struct Spec {
    title: &'static str,
    number: &'static str,
    runs: &'static [&'static str],
}

/// The runs are directories of these names; the chapter *Reading a run* has their commands.
const PANELS: [Spec; 6] = [
    Spec {
        title: "reward, mean of the epoch",
        number: "/reward",
        runs: &["healthy", "slow", "rate", "group-of-2"],
    },
    Spec { title: "zero_spread", number: "/zero_spread", runs: &["healthy", "rate"] },
    Spec {
        title: "largest ratio of the epoch",
        number: "/ratio/max",
        runs: &["healthy", "slow", "stale"],
    },
    Spec {
        title: "diversity of the points",
        number: "/monitors/diversity",
        runs: &["healthy", "no-kl", "stale", "heavy-kl"],
    },
    Spec {
        title: "kl_reference",
        number: "/kl_reference",
        runs: &["healthy", "stale", "heavy-kl"],
    },
    Spec { title: "reward: no run but one rises above 0", number: "/reward", runs: &["healthy", "sign"] },
];

/// Draws the runs in a directory.
pub fn sick_runs(path: &Path, runs: &Path) -> Result<()> {
    let curve = |run: &str, number: &str| -> Result<Curve> {
        let file = runs.join(run).join("metrics.jsonl");
        let text = fs::read_to_string(&file).with_context(|| {
            format!("{} is missing; the chapter on sick runs has its command", file.display())
        })?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let point = |line: Value| Some((line["epoch"].as_f64()?, line.pointer(number)?.as_f64()?));
        let points = lines.filter(|line| line["event"] == "epoch").filter_map(point).collect();
        Ok(Curve { name: run.to_owned(), points })
    };
    let panel = |spec: Spec| -> Result<Panel> {
        let curves = spec.runs.iter().map(|run| curve(run, spec.number)).collect::<Result<_>>()?;
        Ok(Panel { title: spec.title.to_owned(), curves })
    };
    let panels = PANELS.into_iter().map(panel).collect::<Result<Vec<_>>>()?;
    let svg = styled(&panels, Style::page("epoch", Legend::UpperLeft))?;
    Ok(write_atomically(path, svg.as_bytes())?)
}
