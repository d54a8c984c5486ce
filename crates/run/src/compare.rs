//! Comparison of runs: one panel per number, one curve per name.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use files::Action;
use serde_json::Value;

use crate::{
    RunError,
    curves::{Curve, Panel, curves},
    lines::{self, Lines, of_event},
    recorder::METRICS,
};

/// The metrics of a run, and the name of its curves.
#[derive(Clone, Debug)]
pub struct NamedRun {
    /// The name.
    pub name: String,
    /// The run directory.
    pub path: PathBuf,
    /// The lines of its metrics.
    pub lines: Vec<Value>,
}

impl NamedRun {
    /// Reads the metrics of `RUN` or `NAME=RUN`; the name of a directory may contain `=`.
    ///
    /// # Errors
    /// If the metrics cannot be read.
    pub fn read(run: &str) -> Result<Self, RunError> {
        let (name, path) =
            run.split_once('=').filter(|_| !Path::new(run).is_dir()).unwrap_or((run, run));
        let metrics = Path::new(path).join(METRICS);
        let bytes = fs::read(&metrics).map_err(Action::Read.failed_on(&metrics))?;
        // A running run may end with an incomplete line.
        let lines = Lines::of(&bytes).whole.into_iter().map(|line| line.value).collect();
        Ok(Self { name: name.to_owned(), path: path.into(), lines })
    }

    /// A number over the epochs.
    fn points(&self, number: &str) -> Vec<(f64, f64)> {
        let (event, number) =
            number.strip_prefix("epoch.").map_or(("eval", number), |number| ("epoch", number));
        of_event(&self.lines, event)
            .filter_map(|line| Some((line["epoch"].as_f64()?, lines::number(line, number)?)))
            .collect()
    }
}

/// A comparison of runs.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The panels.
    pub svg: String,
    /// The first and last value of every run, one per line.
    pub table: String,
    /// What is missing, one sentence each.
    pub notes: Vec<String>,
}

/// Compares numbers of runs: those of evaluations as in `best_by`, those of epochs as `epoch.NAME`.
/// Runs of one name are seeds of one experiment and share a curve.
///
/// # Errors
/// If no run has one of the numbers.
pub fn compare(runs: &[NamedRun], numbers: &[String]) -> Result<Comparison, RunError> {
    let (mut panels, mut table, mut notes) = (Vec::new(), String::new(), Vec::new());
    for number in numbers {
        let curve = |run: &NamedRun| Curve::new(run.name.clone(), run.points(number));
        let of_runs: Vec<Curve> = runs.iter().map(curve).collect();
        if of_runs.iter().all(|curve| curve.points.is_empty()) {
            let numbers = numbers_of(runs);
            return Err(RunError::NumberOfNoRun { number: number.clone(), numbers });
        }
        for Curve { name, points, .. } in &of_runs {
            match (points.first(), points.last()) {
                (Some(first), Some(last)) => {
                    let (first, last, epochs) = (first.1, last.1, last.0);
                    table += &format!(
                        "{number:<28} {name:<24} {first:.3} -> {last:.3} after {epochs} epochs\n"
                    );
                }
                _ => notes.push(format!("note: a run named {name} has no `{number}`")),
            }
        }
        let curves = of_experiments(&of_runs);
        for Curve { name, .. } in curves.iter().filter(|curve| curve.points.is_empty()) {
            if of_runs.iter().any(|run| run.name == *name && !run.points.is_empty()) {
                notes.push(format!(
                    "note: the runs named {name} have no epoch of `{number}` in common, so no curve"
                ));
            }
        }
        panels.push(Panel::new(number.clone(), curves));
    }
    Ok(Comparison { svg: curves(&panels, "epochs")?, table, notes })
}

/// One curve for each name, in the order in which the names first occur.
fn of_experiments(runs: &[Curve]) -> Vec<Curve> {
    let of_name = |name: &str| -> Vec<Curve> {
        runs.iter().filter(|run| run.name == name && !run.points.is_empty()).cloned().collect()
    };
    let mut curves: Vec<Curve> = Vec::new();
    for Curve { name, .. } in runs {
        if curves.iter().all(|curve| curve.name != *name) {
            curves.push(Curve::of_seeds(name.clone(), &of_name(name)));
        }
    }
    curves
}

/// The numbers in the metrics of any run, as they are asked for.
fn numbers_of(runs: &[NamedRun]) -> String {
    let mut names = BTreeSet::new();
    for line in runs.iter().flat_map(|run| &run.lines) {
        let prefix = if line["event"] == "epoch" { "epoch." } else { "" };
        if line["event"] == "epoch" || line["event"] == "eval" {
            collect(prefix, line, &mut names);
        }
    }
    names.into_iter().collect::<Vec<_>>().join(", ")
}

/// Collects the dotted names of the numbers in an object and in nested objects.
fn collect(prefix: &str, value: &Value, into: &mut BTreeSet<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            Value::Number(_) if name != "epoch" => drop(into.insert(format!("{prefix}{name}"))),
            Value::Object(_) => collect(&format!("{prefix}{name}."), value, into),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn runs_of_one_name_share_a_curve() {
        let run = |name: &str, y: f64| Curve::new(name, vec![(1.0, y)]);
        let curves = of_experiments(&[run("a", 0.25), run("b", 1.0), run("a", 0.75)]);
        let names: Vec<&str> = curves.iter().map(|curve| curve.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(curves[0].points, [(1.0, 0.5)]);
    }

    #[test]
    fn runs_of_one_name_without_a_common_epoch_are_named() {
        let at =
            |epoch: usize| run("a", &[json!({"event": "epoch", "epoch": epoch, "reward": 0.5})]);
        let compared = compare(&[at(1), at(2)], &["epoch.reward".to_owned()]).expect("compared");
        let note = "note: the runs named a have no epoch of `epoch.reward` in common, so no curve";
        assert_eq!(compared.notes, [note]);
    }

    fn run(name: &str, lines: &[Value]) -> NamedRun {
        NamedRun { name: name.to_owned(), path: PathBuf::new(), lines: lines.to_vec() }
    }

    #[test]
    fn a_number_is_compared_where_runs_have_it_and_others_are_named() {
        let runs = [
            run(
                "a",
                &[
                    json!({"event": "eval", "epoch": 0, "rewards": {"x": 0.25}}),
                    json!({"event": "eval", "epoch": 8, "rewards": {"x": 0.75}}),
                ],
            ),
            run("b", &[json!({"event": "epoch", "epoch": 1, "reward": 0.5})]),
        ];
        let numbers = ["rewards.x", "epoch.reward"].map(str::to_owned);
        let Comparison { table, notes, .. } = compare(&runs, &numbers).expect("compared");
        assert!(table.contains("0.250 -> 0.750 after 8 epochs"), "{table}");
        assert_eq!(
            notes,
            ["note: a run named b has no `rewards.x`", "note: a run named a has no `epoch.reward`"]
        );
        let error = compare(&runs, &["overall".to_owned()]).expect_err("no run has it");
        assert_eq!(
            error.to_string(),
            "--number overall: no run has it; there are: epoch.reward, rewards.x"
        );
    }
}
