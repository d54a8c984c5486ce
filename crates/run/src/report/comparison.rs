//! Several runs in one page: their numbers over each other, and their settings where they differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use maud::{Markup, html};
use serde_json::Value;
use toml::Table;

use super::{
    about::{self, duration},
    charts::{self, Chart, Progress},
    page, panels, pictures,
};
use crate::{
    Program, SampleSet,
    compare::NamedRun,
    curves::{Curve, Panel},
    lines::of_event,
};

/// A run with its files, as far as they can be read.
struct Compared<'a> {
    run: &'a NamedRun,
    settings: Table,
    program: Option<Program>,
    progress: Progress,
    panels: Vec<Panel>,
}

/// Runs of one name.
type Group<'a> = (&'a str, Vec<&'a Compared<'a>>);

/// The page of several runs. Runs of one name are seeds of one experiment: a line is their mean,
/// its band reaches from the lowest to the highest. A run that lacks its configuration, programs or
/// images is shown without them.
pub fn comparison(runs: &[NamedRun]) -> String {
    let runs: Vec<Compared<'_>> = runs.iter().map(Compared::of).collect();
    let groups = groups(&runs);
    let sections = sections(&groups);
    let all: Vec<Chart> = sections.iter().flat_map(|(_, _, charts)| charts).cloned().collect();
    let progress: Vec<(String, Progress)> =
        groups.iter().map(|(name, runs)| ((*name).to_owned(), runs[0].progress.clone())).collect();
    let body = html! {
        section id="results" { h2 { "Results" } (results(&runs)) (images(&runs)) }
        section id="curves" {
            h2 { "Curves" }
            p {
                "A band is the recorded 95 % interval of a run. For runs of one name, a line is "
                "their mean, and its band reaches from the lowest to the highest."
            }
            (page::controls())
            @for (first, title, charts) in &sections {
                details open[charts.len() == 1] {
                    summary { (title) }
                    (charts::figures(charts, *first))
                }
            }
        }
        section id="about" { h2 { "About" } (programs(&runs)) }
        section id="settings" { h2 { "Settings that differ" } (differences(&runs)) }
        (charts::data(&progress, &all))
    };
    [page::opening("Comparison of runs"), body, page::ending()].map(Markup::into_string).concat()
}

impl<'a> Compared<'a> {
    fn of(run: &'a NamedRun) -> Self {
        let text = |name: &str| fs::read_to_string(run.path.join(name)).unwrap_or_default();
        let settings: Table = text("config.toml").parse().unwrap_or_default();
        let programs: Vec<Program> = serde_json::from_str(&text("about.json")).unwrap_or_default();
        let count = |name: &str| settings.get("grpo")?.get(name)?.as_integer();
        let images = count("groups").zip(count("group_size"));
        let images = images.and_then(|(groups, size)| usize::try_from(groups * size).ok());
        Self {
            run,
            progress: Progress::of_run(&run.lines, images),
            panels: panels::of_run(&run.lines),
            settings,
            program: programs.into_iter().next_back(),
        }
    }
}

/// The runs by name, in the order of their first.
fn groups<'a>(runs: &'a [Compared<'a>]) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|(name, _)| *name == run.run.name) {
            Some((_, runs)) => runs.push(run),
            None => groups.push((&run.run.name, vec![run])),
        }
    }
    groups
}

/// The charts of every panel, with the index of the first one and the panel's title: one chart for
/// every curve of a panel, with a curve for every group that has it.
fn sections(groups: &[Group<'_>]) -> Vec<(usize, &'static str, Vec<Chart>)> {
    let mut first = 0;
    let mut sections = Vec::new();
    for title in panels::titles() {
        let of_run = |run: &'_ &Compared<'_>| {
            let panel = run.panels.iter().find(|panel| panel.title == title);
            panel.map(|panel| panel.curves.clone()).unwrap_or_default()
        };
        let curves: Vec<Vec<Vec<Curve>>> =
            groups.iter().map(|(_, runs)| runs.iter().map(of_run).collect()).collect();
        let names: BTreeSet<&String> = curves.iter().flatten().flatten().map(|c| &c.name).collect();
        let charts: Vec<Chart> =
            names.into_iter().map(|name| chart(title, name, groups, &curves)).collect();
        if !charts.is_empty() {
            first += charts.len();
            sections.push((first - charts.len(), title, charts));
        }
    }
    sections
}

/// The chart of one curve of a panel; `curves` has those of every run of every group.
fn chart(panel: &str, name: &str, groups: &[Group<'_>], curves: &[Vec<Vec<Curve>>]) -> Chart {
    let mut chart = Chart {
        title: format!("{panel}: {name}"),
        curves: Vec::new(),
        runs: Vec::new(),
        marks: Vec::new(),
    };
    for (index, ((group, _), runs)) in groups.iter().zip(curves).enumerate() {
        let of_run =
            |curves: &'_ Vec<Curve>| curves.iter().find(|curve| curve.name == name).cloned();
        let found: Vec<Curve> = runs.iter().filter_map(of_run).collect();
        if !found.is_empty() {
            chart.curves.push(Curve::of_seeds(*group, &found));
            chart.runs.push(index);
        }
    }
    chart
}

/// The last evaluation of every run beside its first.
fn results(runs: &[Compared<'_>]) -> Markup {
    let overall = |line: &Value| line["overall"].as_f64().map(|value| format!("{value:.3}"));
    let reward = |line: &Value| line["reward"].as_f64().map(|value| format!("{value:.3}"));
    let change = |lines: &[Value], event: &str, of: &dyn Fn(&Value) -> Option<String>| {
        let values: Vec<String> = of_event(lines, event).filter_map(of).collect();
        match &values[..] {
            [first, .., last] => format!("{first} → {last}"),
            [only] => only.clone(),
            [] => "-".to_owned(),
        }
    };
    html! {
        div .scroll {
            table {
                tr { th {} th { "epochs" } th { "overall" } th { "training reward" } th { "time" } }
                @for Compared { run, progress, .. } in runs {
                    tr {
                        td { (run.name) }
                        td { (of_event(&run.lines, "epoch").count()) }
                        td { (change(&run.lines, "eval", &overall)) }
                        td { (change(&run.lines, "epoch", &reward)) }
                        td { (duration(progress.seconds())) }
                    }
                }
            }
        }
    }
}

/// The newest images of every run for validation prompts.
fn images(runs: &[Compared<'_>]) -> Markup {
    html! {
        div .pair {
            @for Compared { run, .. } in runs {
                @let epoch = of_event(&run.lines, "eval").filter_map(|l| l["epoch"].as_u64()).last();
                @if let Some(epoch) = epoch {
                    @let picture = pictures::Picture { set: SampleSet::Validation, epoch: epoch as usize };
                    @if let Ok(png) = fs::read(picture.path(&run.path)) {
                        figure {
                            img alt={ (run.name) " after epoch " (epoch) } src=(pictures::data_url(&png));
                            figcaption { (run.name) ", epoch " (epoch) }
                        }
                    }
                }
            }
        }
    }
}

fn programs(runs: &[Compared<'_>]) -> Markup {
    html! {
        div .scroll {
            table .facts {
                @for Compared { run, program, .. } in runs {
                    @match program {
                        Some(program) => (about::session(&run.name, program)),
                        None => tr { th { (run.name) } td { "no about.json that can be read" } }
                    }
                }
            }
        }
    }
}

/// The settings that two runs have with different values.
fn differences(runs: &[Compared<'_>]) -> Markup {
    let settings: Vec<BTreeMap<String, String>> =
        runs.iter().map(|run| flat(&run.settings)).collect();
    let keys: BTreeSet<&String> = settings.iter().flat_map(BTreeMap::keys).collect();
    let values = |key: &str| -> Vec<&str> {
        settings.iter().map(|of| of.get(key).map_or("-", String::as_str)).collect()
    };
    let rows: Vec<(&String, Vec<&str>)> = keys
        .into_iter()
        .map(|key| (key, values(key)))
        .filter(|(_, values)| values.windows(2).any(|pair| pair[0] != pair[1]))
        .collect();
    html! {
        @if rows.is_empty() {
            p { "None." }
        } @else {
            div .scroll {
                table {
                    tr { th {} @for run in runs { th { (run.run.name) } } }
                    @for (key, values) in rows {
                        tr { td { code { (key) } } @for value in values { td { (value) } } }
                    }
                }
            }
        }
    }
}

/// The settings of a table by their dotted names.
fn flat(table: &Table) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (name, value) in table {
        match value.as_table() {
            Some(table) => {
                all.extend(
                    flat(table).into_iter().map(|(key, value)| (format!("{name}.{key}"), value)),
                );
            }
            None => drop(all.insert(name.clone(), value.to_string())),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    fn run(name: &str, path: &Path, rewards: [f64; 2]) -> NamedRun {
        let line = |(i, reward): (usize, &f64)| json!({"event": "epoch", "epoch": i + 1, "reward": reward});
        let lines = rewards.iter().enumerate().map(line).collect();
        NamedRun { name: name.to_owned(), path: path.to_owned(), lines }
    }

    #[test]
    fn the_page_has_every_run_and_the_settings_that_differ() {
        let home = tempfile::tempdir().expect("a directory");
        for (name, seed) in [("a", 1), ("b", 2)] {
            let path = home.path().join(name);
            fs::create_dir_all(path.join("samples")).expect("made");
            fs::write(
                path.join("config.toml"),
                format!("seed = {seed}\nsame = 1\n[grpo]\nx = \"<\"\n"),
            )
            .expect("written");
        }
        let a = run("<A>", &home.path().join("a"), [0.25, 0.5]);
        let b = run("B", &home.path().join("b"), [0.5, 0.75]);
        let page = comparison(&[a, b, run("gone", &home.path().join("c"), [0.5, 0.125])]);
        for part in [
            "<td>&lt;A&gt;</td><td>2</td><td>-</td><td>0.250 → 0.500</td>",
            "<td><code>seed</code></td><td>1</td><td>2</td><td>-</td>",
            "<td><code>grpo.x</code></td><td>&quot;&lt;&quot;</td><td>&quot;&lt;&quot;</td><td>-</td>",
            "<th>gone</th><td>no about.json that can be read</td>",
            "<li class=\"c0\">&lt;A&gt; <b>0.5000</b></li><li class=\"c1\">B <b>0.7500</b></li>",
        ] {
            assert!(page.contains(part), "`{part}` is missing in:\n{page}");
        }
    }
}
